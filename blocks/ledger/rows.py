"""Rows to domain objects and back."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, Select, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from blocks.ledger.tables import aggregation_members, l1_signed, l1_transactions, proof_requests
from proposer.fees import Fees
from proposer.l1_transactions import Action, L1Transaction, Purpose, Signed, TxStatus
from proposer.orders import Order, OrderKind
from proposer.ranges import BlockRange
from proposer.requests import Checkpoint, Commitments, Failure, Kind, NewRequest, ProofRequest, Status
from proposer.units import L1Block, Wei

_r = proof_requests.c
_members = (
    select(func.array_agg(aggregate_order_by(aggregation_members.c.range_id, aggregation_members.c.position)))
    .where(aggregation_members.c.aggregation_id == _r.id)
    .scalar_subquery()
    .label("members")
)


def select_requests() -> Select[Any]:
    """Select every column of a request but the mirror's, and an aggregation's members."""
    return select(proof_requests, _members)


def request_from(row: Row[Any]) -> ProofRequest:
    """Read one row of `select_requests`."""
    return ProofRequest(
        id=row.id,
        kind=Kind(row.kind),
        range=BlockRange(row.start_block, row.end_block),
        status=Status(row.status),
        attempt=row.attempt,
        since=row.since,
        commitments=Commitments(row.range_vkey, row.agg_vkey, row.config_hash),
        parent=row.parent_id,
        failure=Failure(row.failure) if row.failure else None,
        failure_text=row.failure_text,
        next_attempt_at=row.next_attempt_at,
        next_poll_at=row.next_poll_at,
        prover_id=row.prover_request_id,
        requested_at=row.requested_at,
        claimed_epoch=row.claimed_epoch,
        l1_head=row.l1_head,
        l1_head_hash=row.l1_head_hash,
        checkpoint=_checkpoint(row),
        output_root=row.output_root,
        proof_digest=row.proof_digest,
        proof_length=row.proof_length,
        unknown_outcomes=row.unknown_outcomes,
        members=tuple(row.members or ()),
    )


def _checkpoint(row: Row[Any]) -> Checkpoint | None:
    return None if row.checkpoint_number is None else Checkpoint(L1Block(row.checkpoint_number), row.checkpoint_hash)


def values_of(new: NewRequest) -> dict[str, object]:
    """Columns of a row to insert."""
    return {
        "kind": new.kind.value,
        "start_block": new.range.start,
        "end_block": new.range.end,
        "status": new.status.value,
        "attempt": new.attempt,
        "parent_id": new.parent,
        "next_attempt_at": new.next_attempt_at,
        "range_vkey": new.commitments.range_vkey,
        "agg_vkey": new.commitments.agg_vkey,
        "config_hash": new.commitments.config_hash,
        "checkpoint_number": new.checkpoint.number if new.checkpoint else None,
        "checkpoint_hash": new.checkpoint.hash if new.checkpoint else None,
        "output_root": new.output_root,
        "unknown_outcomes": new.unknown_outcomes,
        "failure_text": new.why if new.status is Status.PARKED or new.parent else None,
    }


def transaction_from(row: Row[Any], signed: Sequence[Row[Any]]) -> L1Transaction:
    """Read one row of `l1_transactions` with its rows of `l1_signed`, oldest first."""
    return L1Transaction(
        id=row.id,
        request=row.request_id,
        sender=row.sender,
        nonce=row.nonce,
        status=TxStatus(row.status),
        signed=[_signed(form) for form in signed],
        created_at=row.created_at,
        mined=row.mined_hash,
        block=L1Block(row.block_number) if row.block_number is not None else None,
        block_hash=row.block_hash,
        gas_used=row.gas_used,
    )


def _signed(row: Row[Any]) -> Signed:
    action = Action(Purpose(row.purpose), row.recipient, row.calldata, row.gas, row.subject)
    return Signed(row.hash, row.raw, Fees(Wei(int(row.tip)), Wei(int(row.fee_cap))), action, row.at)


def values_of_signed(transaction_id: int, tx_hash: bytes, raw: bytes, fees: Fees, action: Action) -> dict[str, object]:
    """Columns of a signed form to insert."""
    return {
        "hash": tx_hash,
        "transaction_id": transaction_id,
        "raw": raw,
        "tip": fees.tip,
        "fee_cap": fees.cap,
        "purpose": action.purpose.value,
        "subject": action.subject,
        "recipient": action.to,
        "calldata": action.calldata,
        "calldata_digest": sha256(action.calldata).digest(),
        "gas": action.gas,
    }


def order_from(row: Row[Any]) -> Order:
    """Read one row of `operator_orders`."""
    kind = OrderKind(row.kind)
    return Order(row.id, kind, row.request_id, row.who, row.why, row.at, row.done_at, row.outcome)


def select_transactions() -> Select[Any]:
    """Select every column of `l1_transactions`."""
    return select(l1_transactions)


def select_signed(transaction_ids: Sequence[int]) -> Select[Any]:
    """Select the signed forms of these transactions, oldest first."""
    return select(l1_signed).where(l1_signed.c.transaction_id.in_(transaction_ids)).order_by(l1_signed.c.at)
