"""Run chaos from the command line: ``python -m tests.chaos``; the last line on stdout is one JSON object."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import chaos
from tests.chaos.verdict import Verdict
from tests.chaos.world import Options


def main(arguments: list[str] | None = None) -> int:
    """Run, say what happened, and return 0 only if every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="seed of every dice")
    parser.add_argument("--kills", type=int, default=100, help="how often the leader is killed")
    parser.add_argument("--keep-logs", type=Path, default=None, help="keep everything that was logged in this folder")
    parser.add_argument("--limit-seconds", type=float, default=None, help="give up then; default: 30 per kill and 300")
    given = parser.parse_args(arguments)
    folder: Path = given.keep_logs or Path(tempfile.mkdtemp(prefix="chaos-"))
    options = Options(
        seed=given.seed,
        kills=given.kills,
        folder=folder.resolve(),
        limit_seconds=given.limit_seconds or 300 + 30 * given.kills,
    )
    verdict = asyncio.run(_until_sigterm(options))
    good = not verdict.violations
    sys.stdout.write(verdict.table() + "\n")
    if good and given.keep_logs is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        sys.stdout.write(f"logs: {options.folder} (one.log, two.log, server.jsonl, prefect-server/)\n")
    sys.stdout.write(json.dumps(verdict.summary()) + "\n")
    sys.stdout.flush()
    return 0 if good else 1


async def _until_sigterm(options: Options) -> Verdict:
    run = asyncio.ensure_future(chaos(options))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.cancel)
    return await run


if __name__ == "__main__":
    raise SystemExit(main())
