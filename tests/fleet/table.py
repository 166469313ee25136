"""What a fleet's measurement came to: a table for people and one object for programs."""

import statistics
from typing import Any

from tests.bench.figures import p95
from tests.fleet.run import PROOFS_PER_OUTPUT, RANGE, Options, Sample

CORE = 1.0
"""Prefect's API and services are one Python process: one core is all that they can use."""


def summary(samples: list[Sample], options: Options) -> dict[str, Any]:
    """Return the last line's object."""
    return {
        "seed": options.seed,
        "standby": options.standby,
        "poll_interval": options.poll_interval,
        "query_seconds": options.query_seconds,
        "imagined": options.imagined,
        "server_cores_per_further_proposer": _further(samples),
        "range_proofs_per_proposer_and_minute": round(60 * options.l2_speed / RANGE, 2),
        "sizes": [_row(sample) for sample in samples],
    }


def _further(samples: list[Sample]) -> float | None:
    """Return what one more proposer adds to the server, in cores; without what the server does by itself."""
    first, last = samples[0], samples[-1]
    if first.proposers == last.proposers:
        return None
    grown = last.server_cpu / last.seconds - first.server_cpu / first.seconds
    return round(grown / (last.proposers - first.proposers), 4)


def _row(sample: Sample) -> dict[str, Any]:
    minutes = sample.proposers * sample.seconds / 60
    cores = sample.server_cpu / sample.seconds
    delays = sample.start_delays
    return {
        "proposers": sample.proposers,
        "outputs": sample.outputs,
        "cycles": sample.cycles,
        "cycles_per_proposer_and_minute": round(sample.cycles / minutes, 1),
        "calls_per_proposer_and_minute": round(sample.calls / minutes, 1),
        "calls_per_proof": round(sample.calls / max(1, PROOFS_PER_OUTPUT * sample.outputs), 1),
        "server_cores": round(cores, 3),
        "server_cores_per_proposer": round(cores / sample.proposers, 4),
        "proposers_per_core_of_the_server": int(CORE / (cores / sample.proposers)),
        "postgres_cores_per_proposer": round(sample.postgres_cpu / sample.seconds / sample.proposers, 4),
        "proposer_cores": round(sample.proposer_cpu / sample.seconds / sample.proposers, 4),
        "server_rss_mb": round(sample.server_rss / 1e6),
        "proposer_rss_mb": round(sample.proposer_rss / 1e6),
        "stood_still_s": round(sample.stood_still, 2),
        "database_kb_per_cycle": round(sample.database_bytes / 1e3 / max(1, sample.cycles), 1),
        "start_delay_s_median": round(statistics.median(delays), 2) if delays else None,
        "start_delay_s_p95": round(p95(delays), 2) if delays else None,
        "settled_by_each": sample.settled_by_each,
    }


def table(samples: list[Sample]) -> str:
    """Return one line for each figure, one column for each size, without a newline at the end."""
    rows = [_row(sample) for sample in samples]
    width = max(len(name) for name in rows[0])
    return "\n".join(f"{name:{width}}  " + "  ".join(f"{row[name]!s:>9}" for row in rows) for name in rows[0])
