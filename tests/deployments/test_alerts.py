"""Alerts on a real Prefect server, with a real receiver of webhooks: each message arrives with its text, and once."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from apprise.plugins.slack import NotifySlack
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_HOME, temporary_settings
from pydantic import SecretStr

from blocks.l1 import L1Chain
from blocks.ledger import Ledger
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from deployments.automations import apply_automations, automation_name, rules
from deployments.checks.bench import Bench, Level, examine
from deployments.checks.prefect import check_alerts
from deployments.environment import Environment, read_environment
from deployments.prefect_server import PrefectServer
from flows import alerts as alerting
from flows.alerts import Alerts, resource_id
from flows.context import Proposer
from flows.mirror import PREFECT_AWAY
from infra.devnet.loopback import free_port
from proposer import alerts
from proposer.alerts import ALERT, ALIVE, CONDITIONS, DUE, INCIDENTS, ORDER
from proposer.intents import Move, Plan
from proposer.orders import OrderKind
from proposer.ranges import BlockRange
from proposer.reasons import SEVERITY, Code, Reason, Severity
from proposer.requests import Failure, Kind, NewRequest, Status
from proposer.snapshot import Outside
from tests.deployments.helpers import eventually
from tests.proposer.samples import OURS, node, oracle

SECRET = "T0KEN-of-the-webhook"
SLACK = "https://hooks.slack.com/services/T1A1A1A1A/B1B1B1B1B/c1c1c1c1c1c1c1c1c1c1c1c1"
CONDITIONS_OF_CYCLES = sorted(CONDITIONS - {Code.REQUEST_PARKED})
OTHERS_SECONDS = 30
"""Both deadlines of a proposer that is well: on a busy machine Prefect takes events ten seconds late."""
QUICK = {"ALERT_SILENT_AFTER": "10", "ALERT_NO_SETTLEMENT_AFTER": "10", "ALERT_OUTAGE_AFTER": "0"}


@dataclass
class Receiver:
    """What was posted, by path."""

    port: int
    posted: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    def url(self, path: str) -> str:
        """An address that holds secrets in its path and after it."""
        return f"http://127.0.0.1:{self.port}/{path}/{SECRET}?token={SECRET}&x=1"

    def of(self, proposer: str) -> Counter[str]:
        """How many messages of each rule a proposer has sent."""
        return Counter(rule for whose, rule, _ in self.messages() if whose == proposer)

    def messages(self) -> list[tuple[str, str, str]]:
        """The proposer, the rule and the text of each message."""
        titles = [(body["title"].split("] ")[-1].split(": "), body["message"]) for _, body in self.posted]
        return [(proposer, rule, text) for (proposer, rule), text in titles]

    def texts(self, proposer: str, rule: str) -> list[str]:
        """The texts of the messages of a rule."""
        return [text for *whose, text in self.messages() if whose == [proposer, rule]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Receive webhooks on loopback."""
    found: Receiver

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.posted.append((self.path, body))
            self.send_response(200 if "refused" not in self.path else 403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the module's one Prefect server."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def prefect_url(prefect_home: Path) -> Iterator[str]:
    """The server that `proposer up` starts, as it starts it."""
    server = PrefectServer(prefect_home, free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(prefect_home / "prefect"))
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        server.start()
    log = prefect_home / "prefect" / "server.log"
    assert asyncio.run(server.healthy(asyncio.Event(), seconds=120)), log.read_text(encoding="utf-8")[-2000:]
    yield server.api_url
    asyncio.run(server.stop())


@pytest_asyncio.fixture
async def client(prefect_url: str, tmp_path: Path) -> AsyncIterator[PrefectClient]:
    """A client of that server."""
    with temporary_settings({PREFECT_API_URL: prefect_url, PREFECT_HOME: str(tmp_path)}):
        async with get_client() as opened:
            yield opened


def environment(name: str, tmp_path: Path, **values: str) -> Environment:
    """Read the environment of a proposer of this name."""
    good = {
        "L1_RPC": "http://l1.example.com",
        "L2_NODE_RPC": "http://node.example.com",
        "L2OO_ADDRESS": "0x" + "11" * 20,
        "PRIVATE_KEY": "11" * 32,
        "PROPOSER_HOME": str(tmp_path),
    }
    return replace(read_environment(good | QUICK | values), name=name)


def proposer_of(env: Environment, ledger: Ledger, epoch: int) -> Proposer:
    """A proposer of whose parts alerts only use the ledger and the record of its cycles; nothing else is asked."""
    return Proposer(
        name=env.name,
        settings=env.settings,
        ledger=ledger,
        ledger_id="tests",
        l1=L1Chain(urls=env.l1_rpc),
        oracle=L2OutputOracle(address=env.oracle_address),
        node=OpNode(urls=env.node_rpc),
        server=SuccinctServer(url=env.server_url, mock=False),
        signer=None,
        epoch=epoch,
        still_leads=lambda: True,
    )


def cycle(proposer: Proposer, *reasons: Reason, head: int = 1000, failed_in_a_row: int = 0) -> None:
    """Leave the record that a cycle leaves."""
    record = proposer.record
    proposer.last_cycle_at = time.monotonic()
    record.ended_at, record.reasons, record.failed_in_a_row = time.time(), reasons, failed_in_a_row
    record.outside = Outside(oracle=oracle(head, submission_interval=60), node=node(2000), server=None, errors={})


def reason(code: Code) -> Reason:
    return Reason(code, f'What {code.value} says, "quoted" {{{{ and }}}} braced.', f"Remedy of {code.value}.")


async def park(ledger: Ledger, epoch: int, start: int, failure: Failure = Failure.UNFULFILLABLE) -> int:
    """Park a new request; return its number."""
    async with ledger.write(epoch) as writer:
        new = NewRequest(kind=Kind.RANGE, range=BlockRange(start, start + 10), attempt=1, commitments=OURS)
        await writer.apply(Plan(inserts=(new,)))
    number = max(request.id for request in (await ledger.view(0)).requests)
    async with ledger.write(epoch) as writer:
        assert await writer.move(Move(number, Status.UNREQ, Status.PARKED, "the network gave up", failure))
    return number


async def events_of(client: PrefectClient, name: str, prefix: str) -> list[dict[str, Any]]:
    """The events of a proposer that Prefect has written down."""
    wanted = {"resource": {"id": [resource_id(name)]}, "event": {"prefix": [prefix]}}
    found = (await client.request("POST", "/events/filter", json={"filter": wanted})).json()["events"]
    return list(found)


async def own_automations(client: PrefectClient, name: str) -> dict[str, Automation]:
    """The automations of a proposer by name; each is there once."""
    own = [a for a in await client.read_automations() if a.name.startswith(automation_name(name, ""))]
    assert len({a.name for a in own}) == len(own)
    return {a.name.removeprefix(automation_name(name, "")): a for a in own}


@asynccontextmanager
async def telling(teller: Alerts, client: PrefectClient) -> AsyncIterator[None]:
    """Have somebody tell beside what is tried, every half second."""

    async def go_on() -> None:
        while True:
            await teller.round(client)
            await asyncio.sleep(0.5)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), task.exception()


