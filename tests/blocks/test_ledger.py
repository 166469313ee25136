"""Opening and reading the ledger: whose it is, what a decision reads and costs, and what its errors say."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import event, insert, text, update

from blocks.ledger import Ledger, LedgerIdentity, ProofLedger
from blocks.ledger.tables import proof_requests
from proposer.errors import EndpointDown, FixConfiguration, UnknownRequest, WrongLedger
from proposer.ranges import BlockRange
from proposer.requests import Commitments, Kind, NewRequest, Status

OURS = LedgerIdentity(1, 10, "0x" + "ab" * 20)
COMMITMENTS = Commitments(b"r" * 32, b"a" * 32, b"c" * 32)


def row(start: int, status: Status = Status.UNREQ, **changes: Any) -> dict[str, Any]:
    """A row of `proof_requests`, with what its status needs."""
    values: dict[str, Any] = {
        "kind": "RANGE",
        "start_block": start,
        "end_block": start + 300,
        "status": status.value,
        "attempt": 1,
        "range_vkey": b"r",
        "agg_vkey": b"a",
        "config_hash": b"c",
        "prover_request_id": None,
        "proof_digest": None,
        "proof_length": None,
        "failure": None,
    }
    if status in {Status.PROVING, Status.COMPLETE, Status.RELAYED}:
        values["prover_request_id"] = f"0x{start:x}"
    if status in {Status.COMPLETE, Status.RELAYED}:
        values |= {"proof_digest": b"d", "proof_length": 1}
    if status is Status.FAILED:
        values["failure"] = "Unfulfillable"
    return values | changes


async def fill(ledger: Ledger, rows: list[dict[str, Any]]) -> None:
    """Insert rows past the writer."""
    async with ledger.connect() as connection, connection.begin():
        await connection.execute(insert(proof_requests), rows)


# -- whose it is


async def test_a_new_ledger_is_nobodys_until_it_is_claimed(ledger: Ledger) -> None:
    assert await ledger.identity() is None
    await ledger.claim_identity(OURS)
    await ledger.claim_identity(OURS)
    assert await ledger.identity() == OURS


@pytest.mark.parametrize(
    "other",
    [
        LedgerIdentity(2, 10, OURS.contract),
        LedgerIdentity(1, 11, OURS.contract),
        LedgerIdentity(1, 10, "0x" + "cd" * 20),
    ],
    ids=["another L1", "another L2", "another contract"],
)
async def test_the_ledger_of_another_contract_is_refused_in_one_line(ledger: Ledger, other: LedgerIdentity) -> None:
    """The line names both and what to set."""
    await ledger.claim_identity(OURS)
    with pytest.raises(WrongLedger) as refused:
        await ledger.claim_identity(other)
    message = str(refused.value)
    assert str(OURS) in message
    assert str(other) in message
    assert "DATABASE_URL" in message
    assert "\n" not in message
    assert await ledger.identity() == OURS


async def test_of_two_first_claims_one_wins(ledger: Ledger) -> None:
    other = LedgerIdentity(1, 11, OURS.contract)
    outcomes = await asyncio.gather(*(ledger.claim_identity(who) for who in (OURS, other)), return_exceptions=True)
    assert sorted(type(o).__name__ for o in outcomes) == ["NoneType", "WrongLedger"]


async def test_concurrent_migrations_wait_for_one_another(empty_database_url: str) -> None:
    """Two processes may start on an empty database at the same time."""
    one, other = Ledger(empty_database_url), Ledger(empty_database_url)
    try:
        await asyncio.gather(one.migrate(), other.migrate())
        assert await one.identity() is None
    finally:
        await one.close()
        await other.close()


# -- what a decision reads


async def test_the_view_holds_what_a_decision_needs_and_nothing_settled(ledger: Ledger) -> None:
    """Open rows, coverage above the head, what is not relayed yet; closed rows above the head for their attempts."""
    await fill(
        ledger,
        [
            row(0, Status.RELAYED),
            row(0, Status.FAILED),
            row(300, Status.COMPLETE),
            row(600, Status.RELAYED),
            row(600, Status.CANCELLED),
            row(900, Status.PROVING),
            row(1200, Status.WITNESSGEN),
            row(1500, Status.UNREQ),
            row(1800, Status.PARKED),
            row(1800, Status.FAILED),
        ],
    )
    view = await ledger.view(600)
    assert [(r.range.start, r.status) for r in view.requests] == [
        (300, Status.COMPLETE),
        (600, Status.RELAYED),
        (900, Status.PROVING),
        (1200, Status.WITNESSGEN),
        (1500, Status.UNREQ),
        (1800, Status.PARKED),
    ]
    assert {(r.range.start, r.status) for r in view.attempts_above} == {(600, Status.CANCELLED), (1800, Status.FAILED)}
    assert (view.transactions, view.finalized, view.required) == ([], None, None)
    assert abs((await ledger.now() - view.now).total_seconds()) < 5


async def test_an_aggregation_is_read_with_its_members_in_order(ledger: Ledger, epoch: int) -> None:
    def new(start: int, end: int, kind: Kind = Kind.RANGE, members: tuple[int, ...] = ()) -> NewRequest:
        return NewRequest(kind=kind, range=BlockRange(start, end), attempt=1, commitments=COMMITMENTS, members=members)

    async with ledger.write(epoch) as writer:
        ranges = [await writer.insert(new(i, i + 10)) for i in range(0, 120, 10)]
        number = await writer.insert(new(0, 120, Kind.AGG, tuple(ranges)))
    assert {r.id: r.members for r in (await ledger.view(0)).requests}[number] == tuple(ranges)


async def test_no_proof_bytes_are_read_for_a_decision(ledger: Ledger) -> None:
    """No statement of the view, the looks or the mirror touches the proofs' table."""
    asked: list[str] = []
    event.listen(ledger.engine.sync_engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    await ledger.view(0)
    await ledger.due_for_a_look()
    await ledger.to_mirror(10)
    await ledger.usual(Kind.RANGE)
    assert any("FROM proof_requests" in statement for statement in asked)
    assert not [statement for statement in asked if "proofs" in statement]


@pytest.fixture
async def long_history(ledger: Ledger) -> Ledger:
    """A ledger with 20,000 settled ranges, 100 settled failures, and three open rows above them."""
    await fill(
        ledger,
        [row(300 * i, Status.RELAYED) for i in range(20_000)]
        + [row(300 * i, Status.FAILED) for i in range(100)]
        + [row(300 * (20_000 + i), Status.PROVING) for i in range(3)],
    )
    async with ledger.connect() as connection, connection.begin():
        await connection.execute(update(proof_requests).values(last_event=1, mirrored_event=1))
    async with ledger.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE proof_requests"))
    return ledger


async def test_a_decision_costs_the_same_with_20000_settled_rows(long_history: Ledger) -> None:
    """The plans of every query of a cycle use indexes only."""
    asked: list[tuple[str, Any]] = []
    event.listen(
        long_history.engine.sync_engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3]))
    )
    view = await long_history.view(300 * 20_000)
    assert len(view.requests) == 3
    assert view.attempts_above == []
    await long_history.due_for_a_look()
    await long_history.to_mirror(10)
    selects = [(statement, values) for statement, values in asked if "FROM proof_requests" in statement]
    assert len(selects) == 4
    async with long_history.connect() as connection:
        for statement, values in selects:
            plan = await connection.exec_driver_sql(f"EXPLAIN {statement}", values)
            lines = "\n".join(line for (line,) in plan)
            assert "Seq Scan on proof_requests" not in lines, f"{statement}\n{lines}"


