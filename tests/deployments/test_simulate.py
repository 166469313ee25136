"""`proposer simulate` as an operator meets it: a table, JSON, a picture, sentences for what is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from blocks.ledger import Ledger
from blocks.ledger.history import ended
from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind
from tests.deployments.helpers import ROOT, execute, plain_environment

Simulate = Callable[..., subprocess.CompletedProcess[str]]
SHORT = ("--days", "0.2")
ZERO = "decode(repeat('00', 32), 'hex')"


@pytest.fixture
def simulate(tmp_path: Path) -> Simulate:
    """A function that runs it with these arguments and this environment only."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "deployments.cli", "simulate", *arguments],
            env=plain_environment(tmp_path) | {"PROPOSER_HOME": str(tmp_path / "home")} | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


def _json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_both_policies_side_by_side_and_a_picture(simulate: Simulate, tmp_path: Path) -> None:
    drawn = tmp_path / "lag.svg"
    done = simulate(*SHORT, "--compare", "--picture", str(drawn))
    assert done.returncode == 0, done.stderr
    assert "8,640 L2 blocks of 2 s, ranges of 300, caps 5 and 20, seed 1" in done.stdout
    assert "proposer" in done.stdout
    assert "original" in done.stdout
    assert "times as long" in done.stdout
    ET.parse(drawn)


def test_json_is_the_same_for_the_same_seed_and_follows_the_settings(simulate: Simulate) -> None:
    first, again = (_json(simulate(*SHORT, "--json", "--unfulfillable", "0.1")) for _ in range(2))
    assert first == again
    other = _json(simulate(*SHORT, "--json", "--unfulfillable", "0.1", "--seed", "2"))
    assert other["policies"] != first["policies"]
    policy = first["policies"]["proposer"]
    assert policy["kept_up"]
    assert policy["proofs"]["retried"] > 0
    assert policy["lag_seconds"]["median"] <= policy["lag_seconds"]["p95"] <= policy["lag_seconds"]["max"]
    sized = _json(
        simulate(*SHORT, "--json", "--set", "MAX_CONCURRENT_WITNESS_GEN=2", MAX_BLOCK_RANGE_PER_SPAN_PROOF="600")
    )
    assert sized["settings"] == {"max_block_range": 600, "max_witness_gen": 2, "max_proof_requests": 20}
    assert sized["policies"]["proposer"]["proofs"]["range"] < policy["proofs"]["range"]


def test_prices_add_up(simulate: Simulate) -> None:
    priced = ("--price-range", "2", "--price-aggregation", "5", "--gas-gwei", "20", "--price-ether", "1000")
    policy = _json(simulate(*SHORT, "--json", *priced))["policies"]["proposer"]
    proofs = 2 * policy["proofs"]["range"] + 5 * policy["proofs"]["aggregation"]
    assert policy["cost"]["proofs"] == proofs
    assert policy["cost"]["total"] == pytest.approx(proofs + 1000 * policy["cost"]["gas_ether"])
    assert policy["cost"]["gas_ether"] > 0


def test_a_policy_that_does_not_keep_up_is_said_and_ends_with_1(simulate: Simulate) -> None:
    done = simulate("--days", "5", "--range-proving", "8h", "--set", "MAX_CONCURRENT_PROOF_REQUESTS=5")
    assert done.returncode == 1
    assert "proposer does not keep up" in done.stdout


def test_a_recommendation_names_settings_and_why(simulate: Simulate) -> None:
    advice = _json(simulate("--days", "0.1", "--recommend", "--json"))["recommendation"]
    assert advice["best"]["keeps_up"]
    assert advice["best"] in advice["trials"]
    assert "combinations keep up" in advice["why"]
    shown = simulate("--days", "0.1", "--recommend").stdout
    assert f"MAX_BLOCK_RANGE_PER_SPAN_PROOF={advice['best']['range_blocks']}" in shown


