"""A prover server in memory: requests that wait for their answer, what was paid, and what became of each proof."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

import orjson

from blocks.prover import Accepted, MockProven, UnknownProof
from proposer.errors import (
    BadReply,
    EndpointDown,
    OutcomeUnknown,
    RateLimited,
    RequestRefused,
)
from proposer.polling import Execution, Fulfillment, ProofStatus
from proposer.ranges import BlockRange
from proposer.requests import Kind
from tests.flows.outside_l1 import Chain, aggregation_proof, root_of

HEAD_LAG = 2
"""L1 blocks between the newest one and the one that a range proof is bound to: a reorg may take it away."""


class Answer(StrEnum):
    """How the exchange of one request ends."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CUT_BEFORE_PAYING = "cut before paying"
    CUT_AFTER_PAYING = "cut after paying"
    TIMED_OUT_BEFORE_PAYING = "timed out before paying"
    TIMED_OUT_AFTER_PAYING = "timed out after paying"
    GARBLED = "paid, and garbled"
    NOTHING_ASKED = "nothing was asked"
    RATE_LIMITED = "rate limited"


PAYS = {Answer.ACCEPTED, Answer.CUT_AFTER_PAYING, Answer.TIMED_OUT_AFTER_PAYING, Answer.GARBLED}


class Fate(StrEnum):
    """What the server says of a paid proof."""

    PROVING = "proving"
    FULFILLED = "fulfilled"
    UNFULFILLABLE = "unfulfillable"
    UNEXECUTABLE = "unexecutable"
    EMPTY = "empty"
    FORGOTTEN = "forgotten"
    UNREADABLE = "unreadable"


ENDED = {Fate.UNFULFILLABLE, Fate.UNEXECUTABLE, Fate.EMPTY}
"""Nothing of use comes of these any more."""


@dataclass
class Post:
    """One request that has arrived and waits for its answer."""

    number: int
    kind: Kind
    range: BlockRange
    subproofs: Sequence[bytes]
    head: bytes | None
    answer: "asyncio.Future[Accepted | MockProven]"
    asker_lives: Callable[[], bool]


@dataclass
class Paid:
    """One proof that was paid for."""

    id: str
    kind: Kind
    range: BlockRange
    proof: bytes
    fate: Fate = Fate.PROVING


@dataclass
class Prover:
    """The one truth about what was asked and paid. `answered` are the ids that reached a process which lived."""

    chain: Chain
    posts: list[Post] = field(default_factory=list[Post])
    paid: dict[str, Paid] = field(default_factory=dict[str, Paid])
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def arrive(
        self, kind: Kind, over: BlockRange, subproofs: Sequence[bytes], head: bytes | None, asker: Callable[[], bool]
    ) -> Post:
        """Take a request; the answer comes later."""
        answer: asyncio.Future[Accepted | MockProven] = asyncio.get_running_loop().create_future()
        post = Post(next(self.numbers), kind, over, subproofs, head, answer, asker)
        self.posts.append(post)
        return post

    def going_on(self) -> list[Paid]:
        """Proofs of which something may still come."""
        return [paid for paid in self.paid.values() if paid.fate not in ENDED]

    def finish(self, post: Post, how: Answer) -> Paid | None:
        """End an exchange; who asked may be dead by now, and never hears of it."""
        self.posts.remove(post)
        proof = self._prove(post)
        if proof is None and how in PAYS:
            how = Answer.REFUSED
        paid = self._pay(post, proof) if how in PAYS and proof is not None else None
        if not post.answer.done():
            if paid is not None and how is Answer.ACCEPTED:
                post.answer.set_result(Accepted(paid.id))
            else:
                post.answer.set_exception(_error(how, refused_simulation=proof is None))
        return paid

    def _pay(self, post: Post, proof: bytes) -> Paid:
        paid = Paid(sha256(b"proof %d" % post.number).hexdigest(), post.kind, post.range, proof)
        self.paid[paid.id] = paid
        return paid

    def _prove(self, post: Post) -> bytes | None:
        """The bytes that the network will deliver; None where the aggregation program refuses its inputs."""
        if post.kind is Kind.RANGE:
            bound = self.chain.at(self.chain.newest.ref.number - HEAD_LAG).ref
            statement = {"start": post.range.start, "end": post.range.end, "l1": bound.number, "hash": bound.hash.hex()}
            return orjson.dumps(statement)
        canonical = {block.ref.hash: block.ref.number for block in self.chain.blocks}
        assert post.head is not None
        top = canonical.get(post.head)
        for member in map(orjson.loads, post.subproofs):
            number = canonical.get(bytes.fromhex(member["hash"]))
            if top is None or number is None or number > top:
                return None
        return aggregation_proof(post.head, root_of(post.range.start), root_of(post.range.end), post.range.end)

    def status(self, prover_id: str) -> ProofStatus:
        """Answer a look."""
        paid = self.paid.get(prover_id)
        if paid is None or paid.fate is Fate.FORGOTTEN:
            raise UnknownProof("Failed to get proof status: NotFound: proof request not found", 500)
        match paid.fate:
            case Fate.PROVING:
                return ProofStatus(Fulfillment.ASSIGNED, Execution.EXECUTED, None)
            case Fate.FULFILLED:
                return ProofStatus(Fulfillment.FULFILLED, Execution.EXECUTED, paid.proof)
            case Fate.EMPTY:
                return ProofStatus(Fulfillment.FULFILLED, Execution.EXECUTED, b"")
            case Fate.UNEXECUTABLE:
                return ProofStatus(Fulfillment.UNFULFILLABLE, Execution.UNEXECUTABLE, None)
            case Fate.UNFULFILLABLE:
                return ProofStatus(Fulfillment.UNFULFILLABLE, Execution.EXECUTED, None)
            case Fate.UNREADABLE:
                raise BadReply("status: fulfillment_status is 17, not one of its values")


def _error(how: Answer, *, refused_simulation: bool) -> Exception:
    match how:
        case Answer.REFUSED | Answer.ACCEPTED:
            text = "Failed to request proof: Program simulation failed" if refused_simulation else "exit status 1"
            return RequestRefused(text, 500)
        case Answer.CUT_BEFORE_PAYING | Answer.CUT_AFTER_PAYING:
            return OutcomeUnknown("the connection was cut")
        case Answer.TIMED_OUT_BEFORE_PAYING | Answer.TIMED_OUT_AFTER_PAYING:
            return TimeoutError()
        case Answer.GARBLED:
            return BadReply("request_span_proof: proof_id is null, not 32 integers 0..255")
        case Answer.NOTHING_ASKED:
            return EndpointDown("connection refused")
        case Answer.RATE_LIMITED:
            return RateLimited("HTTP 429", 30.0)


def members_span(subproofs: Sequence[bytes]) -> BlockRange:
    """The blocks that an aggregation of these is over; they follow one another without a gap."""
    members = [orjson.loads(proof) for proof in subproofs]
    assert all(a["end"] == b["start"] for a, b in itertools.pairwise(members)), members
    return BlockRange(members[0]["start"], members[-1]["end"])
