"""The short form of `make bench`: ratios only, for what else runs here makes every absolute time a lie."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.helpers import ROOT
from tests.bench.figures import Outcome, above, below, p95, plain
from tests.bench.settling import SETTINGS

LIMIT_SECONDS = 800


@pytest.mark.timeout(900)
def test_settlements_do_not_wait_looks_do_not_queue_and_history_costs_nothing(tmp_path: Path) -> None:
    """Against the seed's policy in the same run; POLL_INTERVAL is a minute, and no settlement waits for it."""
    command = [sys.executable, "-m", "tests.bench", "--short", "--only", "settling", "makespan", "polling", "history"]
    run = subprocess.run(
        [*command, "--keep-logs", str(tmp_path / "bench")],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    sys.stdout.write(run.stdout[-6000:])
    assert run.returncode == 0, run.stderr[-3000:]
    said = json.loads(run.stdout.splitlines()[-1])
    assert said["broken"] == said["not_held"] == []
    assert said["short"]
    interval = float(SETTINGS["POLL_INTERVAL"].removesuffix("s"))
    assert said["dead_time_s"] / interval < 0.5, "it waited for a clock"


def test_what_is_missed_or_not_measured_is_not_held() -> None:
    """A number that could not be taken counts as missed, with its cause in the table."""
    good = [below("quick", 1.0, 3, "s", "how"), above("many", 11, 10, "", "how"), plain("told", None, "s", "how")]
    assert Outcome(seed=1, short=False, figures=good).held
    for bad in (below("slow", 3.0, 3, "s", "how", "a busy machine"), below("none", None, 3, "s", "how", "no devnet")):
        outcome = Outcome(seed=1, short=False, figures=[*good, bad])
        assert not outcome.held
        assert outcome.summary()["not_held"] == [bad.name]
        assert f"how; {bad.cause}" in outcome.table()
    assert not Outcome(seed=1, short=False, figures=good, broken=["filling: it fell over"]).held


@pytest.mark.parametrize(("values", "at"), [([1.0], 1.0), ([3.0, 1.0, 2.0], 3.0), (list(range(1, 101)), 95)])
def test_the_95th_percentile(values: list[float], at: float) -> None:
    assert p95(values) == at
