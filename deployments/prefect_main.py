"""The child process of `PrefectServer`: Prefect's own API, UI and services, on SQLite, without its 503 storms.

Creating a run reads and then writes in a transaction that Prefect begins as DEFERRED. If anybody commits in between,
SQLite refuses the write at once, the API answers 503, and every client sleeps for 2, 4, 8 seconds. Begun as IMMEDIATE
such transactions queue instead. Only the first transaction of a creating request is begun so, and nothing that starts
inside it inherits the mode: a reader that holds the write lock would stop the server. This replaces one method of a
private class, for our own embedded server only; Prefect's version is pinned, and a test holds that concurrent
creations are not refused.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import uvicorn
from prefect.server.api.server import create_app
from prefect.server.database.configurations import SQLITE_BEGIN_MODE, AioSqliteConfiguration
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction
from starlette.types import ASGIApp, Receive, Scope, Send

_PR_SET_PDEATHSIG = 1
_CREATES = re.compile(r"/api/(?:flow_runs/?|task_runs/?|deployments/[^/]+/create_flow_run/?)")

_BUSY_MILLISECONDS = 2000

_creation: ContextVar[list[bool] | None] = ContextVar("creation", default=None)
"""Holds one True in a request that creates a run, until its first transaction has taken it."""


@asynccontextmanager
async def _begin(
    self: AioSqliteConfiguration, session: AsyncSession, with_for_update: bool = False
) -> AsyncGenerator[AsyncSessionTransaction]:
    del self
    mark = _creation.get()
    creates = bool(mark and mark.pop())
    token = SQLITE_BEGIN_MODE.set("IMMEDIATE" if with_for_update or creates else "DEFERRED")
    try:
        async with session.begin() as transaction:
            if creates:
                await session.connection()  # the BEGIN is sent here
                # a task started in here inherits the mode for its whole life, a session opened in here begins by it
                SQLITE_BEGIN_MODE.set("DEFERRED")
            yield transaction
    finally:
        SQLITE_BEGIN_MODE.reset(token)


def _with_short_waits(setup: Callable[..., None]) -> Callable[..., None]:
    """Shorten how long a connection waits for SQLite's write lock from a minute to seconds.

    A waiting connection holds its own mutex. When the garbage collector then frees one of its old cursors in the event
    loop's thread, the whole server waits with it, and nobody can give the lock back before the time is out.
    """

    def connected(self: AioSqliteConfiguration, connection: AsyncAdapt_aiosqlite_connection, record: object) -> None:
        setup(self, connection, record)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS};")
        cursor.close()

    return connected


def _marking_creations(app: ASGIApp) -> ASGIApp:
    """Mark the requests that create a run, for `_begin` to know."""

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and _CREATES.fullmatch(scope["path"]):
            _creation.set([True])
        await app(scope, receive, send)

    return marked


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this server when its proposer is killed, so that the port is free for the next start."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the proposer that started this server is gone")


def main(parent: int, port: int) -> None:
    """Serve on loopback until SIGTERM or until the parent process dies."""
    _die_with_parent(parent)
    AioSqliteConfiguration.begin_transaction = _begin
    AioSqliteConfiguration.setup_sqlite = _with_short_waits(AioSqliteConfiguration.setup_sqlite)
    app = _marking_creations(create_app(final=True))
    uvicorn.run(app, host="127.0.0.1", port=port, timeout_keep_alive=5, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
