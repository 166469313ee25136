"""The prover network behind the server stand-in: proofs that were paid for, and what becomes of them."""

import asyncio
import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise

from eth_utils.crypto import keccak

from infra.devnet.faults import Faults, ProofKind
from infra.devnet.log import RequestLog
from infra.devnet.proofs import BadProofError, Commitments, RangeProof, aggregation_proof, public_values
from infra.devnet.rpc import Rpc


class Fulfillment(IntEnum):
    """SP1 network protobuf ``FulfillmentStatus``."""

    REQUESTED = 1
    ASSIGNED = 2
    FULFILLED = 3
    UNFULFILLABLE = 4


class Execution(IntEnum):
    """SP1 network protobuf ``ExecutionStatus``."""

    UNSPECIFIED = 0
    UNEXECUTED = 1
    EXECUTED = 2
    UNEXECUTABLE = 3


@dataclass
class ProverTiming:
    """How long things take, in seconds; every field may be changed while running.

    ``jitter`` makes witness and proving times vary by up to this share, seeded. ``deadline_s`` is the network's: past
    it even a fulfilled proof answers (4, 2).
    """

    range_witness_s: float = 0.2
    range_proving_s: float = 0.5
    agg_witness_s: float = 0.2
    agg_proving_s: float = 0.5
    jitter: float = 0.0
    latency_s: float = 0.0
    deadline_s: float = 14_400.0

    def witness_s(self, kind: ProofKind) -> float:
        """Return the nominal witness time of a kind."""
        return self.range_witness_s if kind == "range" else self.agg_witness_s

    def proving_s(self, kind: ProofKind) -> float:
        """Return the nominal proving time of a kind."""
        return self.range_proving_s if kind == "range" else self.agg_proving_s


@dataclass
class PaidProof:
    """One proof request the network took."""

    proof_id: str
    kind: ProofKind
    start: int
    end: int
    post: int
    make: Callable[[], bytes]
    paid_at: float
    assigned_at: float
    outcome: str
    done: bool = False
    empty: bool = False
    proof: bytes = b""
    expired: bool = False


class SimulationRefusedError(Exception):
    """The aggregation program does not accept these inputs."""


class Network:
    """Take proof requests, prove them in time, and remember them whatever happens to the HTTP server."""

    def __init__(self, seed: int, timing: ProverTiming, faults: Faults, log: RequestLog) -> None:
        """Share timing, faults and log with the server."""
        self.timing, self.faults, self.log = timing, faults, log
        self.proofs: dict[str, PaidProof] = {}
        self._seed, self._count = seed, 0
        self._dice = random.Random(f"{seed}/jitter")

    def vary(self, seconds: float) -> float:
        """Apply the jitter to a time."""
        return seconds * (1 + self.timing.jitter * self._dice.uniform(-1, 1))

    def submit(
        self,
        kind: ProofKind,
        start: int,
        end: int,
        post: int,
        make: Callable[[], bytes],
        head: str | None = None,
    ) -> PaidProof:
        """Pay for a proof and start proving; ``make`` is called when it is fulfilled."""
        self._count += 1
        proof_id = keccak(f"{self._seed}/proof/{self._count}".encode()).hex()
        proving = self.vary(self.timing.proving_s(kind))
        outcome = "fulfilled"
        if self.faults.hit("unexecutable", kind, start, end):
            outcome = "unexecutable"
        elif self.faults.hit("unfulfillable", kind, start, end):
            outcome = "unfulfillable"
        elif late := self.faults.hit("late", kind, start, end):
            proving += late.seconds
        now = time.monotonic()
        proof = PaidProof(proof_id, kind, start, end, post, make, now, now + proving * 0.2, outcome)
        proof.empty = outcome == "fulfilled" and self.faults.hit("empty_proof", kind, start, end) is not None
        self.proofs[proof_id] = proof
        more = {} if head is None else {"head": head}
        self.log.add("paid", kind, start, end, post=post, proof_id=proof_id, paid=True, **more)
        asyncio.get_running_loop().call_later(proving, self._finish, proof)
        return proof

    def _finish(self, proof: PaidProof) -> None:
        if proof.outcome == "fulfilled" and not proof.empty:
            proof.proof = proof.make()
        proof.done = True
        fault = "empty_proof" if proof.empty else None
        self._note(proof.outcome, proof, fault, digest=hashlib.sha256(proof.proof).hexdigest())

    def _note(self, event: str, proof: PaidProof, fault: str | None = None, **more: str) -> None:
        about = {"post": proof.post, "proof_id": proof.proof_id, "paid": True, "fault": fault}
        self.log.add(event, proof.kind, proof.start, proof.end, **about, **more)

    def forget_once(self, proof: PaidProof) -> bool:
        """Say whether this look at a proof is answered with "unknown id"; logged."""
        if self.faults.hit("unknown_id", proof.kind, proof.start, proof.end) is None:
            return False
        self._note("unknown_id", proof, "unknown_id")
        return True

    def look(self, proof: PaidProof) -> tuple[int, int, bytes]:
        """Return (fulfilment, execution, proof bytes); the deadline goes before everything else."""
        now = time.monotonic()
        if now > proof.paid_at + self.timing.deadline_s:
            if not proof.expired:
                proof.expired = True
                self._note("expired", proof)
            return Fulfillment.UNFULFILLABLE, Execution.EXECUTED, b""
        if not proof.done:
            if now < proof.assigned_at:
                return Fulfillment.REQUESTED, Execution.UNEXECUTED, b""
            return Fulfillment.ASSIGNED, Execution.EXECUTED, b""
        if proof.outcome == "unexecutable":
            return Fulfillment.UNFULFILLABLE, Execution.UNEXECUTABLE, b""
        if proof.outcome == "unfulfillable":
            return Fulfillment.UNFULFILLABLE, Execution.EXECUTED, b""
        return Fulfillment.FULFILLED, Execution.EXECUTED, proof.proof


