"""The timeline page: what became of the newest requests, as a picture and as a table."""

from base64 import b64encode

from flows.pages.picture import picture
from flows.pages.text import paragraphs, plain, run_link, table, utc
from proposer.history import ENDS, PHASES, History, Life, Phase, spent
from proposer.units import ago

HOURS, LIVES = 6.0, 30
"""How far back, and most requests: one screen, and 20 kB."""
FAILURES = 10


def timeline_page(history: History) -> str:
    """Show the lives of the requests that moved last."""
    if not history.lives:
        return paragraphs(f"No request moved in the {HOURS:g} hours before {utc(history.now)}.")
    # an image from a data address is the one kind of drawing that both of Prefect's UIs show in markdown
    image = b64encode(picture(history).encode()).decode()
    blocks = ", ".join(str(block) for _, block in history.settled)
    older = f" The {history.left_out} that moved before them are left out." if history.left_out else ""
    return paragraphs(
        f"The {len(history.lives)} requests that moved last in the {HOURS:g} hours before {utc(history.now)}.{older} "
        f"Outputs settled: {blocks or 'none'}.",
        f"![Timeline of the requests](data:image/svg+xml;base64,{image})",
        _failures(history),
        "## How long each took",
        _durations(history),
    )


def _failures(history: History) -> str:
    ended = [life for life in history.lives if life.steps[-1].failure and not _is(life, Phase.CANCELLED)]
    rows = [
        (run_link(life.name, life.run), f"`{step.failure}`", plain(step.why))
        for life in sorted(ended, key=lambda life: life.steps[-1].at, reverse=True)[:FAILURES]
        if (step := life.steps[-1])
    ]
    shown = table(("attempt", "failed with", "why"), rows)
    return f"## Failed attempts\n\n{shown}" if shown else ""


def _is(life: Life, phase: Phase) -> bool:
    return PHASES[life.steps[-1].status] is phase


def _durations(history: History) -> str:
    phases = (Phase.QUEUED, Phase.WITNESS, Phase.PROVING, Phase.PROVEN)
    rows = [
        (
            run_link(life.name, life.run),
            str(life.id),
            *(_span(spent(life, phase, history.now)) for phase in phases),
            _now(life),
        )
        for life in reversed(history.lives)
    ]
    head = ("request", "number", "queued", "witness", "proving", "waited for settlement", "now")
    return table(head, rows, numbers=(1, 2, 3, 4, 5))


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 10 else ago(seconds)


def _now(life: Life) -> str:
    phase = PHASES[life.steps[-1].status]
    return phase.value if phase in ENDS or phase is Phase.PARKED else f"{phase.value} …"
