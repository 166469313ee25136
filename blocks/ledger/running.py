"""Sums over a table that only grows: what can no longer change is added up once, the rest anew at each reading."""

from collections import Counter
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection

Sums = Counter[tuple[str, ...]]
AddUp = Callable[[AsyncConnection, int, int], Awaitable[Sums]]
"""Add up the rows above one id, up to and including another."""

CHUNK = 10_000
"""Ids added up in one statement: few enough for a slow database to answer within a scrape's deadline."""


class Running:
    """The sum over a table's rows by id. Reading it costs the same however many rows are behind it."""

    def __init__(self, add_up: AddUp) -> None:
        self._add_up = add_up
        self._sums: Sums = Counter()
        self._upto = 0

    async def read(
        self, connection: AsyncConnection, settled: int, last: int, go_on: Callable[[], bool]
    ) -> Sums | None:
        """Sum over the ids up to `last`, where rows up to `settled` change no more.

        None where `go_on` says no before the first reading has caught up; the next one continues there. A row that
        does change after all (a deep reorg) shows in a `settled` below it: everything is then added up anew.
        """
        if settled < self._upto:
            self._sums, self._upto = Counter(), 0
        while self._upto < settled:
            if not go_on():
                return None
            upto = min(self._upto + CHUNK, settled)
            more = await self._add_up(connection, self._upto, upto)
            self._sums, self._upto = self._sums + more, upto
        return self._sums + await self._add_up(connection, settled, last)