# -- what its errors say


async def test_a_database_that_is_away_is_an_endpoint_that_is_down(database_url: str) -> None:
    """From every entry: a read, a write, a migration."""
    nowhere = Ledger(database_url.replace("test_", "gone_"))
    with pytest.raises(EndpointDown, match=r"ledger's database .* does not exist"):
        await nowhere.view(0)
    with pytest.raises(EndpointDown):
        await nowhere.migrate()
    with pytest.raises(EndpointDown):
        async with nowhere.write(1):
            raise AssertionError("never reached")
    await nowhere.close()


async def test_a_connection_cut_in_the_middle_is_an_endpoint_that_is_down(ledger: Ledger, epoch: int) -> None:
    """And the next use of the ledger connects anew."""

    async def be_cut_off() -> None:
        async with ledger.write(epoch) as writer:
            async with ledger.connect() as other:
                kill = (
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE state = 'idle in transaction' AND datname = current_database()"
                )
                await other.execute(text(kill))
            await writer.mark("finalized", 1, rising=True)

    with pytest.raises(EndpointDown):
        await be_cut_off()
    assert (await ledger.view(0)).finalized is None


async def test_an_unknown_request_is_named(ledger: Ledger) -> None:
    with pytest.raises(UnknownRequest, match="no proof request 12"):
        await ledger.request(12)


