"""The ledger: PostgreSQL, one database per oracle contract, and the only memory that counts.

`Ledger` opens it and reads; every write goes through `Ledger.write`, which fences it with the leader's epoch.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import InternalError as PgInternalError
from psycopg.errors import ExclusionViolation, UniqueViolation
from sqlalchemy import Row, and_, func, make_url, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from blocks.ledger.leadership import fence
from blocks.ledger.migrate import migrate
from blocks.ledger.rows import request_from, select_requests, select_signed, select_transactions, transaction_from
from blocks.ledger.tables import identity, l1_transactions, marks, proof_requests, proofs, request_events
from blocks.ledger.writer import Writer
from proposer.errors import BadReply, EndpointDown, FixConfiguration, LedgerMoved, UnknownRequest, WrongLedger
from proposer.l1_transactions import UNSETTLED, L1Transaction, Purpose, TxStatus
from proposer.polling import Usual
from proposer.requests import IN_FLIGHT, OPEN, Failure, Kind, ProofRequest, Status
from proposer.snapshot import Mark

_r = proof_requests.c
_IS_OPEN = _r.status.in_([s.value for s in OPEN])


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Whose ledger it is: both chain ids and the contract's address in lower case."""

    l1_chain_id: int
    l2_chain_id: int
    contract: str

    def __str__(self) -> str:
        return f"contract {self.contract} on L1 chain {self.l1_chain_id}, L2 chain {self.l2_chain_id}"


@dataclass(frozen=True, slots=True)
class LedgerView:
    """The rows one decision needs, all read in one transaction at `now` by the database's clock."""

    now: datetime
    requests: Sequence[ProofRequest]
    transactions: Sequence[L1Transaction]
    attempts_above: Sequence[ProofRequest]
    finalized: Mark | None
    required: Mark | None


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


