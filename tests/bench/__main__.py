"""Measure from the command line: ``python -m tests.bench``; the last line on stdout is one JSON object."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.bench.figures import Outcome
from tests.bench.run import MEASUREMENTS, bench


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and return 0 only if every promised number was held."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of every dice")
    parser.add_argument("--short", action="store_true", help="few of everything, and ratios only")
    parser.add_argument("--only", nargs="+", choices=list(MEASUREMENTS), default=None, help="these measurements only")
    parser.add_argument("--keep-logs", type=Path, default=None, help="keep everything that was logged in this folder")
    given = parser.parse_args(arguments)
    folder: Path = given.keep_logs or Path(tempfile.mkdtemp(prefix="bench-"))
    outcome = asyncio.run(_until_sigterm(folder.resolve(), given))
    sys.stdout.write(outcome.table() + "\n")
    if outcome.broken or given.keep_logs is not None:
        sys.stdout.write(f"logs: {folder.resolve()}\n")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(outcome.summary()) + "\n")
    sys.stdout.flush()
    return 0 if outcome.held else 1


async def _until_sigterm(folder: Path, given: argparse.Namespace) -> Outcome:
    run = asyncio.ensure_future(bench(folder, seed=given.seed, short=given.short, only=given.only))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    return await run


if __name__ == "__main__":
    raise SystemExit(main())
