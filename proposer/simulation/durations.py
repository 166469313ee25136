"""How long things take under the virtual clock: distributions that are a function of a key, never of chance.

The same seed, request and attempt always draw the same number, whatever else happens. So two policies, or two sets of
caps, are compared over the very same provers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from statistics import NormalDist

_NORMAL = NormalDist()
_P95 = _NORMAL.inv_cdf(0.95)


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal by its median and 95th percentile in seconds; the two being equal makes it a constant."""

    median: float
    p95: float

    def __post_init__(self) -> None:
        if not (0 <= self.median <= self.p95 < math.inf):
            raise ValueError(f"a duration needs 0 <= median <= p95, not {self.median:g} and {self.p95:g}")
        if self.median == 0 < self.p95:
            raise ValueError(f"a duration whose median is 0 is always 0: its p95 cannot be {self.p95:g}")

    def at(self, share: float) -> float:
        """Return the duration that this share of all stays below."""
        if self.median == self.p95:
            return self.median
        return self.median * math.exp(math.log(self.p95 / self.median) / _P95 * _NORMAL.inv_cdf(share))

    def times(self, factor: float) -> "Spread":
        """Return the same spread around `factor` times the median."""
        return Spread(self.median * factor, self.p95 * factor)

    def __str__(self) -> str:
        return f"{self.median:g} s" if self.median == self.p95 else f"{self.median:g} s, p95 {self.p95:g} s"


def dice(seed: int, *key: int | str) -> float:
    """Return a number in (0, 1) that depends on the seed and the key alone."""
    digest = blake2b(repr(key).encode(), digest_size=8, key=_seed_bytes(seed)).digest()
    return (int.from_bytes(digest) + 0.5) / 2**64


@cache
def _seed_bytes(seed: int) -> bytes:
    return str(seed).encode()[:64]


def quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolate between the values of a sorted sequence, as PostgreSQL's `percentile_cont`; never empty."""
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def weighted_quantile(pairs: Sequence[tuple[float, float]], share: float) -> float:
    """Return the least value that this share of the weight of (value, weight) pairs does not exceed."""
    ordered = sorted(pairs)
    wanted = share * sum(weight for _, weight in ordered)
    so_far = 0.0
    for value, weight in ordered:
        so_far += weight
        if so_far >= wanted:
            return value
    return ordered[-1][0]
