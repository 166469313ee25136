"""Prefect's server is away: settlement goes on, and its history is completed afterwards."""

from infra.devnet import Fault, FaultPlan
from tests.acceptance.conftest import SessionServer, StartUp
from tests.acceptance.helpers import Ledger, Prefect, settled
from tests.devnets import StartDevnet


async def test_settlement_goes_on_and_history_catches_up(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, prefect_server: SessionServer, rows: Ledger
) -> None:
    """Outputs are settled while the server is away; when it is back every run shows the truth, failures too."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unfulfillable", block=1120, first=1),)))
    one = up(devnet)
    await settled(devnet, 1100, one)
    prefect_server.stop()
    devnet.l2.advance_to(1200)
    await settled(devnet, 1200, one)
    assert one.returncode is None
    prefect_server.start()
    await prefect.equal(rows, seconds=40)
    (failed,) = rows.requests("status = 'FAILED'")
    assert (await prefect.run(failed["flow_run_id"]))["state"]["name"] == "Unfulfillable"
    for row in rows.requests():
        log = await prefect.log(row["flow_run_id"])
        events = rows.query("SELECT why FROM request_events WHERE request_id = %s", row["id"])
        assert len(log) == len(events), "no line is missing and none is told twice"
    runs = [tag for run in await prefect.runs("prove") for tag in run["tags"] if tag.startswith("request-")]
    assert sorted(runs) == sorted({*runs}), "one run for each request"
    seen = len(await prefect.cycles())
    devnet.l2.advance_to(1300)
    await settled(devnet, 1300, one)
    await prefect.equal(rows)
    assert len(await prefect.cycles()) > seen, "cycles are recorded again"
