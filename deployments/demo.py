"""`proposer demo`: the whole job on a local devnet, with faults, checked on the chain afterwards."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

from deployments.demo_view import DemoView, Glance
from infra.devnet import Devnet, DevnetConfig, Fault, FaultPlan, Report, check
from infra.devnet.proving import ProverTiming

START, BLOCKS, INTERVAL, RANGE = 1000, 900, 60, 30
TOO_BIG_AT, GIVEN_UP_AT, OUTAGE_AT = START + 75, START + 255, START + 480
"""L2 blocks at which a range cannot be executed, is given up by the network, and meets a server that is away."""
OUTAGE_SECONDS = 12.0
LIMIT_SECONDS = 330.0

SETTINGS = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": str(RANGE),
    "POLL_INTERVAL": "3s",
    "LOOK_INTERVAL": "1s",
    "RETRY_DELAY": "2s",
    "WITNESS_GEN_TIMEOUT": "30s",
    "DRAIN_TIMEOUT": "5s",
    "NUM_CONFIRMATIONS": "3",
    "RESUBMISSION_TIMEOUT": "10s",
}


@dataclass
class Story:
    """What the demo makes happen, and whether it has."""

    outage_began: float | None = None
    outage_ended: float | None = None
    lines: list[str] = field(default_factory=list[str])


def demo(*, keep: bool, seed: int) -> int:
    """Run the demo; return its exit code. The last line on stdout is one JSON object."""
    return asyncio.run(_demo(keep=keep, seed=seed))


async def _demo(*, keep: bool, seed: int) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="proposer-demo-") as folder:
        home = Path(folder) / "home"
        port = _free_port()
        async with Devnet(_devnet(seed, Path(folder))) as devnet:
            environment = _environment(devnet.env(), home, port)
            proposer = _start(environment, Path(folder) / "proposer.log")
            try:
                done = await _follow(devnet, proposer, home, began)
                cycles = await _cycles(port)
                report, counts = await _checked(devnet, home)
                summary = _summary(report, counts, cycles, time.monotonic() - began)
                good = done and report.ok and _told(counts, report)
                _say_problems(report, Path(folder), good=good)
                sys.stdout.write(json.dumps(summary) + "\n")
                sys.stdout.flush()
                if keep:
                    await _stay(port)
            finally:
                await _stop(proposer)
    return 0 if good else 1


def _devnet(seed: int, folder: Path) -> DevnetConfig:
    return DevnetConfig(
        seed=seed,
        folder=folder,
        submission_interval=INTERVAL,
        starting_block=START,
        l2_blocks_per_second=10.0,
        l2_limit=START + BLOCKS,
        timing=ProverTiming(range_witness_s=0.6, range_proving_s=1.5, agg_witness_s=0.5, agg_proving_s=1.5, jitter=0.3),
        faults=FaultPlan(
            seed=seed,
            rules=(
                Fault(kind="unexecutable", on="range", block=TOO_BIG_AT, longer_than=RANGE // 2),
                Fault(kind="unfulfillable", on="range", block=GIVEN_UP_AT, first=1),
            ),
        ),
    )


def _environment(devnet: Mapping[str, str], home: Path, port: int) -> dict[str, str]:
    """Give the proposer nothing of this shell's own settings but what a program needs to run."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    own = {"PROPOSER_HOME": str(home), "PREFECT_SERVER_API_PORT": str(port), "PYTHONUNBUFFERED": "1"}
    return kept | dict(devnet) | SETTINGS | own


def _start(environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.cli", "up"],
            cwd=Path(__file__).resolve().parent.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the demo, which then asks the proposer to stop, once
        )


async def _follow(devnet: Devnet, proposer: "subprocess.Popen[bytes]", home: Path, began: float) -> bool:
    """Watch until everything is settled; False when that takes too long or the proposer ends."""
    story = Story()
    with DemoView(START, START + BLOCKS) as view:
        while time.monotonic() - began < LIMIT_SECONDS and proposer.poll() is None:
            glance = await _glance(devnet, home, story, began)
            view.show(glance)
            # what is left is less than the contract takes as the next output
            if glance.settled > START + BLOCKS - INTERVAL and not glance.unconfirmed:
                return True
            await _outage(devnet, glance, story)
            await asyncio.sleep(0.5)
    return False


async def _outage(devnet: Devnet, glance: Glance, story: Story) -> None:
    """Take the prover server away for several cycles once work on a certain block is under way."""
    now = time.monotonic()
    if story.outage_began is None and glance.requested_to >= OUTAGE_AT:
        await devnet.prover.stop()
        story.outage_began = now
        story.lines.append("the prover server goes away")
    elif story.outage_began is not None and story.outage_ended is None and now - story.outage_began > OUTAGE_SECONDS:
        await devnet.prover.start()
        story.outage_ended = now
        story.lines.append("the prover server is back")