async def test_every_rule_reaches_the_webhook_with_its_text_and_once(
    client: PrefectClient,
    receiver: Receiver,
    ledger: Ledger,
    epoch: int,
    prefect_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever repeats: the cycle, `apply`, a process that takes over. A proposer that is well is left out."""
    monkeypatch.setattr(alerts, "BRIEFLY_SECONDS", 0.0)
    monkeypatch.setattr(alerts, "PAUSED_SECONDS", 0.0)
    hook, refused = receiver.url("hook"), receiver.url("refused")
    env = environment("proposer", tmp_path, ALERT_WEBHOOK=hook)
    late = dict.fromkeys(("ALERT_SILENT_AFTER", "ALERT_NO_SETTLEMENT_AFTER"), str(OTHERS_SECONDS))
    other_env = environment("other", tmp_path, ALERT_WEBHOOK=refused, **late)
    for each in (env, other_env):
        assert len(await apply_automations(client, each)) == len(rules())
    before = await own_automations(client, "proposer")
    proposer, other = proposer_of(env, ledger, epoch), proposer_of(other_env, ledger, epoch)
    bad = [reason(code) for code in CONDITIONS_OF_CYCLES if code is not Code.CYCLES_FAIL]
    cycle(proposer, *bad, failed_in_a_row=3)
    proposer.record.error = "SubmitAggProofs: the node is away"
    proposer.record.incidents.extend(reason(code) for code in sorted(INCIDENTS))
    first = await park(ledger, epoch, 1000)
    cycle(other)
    teller, others = Alerts(proposer), Alerts(other)
    async with ledger.write(epoch) as writer:
        await writer.mark("required", 1060, rising=False)
    told_at_once = [ALIVE, DUE, *(f"{ALERT}{code}" for code in CONDITIONS | INCIDENTS)]
    assert sorted(await teller.round(client)) == sorted(told_at_once)
    proposer.last_cycle_at = -1e9  # no sign of life from here on
    at_once = Counter(rule.name for rule in rules() if rule.absent is None and rule.name != "over")

    async def worked_off() -> bool:
        return receiver.of("proposer") >= at_once

    # it takes two events at a time, in no order: a queue may turn what is due and its settlement round
    await eventually("Prefect has worked off what was told", worked_off)
    due = time.monotonic()
    await others.round(client)
    await asyncio.sleep(alerting.ROUND_SECONDS)
    cycle(other, head=1060)
    await others.round(client)  # it is settled in time
    async with telling(others, client):
        second = await park(ledger, epoch, 1010)
        await teller.round(client)
        cycle_again = time.time()
        for _ in range(4):
            proposer.record.ended_at = cycle_again = cycle_again + 1
            await teller.round(client)
            await asyncio.sleep(0.3)
        assert len(await apply_automations(client, env)) == len(rules())
        assert await own_automations(client, "proposer") == before, "applied again, nothing has changed"
        expected = Counter({rule.name: 1 for rule in rules() if rule.name != "over"}) + Counter(["request-parked"])

        async def all_there() -> bool:
            await teller.round(client)
            return receiver.of("proposer") >= expected

        await eventually("every message arrives", all_there, every=0.5)
        kept = len(told_at_once) - len([ALIVE, DUE]) + len(["the second request"])

        async def all_kept() -> bool:
            return len(await events_of(client, "proposer", ALERT)) == kept

        await eventually("Prefect has written every event down", all_kept)
        taken_over = Alerts(replace(proposer, record=proposer.record))
        assert await taken_over.round(client) == [], "what was told is read back from Prefect"
        await asyncio.sleep(2)
        assert receiver.of("proposer") == expected
        for told in (*bad, *(reason(code) for code in INCIDENTS)):
            assert receiver.texts("proposer", told.code.value) == [f"{told.sentence} {told.remedy}"]
        assert f"Request {first} " in receiver.texts("proposer", "request-parked")[0]
        assert f"proposer retry {second}." in receiver.texts("proposer", "request-parked")[1]
        assert "3 cycles have failed in a row" in receiver.texts("proposer", "cycles-fail")[0]
        assert f"led under epoch {epoch}" in receiver.texts("proposer", "silent")[0]
        assert "The output at block 1060 is due since" in receiver.texts("proposer", "no-settlement")[0]
        # all is well again
        proposer.record.error = ""
        cycle(proposer)
        async with ledger.connect() as connection, connection.begin():
            await connection.exec_driver_sql("UPDATE proof_requests SET status = 'CANCELLED'")
        await taken_over.round(client)
        await taken_over.round(client)

        async def over() -> bool:
            return receiver.of("proposer")["over"] >= len(CONDITIONS)

        await eventually("what is over is told", over)
        # until a deadline that was not met would have been heard of: Prefect looks every five seconds
        await asyncio.sleep(max(0.0, due + OTHERS_SECONDS + 8 - time.monotonic()))
    assert receiver.of("proposer") == expected + Counter({"over": len(CONDITIONS)})
    assert "low-balance is over: it no longer holds." in receiver.texts("proposer", "over")
    assert set(receiver.of("other")) <= {"request-parked", "over"}, "it was heard of, and settled in time"
    assert {path for path, _ in receiver.posted} == {f"/{p}/{SECRET}?token={SECRET}&x=1" for p in ("hook", "refused")}
    assert SECRET not in (prefect_home / "prefect" / "server.log").read_text(encoding="utf-8")


async def test_applying_changes_what_differs_and_takes_away_what_is_no_rule(
    client: PrefectClient, receiver: Receiver, tmp_path: Path
) -> None:
    """Ids stay, a copy and a rule of before go, what a person has disabled stays so, another's are left alone."""
    hooks = {"ALERT_WEBHOOK": receiver.url("hook"), "ALERT_SLACK_WEBHOOK": SLACK}
    hooked = environment("changing", tmp_path, **hooks)
    await apply_automations(client, hooked)
    first = await own_automations(client, "changing")
    assert set(first) == {rule.name for rule in rules()}
    assert [action.type for action in first["silent"].actions] == ["send-notification"] * 2
    slack = await SlackWebhook.aload("changing-alert-slack-webhook")
    assert isinstance(slack._apprise_client[0], NotifySlack)
    assert slack.url.get_secret_value() == SLACK
    template = first["silent"].model_dump(exclude={"id"})
    for name in ("op-succinct/changing/silent", "op-succinct/changing/old-rule", "op-succinct/changing2/mine"):
        await client.create_automation(AutomationCore.model_validate(template | {"name": name}))
    await client.pause_automation(first["paused"].id)
    await apply_automations(client, environment("changing", tmp_path, ALERT_SILENT_AFTER="77"))
    second = await own_automations(client, "changing")
    assert {name: a.id for name, a in second.items() if name != "silent"} == {
        name: a.id for name, a in first.items() if name != "silent"
    }
    assert second["silent"].trigger.within.total_seconds() == 77  # type: ignore[union-attr]
    assert {a.name: a.enabled for a in second.values() if not a.enabled} == {"op-succinct/changing/paused": False}
    assert {action.type for a in second.values() for action in a.actions} == {"do-nothing"}, "no webhook is left"
    assert len(await own_automations(client, "changing2")) == 1
    with pytest.raises(ValueError, match="Unable to find block document"):
        await SlackWebhook.aload("changing-alert-webhook")


async def test_the_doctor_sees_whether_anybody_is_told(
    client: PrefectClient, receiver: Receiver, prefect_url: str, tmp_path: Path
) -> None:
    """Not applied, one missing, one disabled, a webhook that they do not know, and all well."""
    plain = environment("examined", tmp_path, PREFECT_API_URL=prefect_url)
    hooked = replace(plain, webhooks={"ALERT_WEBHOOK": SecretStr(receiver.url("hook"))})

    async def found(env: Environment) -> tuple[Level, str]:
        looked = (await examine(Bench(env, None), check_alerts)).found
        return looked.level, looked.what

    everyone = ", ".join(rule.name for rule in rules())
    assert await found(plain) == (Level.WARNING, f"{len(rules())} of {len(rules())} are not there: {everyone}")
    await apply_automations(client, plain)
    level, what = await found(plain)
    assert (level, "event feed of Prefect's UI only" in what) == (Level.OK, True)
    level, what = await found(hooked)
    assert (level, "not sent to the webhook that is set" in what) == (Level.WARNING, True)
    await apply_automations(client, hooked)
    assert await found(hooked) == (Level.OK, f"{len(rules())} automations, each sent to a webhook")
    own = await own_automations(client, "examined")
    await client.pause_automation(own["paused"].id)
    assert await found(hooked) == (Level.WARNING, f"1 of {len(rules())} are disabled in Prefect: paused")
    await client.delete_automation(own["silent"].id)
    assert await found(hooked) == (Level.WARNING, f"1 of {len(rules())} are not there: silent")


async def test_an_order_is_an_event_with_who_and_why(
    client: PrefectClient, ledger: Ledger, epoch: int, tmp_path: Path
) -> None:
    """Once, also after a takeover; a request parked by an operator wakes nobody."""
    proposer = proposer_of(environment("ordered", tmp_path), ledger, epoch)
    cycle(proposer)
    await park(ledger, epoch, 1000, Failure.CANCELLED_BY_OPERATOR)
    number = await ledger.give_order(OrderKind.PAUSE, None, "alice@desk", "contract upgrade")
    async with ledger.write(epoch) as writer:
        await writer.order_done(number, "in force")
    assert await Alerts(proposer).round(client) == [ALIVE, f"{ORDER}pause"]
    (event,) = await eventually("the event is kept", lambda: events_of(client, "ordered", ORDER))
    assert event["event"] == "op-succinct.order.pause"
    told = {name: event["payload"][name] for name in ("who", "why", "kind", "outcome")}
    assert told == {"who": "alice@desk", "why": "contract upgrade", "kind": "pause", "outcome": "in force"}
    assert await Alerts(proposer).round(client) == [ALIVE]


async def test_after_an_outage_of_prefect_only_what_still_holds_is_told(
    client: PrefectClient, prefect_url: str, ledger: Ledger, epoch: int, tmp_path: Path
) -> None:
    """While it is away nothing waits for it; what came and went meanwhile is not told."""
    proposer = proposer_of(environment("patient", tmp_path), ledger, epoch)
    teller = Alerts(proposer)
    cycle(proposer, reason(Code.LOW_BALANCE))
    away = {PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(away):
        async with get_client() as nobody:
            for reasons in ([Code.LOW_BALANCE], [], [Code.FEE_CAP], [Code.FEE_CAP, Code.CONFIG_MISMATCH]):
                cycle(proposer, *(reason(code) for code in reasons))
                started = time.monotonic()
                with pytest.raises(PREFECT_AWAY):
                    await teller.round(nobody)
                assert time.monotonic() - started < 10
            for _ in range(100):
                proposer.record.incidents.append(reason(Code.L1_REORG))
            running = asyncio.create_task(teller.run(nobody))
            await asyncio.sleep(0.5)
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    once = [ALIVE, *(f"{ALERT}{name}" for name in ("config-mismatch", "fee-cap", "l1-reorg"))]
    assert sorted(await teller.round(client)) == sorted(once)
    assert await teller.round(client) == []


def test_every_rule_is_of_a_reason_or_has_words_of_its_own() -> None:
    """Each condition and incident has its rule with its severity; a proactive one says what it waits for."""
    spoken = {rule.name: rule for rule in rules() if rule.event is None and rule.absent is None}
    assert {name: rule.severity for name, rule in spoken.items()} == {
        code.value: SEVERITY[code] for code in CONDITIONS | INCIDENTS
    }
    silent = {rule.name: rule for rule in rules() if rule.name not in spoken}
    assert set(silent) == {"silent", "no-settlement", "over"}
    assert all(bool(rule.absent) == bool(rule.after) == bool(rule.within) for rule in rules())
    assert all(rule.severity is Severity.CRITICAL for rule in silent.values() if rule.absent)
