"""A ledger is lost with its process, and restored from a backup under a new one."""

from pathlib import Path

import psycopg

from infra.backup.ledger import dump, restore
from infra.devnet import ProverTiming
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Ledger, Prefect, settled
from tests.devnets import StartDevnet


async def test_a_process_goes_on_from_a_restored_ledger(
    start_devnet: StartDevnet,
    up: StartUp,
    rows: Ledger,
    empty_database_url: str,
    database_url: str,
    tmp_path: Path,
    prefect: Prefect,
) -> None:
    """Backed up at work, killed, restored: paused it collects by id, resumed it settles; nothing is asked twice."""
    devnet = await start_devnet(timing=ProverTiming(0.2, 15.0, 0.2, 0.4))
    lost = up(devnet)
    await rows.having("status = 'PROVING'", at_least=2, alive=lost)
    dump(database_url, tmp_path / "ledger.dump")
    lost.kill()
    restore(empty_database_url, tmp_path / "ledger.dump")
    restored = Ledger(empty_database_url)
    found = up(devnet, "restored", DATABASE_URL=empty_database_url)
    proven = await restored.having("status = 'COMPLETE'", at_least=2, alive=found)
    assert [row["prover_request_id"] for row in proven] == [row["prover_request_id"] for row in rows.requests()]
    assert restored.requests("kind = 'AGG' AND status <> 'UNREQ'") == []
    assert restored.query("SELECT * FROM l1_transactions") == []
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("INSERT INTO operator_orders (kind, who, why) VALUES ('resume', 'test', 'nothing was lost')")
    await settled(devnet, 1100, found)
    assert [event["kind"] for event in devnet.prover.log.of("post")] == ["range", "range", "aggregation"]
    await prefect.equal(restored)
    assert await found.terminate() == 0
