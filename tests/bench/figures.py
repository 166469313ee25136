"""What a run measured: numbers with their targets, a table for people, one JSON object for machines."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number. `held` is None where nothing was promised; `cause` says why a promise was not kept."""

    name: str
    value: float | None
    unit: str
    what: str
    target: str = ""
    held: bool | None = None
    cause: str = ""

    def row(self) -> tuple[str, str, str, str]:
        """The table's row."""
        value = "not measured" if self.value is None else f"{_short(self.value)} {self.unit}".strip()
        verdict = "" if self.held is None else ("held" if self.held else "NOT HELD")
        said = self.what if self.held is not False or not self.cause else f"{self.what}; {self.cause}"
        return self.name, value, f"{self.target} {verdict}".strip(), said


def below(name: str, value: float | None, limit: float, unit: str, what: str, cause: str = "") -> Figure:
    """Make a figure that is to be below a limit; one that could not be measured is not held."""
    held = value is not None and value < limit
    return Figure(name=name, value=value, unit=unit, what=what, target=f"< {limit:g}", held=held, cause=cause)


def above(name: str, value: float | None, limit: float, unit: str, what: str, cause: str = "") -> Figure:
    """Make a figure that is to be above a limit; one that could not be measured is not held."""
    held = value is not None and value > limit
    return Figure(name=name, value=value, unit=unit, what=what, target=f"> {limit:g}", held=held, cause=cause)


def plain(name: str, value: float | None, unit: str, what: str) -> Figure:
    """Make a figure without a target."""
    return Figure(name=name, value=value, unit=unit, what=what)


def p95(values: Sequence[float]) -> float:
    """The 95th percentile: the smallest value that 95 % do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -(-95 * len(ordered) // 100) - 1)]


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


@dataclass
class Outcome:
    """Everything one run has measured."""

    seed: int
    short: bool
    figures: list[Figure] = field(default_factory=list[Figure])
    notes: list[str] = field(default_factory=list[str])
    broken: list[str] = field(default_factory=list[str])
    """Measurements that ended with an error, a sentence each."""
    seconds: float = 0.0

    @property
    def held(self) -> bool:
        """Whether everything promised was measured and held."""
        return not self.broken and all(figure.held is not False for figure in self.figures)

    def value(self, name: str) -> float | None:
        """Return a number by its name."""
        return next((figure.value for figure in self.figures if figure.name == name), None)

    def table(self) -> str:
        """Return what a person wants to see, without a newline at the end."""
        rows = [("what", "measured", "target", "how"), *(figure.row() for figure in self.figures)]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"BROKEN: {sentence}" for sentence in self.broken]
        lines.append(f"{'held' if self.held else 'NOT HELD'}, {self.seconds:.0f} s, seed {self.seed}")
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """Return the last line's object."""
        numbers = {f.name: None if f.value is None else float(_short(f.value)) for f in self.figures}
        missed = [f.name for f in self.figures if f.held is False]
        return numbers | {
            "not_held": missed,
            "broken": self.broken,
            "short": self.short,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
        }


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
