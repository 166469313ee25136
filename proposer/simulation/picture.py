"""A simulation as a picture: what is final and not settled, and the queue, over time; SVG that any browser shows."""

from collections.abc import Callable, Iterator, Sequence

from proposer.simulation.outcome import Outcome, Sample
from proposer.simulation.scenario import Scenario

WIDTH, LEFT, RIGHT = 960, 64, 20
TOP, PANEL, GAP, BOTTOM = 64, 190, 56, 40
COLUMNS = 1_000
"""Points of a curve at most: of all samples in one, the highest is drawn."""
_INK, _LINE, _LAG, _WAITING, _FLIGHT = "#0f172a", "#e2e8f0", "#b91c1c", "#f59e0b", "#2563eb"
_STEPS = (1, 2, 5)
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


def picture(scenario: Scenario, outcome: Outcome) -> str:
    """Draw two panels over one time axis: the unsettled chain in minutes, and range requests waiting and in flight."""
    end = max(outcome.ended_at, 1.0)
    samples = list(_thinned(outcome.samples, end))
    block_minutes = scenario.chain.block_seconds / 60
    lag = [(s.at, s.behind * block_minutes) for s in samples]
    height = TOP + 2 * PANEL + GAP + BOTTOM
    figures = outcome.lag_seconds()
    title = (
        f"Ranges of {scenario.settings.max_block_range} blocks, caps {scenario.settings.max_witness_gen} and "
        f"{scenario.settings.max_proof_requests}: a final block waits {figures.median / 60:.1f} min (median), "
        f"{figures.p95 / 60:.1f} min (p95), {figures.max / 60:.1f} min (most)"
    )
    second = TOP + PANEL + GAP
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="DejaVu Sans, Verdana, Arial, sans-serif" font-size="12" fill="{_INK}">'
        ),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 22, title),
        *_panel(TOP, "final and not settled, in minutes of the chain", [(_LAG, "", lag)], end),
        *_panel(
            second,
            "range requests",
            [
                (_FLIGHT, "in flight", [(s.at, float(s.in_flight)) for s in samples]),
                (_WAITING, "waiting for a slot", [(s.at, float(s.waiting)) for s in samples]),
            ],
            end,
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _thinned(samples: Sequence[Sample], end: float) -> Iterator[Sample]:
    """Yield of each column the sample that is furthest behind, and the one with the longest queue."""
    columns: dict[int, list[Sample]] = {}
    for sample in samples:
        columns.setdefault(int(sample.at / end * (COLUMNS // 2)), []).append(sample)
    for held in columns.values():
        highest = {id(s): s for s in (max(held, key=lambda s: s.behind), max(held, key=lambda s: s.waiting))}
        yield from sorted(highest.values(), key=lambda s: s.at)


_Curve = tuple[str, str, Sequence[tuple[float, float]]]


def _panel(top: int, name: str, curves: Sequence[_Curve], end: float) -> Iterator[str]:
    bottom = top + PANEL
    most = max((value for _, _, points in curves for _, value in points), default=0.0)
    step = _step(max(most, 1.0) / 5)
    ceiling = step * (int(most / step) + 1)

    def y(value: float) -> float:
        return bottom - value / ceiling * PANEL

    def x(at: float) -> float:
        return LEFT + at / end * (WIDTH - LEFT - RIGHT)

    yield _text(LEFT, top - 10, name)
    value = 0.0
    while value <= ceiling:
        yield f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="{_LINE}"/>'
        yield _text(LEFT - 8, y(value) + 4, f"{value:g}", "end")
        value += step
    unit, suffix = next(((u, s) for u, s in _UNITS if end >= 3 * u), _UNITS[-1])
    tick = _step(end / unit / 8)
    at = 0.0
    while at * unit <= end:
        yield f'<path d="M{x(at * unit):.1f} {bottom}v5" stroke="{_INK}"/>'
        yield _text(x(at * unit), bottom + 19, f"{at:g} {suffix}", "middle")
        at += tick
    beside = float(LEFT + 200)
    for colour, label, points in curves:
        yield f'<path d="{_stairs(points, x, y, end)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        if label:
            yield f'<rect x="{beside:.0f}" y="{top - 19}" width="10" height="10" fill="{colour}"/>'
            yield _text(beside + 15, top - 10, label)
            beside += 40 + 7 * len(label)


def _stairs(
    points: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float], end: float
) -> str:
    """Draw what holds from each point on until the next."""
    if not points:
        return "M0 0"
    first_at, first = points[0]
    steps = [f"M{x(first_at):.1f} {y(first):.1f}"]
    steps += [f"H{x(at):.1f}V{y(value):.1f}" for at, value in points[1:]]
    return "".join([*steps, f"H{x(end):.1f}"])


def _step(wanted: float) -> float:
    """Return the least of 1, 2, 5, 10, 20, ... that is not below."""
    power = 1.0
    while power * 10 < wanted:
        power *= 10
    return next((step * power for step in _STEPS if step * power >= wanted), 10 * power)


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
