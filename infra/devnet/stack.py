"""What all the little worlds share: parts that start in order and stop in the reverse one."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self


class Stack:
    """Parts entered on `_stack` by `_start`; use as ``async with``. A start that fails half way stops what runs."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything."""
        await self._stack.aclose()

    async def _start(self) -> None:
        raise NotImplementedError
