"""The doctor's checks against a real devnet and ledger: each says what is wrong, and what to do."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from blocks.ledger import Ledger, LedgerIdentity, leadership
from deployments.checks import CHECKS
from deployments.checks.bench import Bench, Check, Finding, Level, examine
from deployments.checks.machine import room
from deployments.checks.prefect import check_prefect_server
from deployments.desk import open_desk, open_ledger
from deployments.environment import read_environment
from infra.devnet import Devnet
from infra.devnet.loopback import free_port
from proposer.errors import FixConfiguration, WrongLedger
from proposer.orders import OrderKind
from tests.deployments.helpers import execute

OpenBench = Callable[..., Awaitable[Bench]]


@pytest_asyncio.fixture
async def bench(devnet: Devnet, ledger: Ledger, database_url: str, tmp_path: Path) -> AsyncIterator[OpenBench]:
    """A function that opens a bench for the devnet's environment with these changes; its ledger is the devnet's."""
    await ledger.claim_identity(LedgerIdentity(31337, 901, devnet.oracle_address.lower()))
    async with ledger.connect() as connection:
        assert await leadership.take(connection, "host:1") == 1
    async with AsyncExitStack() as stack:

        async def open_it(**changes: str) -> Bench:
            values = devnet.env() | {"DATABASE_URL": database_url, "PROPOSER_HOME": str(tmp_path)} | changes
            values |= {"PREFECT_SERVER_API_PORT": str(free_port())}
            environment = read_environment(values)
            return Bench(environment, await stack.enter_async_context(open_desk(environment, values)))

        yield open_it


async def levels(bench: Bench) -> dict[str, Level]:
    return {finding.name: finding.found.level for finding in [await examine(bench, check) for check in CHECKS]}


async def finding(bench: Bench, name: str) -> Finding:
    (check,) = [c for c in CHECKS if c.__name__ == f"check_{name}"]
    return await examine(bench, check)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_check_is_named_and_says_what_should_be_true(check: Check) -> None:
    line = (check.__doc__ or "").splitlines()[0]
    assert check.__name__.startswith("check_")
    assert line.endswith(".")
    assert len(line) < 100


async def test_all_is_well_but_for_prefect(bench: OpenBench) -> None:
    """There is no Prefect server here: that is a warning, for settlement goes on without it."""
    found = await levels(await bench())
    assert {name: level for name, level in found.items() if level is not Level.OK} == {
        "prefect-server": Level.WARNING,
        "deployments": Level.WARNING,
        "alerts": Level.WARNING,
    }


async def test_what_is_wrong_in_the_ledger_is_found(bench: OpenBench, ledger: Ledger, database_url: str) -> None:
    one = await bench()
    execute(database_url, "UPDATE leadership SET expires_at = now() - interval '1 minute'")
    number = await ledger.give_order(OrderKind.PAUSE, None, "alice@desk", "lunch")
    execute(database_url, "UPDATE operator_orders SET at = now() - interval '1 minute'")
    found = await finding(one, "leader")
    assert (found.found.level, "host:1 led until" in found.found.what) == (Level.ERROR, True)
    assert (await finding(one, "orders")).found.what.startswith("1 wait, the oldest 6")
    execute(database_url, f"UPDATE operator_orders SET done_at = now(), outcome = 'in force' WHERE id = {number}")
    paused = (await finding(one, "pause")).found
    assert (paused.level, paused.remedy) == (Level.WARNING, "proposer resume")
    execute(
        database_url,
        "INSERT INTO proof_requests (kind, start_block, end_block, status, attempt, range_vkey, agg_vkey, config_hash, "
        "failure_text) VALUES ('RANGE', 1000, 1050, 'PARKED', 6, '', '', '', '5 attempts failed')",
    )
    parked = (await finding(one, "parked")).found
    assert (parked.level, "range 1000→1050 (request 1, attempt 6): 5 attempts failed" in parked.what) == (
        Level.ERROR,
        True,
    )


async def test_one_node_of_several_that_is_away_is_a_warning_and_none_left_an_error(
    devnet: Devnet, bench: OpenBench
) -> None:
    """The address is named without its key."""
    away = f"http://127.0.0.1:{free_port()}/secret-api-key"
    one = (await finding(await bench(L1_RPC=f"{devnet.l1_rpc},{away}"), "l1_nodes")).found
    assert one.level is Level.WARNING
    assert "secret-api-key" not in one.what
    assert (await finding(await bench(L2_NODE_RPC=f"{away},{away}"), "l2_nodes")).found.level is Level.ERROR


@pytest.mark.parametrize(
    ("break_it", "name", "level"),
    [
        ("removeProposer", "account_is_approved", Level.ERROR),
        ("enableOptimisticMode", "contract_takes_proofs", Level.WARNING),
        ("updateRollupConfigHash", "prover_server", Level.ERROR),
    ],
)
async def test_what_the_contract_refuses_is_found(
    devnet: Devnet, bench: OpenBench, break_it: str, name: str, level: Level
) -> None:
    values = {"removeProposer": devnet.proposer_address, "enableOptimisticMode": 100}
    await devnet.owner_call(break_it, values.get(break_it, devnet.foreign_hash()), mine=True)
    found = (await finding(await bench(), name)).found
    assert found.level is level
    assert found.remedy


async def test_the_outside_away_is_found_check_by_check(devnet: Devnet, bench: OpenBench) -> None:
    one = await bench()
    devnet.op_node.faults.starting = True
    await devnet.l1.call("anvil_setBalance", devnet.proposer_address, hex(10**15))
    await devnet.prover.stop()
    found = await levels(one)
    assert {name: level for name, level in found.items() if level is not Level.OK} == {
        "settings-lead-somewhere": Level.ERROR,
        "balance": Level.WARNING,
        "l2-node-is-synced": Level.WARNING,
        "prover-server": Level.WARNING,
        "prefect-server": Level.WARNING,
        "deployments": Level.WARNING,
        "alerts": Level.WARNING,
    }


async def test_a_ledger_that_cannot_be_opened_is_the_error_and_the_rest_says_that_it_was_not_checked(
    devnet: Devnet, tmp_path: Path
) -> None:
    environment = read_environment(devnet.env() | {"PROPOSER_HOME": str(tmp_path)})
    found = await levels(Bench(environment, None, "the embedded PostgreSQL does not run"))
    assert found["ledger-database"] is Level.ERROR
    assert found["leader"] is Level.WARNING
    assert found["settings-lead-somewhere"] is found["l1-nodes"] is Level.OK


async def test_a_prefect_server_that_is_something_else_is_said(devnet: Devnet, bench: OpenBench) -> None:
    """The op-node stands in for a wrong address."""
    one = await bench(PREFECT_API_URL=f"{devnet.node_rpc}/api")
    found = (await examine(one, check_prefect_server)).found
    assert (found.level, "PREFECT_API_URL" in found.remedy) == (Level.WARNING, True)


def test_room_on_the_disk(tmp_path: Path) -> None:
    found = [room(tmp_path, free).level for free in (10 * 2**30, 2**30, 100 * 2**20)]
    assert found == [Level.OK, Level.WARNING, Level.ERROR]


async def test_a_ledger_is_opened_only_where_it_is_one(empty_database_url: str, database_url: str) -> None:
    """An empty database, one of another version, none at all, and an embedded one that does not run."""
    with pytest.raises(FixConfiguration, match="holds no ledger yet"):
        async with open_ledger({"DATABASE_URL": empty_database_url}):
            pass
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0000'")
    with pytest.raises(FixConfiguration, match="schema is 0000, and this version works on"):
        async with open_ledger({"DATABASE_URL": database_url}):
            pass


async def test_an_embedded_ledger_is_found_by_its_file(database_url: str, tmp_path: Path) -> None:
    home = {"PROPOSER_HOME": str(tmp_path)}
    with pytest.raises(FixConfiguration, match="does not exist; set DATABASE_URL or PROPOSER_HOME"):
        async with open_ledger(home):
            pass
    (tmp_path / "ledger.url").write_text(database_url + "\n")
    async with open_ledger(home) as ledger:
        assert await ledger.orders_to_do() == []
    (tmp_path / "ledger.url").write_text(f"postgresql://127.0.0.1:{free_port()}/postgres")
    with pytest.raises(FixConfiguration, match="it runs while proposer up does, so start that"):
        async with open_ledger(home):
            pass


async def test_another_contracts_ledger_is_refused(devnet: Devnet, ledger: Ledger, database_url: str) -> None:
    await ledger.claim_identity(LedgerIdentity(31337, 901, "0x" + "22" * 20))
    values = devnet.env() | {"DATABASE_URL": database_url}
    with pytest.raises(WrongLedger, match="belongs to contract 0x2222"):
        async with open_desk(read_environment(values), values):
            pass
