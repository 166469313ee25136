"""What a look at the prover means, and when to look again."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposer.polling import (
    LEAST_WAIT_SECONDS,
    Ended,
    Execution,
    Fulfillment,
    ProofStatus,
    Proven,
    Usual,
    judge,
    next_look,
)
from proposer.requests import Failure, Status
from tests.proposer.samples import NOW, ago, request

DEADLINE = 14400.0
F, X = Fulfillment, Execution

LOOKS = {
    # fulfilment, execution, proof, age in seconds, outcome
    "fulfilled": (F.FULFILLED, X.EXECUTED, b"proof", 10, Proven(b"proof")),
    "fulfilled after the deadline": (F.FULFILLED, X.EXECUTED, b"proof", 99999, Proven(b"proof")),
    "fulfilled without a proof": (F.FULFILLED, X.EXECUTED, b"", 10, Failure.BAD_PROOF),
    "unexecutable": (F.UNFULFILLABLE, X.UNEXECUTABLE, b"", 10, Failure.UNEXECUTABLE),
    "unfulfillable": (F.UNFULFILLABLE, X.EXECUTED, b"", 10, Failure.UNFULFILLABLE),
    "unfulfillable, never executed": (F.UNFULFILLABLE, X.UNEXECUTED, b"", 10, Failure.UNFULFILLABLE),
    "requested": (F.REQUESTED, X.UNEXECUTED, b"", 10, None),
    "assigned until the deadline": (F.ASSIGNED, X.EXECUTED, b"", 14400, None),
    "assigned after the deadline": (F.ASSIGNED, X.EXECUTED, b"", 14401, Failure.PROOF_TIMEOUT),
    "unspecified after the deadline": (F.UNSPECIFIED, X.UNSPECIFIED, b"", 14401, Failure.PROOF_TIMEOUT),
    "unexecutable but not given up yet": (F.ASSIGNED, X.UNEXECUTABLE, b"", 10, None),
}


@pytest.mark.parametrize(("fulfillment", "execution", "proof", "age", "outcome"), LOOKS.values(), ids=LOOKS)
def test_what_a_look_means(
    fulfillment: Fulfillment, execution: Execution, proof: bytes, age: float, outcome: Proven | Failure | None
) -> None:
    asked = request(1, 0, 10, Status.PROVING, since=ago(age))
    seen = judge(asked, ProofStatus(fulfillment, execution, proof), DEADLINE, NOW)
    assert (seen.failure if isinstance(seen, Ended) else seen) == outcome


def test_every_answer_of_the_network_has_a_meaning() -> None:
    for fulfillment in Fulfillment:
        for execution in Execution:
            judge(request(1, 0, 10, Status.PROVING), ProofStatus(fulfillment, execution, b""), DEADLINE, NOW)


USUAL = Usual(quick=100, slow=200)
WAITS = {
    # usual, age, seconds to the next look
    "no history, just asked": (None, 0, 1),
    "no history, a minute": (None, 60, 6),
    "no history, an hour": (None, 3600, 15),
    "long before the usual time": (USUAL, 10, 15),
    "shortly before the usual time": (USUAL, 95, 5),
    "within the usual time": (USUAL, 150, 1),
    "a little late": (USUAL, 260, 6),
    "very late": (USUAL, 9999, 15),
}


@pytest.mark.parametrize(("usual", "age", "wait"), WAITS.values(), ids=WAITS)
def test_when_to_look_again(usual: Usual | None, age: float, wait: float) -> None:
    asked = request(1, 0, 10, Status.PROVING, since=ago(age))
    assert next_look(asked, usual, 15, NOW) == NOW + timedelta(seconds=wait)


def test_where_proofs_come_within_seconds_of_each_other_looks_are_closer() -> None:
    """Twenty in the usual time, at most four a second: a prover of seconds is not slowed down by looks of a second."""
    for spread, wait in ((0.5, 0.25), (10, 0.5), (20, 1.0), (600, 1.0)):
        asked = request(1, 0, 10, Status.PROVING, since=ago(100))
        assert next_look(asked, Usual(100, 100 + spread), 15, NOW) == NOW + timedelta(seconds=wait)


@given(st.floats(0, 10**6), st.floats(0, 10**5), st.floats(0, 10**5))
def test_the_next_look_is_between_a_quarter_of_a_second_and_the_interval(age: float, quick: float, more: float) -> None:
    asked = request(1, 0, 10, Status.PROVING, since=ago(age))
    wait = (next_look(asked, Usual(quick, quick + more), 15, NOW) - NOW).total_seconds()
    assert LEAST_WAIT_SECONDS <= wait <= 15
