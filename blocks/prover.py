"""The prover server (`op-succinct-server`): it generates witnesses and asks the prover network for proofs.

It has no idempotency key, no list and no cancel: each answered request is paid, and so may be one cut off before
its answer.
"""

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, NoReturn, TypeVar

import orjson
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.base import CONFIG, Outside
from blocks.fields import bad, boolean, member
from blocks.http import DECODE_ELSEWHERE_BYTES, Endpoint, Http, Reply, decode
from proposer.errors import BadReply, EndpointDown, LedgerMoved, OutcomeUnknown, RequestRefused
from proposer.polling import Execution, Fulfillment, ProofStatus
from proposer.ranges import BlockRange
from proposer.snapshot import ServerView

_OK, _UNAVAILABLE = 200, 503
_REFUSALS = range(300, 501)
"""Statuses the server itself refuses with; those above come from something in front of it, others mean nothing."""
_SHORT_REPLY_BYTES = 2**20
_HASH_BYTES = 32
_ID = re.compile(r"[0-9a-f]{64}")
"""Hex, which base64 would read as other bytes; no base64 of 64 characters and more is hex by chance."""
# An id that the server does not know is asked again, and paid again: nothing that smells of a network may match.
_UNKNOWN = re.compile(
    r"\bNotFound\b|\b(?:proof|request|id)\b.{0,120}\b(?:not found|unknown|does not exist)"
    r"|\b(?:unknown|no such)\b.{0,40}\b(?:proof|request|id)\b",
    re.IGNORECASE | re.DOTALL,
)
_NETWORK = re.compile(r"dns|connect|transport|timed? ?out|\bhost\b|resolve|<html|<!doctype", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The network proves; `prover_id` is 64 lower-case hex digits."""

    prover_id: str


@dataclass(frozen=True, slots=True)
class MockProven:
    """A mock proof, at once; empty for an aggregation."""

    proof: bytes


class UnknownProof(RequestRefused):
    """The server does not know the id."""


E_ = TypeVar("E_", bound=IntEnum)


class SuccinctServer(Outside, Block):
    """The op-succinct-server's HTTP API.

    Requests raise `EndpointDown` or `RateLimited` where nothing was asked (no connection, 503, 429);
    `OutcomeUnknown` where it may have been (no answer in time, connection closed, 502, 504 and the like);
    `RequestRefused` with the server's text for the errors that it answers itself. `BadReply` means that it answered
    something else, 200 or not: the proof may have been paid.
    """

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct Server"
    _block_type_slug: ClassVar[str | None] = "op-succinct-server"
    _description: ClassVar[str | None] = "Asks the op-succinct-server for range and aggregation proofs."

    url: SecretStr = Field(description="URL of the op-succinct-server.")
    mock: bool = Field(default=False, description="Use the mock endpoints, for contracts with the mock verifier.")
    timeout_seconds: float = Field(default=30, gt=0, description="Seconds a status or configuration read may take.")
    max_reply_mib: int = Field(default=64, ge=1, description="Largest answer to read, in MiB of JSON.")
    _endpoint: Endpoint = PrivateAttr()
    _reads: Http = PrivateAttr()
    _asks: Http = PrivateAttr()

    def block_initialization(self) -> None:
        """Read the URL; raises `InvalidSettings`."""
        self._endpoint = Endpoint(self.url.get_secret_value(), "OP_SUCCINCT_SERVER_URL")
        limit = self.max_reply_mib * 2**20
        self._reads = Http(self._endpoint, max_body_bytes=limit)
        # A kept connection that the server closes while the request is under way would make a request that never
        # arrived look like one that may have been paid, and cost WITNESS_GEN_TIMEOUT of waiting.
        self._asks = Http(self._endpoint, fresh=True, max_body_bytes=limit if self.mock else _SHORT_REPLY_BYTES)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._reads.aclose()
        await self._asks.aclose()

    async def validate_config(self, address: str) -> ServerView:
        """Ask whether the contract's vkeys and rollup config are the server's; `address` in EIP-55."""
        body = orjson.dumps({"address": address})
        answer, where = await self._read("POST", "/validate_config", body)
        names = ("rollup_config_hash_valid", "agg_vkey_valid", "range_vkey_valid")
        return ServerView(*(boolean(member(answer, name, where), name, where) for name in names))

    async def request_range(self, range_: BlockRange, timeout_seconds: float) -> Accepted | MockProven:
        """Ask for a range proof; answered after witness generation, which takes minutes."""
        body = orjson.dumps(self.range_body(range_))
        return await self._ask(self._range_path, _once(body), len(body), timeout_seconds)

    @staticmethod
    def range_body(range_: BlockRange) -> dict[str, int]:
        """Return what is posted for a range proof."""
        return {"start": range_.start, "end": range_.end}

    @property
    def range_url(self) -> str:
        """Where range proofs are asked for, without what may be secret in the URL."""
        return self._endpoint.name + self._range_path

    @property
    def aggregation_url(self) -> str:
        """Where aggregation proofs are asked for, likewise."""
        return self._endpoint.name + self._aggregation_path

    @property
    def _range_path(self) -> str:
        return "/request_mock_span_proof" if self.mock else "/request_span_proof"

    @property
    def _aggregation_path(self) -> str:
        return "/request_mock_agg_proof" if self.mock else "/request_agg_proof"

    async def request_aggregation(
        self, lengths: Sequence[int], subproofs: AsyncIterable[bytes], head: bytes, timeout_seconds: float
    ) -> Accepted | MockProven:
        """Ask for an aggregation of range proofs, in order, anchored to the L1 block hash `head` (32 bytes).

        The proofs, as many and as long as `lengths` says, are read and encoded while they are sent: one is held at a
        time. What `subproofs` raises passes through, and nothing was asked: the server has no whole request. So does
        `LedgerMoved`, where a proof has another length.
        """
        if not lengths or len(head) != _HASH_BYTES:
            raise ValueError("an aggregation needs at least one range proof and a head of 32 bytes")
        opening, closing = b'{"subproofs":[', b'],"head":"0x' + head.hex().encode() + b'"}'
        # base64 with padding, two quotes each, commas between
        encoded = sum(-(-length // 3) * 4 + 2 for length in lengths) + len(lengths) - 1

        async def body() -> AsyncIterator[bytes]:
            yield opening
            left = list(lengths)
            async for proof in subproofs:
                if not left or len(proof) != left[0]:
                    raise LedgerMoved("a range proof was replaced while its aggregation was being sent")
                yield b'"' if len(left) == len(lengths) else b',"'
                yield b64encode(proof)
                yield b'"'
                del left[0]
            if left:
                raise LedgerMoved("a range proof went missing while its aggregation was being sent")
            yield closing

        length = len(opening) + encoded + len(closing)
        return await self._ask(self._aggregation_path, body(), length, timeout_seconds)

    async def status(self, prover_id: str) -> ProofStatus:
        """Ask how far a proof is, and for the proof.

        Raises `UnknownProof` where the server says that it does not know the id; `EndpointDown` where it is away (502,
        503, 504 and the like included); `RequestRefused` for every other error that it answers about this id;
        `BadReply` also for a proof beside a status that has none: nothing may follow from an answer that contradicts
        itself.
        """
        if not _ID.fullmatch(prover_id):
            raise ValueError(f"a prover id has 64 lower-case hex digits, not {prover_id[:80]!r}")
        async with AsyncExitStack() as turn:
            answer, where = await self._read("GET", f"/status/{prover_id}", None, turn)
            fulfillment = _enum(Fulfillment, answer, "fulfillment_status", where)
            execution = _enum(Execution, answer, "execution_status", where)
            proof = await _bytes(member(answer, "proof", where), "proof", where)
            del answer  # a list of a million numbers: gone before the next one has its turn
        if fulfillment is Fulfillment.FULFILLED:
            return ProofStatus(fulfillment, execution, proof)
        if proof:
            raise bad(where, "proof", f"{len(proof)} bytes", f"empty, as it must be while {fulfillment.name.lower()}")
        return ProofStatus(fulfillment, execution, None)

    async def _read(
        self, method: str, path: str, body: bytes | None, turn: AsyncExitStack | None = None
    ) -> tuple[object, str]:
        where = f"{path.split('/')[1]} of {self._endpoint.name}"
        try:
            reply = await self._reads.exchange(method, path, body, self.timeout_seconds, turn=turn)
        except OutcomeUnknown as error:
            raise EndpointDown(f"{error} ({where})") from None
        if reply.status != _OK:
            text = self._text(reply)
            if reply.status > _REFUSALS[-1]:
                raise EndpointDown(f"{where}: HTTP {reply.status}: {text}")
            says_unknown = _UNKNOWN.search(text) is not None and not _NETWORK.search(text)
            if path.startswith("/status/") and reply.status in _REFUSALS and says_unknown:
                raise UnknownProof(f"{where}: {text}", reply.status)
            self._refuse(reply, where)
        return await decode(reply.body, where), where

    async def _ask(
        self, path: str, body: AsyncIterator[bytes], length: int, timeout_seconds: float
    ) -> Accepted | MockProven:
        where = f"{path[1:]} of {self._endpoint.name}"
        reply = await self._asks.exchange("POST", path, body, timeout_seconds, length)
        if reply.status == _UNAVAILABLE:
            raise EndpointDown(f"{where}: HTTP {reply.status}: {self._text(reply)}")
        # a gateway says 502 also when the server closed the connection after minutes of work
        if reply.status > _REFUSALS[-1]:
            raise OutcomeUnknown(f"{where}: HTTP {reply.status}: {self._text(reply)}")
        if reply.status != _OK:
            self._refuse(reply, where)
        answer = await decode(reply.body, where)
        if not self.mock:
            return Accepted(_prover_id(member(answer, "proof_id", where), where))
        fulfillment = _enum(Fulfillment, answer, "fulfillment_status", where)
        if fulfillment is not Fulfillment.FULFILLED:
            raise bad(where, "fulfillment_status", int(fulfillment), "3, as for every mock proof")
        return MockProven(await _bytes(member(answer, "proof", where), "proof", where))

    def _text(self, reply: Reply) -> str:
        return self._endpoint.scrub(reply.text(500))

    def _refuse(self, reply: Reply, where: str) -> NoReturn:
        if reply.status not in _REFUSALS:
            raise BadReply(f"{where}: HTTP {reply.status}, neither 200 nor an error: {self._text(reply)}")
        raise RequestRefused(self._text(reply) or f"{where}: HTTP {reply.status} without a text", reply.status)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _enum(kind: type[E_], answer: object, field: str, where: str) -> E_:
    value = member(answer, field, where)
    if isinstance(value, int) and not isinstance(value, bool) and value in {one.value for one in kind}:
        return kind(value)
    raise bad(where, field, value, f"one of {', '.join(f'{one.value} ({one.name.lower()})' for one in kind)}")


async def _bytes(value: object, field: str, where: str) -> bytes:
    """Read bytes: a list of integers 0..255, the one form in which the server writes them.

    A text that happens to be base64 of something else would be stored as the proof, and the true one lost.
    """
    if not isinstance(value, list):
        raise bad(where, field, type(value).__name__, "a list of integers 0..255")
    read = await asyncio.to_thread(_of_list, value) if len(value) > DECODE_ELSEWHERE_BYTES else _of_list(value)
    if read is None:
        raise BadReply(f"{where}: {field} is not a list of integers 0..255")
    return read


def _of_list(value: list[int]) -> bytes | None:
    # `bytes` takes true for 1
    if not set(map(type, value)) <= {int}:
        return None
    try:
        return bytes(value)
    except ValueError:
        return None


def _prover_id(value: object, where: str) -> str:
    if isinstance(value, str) and _ID.fullmatch(value.lower().removeprefix("0x")):
        return value.lower().removeprefix("0x")
    read: bytes | None = None
    if isinstance(value, list) and len(value) == _HASH_BYTES:
        read = _of_list(value)
    elif isinstance(value, str):
        try:
            read = b64decode(value, validate=True)
        except ValueError:
            read = None
    if read is None or len(read) != _HASH_BYTES:
        raise bad(where, "proof_id", value, "32 integers 0..255")
    return read.hex()
