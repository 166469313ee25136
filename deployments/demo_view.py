"""The demo's live view: heads, requests by state, outputs and progress; plain lines where there is no terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_SHOWN = ("UNREQ", "WITNESSGEN", "PROVING", "COMPLETE", "RELAYED", "FAILED", "PARKED", "CANCELLED")


@dataclass(frozen=True, kw_only=True)
class Glance:
    """One look at the devnet and the ledger."""

    seconds: float
    finalized: int
    settled: int
    outputs: int
    requests: Mapping[str, int]
    requested_to: int
    unconfirmed: int
    story: tuple[str, ...]


class DemoView:
    """Draws on stderr; stdout is for the result."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start, end
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._last = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, glance: Glance) -> None:
        """Draw a glance; without a terminal write a line when it differs from the last."""
        if self._live is not None:
            self._live.update(self._drawn(glance), refresh=True)
            return
        states = " ".join(f"{name.lower()}={glance.requests[name]}" for name in _SHOWN if glance.requests.get(name))
        told = f" · {glance.story[-1]}" if glance.story else ""
        line = f"settled {glance.settled} ({glance.outputs} outputs) of {self._end} · {states}{told}"
        if line != self._last:
            self._last = line
            self._console.print(f"{glance.seconds:6.1f} s  finalized {glance.finalized} · {line}", soft_wrap=True)

    def _drawn(self, glance: Glance) -> Panel:
        heads = Table.grid(padding=(0, 3))
        heads.add_row("L2 finalized", str(glance.finalized), "contract head", str(glance.settled))
        heads.add_row("outputs settled", str(glance.outputs), "lag", f"{glance.finalized - glance.settled} blocks")
        states = Table(box=None, padding=(0, 2))
        for name in _SHOWN:
            states.add_column(name, justify="right")
        states.add_row(*(str(glance.requests.get(name, 0)) for name in _SHOWN))
        progress = ProgressBar(total=self._end - self._start, completed=glance.settled - self._start, width=60)
        story = Text("\n".join(glance.story), style="yellow")
        title = f"op-succinct proposer · {glance.seconds:.0f} s"
        return Panel(Group(heads, Text(), states, Text(), progress, story), title=title, expand=False)
