"""The ledger's database: connections, whose it is, and driver errors by their right names."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

from psycopg import InternalError as PgInternalError
from psycopg.errors import ExclusionViolation, UniqueViolation
from sqlalchemy import func, make_url, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from blocks.ledger.leadership import fence, leader
from blocks.ledger.migrate import migrate, revision
from blocks.ledger.tables import identity
from blocks.ledger.writer import Writer
from proposer.errors import BadReply, EndpointDown, FixConfiguration, LedgerMoved, WrongLedger
from proposer.situation import Leader


@dataclass(frozen=True, slots=True)
class LedgerIdentity:
    """Whose ledger it is: both chain ids and the contract's address in lower case."""

    l1_chain_id: int
    l2_chain_id: int
    contract: str

    def __str__(self) -> str:
        return f"contract {self.contract} on L1 chain {self.l1_chain_id}, L2 chain {self.l2_chain_id}"


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


class Database:
    """Connections to one ledger database.

    A session left idle in a transaction is ended by the server after 5 s, so that a process stopped in the middle of
    a write cannot hold up its successor. Raises `EndpointDown` where the database cannot be reached. With `read_only`
    the database itself refuses every write.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        options = "-c idle_in_transaction_session_timeout=5000 -c statement_timeout=30000 -c timezone=UTC"
        if read_only:
            options += " -c default_transaction_read_only=on"
        self.engine: AsyncEngine = create_async_engine(
            async_url(url),
            pool_size=5,
            max_overflow=15,
            pool_pre_ping=True,
            pool_timeout=10,
            connect_args={
                "connect_timeout": 5,
                "options": options,
                "prepare_threshold": None,
                # a peer that has vanished without a word is noticed after ten seconds
                "keepalives_idle": 4,
                "keepalives_interval": 2,
                "keepalives_count": 3,
                "tcp_user_timeout": 10_000,
            },
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

    async def leader(self) -> Leader | None:
        """Return who holds the leadership, or held it last; None where nobody ever has."""
        async with self.connect() as connection:
            return await leader(connection)

    async def revision(self) -> str | None:
        """Return the schema's revision, or None for a database that holds no ledger."""
        async with self.connect() as connection:
            return await revision(connection)

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

    async def now(self) -> datetime:
        """Return the database's clock: the one that every time in the ledger is told by."""
        async with self.connect() as connection:
            return (await connection.execute(select(func.now()))).scalar_one()

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def _brief(error: BaseException) -> str:
    """The first line of the driver's own words, without SQLAlchemy's frame (and so without any parameter)."""
    original = getattr(error, "orig", None) or error
    return str(original).strip().split("\n")[0] or type(original).__name__
