"""Stage 0: false pauses, unreachable is unknown; polling always goes on."""

from typing import Any

import pytest

from proposer.orders import Order, OrderKind
from proposer.permission import permission
from proposer.reasons import Code
from proposer.snapshot import Outside, ServerView
from proposer.units import ETHER, Wei
from tests.proposer.samples import NOW, SERVER, node, oracle

LEAST = Wei(ETHER // 10)
OTHER_ROOT = b"\x02" * 32


def outside(**changes: Any) -> Outside:
    """Everything well, but for the changes."""
    return Outside(**({"oracle": oracle(), "node": node(), "server": SERVER, "errors": {}} | changes))


def server(**changes: bool) -> ServerView:
    return ServerView(**({"config_hash_valid": True, "agg_vkey_valid": True, "range_vkey_valid": True} | changes))


CASES = {
    # what is outside, may request, may submit, reasons
    "all is well": (outside(), True, True, []),
    "optimistic mode": (outside(oracle=oracle(optimistic=True)), False, False, [Code.OPTIMISTIC_MODE]),
    "not an approved proposer": (outside(oracle=oracle(approved=False)), False, False, [Code.NOT_APPROVED]),
    "another root at the head": (outside(node=node(root_at_head=OTHER_ROOT)), False, False, [Code.NODE_DISAGREES]),
    "another program": (outside(server=server(range_vkey_valid=False)), False, True, [Code.CONFIG_MISMATCH]),
    "little ether": (outside(oracle=oracle(balance=Wei(1))), True, True, [Code.LOW_BALANCE]),
    "no account": (outside(oracle=oracle(balance=None)), True, True, []),
    "no output yet": (outside(oracle=oracle(latest_root=None)), True, True, []),
    "root not known to the node": (outside(node=node(root_at_head=None)), True, True, []),
    "L1 away": (outside(oracle=None, errors={"l1": "timed out"}), True, False, [Code.L1_DOWN]),
    "node away": (outside(node=None, errors={"node": "refused"}), True, True, [Code.NODE_DOWN]),
    "server away": (outside(server=None, errors={"server": "refused"}), True, True, [Code.SERVER_DOWN]),
    "two at once": (
        outside(oracle=oracle(optimistic=True), server=None, errors={"server": "refused"}),
        False,
        False,
        [Code.OPTIMISTIC_MODE, Code.SERVER_DOWN],
    ),
}


@pytest.mark.parametrize(("seen", "may_request", "may_submit", "codes"), CASES.values(), ids=CASES)
def test_what_is_allowed(seen: Outside, may_request: bool, may_submit: bool, codes: list[Code]) -> None:
    allowed = permission(seen, LEAST)
    assert (allowed.may_request, allowed.may_submit) == (may_request, may_submit)
    assert [reason.code for reason in allowed.reasons] == codes


def test_a_mismatch_names_the_contracts_values() -> None:
    seen = outside(server=server(config_hash_valid=False, agg_vkey_valid=False))
    (reason,) = permission(seen, LEAST).reasons
    assert "rollupConfigHash, aggregationVkey differ" in reason.sentence


def test_an_outage_quotes_its_error() -> None:
    (reason,) = permission(outside(server=None, errors={"server": "connection refused"}), LEAST).reasons
    assert "connection refused" in reason.sentence
    assert "OP_SUCCINCT_SERVER_URL" in reason.remedy


def test_a_pause_stops_requests_and_proposals() -> None:
    """And says who has ordered it, why, and how it ends."""
    order = Order(3, OrderKind.PAUSE, None, "alice", "the contract is upgraded", NOW)
    made = permission(outside(), LEAST, order)
    assert (made.may_request, made.may_submit) == (False, False)
    (reason,) = made.reasons
    assert reason.code is Code.PAUSED
    assert "alice" in reason.sentence
    assert "proposer resume" in reason.remedy
