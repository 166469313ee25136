"""The ledger: PostgreSQL, one database per oracle contract, and the only memory that counts.

`Ledger` reads; every write that decides anything goes through `Ledger.write`, which fences it with the leader's epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, text, true
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.inbox import Inbox
from blocks.ledger.rows import (
    request_from,
    select_requests,
    select_signed,
    select_transactions,
    transaction_from,
)
from blocks.ledger.tables import (
    l1_signed,
    l1_transactions,
    marks,
    proof_requests,
    proofs,
    request_events,
)
from proposer.errors import UnknownRequest
from proposer.l1_transactions import UNSETTLED, L1Transaction, Purpose, TxStatus
from proposer.polling import Usual
from proposer.requests import IN_FLIGHT, OPEN, Failure, Kind, ProofRequest, Status
from proposer.snapshot import Mark

NEWEST_CHECKPOINTS = 2
"""How many of our checkpoints are looked at for reuse; an older one is below every newer proof's L1 head."""

_r = proof_requests.c
_IS_OPEN = _r.status.in_([s.value for s in OPEN])


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The rows one decision needs, all read in one transaction at `now` by the database's clock."""

    now: datetime
    requests: Sequence[ProofRequest]
    transactions: Sequence[L1Transaction]
    attempts_above: Sequence[ProofRequest]
    finalized: Mark | None
    required: Mark | None
    checkpointed: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a request's history."""

    id: int
    frm: Status | None
    to: Status
    failure: Failure | None
    why: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A request whose history goes on after what its run in Prefect shows."""

    request: ProofRequest
    run_id: str | None
    cycle_run_id: str | None
    story: int
    mirrored_event: int


class Ledger(Inbox):
    """The ledger's reads; each opens a connection of its own."""

    async def view(self, head: int, l1_block: int | None = None) -> LedgerView:
        """Read what a decision at contract head `head` needs; cost does not grow with what is settled below it.

        Transactions mined after `l1_block`, which the contract was read at, are there however settled they are.
        """
        needed = or_(
            _IS_OPEN,
            and_(_r.status.in_(["COMPLETE", "RELAYED"]), _r.end_block > head),
            _r.status == "COMPLETE",
        )
        closed = and_(_r.status.in_(["FAILED", "CANCELLED"]), _r.end_block > head)
        async with self.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ")
            async with connection.begin():
                now = (await connection.execute(select(func.now()))).scalar_one()
                requests = (await connection.execute(select_requests().where(needed).order_by(_r.start_block))).all()
                above = (await connection.execute(select_requests().where(closed))).all()
                transactions = await _transactions(connection, _unsettled(l1_block))
                checkpointed = await _newest_checkpoints(connection)
                seen = {row.name: Mark(row.number, row.at) for row in await connection.execute(select(marks))}
        return LedgerView(
            now,
            [request_from(row) for row in requests],
            transactions,
            [request_from(row) for row in above],
            seen.get("finalized"),
            seen.get("required"),
            sorted(checkpointed),
        )

    async def request(self, request_id: int) -> ProofRequest:
        """Return one request. Raises `UnknownRequest`."""
        found = await self.requests([request_id])
        if not found:
            raise UnknownRequest(f"there is no proof request {request_id}: see `proposer status` or the Prefect UI")
        return found[0]

    async def requests(self, request_ids: Sequence[int]) -> list[ProofRequest]:
        """Return these requests, as far as they exist, by id."""
        async with self.connect() as connection:
            rows = await connection.execute(select_requests().where(_r.id.in_(request_ids)).order_by(_r.id))
            return [request_from(row) for row in rows]

    async def due_for_a_look(self) -> list[ProofRequest]:
        """Return the requests whose prover id is to be looked at now; closed ones too, while a proof may come."""
        async with self.connect() as connection:
            rows = await connection.execute(
                select_requests().where(_r.next_poll_at <= func.now()).order_by(_r.next_poll_at).limit(1000)
            )
            return [request_from(row) for row in rows]

    async def next_look(self) -> float | None:
        """Return the seconds until the next look is due, 0 where one is overdue; None where none is to come."""
        async with self.connect() as connection:
            first = select(func.extract("epoch", func.min(_r.next_poll_at) - func.now()))
            left = (await connection.execute(first.where(_r.next_poll_at.is_not(None)))).scalar_one_or_none()
        return None if left is None else max(0.0, float(left))

    async def proof(self, request_id: int) -> bytes:
        """Return a request's proof. Raises `UnknownRequest` where it has none."""
        async with self.connect() as connection:
            stored = select(proofs.c.proof).where(proofs.c.request_id == request_id)
            proof = (await connection.execute(stored)).scalar_one_or_none()
        if proof is None:
            raise UnknownRequest(f"request {request_id} has no stored proof")
        return bytes(proof)

    async def proof_lengths(self, request_ids: Sequence[int]) -> list[int]:
        """Return how long the proofs of these requests are, in the order asked and without reading them.

        Raises `UnknownRequest` where one has none.
        """
        async with self.connect() as connection:
            stored = select(proofs.c.request_id, func.octet_length(proofs.c.proof).label("length"))
            rows = await connection.execute(stored.where(proofs.c.request_id.in_(request_ids)))
            found: dict[int, int] = {row.request_id: row.length for row in rows}
        missing = [i for i in request_ids if i not in found]
        if missing:
            raise UnknownRequest(f"requests {missing} have no stored proof")
        return [found[i] for i in request_ids]

    async def events(self, request_id: int, after: int = 0) -> list[Event]:
        """Return a request's history after the event `after`, oldest first."""
        e = request_events.c
        async with self.connect() as connection:
            rows = await connection.execute(
                select(request_events).where(e.request_id == request_id, e.id > after).order_by(e.id)
            )
            return [
                Event(
                    row.id,
                    Status(row.from_status) if row.from_status else None,
                    Status(row.to_status),
                    Failure(row.failure) if row.failure else None,
                    row.why,
                    row.at,
                )
                for row in rows
            ]

    async def transactions(self, *, unsettled: bool) -> list[L1Transaction]:
        """Return the journal of L1 transactions, oldest first: the unsettled ones, or all."""
        async with self.connect() as connection:
            return await _transactions(connection, _unsettled() if unsettled else text("true"))

    async def reverted_proposals(self, request_id: int) -> int:
        """Count the proposals of a request that were mined and reverted although their simulation passed."""
        t = l1_transactions.c
        reverted = (t.request_id == request_id, t.purpose == Purpose.PROPOSE.value, t.status == TxStatus.REVERTED.value)
        async with self.connect() as connection:
            return (await connection.execute(select(func.count()).where(*reverted))).scalar_one()

    async def last_sender(self) -> str | None:
        """Return the account of the newest transaction; None before the first."""
        newest = select(l1_transactions.c.sender).order_by(l1_transactions.c.id.desc()).limit(1)
        async with self.connect() as connection:
            return (await connection.execute(newest)).scalar_one_or_none()

    async def settled_from(self, sender: str, nonce: int) -> list[L1Transaction]:
        """Return the transactions of an account that counted as settled although its chain has not got their nonces."""
        t = l1_transactions.c
        settled = t.status.in_([TxStatus.CONFIRMED.value, TxStatus.REVERTED.value])
        async with self.connect() as connection:
            return await _transactions(connection, and_(t.sender == sender, t.nonce >= nonce, settled))

    async def proposed_by(self, request_id: int) -> bytes | None:
        """Return the hash of the newest transaction that has proposed this aggregation, as far as it is known."""
        t = l1_transactions.c
        proposals = select(l1_signed.c.hash).join(l1_transactions, _mined_as(Purpose.PROPOSE))
        async with self.connect() as connection:
            newest = proposals.where(t.request_id == request_id).order_by(t.id.desc()).limit(1)
            return (await connection.execute(newest)).scalar_one_or_none()

    async def settled_by(self, block: int) -> ProofRequest | None:
        """Return the aggregation of ours whose output has settled an L2 block; None where it is somebody else's."""
        covers = (_r.start_block < block, _r.end_block >= block)
        settled = (_r.kind == Kind.AGG.value, _r.status == Status.RELAYED.value, *covers)
        async with self.connect() as connection:
            # the first that ends at or above the block: one step on the index over coverage
            statement = select_requests().where(*settled).order_by(_r.end_block, _r.id).limit(1)
            row = (await connection.execute(statement)).one_or_none()
        return request_from(row) if row is not None else None

    async def carried_on_by(self, request_id: int) -> list[int]:
        """Return the requests that carry on after this one ended."""
        async with self.connect() as connection:
            rows = await connection.execute(select(_r.id).where(_r.parent_id == request_id).order_by(_r.id))
            return list(rows.scalars())

    async def anchors(self) -> list[int]:
        """Return the L1 blocks that live aggregations are anchored to, and those that the next one may reuse."""
        live = (_r.kind == Kind.AGG.value, or_(_IS_OPEN, _r.status == Status.COMPLETE.value))
        anchored = select(_r.checkpoint_number).where(*live, _r.checkpoint_number.is_not(None)).distinct()
        async with self.connect() as connection:
            numbers = {row.checkpoint_number for row in await connection.execute(anchored)}
            return sorted(numbers | await _newest_checkpoints(connection))

    async def usual(self, kind: Kind) -> Usual | None:
        """Return how long the last proofs of this kind took from request to proof; None below five of them."""
        e = request_events.c
        recent = (
            select(func.extract("epoch", e.at - _r.requested_at).label("took"))
            .join(proof_requests, _r.id == e.request_id)
            .where(e.to_status == Status.COMPLETE.value, e.from_status == Status.PROVING.value, _r.kind == kind.value)
            .order_by(e.id.desc())
            .limit(50)
            .subquery()
        )
        quick, slow = (func.percentile_cont(p).within_group(recent.c.took) for p in (0.05, 0.95))
        async with self.connect() as connection:
            row = (await connection.execute(select(func.count(), quick, slow).select_from(recent))).one()
        return Usual(float(row[1]), float(row[2])) if row[0] >= 5 else None

    async def to_mirror(self, limit: int) -> list[Mirrored]:
        """Return requests whose runs are behind, those under way or ended first, queued ones last."""
        behind = select_requests().where(_r.last_event > _r.mirrored_event)
        queued_last = behind.order_by(_r.status == Status.UNREQ.value, _r.id).limit(limit)
        async with self.connect() as connection:
            return [
                Mirrored(request_from(row), row.flow_run_id, row.cycle_run_id, row.story, row.mirrored_event)
                for row in await connection.execute(queued_last)
            ]

    async def open_runs(self, *, shown: bool = False) -> dict[int, str]:
        """Return the Prefect runs of the requests that a person could cancel, by request id.

        With `shown`, only those that show everything that has happened.
        """
        is_shown = _r.last_event == _r.mirrored_event if shown else true()
        where = (
            _r.status.in_([Status.UNREQ.value, *(s.value for s in IN_FLIGHT)]),
            _r.flow_run_id.is_not(None),
            is_shown,
        )
        async with self.connect() as connection:
            rows = await connection.execute(select(_r.id, _r.flow_run_id).where(*where).order_by(_r.id))
            return {row.id: row.flow_run_id for row in rows}


