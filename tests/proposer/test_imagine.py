"""What a dry run decides on: the snapshot with a plan carried out in it."""

from proposer.imagine import as_remembered, imagine, named
from proposer.intents import Move, Plan
from proposer.plan_ranges import plan_ranges
from proposer.requests import Kind, Status
from proposer.snapshot import Snapshot
from tests.proposer.samples import snapshot as sample


def _finalized() -> Snapshot:
    return as_remembered(sample((), finalized=30))


def test_a_plan_that_is_imagined_is_not_planned_again() -> None:
    """What it inserts holds its blocks, under numbers that no row has."""
    snapshot = _finalized()
    plan = plan_ranges(snapshot, may_request=True)
    assert plan.inserts
    after = imagine(snapshot, plan)
    assert [r.range for r in after.of_kind(Kind.RANGE)] == sorted(new.range for new in plan.inserts)
    assert all(r.id < 0 and r.status is Status.UNREQ for r in after.requests)
    assert len({r.id for r in after.requests}) == len(plan.inserts)
    assert plan_ranges(after, may_request=True).inserts == ()
    again = imagine(after, plan)
    assert len({r.id for r in again.requests}) == 2 * len(plan.inserts), "numbers stay apart over several plans"
    assert snapshot.requests == _finalized().requests, "the snapshot itself is untouched"


def test_what_is_moved_to_an_end_holds_its_blocks_no_more() -> None:
    """A cancelled request leaves the open ones, and its attempts are still counted."""
    snapshot = _finalized()
    after = imagine(snapshot, plan_ranges(snapshot, may_request=True))
    one = after.of_kind(Kind.RANGE)[0]
    ended = imagine(after, Plan(moves=(Move(one.id, Status.UNREQ, Status.CANCELLED, "superseded"),)))
    assert one.id not in {r.id for r in ended.requests}
    assert [(r.id, r.status) for r in ended.attempts_above] == [(one.id, Status.CANCELLED)]


def test_only_what_has_a_number_is_named_by_it() -> None:
    snapshot = _finalized()
    (first, *_) = imagine(snapshot, plan_ranges(snapshot, may_request=True)).of_kind(Kind.RANGE)
    assert named(first) == f"range {first.range} (new, attempt 1)"
