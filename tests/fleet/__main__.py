"""Measure a fleet from the command line: ``python -m tests.fleet``; the last line on stdout is one JSON object."""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from pathlib import Path

from tests.fleet.run import INTERVAL, Options, measure
from tests.fleet.table import summary, table


def main(arguments: list[str] | None = None) -> int:
    """Measure fleets of growing size on one Prefect server; return 0 only if every proposer settled that had to."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument("--sizes", default="1,5,10", help="how many proposers are measured one after the other")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long each size is measured")
    parser.add_argument("--standby", action="store_true", help="start a standby beside every proposer")
    parser.add_argument(
        "--l2-speed", type=float, default=2.0, help="finalized L2 blocks a second of each rollup; an output has 100"
    )
    parser.add_argument("--poll-interval", default="60s", help="POLL_INTERVAL of every proposer")
    parser.add_argument("--query-seconds", default="2", help="PREFECT_WORKER_QUERY_SECONDS of every proposer")
    parser.add_argument("--imagined", type=int, default=0, help="more rollups, of which there are the automations only")
    parser.add_argument("--seed", type=int, default=1, help="seed of every dice")
    parser.add_argument("--keep-logs", type=Path, default=None, help="keep everything that was logged in this folder")
    given = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder: Path = given.keep_logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-")))
        folder.mkdir(parents=True, exist_ok=True)
        options = Options(
            folder=folder.resolve(),
            sizes=tuple(sorted(int(size) for size in given.sizes.split(","))),
            seconds=given.seconds,
            standby=given.standby,
            l2_speed=given.l2_speed,
            poll_interval=given.poll_interval,
            query_seconds=given.query_seconds,
            imagined=given.imagined,
            seed=given.seed,
        )
        samples = asyncio.run(measure(options))
    sys.stdout.write(table(samples) + "\n" + json.dumps(summary(samples, options)) + "\n")
    sys.stdout.flush()
    idle = given.seconds * given.l2_speed < 2 * INTERVAL  # too slow for an output of each in the time
    return 0 if idle or all(sample.settled_by_each for sample in samples) else 1


if __name__ == "__main__":
    raise SystemExit(main())
