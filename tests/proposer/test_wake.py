"""Whether a cycle started now would do something. (That it agrees with the cycle: `World.cycle` asserts it.)"""

from proposer.permission import Permission
from proposer.requests import ProofRequest, Status
from proposer.wake import to_do
from tests.proposer.samples import aggregation, oracle, request, snapshot
from tests.proposer.world import World

ALL = Permission(may_request=True, may_submit=True)


def names(*requests: ProofRequest, finalized: int = 20, head: int = 0, allowed: Permission = ALL) -> tuple[str, ...]:
    contract = oracle(head, submission_interval=20)
    return to_do(snapshot(requests, contract=contract, finalized=finalized), allowed)


def test_nothing_to_do() -> None:
    assert names(request(1, 0, 10, Status.PROVING), request(2, 10, 20, Status.WITNESSGEN)) == ()


def test_everything_has_a_name_the_most_urgent_first() -> None:
    ranges = [request(1, 0, 10, Status.COMPLETE), request(2, 10, 20, Status.COMPLETE)]
    ready = aggregation(3, 0, 20, Status.COMPLETE, members=(1, 2))
    next_line = [request(4, 20, 40, Status.COMPLETE), request(5, 40, 50)]
    waiting = aggregation(6, 20, 40, members=(4,))
    assert names(*ranges, ready, *next_line, waiting, finalized=60) == (
        "propose request 3",
        "checkpoint L1 block 95",
        "request 5",
        "plan 50→60",
    )


def test_cancellations_and_aggregations_are_named() -> None:
    done = names(
        request(1, 0, 10, Status.COMPLETE), request(2, 10, 30, Status.COMPLETE), request(3, 0, 5), finalized=30
    )
    assert done == ("aggregate 0→30", "request 3", "cancelled 3")


def test_a_relayed_range_is_named() -> None:
    assert names(request(1, 0, 10, Status.COMPLETE), head=10, finalized=10) == ("relayed 1",)


def test_without_permission_only_the_rest_is_named() -> None:
    ranges = [request(1, 0, 10, Status.COMPLETE), request(2, 10, 20, Status.COMPLETE)]
    ready = aggregation(3, 0, 20, Status.COMPLETE, members=(1, 2))
    assert names(*ranges, ready, request(4, 20, 30), allowed=Permission(False, True)) == ("propose request 3",)
    assert names(*ranges, ready, request(4, 20, 30), allowed=Permission(True, False)) == ("request 4",)


def test_a_settled_rollup_wakes_nobody() -> None:
    """From nothing to finality; afterwards there is nothing to do until finality moves."""
    world = World()
    world.finalized = 40
    world.settle()
    assert world.head == 40
    assert to_do(world.snapshot(), ALL) == ()
    world.finalized = 48
    assert to_do(world.snapshot(), ALL) == ("plan 40→48",)
