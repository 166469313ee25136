"""The main story: outputs are settled over real flow runs, and Prefect shows what became of every proof."""

from infra.devnet import Fault, FaultPlan, ProverTiming
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Ledger, Prefect, Row, eventually, judged, settled
from tests.devnets import StartDevnet

STORY = ["PENDING/Unrequested", "RUNNING/WitnessGen", "RUNNING/Proving", "COMPLETED/Complete"]
FAULTS = FaultPlan(
    rules=(
        Fault(kind="unexecutable", block=1010, longer_than=25),
        Fault(kind="unfulfillable", block=1120, first=1),
    )
)


async def test_outputs_are_settled_and_prefect_tells_the_story(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """A range is halved, one is retried, the server is away once; every run shows it, and the chain is right."""
    timing = ProverTiming(1.0, 1.5, 0.3, 0.5)
    devnet = await start_devnet(l2_initial_finalized=1200, faults=FAULTS, timing=timing)
    one = up(devnet)
    await settled(devnet, 1200, one)
    await devnet.prover.stop()
    devnet.l2.advance_to(1300)
    (waited, *_) = await rows.having("failure_text LIKE 'nothing was asked, no attempt is charged%%'", alive=one)
    await devnet.prover.start()
    await settled(devnet, 1300, one)
    assert rows.requests(f"id = {waited['id']}")[0]["attempt"] == 1

    await rows.at_rest(one)  # an output is seen on the chain before the ledger's history ends
    report = await judged(devnet, rows)
    assert report.outputs_settled in {2, 3}  # the second half may be aggregated before or after the retried range
    assert (report.reverted_transactions, report.unknown_outcomes) == (0, 0)

    await prefect.equal(rows)
    await _every_run_has_its_name_tags_and_log(prefect, rows)
    await _the_failures_are_shown_by_class(prefect, rows)
    await _what_a_cycle_planned_is_its_child(prefect, rows)
    await _scheduled_cycles_ran(prefect)
    for run in await prefect.cycles():
        assert run["state"]["type"] in {"COMPLETED", "RUNNING", "PENDING"}, run["state"]


async def _every_run_has_its_name_tags_and_log(prefect: Prefect, rows: Ledger) -> None:
    for row in rows.requests():
        run = await prefect.run(row["flow_run_id"])
        kind = "range" if row["kind"] == "RANGE" else "aggregation"
        assert run["name"] == f"{kind} {row['start_block']}→{row['end_block']} · attempt {row['attempt']}"
        assert set(run["tags"]) >= {{"RANGE": "range", "AGG": "agg"}[row["kind"]], f"request-{row['id']}"}
        assert run["parameters"] == {"request_id": row["id"]}
        states = await prefect.states(run["id"])
        assert states[0] == STORY[0]
        if row["status"] == "RELAYED" and not row["failure_text"]:
            assert states == STORY, "a request that nothing happened to shows each state once"
        log = await prefect.log(run["id"])
        assert [line.split(":")[0] for line in log] == [
            event["to_status"]
            for event in rows.query("SELECT to_status FROM request_events WHERE request_id = %s ORDER BY id", row["id"])
        ]
        if row["prover_request_id"]:
            assert any(row["prover_request_id"] in line for line in log)


async def _the_failures_are_shown_by_class(prefect: Prefect, rows: Ledger) -> None:
    halved, retried = rows.requests("status = 'FAILED'")
    assert (halved["failure"], halved["start_block"], halved["end_block"]) == ("Unexecutable", 1000, 1050)
    assert (retried["failure"], retried["start_block"], retried["end_block"]) == ("Unfulfillable", 1100, 1150)
    for row in (halved, retried):
        states = await prefect.states(row["flow_run_id"])
        assert states[-1] == f"FAILED/{row['failure']}"
        assert "COMPLETED/Complete" not in states
    halves = rows.requests(f"parent_id = {halved['id']}")
    assert [(half["start_block"], half["end_block"]) for half in halves] == [(1000, 1025), (1025, 1050)]
    (again,) = rows.requests(f"parent_id = {retried['id']}")
    assert (again["attempt"], again["status"]) == (2, "RELAYED")
    assert (await prefect.run(again["flow_run_id"]))["name"] == "range 1100→1150 · attempt 2"


async def _what_a_cycle_planned_is_its_child(prefect: Prefect, rows: Ledger) -> None:
    planned: list[Row] = rows.requests("parent_id IS NULL")
    assert {row["kind"] for row in planned} == {"RANGE", "AGG"}
    recorded = [row for row in planned if row["cycle_run_id"]]  # a cycle that Prefect is too slow for is run without it
    assert recorded
    for row in recorded:
        run = await prefect.run(row["flow_run_id"])
        cycle = await prefect.parent(run)
        flow = await prefect.get(f"/flows/{cycle['flow_id']}")
        assert flow["name"] == "propose-cycle"
        assert cycle["name"].startswith("cycle")


async def _scheduled_cycles_ran(prefect: Prefect) -> None:
    async def look() -> bool:
        runs = await prefect.cycles()
        return any(run["auto_scheduled"] and run["state"]["type"] == "COMPLETED" for run in runs)

    await eventually("a scheduled cycle completed", look)
