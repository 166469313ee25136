"""Fee rules of op-service txmgr, as a table of named cases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proposer.fees import FeePolicy, Fees
from proposer.units import GWEI, Wei


def gwei(tip: float, cap: float) -> Fees:
    """A price in gwei."""
    return Fees(Wei(int(tip * GWEI)), Wei(int(cap * GWEI)))


POLICY = FeePolicy(min_tip=Wei(GWEI), min_base_fee=Wei(GWEI), limit_multiplier=5, limit_threshold=Wei(100 * GWEI))

SUGGESTIONS = {
    # tip and base fee of the node, price
    "cap is tip and twice the base fee": (2, 10, gwei(2, 22)),
    "tip floored": (0, 10, gwei(1, 21)),
    "base fee floored": (2, 0.5, gwei(2, 4)),
    "both floored": (0, 0, gwei(1, 3)),
}


@pytest.mark.parametrize(("tip", "base_fee", "price"), SUGGESTIONS.values(), ids=SUGGESTIONS)
def test_first_price(tip: float, base_fee: float, price: Fees) -> None:
    assert POLICY.suggest(Wei(int(tip * GWEI)), Wei(int(base_fee * GWEI))) == price


BUMPS = {
    # old price, suggested now, price of the replacement
    "10 % more in both where the market is quiet": (gwei(10, 30), gwei(10, 30), gwei(11, 33)),
    "the market where it rose by more": (gwei(10, 30), gwei(20, 60), gwei(20, 60)),
    "10 % more in the tip, the market in the cap": (gwei(10, 30), gwei(1, 60), gwei(11, 60)),
    "10 % more in the cap, the market in the tip": (gwei(10, 30), gwei(20, 25), gwei(20, 33)),
    "rounded up": (Fees(Wei(1), Wei(11)), Fees(Wei(0), Wei(0)), Fees(Wei(2), Wei(13))),
    "an exact tenth is not rounded": (Fees(Wei(10), Wei(100)), Fees(Wei(0), Wei(0)), Fees(Wei(11), Wei(110))),
    "at the limit": (gwei(1, 500), gwei(1, 110), gwei(1.1, 550)),
    "cap past five times the suggestion": (gwei(1, 501), gwei(1, 110), None),
    "tip past five times the suggestion": (gwei(101, 300), gwei(20, 200), None),
    "past five times but at the threshold": (gwei(10, 100 / 1.1), gwei(1, 3), gwei(11, 100)),
    "past five times and the threshold": (gwei(10, 92), gwei(1, 3), None),
}


@pytest.mark.parametrize(("old", "suggested", "price"), BUMPS.values(), ids=BUMPS)
def test_price_of_a_replacement(old: Fees, suggested: Fees, price: Fees | None) -> None:
    assert POLICY.bump(old, suggested) == price


fees = st.builds(lambda tip, more: Fees(Wei(tip), Wei(tip + more)), st.integers(0, 10**14), st.integers(0, 10**14))


@given(fees, fees)
def test_a_replacement_is_always_accepted_and_never_runs_away(old: Fees, suggested: Fees) -> None:
    """Nodes want 10 % more in both; the limit holds in both; the market price is never undercut."""
    bumped = POLICY.bump(old, suggested)
    if bumped is not None:
        assert bumped.tip * 10 >= old.tip * 11
        assert bumped.cap * 10 >= old.cap * 11
        assert bumped.tip >= suggested.tip
        assert bumped.cap >= suggested.cap
        assert bumped.tip <= bumped.cap
        assert bumped.cap <= max(5 * suggested.cap, 100 * GWEI)
        assert bumped.tip <= max(5 * suggested.tip, 100 * GWEI)
