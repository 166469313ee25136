"""The real ledger under a process that may die before or after any COMMIT."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from blocks.ledger import Ledger, Writer
from proposer.errors import EndpointDown
from tests.flows.mortal import End, Family, Life


class Turnstile:
    """One at a time at the database, in order, so that a program replays the same way."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[None]:
        """Wait for the turn; a task that has it may pass again."""
        if self._holder is asyncio.current_task():
            yield
            return
        async with self._lock:
            self._holder = asyncio.current_task()
            try:
                yield
            finally:
                self._holder = None


class MortalLedger(Ledger):
    """The real ledger, whose process may die before or after a COMMIT, and whose database may blink."""

    def __init__(self, shared: AsyncEngine, url: str, life: Life, turnstile: Turnstile) -> None:
        super().__init__(url)
        self.engine = shared
        self._life = life
        self._turnstile = turnstile

    @asynccontextmanager
    async def connect(self) -> AsyncGenerator[AsyncConnection]:
        """Connect, while the process lives and the database is there."""
        life = self._life
        life.must_live()
        if "ledger" in life.world.down:
            life.stall()
            raise EndpointDown("the ledger's database is down")
        async with self._turnstile(), super().connect() as connection:
            life.must_live()
            yield connection

    async def leave_answer(self, request_id: int, prover_id: str) -> None:
        """Leave it, unless this is the step's doomed write."""
        life = self._life
        end = life.strikes(Family.WRITE, "leave an answer")
        if end is End.DIES_BEFORE:
            raise life.die()
        if end is End.FAILS_BEFORE:
            raise EndpointDown("the connection was cut before COMMIT")
        await super().leave_answer(request_id, prover_id)
        if end is End.DIES_AFTER:
            raise life.die()
        if end is End.FAILS_AFTER:
            raise EndpointDown("the connection was cut after COMMIT")

    @asynccontextmanager
    async def write(self, epoch: int) -> AsyncGenerator[Writer]:
        """Write, unless this is the step's doomed write."""
        life = self._life
        await life.turn()
        end = life.strikes(Family.WRITE, "write")
        async with super().write(epoch) as writer:
            yield writer
            life.must_live()
            if end is End.DIES_BEFORE:
                raise life.die()
            if end is End.FAILS_BEFORE:
                raise EndpointDown("the connection was cut before COMMIT")
        if end is End.DIES_AFTER:
            raise life.die()
        if end is End.FAILS_AFTER:
            raise EndpointDown("the connection was cut after COMMIT")
