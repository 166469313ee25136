"""The demo's live view, with and without a terminal."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from deployments import demo_view
from deployments.demo_view import DemoView, Glance

GLANCE = Glance(
    seconds=12.34,
    finalized=1450,
    settled=1200,
    outputs=2,
    requests={"WITNESSGEN": 3, "PROVING": 4, "RELAYED": 17, "FAILED": 0},
    requested_to=1400,
    unconfirmed=1,
    story=("range 1200→1250 was halved", "output 1200 is settled"),
)


def test_without_a_terminal_there_is_one_line_per_change(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr: stdout is for the result. Time alone is no change, and neither is the L2 head."""
    with DemoView(1000, 2000) as view:
        view.show(GLANCE)
        view.show(replace(GLANCE, seconds=13.0, finalized=1460))
        view.show(replace(GLANCE, seconds=14.0, settled=1300, outputs=3))
        view.show(replace(GLANCE, seconds=15.0, settled=1300, outputs=3, story=()))
    printed = capsys.readouterr()
    assert printed.out == ""
    states = "witnessgen=3 proving=4 relayed=17"
    assert printed.err.splitlines() == [
        f"  12.3 s  finalized 1450 · settled 1200 (2 outputs) of 2000 · {states} · output 1200 is settled",
        f"  14.0 s  finalized 1450 · settled 1300 (3 outputs) of 2000 · {states} · output 1200 is settled",
        f"  15.0 s  finalized 1450 · settled 1300 (3 outputs) of 2000 · {states}",
    ]


def test_a_line_is_not_broken_however_narrow_the_window(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    with DemoView(1000, 2000) as view:
        view.show(GLANCE)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the view writes to a terminal of 110 columns."""
    written = io.StringIO()

    def console(**_: object) -> Console:
        return Console(file=written, force_terminal=True, width=110, color_system=None)

    monkeypatch.setattr(demo_view, "Console", console)
    return written


def _frames(written: str) -> list[str]:
    """The pictures drawn one over the other, as plain text."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "")
    return [frame for frame in plain.split("╭")[1:] if frame.strip()]


def _row(frame: str, *labels: str) -> list[str]:
    """The cells of the first line that has all of these labels, white space between them removed."""
    line = next(line for line in frame.splitlines() if all(label in line for label in labels))
    return re.split(r"\s{2,}", line.strip("│ "))


def test_a_terminal_shows_heads_states_progress_and_story(terminal: io.StringIO) -> None:
    with DemoView(1000, 2000) as view:
        view.show(GLANCE)
    frame = _frames(terminal.getvalue())[-1]
    assert "op-succinct proposer · 12 s" in frame
    assert _row(frame, "L2 finalized") == ["L2 finalized", "1450", "contract head", "1200"]
    assert _row(frame, "lag") == ["outputs settled", "2", "lag", "250 blocks"]
    names = _row(frame, "WITNESSGEN", "PROVING")
    lines = frame.splitlines()
    numbers = re.findall(r"\d+", lines[next(i for i, line in enumerate(lines) if "WITNESSGEN" in line) + 1])
    assert dict(zip(names, map(int, numbers), strict=True)) == {
        **dict.fromkeys(("UNREQ", "COMPLETE", "FAILED", "PARKED", "CANCELLED"), 0),
        "WITNESSGEN": 3,
        "PROVING": 4,
        "RELAYED": 17,
    }
    assert all(sentence in frame for sentence in GLANCE.story)


def test_a_terminal_shows_the_newest_glance_and_is_left_clean_after_an_error(terminal: io.StringIO) -> None:
    """The cursor is shown again."""

    def fail_in_the_middle() -> None:
        with DemoView(1000, 2000) as view:
            view.show(GLANCE)
            view.show(replace(GLANCE, seconds=20.0, settled=1400))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    frame = _frames(terminal.getvalue())[-1]
    assert "· 20 s" in frame
    assert _row(frame, "lag")[-1] == "50 blocks"
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_settling_past_the_end_and_before_the_start_is_drawn(terminal: io.StringIO) -> None:
    """A competitor may have gone further, and outputs may have been deleted."""
    with DemoView(1000, 2000) as view:
        view.show(replace(GLANCE, settled=2100, finalized=2100, story=()))
        view.show(replace(GLANCE, settled=900))
    assert _row(_frames(terminal.getvalue())[-1], "contract head")[-1] == "900"