def async_url(url: str) -> str:
    """Return the SQLAlchemy URL for psycopg of a `postgresql://` one.

    Raises `FixConfiguration` for any other database: PostgreSQL is the only dialect.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise FixConfiguration("DATABASE_URL must begin with postgresql://: the ledger runs on PostgreSQL only")
    url = f"postgresql+psycopg://{rest}"
    with suppress(ArgumentError, ValueError):  # their text may quote the password
        if "@" not in (make_url(url).host or ""):
            return url
    raise FixConfiguration(
        "DATABASE_URL cannot be read as postgresql://user:password@host:port/database: "
        "percent-encode special characters of the password"
    )


class Ledger:
    """Connections to one ledger database.

    A session left idle in a transaction is ended by the server after 5 s, so that a process stopped in the middle of
    a write cannot hold up its successor. Raises `EndpointDown` where the database cannot be reached.
    """

    def __init__(self, url: str) -> None:
        options = "-c idle_in_transaction_session_timeout=5000 -c statement_timeout=30000 -c timezone=UTC"
        self.engine: AsyncEngine = create_async_engine(
            async_url(url),
            pool_size=5,
            max_overflow=15,
            pool_pre_ping=True,
            pool_timeout=10,
            connect_args={"connect_timeout": 5, "options": options, "prepare_threshold": None},
            hide_parameters=True,
        )

    async def migrate(self) -> None:
        """Bring the schema up to date; concurrent callers wait for one another."""
        async with self.connect() as connection:
            await migrate(connection)

    async def identity(self) -> LedgerIdentity | None:
        """Return whose ledger it is, or None while it is nobody's."""
        async with self.connect() as connection:
            row = (await connection.execute(select(identity))).one_or_none()
        return LedgerIdentity(row.l1_chain_id, row.l2_chain_id, row.contract) if row else None

    async def ledger_id(self) -> str:
        """Return what tells this database from any other, also from another one of the same contract."""
        async with self.connect() as connection:
            return (await connection.execute(select(identity.c.ledger_id))).scalar_one()

    async def claim_identity(self, ours: LedgerIdentity) -> None:
        """Make the ledger ours at first use. Raises `WrongLedger` where it is another contract's."""
        async with self.connect() as connection:
            values = {
                "id": 1,
                "l1_chain_id": ours.l1_chain_id,
                "l2_chain_id": ours.l2_chain_id,
                "contract": ours.contract,
            }
            await connection.execute(insert(identity).values(**values).on_conflict_do_nothing())
            await connection.commit()
        theirs = await self.identity()
        if theirs != ours:
            raise WrongLedger(
                f"this ledger belongs to {theirs}, not to {ours}: set DATABASE_URL or PROPOSER_HOME to another one"
            )

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[AsyncConnection]:
        """Open a connection; a database that is away is `EndpointDown`, never a bare driver error."""
        try:
            async with self.engine.connect() as connection:
                yield connection
        except (OperationalError, PoolTimeoutError, OSError, TimeoutError) as error:
            raise EndpointDown(f"the ledger's database cannot be reached or hung up: {_brief(error)}") from error
        except IntegrityError as error:
            if not isinstance(error.orig, ExclusionViolation | UniqueViolation):
                raise
            raise LedgerMoved(f"the ledger changed meanwhile; it is decided anew: {_brief(error)}") from error
        except DataError as error:
            raise BadReply(f"a value cannot be stored in the ledger: {_brief(error)}") from error
        except DBAPIError as error:
            # a standby or a database set read-only says InternalError
            if error.connection_invalidated or isinstance(error.orig, PgInternalError):
                raise EndpointDown(f"the ledger's database cannot be written: {_brief(error)}") from error
            raise

    @asynccontextmanager
    async def write(self, epoch: int) -> AsyncGenerator[Writer]:
        """Write under the leader's epoch, in one transaction.

        Raises `NotLeader`, and writes nothing, when another process has taken over or the claim has expired.
        """
        async with self.connect() as connection, connection.begin():
            await fence(connection, epoch)
            yield Writer(connection, epoch)

    async def view(self, head: int) -> LedgerView:
        """Read what a decision at contract head `head` needs; cost does not grow with what is settled below it."""
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
                transactions = await _transactions(
                    connection, l1_transactions.c.status.in_([s.value for s in UNSETTLED])
                )
                seen = {row.name: Mark(row.number, row.at) for row in await connection.execute(select(marks))}
        return LedgerView(
            now,
            [request_from(row) for row in requests],
            transactions,
            [request_from(row) for row in above],
            seen.get("finalized"),
            seen.get("required"),
        )

    async def now(self) -> datetime:
        """Return the database's clock: the one that every time in the ledger is told by."""
        async with self.connect() as connection:
            return (await connection.execute(select(func.now()))).scalar_one()

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

    async def proofs(self, request_ids: Sequence[int]) -> list[bytes]:
        """Return the proofs of these requests in the order asked. Raises `UnknownRequest` where one has none."""
        async with self.connect() as connection:
            rows = await connection.execute(
                select(proofs.c.request_id, proofs.c.proof).where(proofs.c.request_id.in_(request_ids))
            )
            found = {row.request_id: bytes(row.proof) for row in rows}
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
        where = l1_transactions.c.status.in_([s.value for s in UNSETTLED]) if unsettled else text("true")
        async with self.connect() as connection:
            return await _transactions(connection, where)

    async def reverted_proposals(self, request_id: int) -> int:
        """Count the proposals of a request that were mined and reverted although their simulation passed."""
        t = l1_transactions.c
        reverted = (t.request_id == request_id, t.purpose == Purpose.PROPOSE.value, t.status == TxStatus.REVERTED.value)
        async with self.connect() as connection:
            return (await connection.execute(select(func.count()).where(*reverted))).scalar_one()

    async def checkpoints(self) -> list[int]:
        """Return the L1 blocks whose hashes our transactions stored in the contract lately, newest first."""
        t = l1_transactions.c
        mined = t.status.in_([TxStatus.MINED.value, TxStatus.CONFIRMED.value])
        async with self.connect() as connection:
            rows = await connection.execute(
                select(t.subject).where(t.purpose == Purpose.CHECKPOINT.value, mined).order_by(t.id.desc()).limit(20)
            )
            return [row.subject for row in rows]

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

    async def open_runs(self) -> dict[int, str]:
        """Return the Prefect runs of the requests that a person could cancel, by request id."""
        where = (_r.status.in_([Status.UNREQ.value, *(s.value for s in IN_FLIGHT)]), _r.flow_run_id.is_not(None))
        async with self.connect() as connection:
            rows = await connection.execute(select(_r.id, _r.flow_run_id).where(*where).order_by(_r.id))
            return {row.id: row.flow_run_id for row in rows}

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


async def _transactions(connection: AsyncConnection, where: Any) -> list[L1Transaction]:
    rows = (await connection.execute(select_transactions().where(where).order_by(l1_transactions.c.id))).all()
    if not rows:
        return []
    signed: dict[int, list[Row[Any]]] = {row.id: [] for row in rows}
    for form in await connection.execute(select_signed(list(signed))):
        signed[form.transaction_id].append(form)
    return [transaction_from(row, signed[row.id]) for row in rows]


def _brief(error: BaseException) -> str:
    """The first line of the driver's own words, without SQLAlchemy's frame (and so without any parameter)."""
    original = getattr(error, "orig", None) or error
    return str(original).strip().split("\n")[0] or type(original).__name__
