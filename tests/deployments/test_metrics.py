"""Metrics and health over HTTP: from a real ledger and devnet, and while each of them is away."""

import asyncio
import math
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from blocks.ledger import Ledger, LedgerIdentity, running
from deployments.claim import Claim
from deployments.environment import Listen
from deployments.metrics import Sources, health, server, serving
from deployments.metrics.catalogue import CATALOGUE, GO, OURS, RUST
from deployments.metrics.families import VERSION
from flows.context import Proposer
from flows.cycle import call, run_stages
from flows.stages import observe, proving
from infra.devnet import Devnet, Fault, FaultPlan
from infra.devnet.loopback import free_port
from proposer.errors import InvalidSettings
from proposer.intents import Plan
from proposer.orders import OrderKind
from proposer.ranges import BlockRange
from proposer.reasons import Code
from proposer.requests import Commitments, Kind, NewRequest, Status
from proposer.settings import ProposerSettings
from tests.deployments.helpers import ROOT, blocks_of, eventually, execute
from tests.devnets import StartDevnet
from tests.postgres import Postgres

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
SETTINGS = ProposerSettings(
    max_block_range=50, num_confirmations=1, retry_delay=0.1, witness_gen_timeout=5, look_interval=0.1
)
READY_SECONDS = 600
"""For how long a leader is ready without a cycle that succeeds."""
HALVED = FaultPlan(rules=(Fault(kind="unexecutable", block=1010, longer_than=25),))


