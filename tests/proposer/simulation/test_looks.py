"""Looks that are passed over are exactly those that would have shown nothing."""

import math

from hypothesis import given
from hypothesis import strategies as st

from proposer.polling import Usual, next_look
from proposer.ranges import BlockRange
from proposer.requests import Kind, ProofRequest, Status
from proposer.simulation.clock import moment, seconds
from proposer.simulation.l1 import COMMITMENTS
from proposer.simulation.looks import first_look


def _asked(at: float) -> ProofRequest:
    return ProofRequest(
        id=1,
        kind=Kind.RANGE,
        range=BlockRange(0, 1),
        status=Status.PROVING,
        attempt=1,
        since=moment(at),
        commitments=COMMITMENTS,
        requested_at=moment(at),
    )


@given(
    asked=st.integers(0, 1_000),
    witness=st.integers(0, 300),
    proving=st.floats(0, 4_000),
    usual=st.one_of(st.none(), st.tuples(st.integers(1, 1_000), st.integers(0, 2_000))),
    interval=st.sampled_from([1.0, 15.0]),
    loop=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_the_first_look_that_shows_it_is_found(
    asked: int, witness: int, proving: float, usual: tuple[int, int] | None, interval: float, loop: float
) -> None:
    known = Usual(usual[0], usual[0] + usual[1]) if usual is not None else None
    request, answered = _asked(float(asked)), float(asked + witness)
    ready = answered + proving
    at = answered
    while at < ready or at == answered:
        at = math.ceil(seconds(next_look(request, known, interval, moment(at))) / loop - 1e-6) * loop
    assert first_look(request, known, interval, loop, answered, ready) == at
