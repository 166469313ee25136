"""Fee rules for L1 transactions, after op-service txmgr (v1.9.1)."""

from dataclasses import dataclass

from proposer.units import Wei


@dataclass(frozen=True, slots=True)
class Fees:
    """An EIP-1559 price: priority fee and fee cap per gas, in wei."""

    tip: Wei
    cap: Wei


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """Floors and the limit of a bump; the limit binds only above `limit_threshold`."""

    min_tip: Wei
    min_base_fee: Wei
    limit_multiplier: int
    limit_threshold: Wei

    def suggest(self, tip: Wei, base_fee: Wei) -> Fees:
        """Price a first transaction: `cap = tip + 2 * base fee`, both floored."""
        floored = max(tip, self.min_tip)
        return Fees(Wei(floored), Wei(floored + 2 * max(base_fee, self.min_base_fee)))

    def bump(self, old: Fees, suggested: Fees) -> Fees | None:
        """Price a replacement on the same nonce: the suggestion, but at least 10 % more than before in both.

        Returns None where that passes the limit: `limit_multiplier` times the suggestion, above the threshold.
        """
        bumped = Fees(
            Wei(max(suggested.tip, _ten_percent_more(old.tip))), Wei(max(suggested.cap, _ten_percent_more(old.cap)))
        )
        limit = max(self.limit_multiplier * suggested.cap, self.limit_threshold)
        tip_limit = max(self.limit_multiplier * suggested.tip, self.limit_threshold)
        return None if bumped.cap > limit or bumped.tip > tip_limit else bumped


def _ten_percent_more(fee: Wei) -> int:
    """Round up: nodes refuse a replacement that pays even one wei less than 10 % more."""
    return -(-fee * 11 // 10)