@dataclass(frozen=True)
class Aggregation:
    """A checked aggregation: what its proof will state."""

    start: int
    end: int
    head: str
    commitments: Commitments
    pre_root: bytes
    claim_root: bytes

    def prove(self) -> bytes:
        """Make the proof the verifier accepts for exactly this statement."""
        head = bytes.fromhex(self.head[2:])
        values = public_values(head, self.pre_root, self.claim_root, self.end, self.commitments)
        return aggregation_proof(self.commitments.aggregation_vkey, values)


async def check_aggregation(l1: Rpc, subproofs: list[bytes], head: str, commitments: Commitments) -> Aggregation:
    """Do what the aggregation program does: neighbours by their roots, L1 heads on the chain that ends at ``head``.

    Raises:
        BadProofError: a sub-proof is not a range proof (the real server panics).
        SimulationRefusedError: the program would not accept them.

    """
    members = [RangeProof.decode(proof) for proof in subproofs]
    if not members:
        raise BadProofError("no sub-proofs")
    for left, right in pairwise(members):
        if left.post_root != right.pre_root:
            raise SimulationRefusedError(f"root of {left.end} is not the pre-root of {right.start}")
    config, vkey = "0x" + commitments.rollup_config_hash.hex(), "0x" + commitments.range_vkey.hex()
    if any(member.config_hash != config or member.range_vkey != vkey for member in members):
        raise SimulationRefusedError("config hash or range vkey differs")
    header = await l1.call("eth_getBlockByHash", head, False)
    if header is None:
        raise SimulationRefusedError(f"L1 head {head} is not known")
    top = int(header["number"], 16)
    numbers = sorted({member.l1_head_number for member in members} | {top})
    blocks = await l1.batch([("eth_getBlockByNumber", [hex(number), False]) for number in numbers])
    canonical = {number: block["hash"] for number, block in zip(numbers, blocks, strict=True) if block}
    if canonical.get(top) != header["hash"]:
        raise SimulationRefusedError(f"L1 head {head} is not canonical")
    for member in members:
        if member.l1_head_number > top or canonical.get(member.l1_head_number) != member.l1_head_hash:
            raise SimulationRefusedError(f"L1 head of range {member.start}-{member.end} is not below {head}")
    return Aggregation(
        start=members[0].start,
        end=members[-1].end,
        head=head,
        commitments=commitments,
        pre_root=bytes.fromhex(members[0].pre_root[2:]),
        claim_root=bytes.fromhex(members[-1].post_root[2:]),
    )