async def _glance(devnet: Devnet, home: Path, story: Story, began: float) -> Glance:
    counts: dict[str, int] = {}
    requested_to = unconfirmed = 0
    if (url := _ledger_url(home)) is not None:
        try:
            async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
                rows = await connection.execute("SELECT status, count(*) FROM proof_requests GROUP BY status")
                counts = {str(status): int(count) for status, count in await rows.fetchall()}
                furthest = await connection.execute(
                    "SELECT coalesce(max(end_block), 0) FROM proof_requests WHERE status <> 'UNREQ' AND kind = 'RANGE'"
                )
                requested_to = int((await furthest.fetchone() or (0,))[0])
                pending = await connection.execute(
                    "SELECT count(*) FROM l1_transactions WHERE status IN ('PENDING', 'MINED')"
                )
                unconfirmed = int((await pending.fetchone() or (0,))[0])
        except psycopg.Error:
            pass  # not migrated yet
    return Glance(
        seconds=time.monotonic() - began,
        finalized=devnet.l2.finalized,
        settled=await devnet.latest_block_number(),
        outputs=await devnet.read_uint("nextOutputIndex()") - 1,
        requests=counts,
        requested_to=requested_to,
        unconfirmed=unconfirmed,
        story=tuple(story.lines),
    )


def _ledger_url(home: Path) -> str | None:
    file = home / "ledger.url"
    return file.read_text(encoding="utf-8").strip() if file.exists() else None


async def _cycles(port: int) -> int:
    """Count the cycles that Prefect has recorded."""
    body: dict[str, object] = {"flows": {"name": {"any_": ["propose-cycle"]}}}
    body["flow_runs"] = {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}}
    async with httpx.AsyncClient(timeout=10) as client:
        try:
            answer = await client.post(f"http://127.0.0.1:{port}/api/flow_runs/count", json=body)
        except httpx.HTTPError:
            return 0  # the proposer did not come as far as a Prefect server
    return int(answer.json())


async def _checked(devnet: Devnet, home: Path) -> tuple[Report, dict[str, int]]:
    url = _ledger_url(home)
    report = await check(
        l1_rpc=devnet.l1_rpc,
        oracle=devnet.oracle_address,
        proposer=devnet.proposer_address,
        output_root=devnet.l2.output_root,
        log=devnet.prover.log.events,
        ledger_url=url,
    )
    counts = dict.fromkeys(_COUNTS, 0)
    if url is not None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            for name, query in _COUNTS.items():
                row = await (await connection.execute(query.encode())).fetchone()
                counts[name] = int(row[0]) if row else 0
    return report, counts


_COUNTS = {
    "ranges_proven": "SELECT count(*) FROM proof_requests WHERE kind = 'RANGE' AND status IN ('COMPLETE', 'RELAYED')",
    "aggregations": "SELECT count(*) FROM proof_requests WHERE kind = 'AGG' AND status IN ('COMPLETE', 'RELAYED')",
    "halved": """
        SELECT count(*) FROM proof_requests p WHERE p.kind = 'RANGE' AND p.failure = 'Unexecutable'
        AND (SELECT count(*) FROM proof_requests h WHERE h.parent_id = p.id AND h.status = 'RELAYED') = 2
    """,
    "retried": """
        SELECT count(*) FROM proof_requests p WHERE p.failure = 'Unfulfillable' AND EXISTS
        (SELECT FROM proof_requests r WHERE r.parent_id = p.id AND r.status = 'RELAYED'
         AND r.start_block = p.start_block AND r.end_block = p.end_block)
    """,
}


def _summary(report: Report, counts: Mapping[str, int], cycles: int, seconds: float) -> dict[str, int | float]:
    return {
        "outputs_settled": report.outputs_settled,
        "l2_block_settled": report.l2_block_settled,
        **counts,
        "proof_requests": report.proof_requests,
        "l1_transactions": report.l1_transactions,
        "reverted_transactions": report.reverted_transactions,
        "duplicates": report.duplicates,
        "unknown_outcomes": report.unknown_outcomes,
        "cycles": cycles,
        "seconds": round(seconds, 1),
    }


def _told(counts: Mapping[str, int], report: Report) -> bool:
    """Whether the demo showed what it is for."""
    return report.outputs_settled >= 5 and counts["halved"] >= 1 and counts["retried"] >= 1


def _say_problems(report: Report, folder: Path, *, good: bool) -> None:
    for violation in report.violations:
        sys.stderr.write(f"violation: {violation}\n")
    if not good:
        lines = (folder / "proposer.log").read_text(encoding="utf-8", errors="replace").splitlines()[-60:]
        sys.stderr.write("the demo did not end as it should; the proposer said last:\n" + "\n".join(lines) + "\n")


async def _stay(port: int) -> None:
    """Stay up until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    sys.stderr.write(
        f"Prefect UI: http://127.0.0.1:{port}  (export PREFECT_API_URL=http://127.0.0.1:{port}/api)\nCtrl-C ends it.\n"
    )
    await stop.wait()


async def _stop(proposer: "subprocess.Popen[bytes]") -> None:
    if proposer.poll() is None:
        proposer.terminate()
        try:
            await asyncio.to_thread(proposer.wait, 30)
        except subprocess.TimeoutExpired:
            proposer.kill()
            await asyncio.to_thread(proposer.wait)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
