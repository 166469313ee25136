"""Builders of what a decision reads: every argument has a harmless default, so a test states only what matters."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from proposer.fees import Fees
from proposer.l1_transactions import Action, L1Transaction, Purpose, Signed, TxStatus
from proposer.ranges import BlockRange
from proposer.requests import Checkpoint, Commitments, Kind, ProofRequest, Status
from proposer.settings import ProposerSettings
from proposer.snapshot import Anchor, Mark, NodeView, OracleView, Outside, ServerView, Snapshot
from proposer.units import GWEI, L1Block, L1Ref, L2Block, Wei

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
        values |= {"prover_id": f"0x{number:02x}", "l1_head": L1Block(90), "l1_head_hash": b"\x90" * 32}
    if status in {Status.COMPLETE, Status.RELAYED}:
        values |= {"proof_digest": DIGEST, "proof_length": 4}
    return ProofRequest(id=number, range=BlockRange(start, end), status=status, **(values | changes))


def aggregation(number: int, start: int, end: int, status: Status = Status.UNREQ, **changes: Any) -> ProofRequest:
    """An aggregation; a complete one has its checkpoint."""
    values: dict[str, Any] = {"kind": Kind.AGG, "l1_head": None, "l1_head_hash": None}
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


def stored(*numbers: int, hash_: bytes = b"h" * 32) -> dict[int, Anchor]:
    """L1 blocks that the contract has checkpointed."""
    return {number: Anchor(hash_, hash_) for number in numbers}


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
    checkpointed: Sequence[int] = (),
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
        checkpointed=checkpointed,
    )


def action(purpose: Purpose = Purpose.PROPOSE, subject: int | None = None) -> Action:
    """A call of the contract."""
    return Action(purpose, "0x" + "22" * 20, b"\x01", 100_000, subject)


def transaction(
    purpose: Purpose = Purpose.PROPOSE,
    status: TxStatus = TxStatus.PENDING,
    *,
    subject: int | None = None,
    **changes: Any,
) -> L1Transaction:
    """A journaled transaction with nonce 7, signed once 10 s ago; a settled one is mined in its newest form."""
    values: dict[str, Any] = {
        "id": 1,
        "request": 1,
        "sender": "0x" + "11" * 20,
        "nonce": 7,
        "signed": [signed(b"\xaa" * 32, does=action(purpose, subject))],
        "created_at": ago(10),
    }
    made = L1Transaction(status=status, **(values | changes))
    mined = status in {TxStatus.MINED, TxStatus.CONFIRMED, TxStatus.REVERTED} and made.mined is None
    return replace(made, mined=made.newest.hash) if mined else made


def signed(tx_hash: bytes, seconds_ago: float = 10, does: Action | None = None) -> Signed:
    """A signed form of a transaction."""
    return Signed(tx_hash, b"raw" + tx_hash, Fees(Wei(GWEI), Wei(3 * GWEI)), does or action(), ago(seconds_ago))
