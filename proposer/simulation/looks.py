"""When the process sees what becomes of a proof, without going through every look at it."""

import math

from proposer.polling import Usual, next_look
from proposer.requests import ProofRequest
from proposer.simulation.clock import moment, seconds


def first_look(
    request: ProofRequest, usual: Usual | None, look_interval: float, loop: float, last: float, ready: float
) -> float:
    """Return the time of the first look after the one at `last` that is at `ready` or later.

    Looks follow `next_look`, each at the loop's next turn. Those that follow second by second are passed over.
    """
    asked = seconds(request.requested_at or request.since)
    at = last
    while True:
        at = _turn(seconds(next_look(request, usual, look_interval, moment(at))), loop)
        if at >= ready:
            return at
        if usual is not None and usual.quick <= at - asked:
            # all waits up to then are alike, so what is skipped is a whole number of them
            until = min(ready, asked + usual.slow)
            step = _turn(at + 1.0, loop) - at
            at += max(0, math.floor((until - at) / step) - 1) * step


def _turn(at: float, loop: float) -> float:
    return math.ceil(at / loop - 1e-6) * loop if loop > 0 else at