def _unsettled(l1_block: int | None = None) -> ColumnElement[bool]:
    t = l1_transactions.c
    unsettled = t.status.in_([s.value for s in UNSETTLED])
    return unsettled if l1_block is None else or_(unsettled, t.block_number > l1_block)


async def _transactions(connection: AsyncConnection, where: Any) -> list[L1Transaction]:
    rows = (await connection.execute(select_transactions().where(where).order_by(l1_transactions.c.id))).all()
    if not rows:
        return []
    signed: dict[int, list[Row[Any]]] = {row.id: [] for row in rows}
    for form in await connection.execute(select_signed(list(signed))):
        signed[form.transaction_id].append(form)
    return [transaction_from(row, signed[row.id]) for row in rows]


async def _newest_checkpoints(connection: AsyncConnection) -> set[int]:
    """Return the L1 blocks whose hashes our transactions stored in the contract lately."""
    mined = select(l1_signed.c.subject).join(l1_transactions, _mined_as(Purpose.CHECKPOINT))
    newest = mined.order_by(l1_transactions.c.id.desc()).limit(NEWEST_CHECKPOINTS)
    return {row.subject for row in await connection.execute(newest)}


def _mined_as(purpose: Purpose) -> ColumnElement[bool]:
    """Match the form of a transaction that was mined, where it does this."""
    return and_(l1_signed.c.hash == l1_transactions.c.mined_hash, l1_signed.c.purpose == purpose.value)