@pytest.mark.parametrize("url", ["sqlite:///ledger.db", "mysql://h/db", "postgresql+asyncpg://h/db", "ledger.db", ""])
def test_only_postgresql_is_a_ledger(url: str) -> None:
    """Said as a setting to repair."""
    with pytest.raises(FixConfiguration, match="postgresql://"):
        Ledger(url)


def _chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield f"{error} {error!r}"
        error = error.__cause__ or error.__context__


UNREACHABLE = {
    "no server": "postgresql://me:{}@127.0.0.1:1/db",
    "no such host": "postgresql://me:{}@nowhere.invalid/db",
    "no such socket": "postgresql://me:{}@/db?host=/nonexistent",
}
UNREADABLE = {
    "at sign in the password": "postgresql://me:x@{}@127.0.0.1/db",
    "port that is none": "postgresql://me:{}@127.0.0.1:port/db",
    "another scheme": "mysql://me:{}@h/db",
}


@pytest.mark.parametrize("url", UNREACHABLE.values(), ids=UNREACHABLE)
async def test_the_password_is_in_no_error(url: str) -> None:
    """Nor in what caused it, nor in the block's repr."""
    password = secrets.token_hex(8)
    ledger = ProofLedger(database_url=url.format(password)).open()  # type: ignore[arg-type]
    with pytest.raises(EndpointDown) as away:
        await ledger.identity()
    await ledger.close()
    assert password not in " ".join(_chain(away.value))
    assert password not in repr(ledger.engine)
    assert password not in repr(ProofLedger(database_url=url.format(password)))  # type: ignore[arg-type]


@pytest.mark.parametrize("url", UNREADABLE.values(), ids=UNREADABLE)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    """A character of the password that is not percent-encoded must not turn it into an error text."""
    password = secrets.token_hex(8)
    with pytest.raises(FixConfiguration, match="DATABASE_URL") as refused:
        Ledger(url.format(password))
    assert password not in " ".join(_chain(refused.value))


async def test_a_percent_encoded_password_is_fine(database_url: str) -> None:
    """Trust authentication takes any password; the URL must be read all the same."""
    user = f"postgres:{quote('p@s/s:%', safe='')}@"
    ledger = Ledger(database_url.replace("postgres:@", user))
    assert ledger.engine.url.password == "p@s/s:%"
    assert await ledger.identity() is None
    await ledger.close()


async def test_parameters_of_a_refused_statement_are_not_in_its_error(ledger: Ledger) -> None:
    """Calldata and ids stay out of logs."""
    with pytest.raises(Exception, match="ck_proof_requests_kind") as refused:
        await fill(ledger, [row(0, kind="NONE", failure_text="s3cret")])
    assert "parameters hidden" in str(refused.value)