@dataclass
class Served:
    """A proposer whose metrics and health are served."""

    proposer: Proposer
    claim: Claim
    url: str
    http: httpx.AsyncClient

    async def scrape(self) -> Samples:
        """Read the metrics; the answer is 200 whatever is away."""
        answer = await self.http.get(f"{self.url}/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        return _parsed(answer.text)

    async def ready(self) -> tuple[int, str]:
        """Ask whether it does its work."""
        answer = await self.http.get(f"{self.url}/readyz")
        return answer.status_code, answer.text.strip()

    async def cycle(self) -> None:
        """Run a cycle, and the looks between two."""
        await run_stages(self.proposer, call, observe.plainly)
        await asyncio.gather(*self.proposer.witnesses.values())
        await proving.look(self.proposer)
        await asyncio.gather(*self.proposer.rounds)

    async def settle(self, devnet: Devnet, block: int) -> None:
        """Run cycles until the block is settled and nothing is left to do."""

        async def settled() -> bool:
            await self.cycle()
            rows = (await self.proposer.ledger.view(0)).requests
            relayed = bool(rows) and all(row.status is Status.RELAYED for row in rows)
            return relayed and await devnet.latest_block_number() >= block

        await eventually(f"block {block} is settled", settled)


def _parsed(text: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"{OURS}_{name}", frozenset(labels.items())]


def _unread(samples: Samples) -> set[str]:
    """The metrics of ours of which nothing is known."""
    names = {name for name, _ in samples if name.startswith(f"{OURS}_")}
    known = {name for (name, _), value in samples.items() if not math.isnan(value)}
    return {name.removeprefix(f"{OURS}_") for name in names - known if not name.startswith((GO, RUST))}


Serve = Callable[..., Awaitable[Served]]


@pytest_asyncio.fixture
async def serve(ledger: Ledger, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """A function that serves the metrics of a devnet's proposer, leading or not, without a Prefect server."""
    monkeypatch.setattr(server, "CACHE_SECONDS", 0.0)
    async with AsyncExitStack() as stack:

        async def start(devnet: Devnet, *, leads: bool = True, own: Ledger = ledger) -> Served:
            blocks = await stack.enter_async_context(blocks_of(devnet, 2))
            claim = Claim(own)
            if leads:
                await claim.take()
                claim._valid_until = math.inf  # nobody renews it here
                execute(database_url, "UPDATE leadership SET expires_at = now() + interval '1 hour'")
            proposer = Proposer(
                name="proposer",
                settings=SETTINGS,
                ledger=own,
                ledger_id="tests",
                **vars(blocks),
                epoch=claim.epoch,
                still_leads=lambda: leads,
            )
            identity = LedgerIdentity(31337, 901, devnet.oracle_address.lower())
            sources = Sources(proposer, claim, identity, f"http://127.0.0.1:{free_port()}/api")
            listen = Listen("127.0.0.1", free_port(), READY_SECONDS)
            await stack.enter_async_context(serving(listen, sources))
            http = await stack.enter_async_context(httpx.AsyncClient(timeout=60, trust_env=False))
            return Served(proposer, claim, f"http://127.0.0.1:{listen.port}", http)

        yield start


@pytest_asyncio.fixture
async def no_ledger(postgres: Postgres) -> AsyncIterator[Ledger]:
    """A ledger whose database is away."""
    ledger = Ledger(postgres.database("no_such_database"))
    yield ledger
    await ledger.close()


async def test_a_settlement_in_numbers(serve: Serve, start_devnet: StartDevnet, database_url: str) -> None:
    """Every metric of the catalogue is there and true, under its own, the Go and the Rust proposer's name."""
    devnet = await start_devnet(faults=HALVED)
    served = await serve(devnet)
    await served.settle(devnet, 1100)
    devnet.l2.advance_to(1130)
    await served.cycle()
    now = await served.scrape()

    exported = {f"{m.name}{suffix}" for m in CATALOGUE.values() for suffix in _suffixes(m.type)}
    assert {name for name, _ in now if not name.startswith("process_")} == exported
    assert _value(now, "contract_block") == _value(now, "proven_block") == 1100
    assert (_value(now, "finalized_block"), _value(now, "next_output_block")) == (1130, 1200)
    assert (_value(now, "lag_blocks"), _value(now, "lag_seconds")) == (30, 60)
    assert [_value(now, "requests", kind="RANGE", status=status) for status in ("UNREQ", "FAILED", "RELAYED")] == [
        0,
        1,
        3,
    ]
    assert _value(now, "requests", kind="AGG", status="RELAYED") == 1
    assert _value(now, "attempts_failed_total", kind="RANGE", failure="Unexecutable") == 1
    assert _value(now, "attempts_repeated_total", kind="RANGE") == 2
    assert [_value(now, f"proofs_{what}_total", kind="RANGE") for what in ("paid", "wasted")] == [4, 1]
    assert [_value(now, f"proofs_{what}_total", kind="AGG") for what in ("paid", "wasted")] == [1, 0]
    assert _value(now, "proving_seconds_count", kind="RANGE") == 3
    assert _value(now, "witness_seconds_count", kind="RANGE") == 4
    assert _value(now, "settlement_seconds_bucket", kind="AGG", le="+Inf") == 1
    assert 0 < _value(now, "settlement_seconds_sum", kind="AGG") < 60
    for purpose in ("checkpoint", "propose"):
        assert _value(now, "l1_transactions_total", purpose=purpose, status="CONFIRMED") == 1
        assert 21_000 < _value(now, "l1_gas_total", purpose=purpose) < 1_000_000
    gas, ether = (sum(_value(now, name, purpose=p) for p in ("checkpoint", "propose")) for name in _GAS)
    assert ether >= 10_000 - _value(now, "balance_ether") > 0
    assert gas * 1e-9 < ether
    assert (_value(now, "nonce"), _value(now, "pending_nonce"), _value(now, "unsettled_transactions")) == (2, 2, 0)
    assert (_value(now, "leading"), _value(now, "leader_present"), _value(now, "leadership_epoch")) == (1, 1, 1)
    assert _value(now, "reason", code="waiting-for-finality", severity="waiting") == 1
    assert _value(now, "reason", code="config-mismatch", severity="critical") == 0
    assert time.time() - _value(now, "cycle_last_success_timestamp_seconds") < 10
    assert time.time() - _value(now, "last_settlement_timestamp_seconds") < 60
    assert _value(now, "cycles_total", result="failed") == 0
    assert [_value(now, "endpoint_up", endpoint=e) for e in ("ledger", "l1", "node", "server", "prefect")] == [
        1,
        1,
        1,
        1,
        0,
    ]

    assert now[f"{GO}_num_proving", frozenset()] == now[f"{RUST}_current_proving_proofs", frozenset()] == 0
    assert now[f"{GO}_latest_contract_l2_block", frozenset()] == 1100
    assert now[f"{RUST}_highest_proven_contiguous_block", frozenset()] == 1100
    assert now[f"{RUST}_execution_error_count", frozenset()] == now[f"{RUST}_total_error_count", frozenset()] == 1
    assert now[f"{GO}_balance", frozenset()] == _value(now, "balance_ether")


_GAS = ("l1_gas_total", "l1_fees_ether_max_total")


def _suffixes(kind: str) -> tuple[str, ...]:
    return ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)


async def test_what_waits_is_counted_with_its_age_and_an_order(
    serve: Serve, start_devnet: StartDevnet, ledger: Ledger, database_url: str
) -> None:
    devnet = await start_devnet(faults=FaultPlan(rules=(Fault(kind="unfulfillable", on="range"),)))
    served = await serve(devnet)
    await run_stages(served.proposer, call, observe.plainly)
    await asyncio.gather(*served.proposer.witnesses.values())
    execute(database_url, "UPDATE proof_requests SET since = since - interval '90 seconds' WHERE start_block = 1000")
    await ledger.give_order(OrderKind.PAUSE, None, "me@here", "an audit")
    now = await served.scrape()
    assert _value(now, "requests", kind="RANGE", status="PROVING") == 2
    assert 90 <= _value(now, "oldest_request_seconds", kind="RANGE", status="PROVING") < 120
    assert (_value(now, "orders_waiting"), _value(now, "paused")) == (1, 0)
    execute(database_url, "UPDATE operator_orders SET done_at = now(), outcome = 'in force'")
    now = await served.scrape()
    assert (_value(now, "orders_waiting"), _value(now, "paused")) == (0, 1)


async def test_a_standby_and_a_restarted_process_tell_the_same(serve: Serve, start_devnet: StartDevnet) -> None:
    """All that is the ledger's or the chain's; what only a leader knows is unknown to it."""
    devnet = await start_devnet(faults=HALVED)
    leader = await serve(devnet)
    await leader.settle(devnet, 1100)
    standby = await serve(devnet, leads=False)
    assert await standby.ready() == (200, "standing by")
    ours, theirs = await leader.scrape(), await standby.scrape()
    assert (_value(theirs, "leading"), _value(theirs, "leader_present")) == (0, 1)
    unknown = {
        "reason",
        "cycle_seconds",
        "cycle_last_success_timestamp_seconds",
        "stage_last_success_timestamp_seconds",
    }
    assert _unread(theirs) == unknown
    assert _unread(ours) == set()
    own = ("cycle", "stage", "reason", "leading", "read_failures", "endpoint", "l1_block", "default_txmgr_basefee_wei")
    same = {key for key in ours if not key[0].startswith(("process_", *(f"{OURS}_{name}" for name in own)))}
    assert {key: theirs[key] for key in same} == {key: ours[key] for key in same}


async def test_what_cannot_be_read_is_not_a_number_and_the_answer_is_200(
    serve: Serve, start_devnet: StartDevnet
) -> None:
    """L1 and the L2 node go away, one after the other, and come back; the ledger's numbers stay."""
    devnet = await start_devnet()
    served = await serve(devnet)
    await served.settle(devnet, 1100)
    before = await served.scrape()

    await devnet.op_node.stop()
    now = await served.scrape()
    assert _unread(now) == {"finalized_block", "lag_blocks", "lag_seconds"}
    assert math.isnan(now[f"{RUST}_l2_finalized_block", frozenset()])
    assert (_value(now, "endpoint_up", endpoint="node"), _value(now, "contract_block")) == (0, 1100)
    last_read = _value(now, "endpoint_last_read_timestamp_seconds", endpoint="node")
    assert last_read == _value(before, "endpoint_last_read_timestamp_seconds", endpoint="node")

    await devnet.l1_front.stop()
    now = await served.scrape()
    assert {"contract_block", "next_output_block", "balance_ether", "nonce", "l1_block", "proven_block"} < _unread(now)
    assert math.isnan(now[f"{GO}_balance", frozenset()])
    assert _value(now, "endpoint_up", endpoint="l1") == 0
    assert _value(now, "requests", kind="RANGE", status="RELAYED") == 2

    await devnet.l1_front.start()
    await devnet.op_node.start()
    now = await served.scrape()
    assert (_value(now, "lag_blocks"), _value(now, "contract_block")) == (0, 1100)


async def test_a_hanging_endpoint_delays_a_scrape_by_less_than_5_seconds(
    serve: Serve, start_devnet: StartDevnet
) -> None:
    devnet = await start_devnet()
    served = await serve(devnet)
    devnet.l1_front.faults.hang = True
    started = time.monotonic()
    now = await served.scrape()
    assert time.monotonic() - started < 5
    assert math.isnan(_value(now, "contract_block"))
    assert _value(now, "finalized_block") == 1100
    devnet.l1_front.faults.hang = False


async def test_without_its_database_a_process_still_answers_and_says_that_it_does_not_work(
    serve: Serve, start_devnet: StartDevnet, no_ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters and gauges of the ledger are no number; after a while it is neither leading nor standing by."""
    served = await serve(await start_devnet(), leads=False, own=no_ledger)
    assert await served.ready() == (200, "standing by")
    now = await served.scrape()
    assert {"requests", "proofs_paid_total", "l1_gas_total", "leader_present", "paused"} < _unread(now)
    assert math.isnan(_value(now, "proving_seconds_bucket", kind="RANGE", le="+Inf"))
    assert math.isnan(now[f"{RUST}_total_error_count", frozenset()])
    assert _value(now, "contract_block") == 1000
    monkeypatch.setattr(health, "CLAIM_SECONDS", 0.0)
    status, sentence = await served.ready()
    assert status == 503
    assert "neither leading nor standing by" in sentence
    assert "DATABASE_URL" in sentence
    assert (await served.http.get(f"{served.url}/healthz")).text == "ok\n"


async def test_a_leader_is_not_ready_while_no_cycle_succeeds(
    serve: Serve, start_devnet: StartDevnet, database_url: str
) -> None:
    """With the stage that fails in a sentence; a cycle that succeeds makes it ready again. It is alive all along."""
    devnet = await start_devnet()
    served = await serve(devnet)
    assert await served.ready() == (200, "leading")
    await run_stages(served.proposer, call, observe.plainly)
    await asyncio.gather(*served.proposer.witnesses.values())
    await devnet.prover.stop()
    served.claim.leading_since -= READY_SECONDS + 1
    assert served.proposer.record.succeeded_at is not None
    served.proposer.record.succeeded_at -= READY_SECONDS + 1
    execute(database_url, "UPDATE proof_requests SET next_poll_at = now() WHERE status = 'PROVING'")
    await run_stages(served.proposer, call, observe.plainly)
    status, sentence = await served.ready()
    assert status == 503
    assert sentence.startswith("leading, and no cycle has succeeded for ")
    assert "ProcessProvingRequests: " in sentence
    assert (await served.http.get(f"{served.url}/healthz")).status_code == 200
    now = await served.scrape()
    assert _value(now, "cycles_total", result="failed") == 1
    assert _value(now, "stage_failures_total", stage="ProcessProvingRequests") == 1
    assert _value(now, "read_failures_total", endpoint="server") == 1
    assert _value(now, "endpoint_up", endpoint="server") == 0
    assert _value(now, "reason", code=Code.SERVER_DOWN.value, severity="warning") == 1

    await devnet.prover.start()
    await served.cycle()
    await served.cycle()
    assert await served.ready() == (200, "leading")
    served.proposer.draining = True
    assert (await served.ready())[0] == 503


async def test_a_storm_of_scrapes_is_read_once(
    serve: Serve, start_devnet: StartDevnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve(await start_devnet())
    monkeypatch.setattr(server, "CACHE_SECONDS", 60.0)
    scrapes = await asyncio.gather(*(served.scrape() for _ in range(40)))
    read = {_value(scrape, "endpoint_last_read_timestamp_seconds", endpoint="node") for scrape in scrapes}
    assert len(read) == 1


async def test_a_port_that_is_taken_is_said_with_the_remedy(serve: Serve, start_devnet: StartDevnet) -> None:
    served = await serve(await start_devnet())
    taken = Listen("127.0.0.1", int(served.url.rpartition(":")[2]), 600)
    sources = Sources(served.proposer, served.claim, LedgerIdentity(1, 2, "0x"), "http://127.0.0.1:1/api")
    with pytest.raises(InvalidSettings, match=r"METRICS_PORT: cannot listen .* set it to a free port"):
        async with serving(taken, sources):
            pass


async def test_a_long_history_is_added_up_before_the_first_scrape(
    serve: Serve, start_devnet: StartDevnet, ledger: Ledger, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the process's own work; one reading at a time adds to the sums, so nothing is counted twice."""
    devnet = await start_devnet()
    planned = [
        NewRequest(
            kind=Kind.RANGE,
            range=BlockRange(start, start + 1),
            attempt=2,
            status=Status.PARKED,
            commitments=Commitments(b"r", b"a", b"c"),
        )
        for start in range(40)
    ]
    async with ledger.write(epoch) as writer:
        await writer.apply(Plan(inserts=tuple(planned)))
    async with ledger.connect() as connection, connection.begin():
        await connection.execute(text("UPDATE request_events SET at = at - interval '1 hour'"))
        await connection.execute(text("UPDATE proof_requests SET status = 'CANCELLED'"))
    monkeypatch.setattr(running, "CHUNK", 1)
    served = await serve(devnet, leads=False)
    scrapes = await asyncio.gather(*(served.scrape() for _ in range(5)))
    counted = [_value(scrape, "attempts_repeated_total", kind="RANGE") for scrape in scrapes]
    assert all(number == 40 or math.isnan(number) for number in counted)
    assert _value(await served.scrape(), "attempts_repeated_total", kind="RANGE") == 40


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION


async def test_nothing_else_is_answered(serve: Serve, start_devnet: StartDevnet) -> None:
    served = await serve(await start_devnet())
    assert (await served.http.get(f"{served.url}/")).status_code == 404
    assert (await served.http.post(f"{served.url}/metrics")).status_code == 405