def test_every_problem_is_named_at_once(simulate: Simulate, tmp_path: Path) -> None:
    done = simulate(
        *("--days", "-1", "--range-proving", "soon:later", "--aggregation-proving", "10m:5m", "--unfulfillable", "2"),
        *(
            "--set",
            "RANGE=5",
            "--set",
            "MAX_ATTEMPTS=0",
            "--picture",
            str(tmp_path / "no" / "lag.svg"),
            "--from-ledger",
        ),
    )
    assert (done.returncode, done.stdout) == (2, "")
    for problem in (
        "--days: must be 0 to 366, not -1",
        "--range-proving: 'soon' is not a duration; write seconds, or a duration such as 10m",
        "--aggregation-proving: a duration needs 0 <= median <= p95, not 600 and 300",
        "unfulfillable: Input should be less than 1, not 2.0",
        "--set: 'RANGE=5' is not NAME=VALUE of a setting of the policy",
        "MAX_ATTEMPTS: ",
        "--picture: the folder",
        "--from-ledger: gives the times and --unfulfillable itself",
    ):
        assert problem in done.stderr


async def _with_history(database_url: str, ledger: Ledger, epoch: int) -> None:
    """Ten proven ranges and aggregations, and two ranges that the network gave up, of known times."""
    del ledger
    for number in range(1, 23):
        kind, end = ("RANGE", 100) if number <= 12 else ("AGG", 1000)
        given_up = number in {11, 12}
        start, stop = number * 1000, number * 1000 + end
        status, failure = ("FAILED", "'Unfulfillable'") if given_up else ("RELAYED", "NULL")
        execute(
            database_url,
            "INSERT INTO proof_requests (id, kind, start_block, end_block, status, failure, attempt, range_vkey, "
            "agg_vkey, config_hash, proof_digest, proof_length) OVERRIDING SYSTEM VALUE VALUES "
            f"({number}, '{kind}', {start}, {stop}, '{status}', {failure}, 1, {ZERO}, {ZERO}, {ZERO}, {ZERO}, 9)",
        )
        steps = (("NULL", "UNREQ", 0), ("'UNREQ'", "WITNESSGEN", 1), ("'WITNESSGEN'", "PROVING", 61))
        for before, after, seconds in (*steps, ("'PROVING'", "FAILED" if given_up else "COMPLETE", 661)):
            execute(
                database_url,
                "INSERT INTO request_events (request_id, from_status, to_status, failure, why, at, epoch) VALUES "
                f"({number}, {before}, '{after}', {failure if after == 'FAILED' else 'NULL'}, '', "
                f"timestamptz '2026-01-01' + interval '{seconds} seconds', {epoch})",
            )


async def test_times_and_failures_come_from_the_ledger(
    simulate: Simulate, database_url: str, ledger: Ledger, epoch: int
) -> None:
    await _with_history(database_url, ledger, epoch)
    found = await ended(ledger, 500)
    assert len(found) == 22
    assert {(each.witness, each.proving) for each in found} == {(60.0, 600.0)}
    assert (found[-1].kind, found[-1].range) == (Kind.RANGE, BlockRange(1000, 1100))
    assert sum(each.failure is Failure.UNFULFILLABLE for each in found) == 2
    assert len(await ended(ledger, 3)) == 3
    prover = _json(simulate(*SHORT, "--json", "--from-ledger", DATABASE_URL=database_url))["prover"]
    assert prover["range_proving"] == {"median": 600.0, "p95": 600.0}
    assert prover["reference_blocks"] == 100
    assert prover["unfulfillable"] == pytest.approx(2 / 22)


def test_a_ledger_without_history_is_refused_with_what_to_do(
    simulate: Simulate, database_url: str, ledger: Ledger
) -> None:
    done = simulate(*SHORT, "--from-ledger", DATABASE_URL=database_url)
    assert done.returncode == 2
    assert (
        "--from-ledger: the ledger has 0 RANGE proofs to learn from, and needs 5; give the times instead" in done.stderr
    )
