"""`proposer up` as it is, with a watch in its event loop: ``python -m tests.bench.watched FILE PREFECT_PORT``.

Twice a second a line of JSON is added to FILE: calls made to Prefect's API so far, and for how long at most the event
loop stood still since the line before.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx

from deployments.cli import app
from deployments.process import Process

LOOK_SECONDS, SAY_SECONDS = 0.02, 0.5

calls: Counter[str] = Counter()


def _count(prefect_port: int) -> None:
    """Count what every client of this process sends to Prefect's API, by method and path without ids."""
    send = httpx.AsyncClient.send

    async def counted(self: httpx.AsyncClient, request: httpx.Request, **how: Any) -> httpx.Response:
        if request.url.port == prefect_port:
            words = [word for word in request.url.path.split("/") if word and "-" not in word]
            calls[f"{request.method} /{'/'.join(words)}"] += 1
        return await send(self, request, **how)

    httpx.AsyncClient.send = counted  # type: ignore[method-assign]


async def _watch(file: Path) -> None:
    """Say how late the loop wakes what sleeps."""
    worst, said = 0.0, time.monotonic()
    while True:
        before = time.monotonic()
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        worst = max(worst, now - before - LOOK_SECONDS)
        if now - said >= SAY_SECONDS:
            line = {"at": time.time(), "stood_still": worst, "prefect": dict(calls)}
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
            worst, said = 0.0, now


def main(file: Path, prefect_port: int) -> None:
    """Run `proposer up`."""
    _count(prefect_port)
    lead = Process.lead

    async def watched(self: Process) -> bool:
        watch = asyncio.create_task(_watch(file))
        try:
            return await lead(self)
        finally:
            watch.cancel()

    Process.lead = watched  # type: ignore[method-assign]
    sys.argv = ["proposer", "up"]
    app()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
