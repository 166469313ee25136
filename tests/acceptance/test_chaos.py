"""The short form of `make chaos`: ten kills at the places where money is spent and written down."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.helpers import ROOT

LIMIT_SECONDS, GIVES_UP_SECONDS = 900, 700
"""A run that is not done says so itself, with the machine's load, before its process is given up."""


@pytest.mark.timeout(LIMIT_SECONDS + 60)
def test_ten_kills_among_faults_lose_nothing_and_pay_nothing_twice(tmp_path: Path) -> None:
    """Killed ten times between faults, reorgs and outages: all is settled once, and each takeover is quick."""
    options = ["--seed", "3", "--kills", "10", "--limit-seconds", str(GIVES_UP_SECONDS)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options, "--keep-logs", str(tmp_path / "chaos")],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    said = f"{done.stdout}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, said
    summary = json.loads(done.stdout.splitlines()[-1])
    promised = ("proofs_lost", "proofs_paid_twice", "duplicate_transactions", "reverted_transactions")
    assert (summary["kills"], [summary[name] for name in promised]) == (10, [0, 0, 0, 0]), said
    assert summary["max_seconds_to_recover"] < 15, said
    assert summary["outputs_settled"] >= 3, said
    assert summary["faults_injected"] >= 10, said
