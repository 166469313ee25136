"""The operator's desk beside a real `proposer up`: one of it for all that the commands show and order."""

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.devnet import Devnet, Fault, FaultPlan
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import ROOT, Ledger, Prefect, Up, eventually, free_port, settled
from tests.devnets import StartDevnet

A_CYCLE = timedelta(seconds=5)
"""Of the proposers here: POLL_INTERVAL is 3 s."""
ORDERS = ["pause", "retry", "cancel", "cancel", "retry", "resume"]


async def desk(one: Up, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the environment of a proposer; no output holds a secret, and none is a traceback."""

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "deployments.cli", *arguments],
            cwd=ROOT,
            env=one.environment | {"LOG_LEVEL": "WARNING"} | changes,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = await asyncio.to_thread(run)
    assert "Traceback" not in done.stderr, done.stderr
    for name in ("PRIVATE_KEY", "DATABASE_URL"):
        assert one.environment.get(name, "not set").removeprefix("0x") not in done.stdout + done.stderr
    return done


async def shown(one: Up, *arguments: str, status: int = 0) -> dict[str, Any]:
    """Run a command with --json; it ends with this status."""
    done = await desk(one, *arguments, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_the_commands_show_and_order_beside_a_running_proposer(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """Status, explain and doctor agree with the chain; each order is carried out within a cycle, with who and why."""
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unfulfillable", block=1010, first=1),)))
    one = up(devnet, MAX_ATTEMPTS="1")
    (parked,) = await rows.having("status = 'PARKED'", alive=one)
    number = str(parked["id"])

    before = _what_is_asked_and_sent(devnet, rows)
    status = await shown(one, "status")
    assert (status["heads"]["contract"], status["heads"]["finalized"]) == (1000, 1100)
    assert status["lag"] == {"blocks": 100, "minutes": pytest.approx(100 * 2 / 60, abs=0.1)}
    assert status["leader"]["epoch"] == 1
    assert status["requests"]["parked"]["count"] == 1
    assert status["next_output"]["block"] == 1100
    assert status["reasons"][0]["code"] == "request-parked"
    table = await desk(one, "status")
    assert table.returncode == 0
    assert all(words in table.stdout for words in ("L2 block 1000", "1 parked", "request-parked"))

    block = await shown(one, "explain", "--block", "1010")
    assert block["cause"]["code"] == "request-parked"
    assert block["cause"]["remedy"].endswith(f"proposer retry {number}.")
    request = await desk(one, "explain", number)
    assert request.returncode == 0
    assert "Cause: request-parked" in request.stdout
    missing = await desk(one, "explain", "404")
    assert (missing.returncode, "no proof request 404" in missing.stderr) == (1, True)

    levels = await _checked(one)
    assert {name for name, level in levels.items() if level == "error"} == {"parked"}, levels
    assert levels["leader"] == "ok"
    assert _what_is_asked_and_sent(devnet, rows) == before, "looking asks and sends nothing"

    await _orders(one, rows, number)
    await _orders_are_events(one, prefect)
    await settled(devnet, 1100, one)
    await rows.having("kind = 'AGG' AND status = 'RELAYED'", alive=one)
    done = await shown(one, "explain", "--block", "1010")
    assert done["cause"]["code"] == "settled"
    assert done["cause"]["facts"]["transaction"].startswith("0x")

    async def well() -> bool:
        return (await desk(one, "doctor")).returncode == 0

    await eventually("the doctor finds nothing", well, alive=one)
    await devnet.op_node.stop()
    assert (await shown(one, "explain"))["cause"]["code"] == "node-down"
    assert (await desk(one, "doctor")).returncode == 2


async def _checked(one: Up) -> dict[str, str]:
    """Return the level of each of the doctor's checks, once Prefect's server has answered him in his time."""

    async def look() -> dict[str, str]:
        checked = await shown(one, "doctor", status=2)
        levels = {check["check"]: check["level"] for check in checked["checks"]}
        return levels if levels["prefect-server"] == levels["deployments"] == "ok" else {}

    return await eventually("Prefect's server answers the doctor", look)


async def _orders_are_events(one: Up, prefect: Prefect) -> None:
    """Each order carried out is an event with who and why, and once; the parked request was an alert, and is over."""
    about = {"resource": {"id": ["op-succinct.proposer.proposer"]}}

    async def events(prefix: str) -> list[dict[str, Any]]:
        found = await prefect.post("/events/filter", {"filter": {**about, "event": {"prefix": [prefix]}}})
        return list(found["events"])

    async def all_told() -> bool:
        told = [len(await events(f"op-succinct.{kind}")) for kind in ("order.", "alert.request-parked", "alive")]
        return told[0] >= len(ORDERS) and all(told)

    await eventually("the orders, the alert and a sign of life are events", all_told, alive=one)
    orders = await events("op-succinct.order.")
    assert sorted(event["payload"]["kind"] for event in orders) == sorted(ORDERS)
    said = {event["payload"]["kind"]: event["payload"]["why"] for event in orders}
    assert said["pause"] == "the server is upgraded"
    assert said["cancel"] == "not yet"
    assert all("@" in event["payload"]["who"] for event in orders)
    assert len(await events("op-succinct.alert.request-parked")) == 1


async def _orders(one: Up, rows: Ledger, number: str) -> None:
    paused = await desk(one, "pause", "--why", "the server is upgraded")
    assert (paused.returncode, "in force" in paused.stdout) == (0, True), paused.stdout + paused.stderr
    assert (await shown(one, "status"))["paused"]["why"] == "the server is upgraded"
    assert (await shown(one, "explain"))["cause"]["code"] == "paused"
    assert (await desk(one, "doctor")).returncode == 2
    retried = await desk(one, "retry", number, "--why", "the server is new")
    assert "done" in retried.stdout
    again = await desk(one, "cancel", number, "--why", "not yet")
    assert (again.returncode, "done" in again.stdout) == (0, True), "a pause holds back the request meanwhile"
    twice = await desk(one, "cancel", number, "--why", "not yet")
    assert "nothing to cancel: it is PARKED" in twice.stdout
    assert (await desk(one, "cancel", number)).returncode == 2, "a reason is asked for"
    assert (await desk(one, "retry", "404")).returncode == 1
    assert "done" in (await desk(one, "retry", number)).stdout
    resumed = await desk(one, "resume")
    assert (resumed.returncode, "in force" in resumed.stdout) == (0, True)
    events = [row["why"] for row in rows.query("SELECT why FROM request_events WHERE request_id = %s", int(number))]
    for order, why in (("retry", "the server is new"), ("cancel", "not yet"), ("retry", "no reason given")):
        assert any(e.startswith(f"{order} ordered by ") and "@" in e and e.endswith(f": {why}") for e in events), events
    orders = rows.query("SELECT * FROM operator_orders ORDER BY id")
    assert [order["kind"] for order in orders] == ORDERS
    assert all(order["done_at"] - order["at"] < A_CYCLE and "@" in order["who"] for order in orders)


def _what_is_asked_and_sent(devnet: Devnet, rows: Ledger) -> list[Any]:
    asked = [event for event in devnet.prover.log.events if event["event"] in {"post", "paid"}]
    return [len(asked), rows.query("SELECT * FROM l1_signed"), rows.query("SELECT * FROM operator_orders")]


async def test_without_a_proposer_the_desk_says_so_and_orders_wait(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger, tmp_path: Path
) -> None:
    """Nobody leads: the cause is that; an order is written down and carried out when a leader is there."""
    devnet = await start_devnet()
    one = up(devnet)
    await rows.having("status = 'PROVING' OR status = 'COMPLETE'", alive=one)
    assert await one.terminate() == 0
    assert (await shown(one, "status"))["leader"] is None
    explained = await shown(one, "explain")
    assert (explained["cause"]["code"], explained["cause"]["severity"]) == ("no-leader", "critical")
    levels = await _checked(one)
    assert [name for name, level in levels.items() if level == "error"] == ["leader"]
    ordered = await desk(one, "pause", "--why", "night")
    assert (ordered.returncode, "No proposer process leads now" in ordered.stdout) == (0, True)
    assert [order["kind"] for order in (await shown(one, "status"))["orders"]] == ["pause"]
    one.start()

    async def in_force() -> bool:
        return bool(rows.query("SELECT id FROM operator_orders WHERE done_at IS NOT NULL"))

    await eventually("the pause is in force", in_force, alive=one)
    assert (await shown(one, "explain"))["cause"]["code"] == "paused"

    away = {"DATABASE_URL": f"postgresql://me:db-pass-word@127.0.0.1:{free_port()}/ledger"}
    for arguments in (("status",), ("explain",), ("pause", "--why", "x")):
        refused = await desk(one, *arguments, **away)
        assert refused.returncode == 2
        assert "the ledger's database cannot be reached" in refused.stderr
        assert "db-pass-word" not in refused.stdout + refused.stderr
    embedded = await desk(one, "status", DATABASE_URL="", PROPOSER_HOME=str(tmp_path / "nothing"))
    assert (embedded.returncode, "start it: proposer up" in embedded.stderr) == (2, True)
