"""A request's life as phases."""

from datetime import timedelta

from proposer.history import Life, Phase, Span, Step, spans, spent
from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, Status
from tests.proposer.samples import NOW, ago


def life(*steps: Step) -> Life:
    return Life(id=1, kind=Kind.RANGE, range=BlockRange(1000, 1300), attempt=2, steps=steps)


def test_a_settled_life_has_a_phase_for_each_status_and_ends_with_its_settlement() -> None:
    words = (Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.COMPLETE, Status.RELAYED)
    lived = life(*(Step(ago(100 - 10 * i), status) for i, status in enumerate(words)))
    assert lived.name == "range 1000→1300 · attempt 2"
    assert spans(lived, NOW) == [
        Span(phase, ago(100 - 10 * i), ago(90 - 10 * i))
        for i, phase in enumerate((Phase.QUEUED, Phase.WITNESS, Phase.PROVING, Phase.PROVEN))
    ]
    assert lived.end is not None
    assert lived.end.status is Status.RELAYED


def test_what_goes_on_ends_now_even_where_the_clock_went_back() -> None:
    under_way = life(Step(ago(20), Status.UNREQ), Step(ago(5), Status.PROVING))
    assert spent(under_way, Phase.PROVING, NOW) == 5
    assert under_way.end is None
    later = life(Step(NOW + timedelta(seconds=1), Status.UNREQ))
    assert spent(later, Phase.QUEUED, NOW) == 0


def test_a_phase_that_came_twice_is_added_up_and_one_that_never_came_is_none() -> None:
    """The server was away: nothing was asked, and it is queued again."""
    words = (Status.UNREQ, Status.WITNESSGEN, Status.UNREQ, Status.WITNESSGEN)
    again = life(*(Step(ago(40 - 10 * i), status) for i, status in enumerate(words)))
    assert spent(again, Phase.QUEUED, NOW) == 20
    assert spent(again, Phase.PROVING, NOW) is None


def test_a_failed_life_ends_with_its_failure() -> None:
    failed = life(Step(ago(9), Status.PROVING), Step(ago(4), Status.FAILED, Failure.UNFULFILLABLE, "no bids"))
    assert spans(failed, NOW) == [Span(Phase.PROVING, ago(9), ago(4))]
    assert failed.end is not None
    assert failed.end.failure is Failure.UNFULFILLABLE
