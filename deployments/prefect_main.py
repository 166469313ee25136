"""The child process of `PrefectServer`: Prefect's own API, UI and services, on SQLite, without its 503 storms.

On SQLite Prefect begins transactions that read and then write as DEFERRED. If anybody commits in between, SQLite
refuses the write at once, the API answers 503, and every client sleeps for 2, 4, 8 seconds. Beginning them as
IMMEDIATE queues them instead. That replaces one method of a private class: it is done for our own embedded server
only, Prefect's version is pinned, and a test holds that concurrent creations are not refused.
"""

import ctypes
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

_PR_SET_PDEATHSIG = 1


@asynccontextmanager
async def _begin_immediate(
    self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
) -> AsyncGenerator[AsyncSessionTransaction]:
    del self, with_for_update
    token = SQLITE_BEGIN_MODE.set("IMMEDIATE")
    try:
        async with session.begin() as transaction:
            yield transaction
    finally:
        SQLITE_BEGIN_MODE.reset(token)


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this server when its proposer is killed, so that the port is free for the next start."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the proposer that started this server is gone")


def main(parent: int, port: int) -> None:
    """Serve on loopback until SIGTERM or until the parent process dies."""
    _die_with_parent(parent)
    AioSqliteConfiguration.begin_transaction = _begin_immediate
    uvicorn.run(create_app(final=True), host="127.0.0.1", port=port, timeout_keep_alive=5, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
