"""The timeline as a picture: one line per request, drawn as SVG, which both of Prefect's UIs show as an image."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from html import escape

from proposer.history import ENDS, PHASES, History, Life, Phase, Step, spans

WIDTH, LABELS, RIGHT = 760, 270, 24
ROW, TOP, BOTTOM = 18, 62, 26
"""In the picture's own units: a line of text is 11 high."""
LEAST_SECONDS = 30.0
COLOURS = {
    Phase.QUEUED: "#cbd5e1",
    Phase.WITNESS: "#f59e0b",
    Phase.PROVING: "#2563eb",
    Phase.PROVEN: "#86efac",
    Phase.PARKED: "#b91c1c",
    Phase.SETTLED: "#15803d",
    Phase.FAILED: "#dc2626",
    Phase.CANCELLED: "#64748b",
}
_LEGEND = {
    Phase.QUEUED: "queued",
    Phase.WITNESS: "witness",
    Phase.PROVING: "proving",
    Phase.PROVEN: "complete, not settled",
    Phase.SETTLED: "settled",
    Phase.FAILED: "failed",
    Phase.CANCELLED: "superseded",
    Phase.PARKED: "parked",
}
_STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800)
"""Seconds between two marks of the time axis."""
_MARKS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INK, _LINE = "#0f172a", "#e2e8f0"
_X = Callable[[datetime], float]


def picture(history: History) -> str:
    """Draw the lives, the first begun at the top; a dashed line is an output settled. Times are UTC."""
    begin = _begin(history)
    height = TOP + ROW * len(history.lives) + BOTTOM
    scale = (WIDTH - LABELS - RIGHT) / (history.now - begin).total_seconds()

    def x(at: datetime) -> float:
        return LABELS + max(0.0, (at - begin).total_seconds()) * scale

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH * 3 // 2}" '
            f'height="{height * 3 // 2}" font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="11" '
            f'fill="{_INK}">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_legend(),
        *_axis(begin, history.now, x, height - BOTTOM),
        *_outputs(history.settled, begin, x, height - BOTTOM),
    ]
    for row, life in enumerate(_in_order(history.lives)):
        parts += _life(life, history.now, x, TOP + ROW * row)
    return "".join([*parts, "</svg>"])


def _begin(history: History) -> datetime:
    """The axis begins with the first life that is shown, but not before what is looked at."""
    first = min((life.steps[0].at for life in history.lives), default=history.since)
    latest = history.now - timedelta(seconds=LEAST_SECONDS)
    return min(latest, max(history.since, first))


def _in_order(lives: Sequence[Life]) -> list[Life]:
    return sorted(lives, key=lambda life: (life.steps[0].at, life.id))


def _legend() -> Iterator[str]:
    x = 10.0
    for phase, name in _LEGEND.items():
        yield _mark(phase, x + 5, 13) if phase in ENDS else _bar(phase, x, 8, 10)
        yield _text(x + 14, 17, name)
        x += 14 + 6.6 * len(name) + 16


def _axis(begin: datetime, now: datetime, x: _X, bottom: int) -> Iterator[str]:
    length = (now - begin).total_seconds()
    step = next((s for s in _STEPS if length / s <= _MARKS), 21600)
    at = _EPOCH + timedelta(seconds=(int(begin.timestamp()) // step + 1) * step)
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    while at <= now:
        yield f'<path d="M{x(at):.1f} {TOP - 4}V{bottom}" stroke="{_LINE}"/>'
        yield _text(x(at), bottom + 16, f"{at:{form}}", "middle")
        at += timedelta(seconds=step)
    yield _text(8, bottom + 16, f"{now.astimezone(UTC):%Y-%m-%d}, times in UTC")
    yield f'<path d="M{LABELS} {bottom}H{WIDTH - RIGHT}" stroke="{_INK}"/>'


def _outputs(settled: Sequence[tuple[datetime, int]], begin: datetime, x: _X, bottom: int) -> Iterator[str]:
    yield _text(8, TOP - 14, "outputs settled at L2 block")
    free = 0.0
    for at, block in settled:
        if at < begin:
            continue
        yield f'<path d="M{x(at):.1f} {TOP - 10}V{bottom}" stroke="{COLOURS[Phase.SETTLED]}" stroke-dasharray="3 3"/>'
        half = 3.6 * len(str(block))
        if x(at) - half >= free:  # one that would lie on the one before is a line only
            middle = min(x(at), WIDTH - half - 2)
            yield _text(middle, TOP - 14, str(block), "middle")
            free = middle + half + 6


def _life(life: Life, now: datetime, x: _X, y: int) -> Iterator[str]:
    yield _text(8, y + 12, life.name)
    for span in spans(life, now):
        if x(span.end) > LABELS:
            yield _bar(span.phase, x(span.begin), y + 3, max(1.5, x(span.end) - x(span.begin)))
    if (end := life.end) is not None:
        yield _mark(PHASES[end.status], x(end.at), y + 8)
        if (told := _told(end)) is not None:
            left = x(end.at) > WIDTH - RIGHT - 8 - 6.4 * len(told)
            yield _text(
                x(end.at) + (-9 if left else 9), y + 12, told, "end" if left else "start", COLOURS[Phase.FAILED]
            )


def _told(end: Step) -> str | None:
    return end.failure.value if end.failure is not None and PHASES[end.status] is Phase.FAILED else None


def _bar(phase: Phase, x: float, y: float, width: float) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="11" fill="{COLOURS[phase]}"/>'


def _mark(phase: Phase, x: float, y: float) -> str:
    if phase is Phase.SETTLED:
        return f'<path d="M{x:.1f} {y - 6:.1f}l5 6l-5 6l-5 -6z" fill="{COLOURS[phase]}"/>'
    return f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" stroke="{COLOURS[phase]}" stroke-width="2.2"/>'


def _text(x: float, y: float, words: str, anchor: str = "start", colour: str = _INK) -> str:
    halo = "" if colour == _INK else ' paint-order="stroke" stroke="#ffffff" stroke-width="3"'
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}"{halo}>{escape(words)}</text>'
