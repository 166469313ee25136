"""Builders of what a decision reads: every argument has a harmless default, so a test states only what matters."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from proposer.fees import Fees
from proposer.l1_transactions import L1Transaction, Purpose, Signed, TxStatus
from proposer.ranges import BlockRange
from proposer.requests import Checkpoint, Commitments, Kind, ProofRequest, Status
from proposer.settings import ProposerSettings
from proposer.snapshot import L1Ref, Mark, NodeView, OracleView, Outside, ServerView, Snapshot
from proposer.units import GWEI, L1Block, L2Block, Wei

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
OURS = Commitments(b"r" * 32, b"a" * 32, b"c" * 32)
THEIRS = Commitments(b"R" * 32, b"A" * 32, b"C" * 32)
ROOT = b"\x01" * 32
DIGEST = b"\x0d" * 32


def ago(seconds: float) -> datetime:
    """A time before NOW."""
    return NOW - timedelta(seconds=seconds)


def request(number: int, start: int, end: int, status: Status = Status.UNREQ, **changes: Any) -> ProofRequest:
    """A range request; what its status implies (prover id, digest, L1 head) is filled in."""
    values: dict[str, Any] = {"kind": Kind.RANGE, "attempt": 1, "since": NOW, "commitments": OURS}
    if status in {Status.PROVING, Status.COMPLETE, Status.RELAYED}:
        values |= {"prover_id": f"0x{number:02x}", "l1_head": L1Block(90)}
    if status in {Status.COMPLETE, Status.RELAYED}:
        values |= {"proof_digest": DIGEST, "proof_length": 4}
    return ProofRequest(id=number, range=BlockRange(start, end), status=status, **(values | changes))


def aggregation(number: int, start: int, end: int, status: Status = Status.UNREQ, **changes: Any) -> ProofRequest:
    """An aggregation; a complete one has its checkpoint."""
    values: dict[str, Any] = {"kind": Kind.AGG, "l1_head": None}
    if status in {Status.PROVING, Status.COMPLETE, Status.RELAYED}:
        values |= {"checkpoint": Checkpoint(L1Block(95), b"\x95" * 32)}
    return request(number, start, end, status, **(values | changes))


def oracle(head: int = 0, **changes: Any) -> OracleView:
    """The contract at L1 block 100, with nothing in the way."""
    values: dict[str, Any] = {
        "at": L1Ref(L1Block(100), b"\x64" * 32, int(NOW.timestamp())),
        "safe": L1Block(95),
        "latest_root": ROOT,
        "submission_interval": 1,
        "commitments": OURS,
        "optimistic": False,
        "approved": True,
        "finalization_period": 3600,
        "balance": Wei(10**19),
    }
    return OracleView(latest_block=L2Block(head), **(values | changes))


def node(finalized: int = 0, **changes: Any) -> NodeView:
    """A node that agrees with the contract."""
    values: dict[str, Any] = {"unsafe": L2Block(finalized + 50), "root_at_head": ROOT}
    return NodeView(finalized=L2Block(finalized), **(values | changes))


SERVER = ServerView(config_hash_valid=True, agg_vkey_valid=True, range_vkey_valid=True)


def snapshot(
    requests: Sequence[ProofRequest] = (),
    *,
    contract: OracleView | None = None,
    finalized: int | None = 0,
    required_since: datetime | None = None,
    transactions: Sequence[L1Transaction] = (),
    attempts_above: Sequence[ProofRequest] = (),
    contract_read: bool = True,
    **settings: Any,
) -> Snapshot:
    """The world at NOW; the settings' unset fields are small enough to read."""
    contract = contract or oracle()
    made = ProposerSettings(**({"max_block_range": 10, "max_witness_gen": 5} | settings))
    interval = max(contract.submission_interval, made.submission_interval)
    return Snapshot(
        now=NOW,
        settings=made,
        outside=Outside(
            oracle=contract if contract_read else None, node=node(finalized or 0), server=SERVER, errors={}
        ),
        requests=requests,
        transactions=transactions,
        finalized=None if finalized is None else Mark(finalized, NOW),
        required=Mark(contract.latest_block + interval, required_since or NOW),
        attempts_above=attempts_above,
    )


def transaction(
    purpose: Purpose = Purpose.PROPOSE, status: TxStatus = TxStatus.PENDING, **changes: Any
) -> L1Transaction:
    """A journaled transaction with nonce 7, signed once 10 s ago."""
    values: dict[str, Any] = {
        "id": 1,
        "request": 1,
        "subject": None,
        "sender": "0x" + "11" * 20,
        "nonce": 7,
        "to": "0x" + "22" * 20,
        "calldata": b"\x01",
        "gas": 100_000,
        "signed": [signed(b"\xaa" * 32)],
        "created_at": ago(10),
    }
    return L1Transaction(purpose=purpose, status=status, **(values | changes))


def signed(tx_hash: bytes, seconds_ago: float = 10) -> Signed:
    """A signed form of a transaction."""
    return Signed(tx_hash, b"raw" + tx_hash, Fees(Wei(GWEI), Wei(3 * GWEI)), ago(seconds_ago))
