"""The one writer. Every change of a request's status goes through `_move`, which appends the event beside it."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.ledger.journal import JournalWriter
from blocks.ledger.rows import values_of
from blocks.ledger.tables import (
    aggregation_members,
    late_answers,
    marks,
    operator_orders,
    proof_requests,
    proofs,
    request_events,
)
from proposer.errors import IllegalTransition
from proposer.intents import Move, Plan
from proposer.requests import TRANSITIONS, Checkpoint, Failure, NewRequest, ProofRequest, Status
from proposer.units import L1Ref

_r = proof_requests.c
_TEN_YEARS = 10 * 365 * 86400  # seconds; a contract may name any number


class Writer(JournalWriter):
    """Writes of one transaction under one leader's epoch; made by `Ledger.write` only."""

    def __init__(self, connection: AsyncConnection, epoch: int) -> None:
        super().__init__(connection)
        self.epoch = epoch

    async def apply(self, plan: Plan, cycle_run_id: str | None = None) -> list[int]:
        """Carry out a plan: moves that still hold, then inserts. Return the new ids."""
        for move in plan.moves:
            await self.move(move)
        return [await self.insert(new, cycle_run_id) for new in plan.inserts]

    async def move(self, move: Move) -> bool:
        """Carry out one move if the request still has the status it was decided on.

        What is to be complete again and was pruned is cancelled, and fetched anew where the server still has it.
        """
        values: dict[str, object] = {}
        if (move.frm, move.to) == (Status.RELAYED, Status.COMPLETE) and not await self._is_stored(move.request):
            why = f"{move.why}, and its proof was deleted long ago"
            move = Move(move.request, move.frm, Status.CANCELLED, why, Failure.SUPERSEDED)
            values["next_poll_at"] = case((_r.prover_request_id.is_not(None), func.now()))
        if move.failure:
            values |= {"failure": move.failure.value, "failure_text": move.why}
        return await self._move(move.request, move.frm, move.to, move.why, values, move.failure)

    async def _is_stored(self, request_id: int) -> bool:
        stored = select(proofs.c.request_id).where(proofs.c.request_id == request_id)
        return (await self._connection.execute(stored)).one_or_none() is not None

    async def insert(self, new: NewRequest, cycle_run_id: str | None = None) -> int:
        """Insert a request with its first event; return its id."""
        values = values_of(new) | {"cycle_run_id": cycle_run_id}
        result = await self._connection.execute(insert(proof_requests).values(values).returning(_r.id))
        request_id: int = result.scalar_one()
        if new.members:
            rows = [
                {"aggregation_id": request_id, "position": i, "range_id": member}
                for i, member in enumerate(new.members)
            ]
            await self._connection.execute(insert(aggregation_members), rows)
        await self._event(request_id, None, new.status, new.why, None)
        return request_id

    async def claim(self, request_id: int, cycle_run_id: str | None, anchor: Checkpoint | None = None) -> bool:
        """UNREQ to WITNESSGEN: the intent, written before the request is sent; an aggregation with its anchor."""
        return await self._move(
            request_id,
            Status.UNREQ,
            Status.WITNESSGEN,
            "requesting",
            {
                "requested_at": func.now(),
                "claimed_epoch": self.epoch,
                "failure": None,
                **({"cycle_run_id": cycle_run_id} if cycle_run_id else {}),
                **({"checkpoint_number": anchor.number, "checkpoint_hash": anchor.hash} if anchor else {}),
            },
        )

    async def proving(self, request_id: int, prover_id: str) -> bool:
        """WITNESSGEN to PROVING, with the id in the same statement; a closed row keeps the late id and is polled.

        So does UNREQ: the request was parked and taken up again while this answer was under way.
        """
        values: dict[str, object] = {"prover_request_id": prover_id, "next_poll_at": func.now() + timedelta(seconds=1)}
        why = f"accepted by the prover as {prover_id}"
        moved = await self._move(request_id, Status.WITNESSGEN, Status.PROVING, why, values) or await self._move(
            request_id, Status.UNREQ, Status.PROVING, why, values
        )
        if not moved:
            late = update(proof_requests).where(_r.id == request_id, _r.prover_request_id.is_(None))
            await self._connection.execute(late.values(**values))
            kept = select(_r.prover_request_id).where(_r.id == request_id)
            if (await self._connection.execute(kept)).scalar_one() != prover_id:
                await self.note(request_id, f"{why} too; it is looked at by the id that it has")
        return moved

    async def take_answer(self, request_id: int, prover_id: str) -> bool:
        """Take in a prover id that was left for a request; whether the request is proving with it now."""
        a = late_answers.c
        left = delete(late_answers).where(a.request_id == request_id, a.prover_request_id == prover_id)
        if (await self._connection.execute(left)).rowcount == 0:
            return False
        return await self.proving(request_id, prover_id)

    async def complete(self, request: ProofRequest, proof: bytes, why: str) -> bool:
        """Store the proof and mark the request COMPLETE, whatever it was: the first proof wins."""
        values: dict[str, object] = {
            "proof_digest": sha256(proof).digest(),
            "proof_length": len(proof),
            "next_poll_at": None,
            "failure": None,
        }
        if not await self._move(request.id, request.status, Status.COMPLETE, why, values):
            return False
        store = upsert(proofs).values(request_id=request.id, proof=proof).on_conflict_do_nothing()
        await self._connection.execute(store)
        return True

    async def replace_proof(self, request_id: int, proof: bytes) -> None:
        """Store what the server delivers in place of a stored proof that was not its own."""
        digest = {"proof_digest": sha256(proof).digest(), "proof_length": len(proof)}
        await self._connection.execute(update(proof_requests).where(_r.id == request_id).values(digest))
        await self._connection.execute(update(proofs).where(proofs.c.request_id == request_id).values(proof=proof))
        await self.note(request_id, f"the stored proof was not the server's: replaced by its {len(proof)} bytes")

    async def fail(
        self, request: ProofRequest, failure: Failure, text: str, successors: Iterable[NewRequest], *, poll: bool
    ) -> list[int]:
        """Mark the attempt FAILED and insert what carries on, in this one transaction; return the new ids.

        `poll` keeps looking at the prover id: a proof that arrives late is a proof.
        """
        values: dict[str, object] = {"failure": failure.value, "failure_text": text.replace("\0", "")}
        if not poll:
            values["next_poll_at"] = None
        if not await self._move(request.id, request.status, Status.FAILED, text, values, failure):
            return []
        planned_by = select(_r.cycle_run_id).where(_r.id == request.id)
        cycle_run_id = (await self._connection.execute(planned_by)).scalar_one()
        follow = [(new, await self.insert(new, cycle_run_id)) for new in successors]
        if follow:
            named = (f"{number}{' (parked)' if new.status is Status.PARKED else ''}" for new, number in follow)
            await self.note(request.id, f"carried on by request {' and '.join(named)}")
        return [number for _, number in follow]

    async def postpone(self, request: ProofRequest, until: datetime, why: str) -> bool:
        """WITNESSGEN back to UNREQ: nothing was asked, so no attempt is charged."""
        return await self._move(
            request.id,
            Status.WITNESSGEN,
            Status.UNREQ,
            why,
            {
                "next_attempt_at": until,
                "failure_text": why.replace("\0", ""),
                "requested_at": None,
                "claimed_epoch": None,
            },
        )

    async def look_again(self, at: Mapping[int, datetime | None]) -> None:
        """Set when to look at each request's prover id next; None is never, and never stays so."""
        still = (_r.id == bindparam("request"), _r.next_poll_at.is_not(None))
        statement = update(proof_requests).where(*still).values(next_poll_at=bindparam("next"))
        await self._connection.execute(statement, [{"request": i, "next": when} for i, when in at.items()])

    async def stop_looking_below(self, head: int, seconds: float) -> None:
        """Look no more at requests closed so long ago whose blocks are settled: no proof of them is needed."""
        settled = (_r.end_block <= head, _r.since < func.now() - timedelta(seconds=seconds))
        await self._connection.execute(
            update(proof_requests)
            .where(_r.next_poll_at.is_not(None), _r.status.in_(["FAILED", "CANCELLED"]), *settled)
            .values(next_poll_at=None)
        )

    async def anchor(self, request_id: int, checkpoint: Checkpoint) -> None:
        """Bind an aggregation that was not requested yet to a checkpoint that the contract has."""
        await self._connection.execute(
            update(proof_requests)
            .where(_r.id == request_id, _r.status == Status.UNREQ.value)
            .values(checkpoint_number=checkpoint.number, checkpoint_hash=checkpoint.hash)
        )

    async def output_root(self, request_id: int, root: bytes) -> None:
        """Store the output root that an aggregation claims, once."""
        await self._connection.execute(
            update(proof_requests).where(_r.id == request_id, _r.output_root.is_(None)).values(output_root=root)
        )

    async def l1_head(self, request_id: int, head: L1Ref) -> None:
        """Store the L1 head read after the server's answer, once: no later block is bound into the proof."""
        await self._connection.execute(
            update(proof_requests)
            .where(_r.id == request_id, _r.l1_head.is_(None))
            .values(l1_head=head.number, l1_head_hash=head.hash)
        )

    async def fill_l1_heads(self, head: L1Ref) -> None:
        """Give requests answered while L1 was away the L1 head of now: not lower than what their proofs hold."""
        # not IN: each of the two has a partial index of its own
        answered = or_(_r.status == "PROVING", _r.status == "COMPLETE")
        await self._connection.execute(
            update(proof_requests)
            .where(answered, _r.l1_head.is_(None), _r.kind == "RANGE")
            .values(l1_head=head.number, l1_head_hash=head.hash)
        )

    async def take_up(self, request_id: int, why: str, witness_seconds: float) -> bool:
        """Take a request up by hand: parked or waiting, it is due at once; one with a prover id is looked at."""
        paid = select(_r.prover_request_id.is_not(None)).where(_r.id == request_id)
        if (await self._connection.execute(paid)).scalar_one_or_none():
            look_at_once = {"next_poll_at": func.now(), "failure": None}
            return await self._move(request_id, Status.PARKED, Status.PROVING, why, look_at_once)
        # a request whose answer may still be under way is not sent beside it
        now_due: dict[str, Any] = {
            "next_attempt_at": func.greatest(func.now(), _r.requested_at + timedelta(seconds=witness_seconds))
        }
        if await self._move(request_id, Status.PARKED, Status.UNREQ, why, now_due | {"failure": None}):
            return True
        waiting = update(proof_requests).where(_r.id == request_id, _r.status == Status.UNREQ.value)
        return (await self._connection.execute(waiting.values(**now_due))).rowcount == 1

    async def order_done(self, order_id: int, outcome: str) -> None:
        """Write down what became of an operator's order."""
        done = update(operator_orders).where(operator_orders.c.id == order_id, operator_orders.c.done_at.is_(None))
        await self._connection.execute(done.values(done_at=func.clock_timestamp(), outcome=outcome))

    async def mark(self, name: str, number: int, *, rising: bool) -> None:
        """Remember a block number and when it was first seen; a rising mark never goes back."""
        statement = upsert(marks).values(name=name, number=number, at=func.now())
        condition = marks.c.number < number if rising else marks.c.number != number
        await self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=[marks.c.name], set_={"number": number, "at": func.now()}, where=condition
            )
        )

    async def finalized(self) -> int:
        """Return the highest finalized L2 block ever marked, 0 before the first."""
        seen = select(marks.c.number).where(marks.c.name == "finalized")
        return (await self._connection.execute(seen)).scalar_one_or_none() or 0

    async def note(self, request_id: int, why: str) -> None:
        """Append to a request's history without changing its status."""
        row = (await self._connection.execute(select(_r.status).where(_r.id == request_id))).one()
        status = Status(row.status)
        await self._event(request_id, status, status, why, None)

    async def mirrored(self, request_id: int, run_id: str | None, event: int) -> None:
        """Remember which run shows the request, and up to which event; the run may be gone (None)."""
        await self._connection.execute(
            update(proof_requests)
            .where(_r.id == request_id)
            .values(flow_run_id=run_id, mirrored_event=func.greatest(_r.mirrored_event, event))
        )

    async def new_story(self, request_id: int) -> None:
        """Have the mirror go on in a new run, told from the beginning."""
        await self._connection.execute(
            update(proof_requests)
            .where(_r.id == request_id)
            .values(flow_run_id=None, story=_r.story + 1, mirrored_event=0)
        )

    async def prune_proofs(self, after_seconds: int, at_most: int = 50) -> int:
        """Delete the bytes of proofs settled this long ago; the rows stay. Return how many, `at_most` at a time."""
        settled = (
            select(proofs.c.request_id)
            .join(proof_requests, _r.id == proofs.c.request_id)
            .where(
                _r.status == Status.RELAYED.value,
                _r.since < func.now() - timedelta(seconds=min(after_seconds, _TEN_YEARS)),
            )
            .limit(at_most)
        )
        return (await self._connection.execute(delete(proofs).where(proofs.c.request_id.in_(settled)))).rowcount

    async def _move(
        self,
        request_id: int,
        frm: Status,
        to: Status,
        why: str,
        values: Mapping[str, object],
        failure: Failure | None = None,
    ) -> bool:
        if to not in TRANSITIONS[frm]:
            raise IllegalTransition(f"request {request_id}: {frm.value} may not become {to.value}")
        changed = await self._connection.execute(
            update(proof_requests)
            .where(_r.id == request_id, _r.status == frm.value)
            .values({"status": to.value, "since": func.now()} | dict(values))
        )
        if changed.rowcount == 0:
            return False
        await self._event(request_id, frm, to, why, failure)
        return True

    async def _event(self, request_id: int, frm: Status | None, to: Status, why: str, failure: Failure | None) -> None:
        row = {
            "request_id": request_id,
            "from_status": frm.value if frm else None,
            "to_status": to.value,
            "failure": failure.value if failure else None,
            "why": why.replace("\0", ""),  # PostgreSQL's text knows no NUL, a server's may hold one
            "epoch": self.epoch,
        }
        event = (
            await self._connection.execute(insert(request_events).values(row).returning(request_events.c.id))
        ).scalar_one()
        await self._connection.execute(update(proof_requests).where(_r.id == request_id).values(last_event=event))
