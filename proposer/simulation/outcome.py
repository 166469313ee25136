"""What came out of a simulation: settlements, the queue over time, proofs and their cost, and the lag."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from proposer.simulation.durations import weighted_quantile
from proposer.simulation.scenario import Prices


@dataclass(frozen=True, slots=True)
class Settlement:
    """An output on the contract: of the blocks `start + 1 .. block`, the last one final at `final_at`; in seconds."""

    start: int
    block: int
    final_at: float
    settled_at: float


@dataclass(frozen=True, slots=True)
class Sample:
    """How things stand from `at` on, in seconds from the start."""

    at: float
    finalized: int
    settled: int
    waiting: int
    """Range requests without a slot, those that wait for their next attempt included."""
    in_flight: int
    """Range requests in witness generation or proving."""

    @property
    def behind(self) -> int:
        """Final L2 blocks that are not settled."""
        return self.finalized - self.settled


@dataclass(slots=True)
class Tally:
    """Requests by what became of them; `paid` are those the network was asked for."""

    range_paid: int = 0
    blocks_paid: int = 0
    aggregation_paid: int = 0
    retried: int = 0
    halved: int = 0
    failed: int = 0
    wasted: int = 0
    """Paid for, and in no settlement."""
    parked: int = 0
    outages: int = 0
    checkpoints: int = 0
    proposals: int = 0

    @property
    def paid(self) -> int:
        """Proofs of both kinds that the network was asked for."""
        return self.range_paid + self.aggregation_paid

    def proof_cost(self, prices: Prices) -> float:
        """Price of all proofs, in the currency of the prices."""
        return (
            self.range_paid * prices.range_proof
            + self.blocks_paid * prices.block
            + self.aggregation_paid * prices.aggregation_proof
        )

    def gas_ether(self, prices: Prices) -> float:
        """Price of all transactions, in ether."""
        gas = self.checkpoints * prices.checkpoint_gas + self.proposals * prices.proposal_gas
        return gas * prices.gas_gwei / 1e9

    def cost(self, prices: Prices) -> float:
        """Price of everything, gas only where an ether has a price."""
        return self.proof_cost(prices) + self.gas_ether(prices) * prices.ether


@dataclass(frozen=True, slots=True)
class Figures:
    """Median, 95th percentile and maximum."""

    median: float
    p95: float
    max: float


def _figures(pairs: Sequence[tuple[float, float]]) -> Figures:
    if not any(weight for _, weight in pairs):
        return Figures(0.0, 0.0, 0.0)
    held = [pair for pair in pairs if pair[1] > 0]
    return Figures(weighted_quantile(held, 0.5), weighted_quantile(held, 0.95), max(value for value, _ in held))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything that happened, in virtual seconds from the start."""

    settlements: Sequence[Settlement]
    samples: Sequence[Sample]
    """One for each change."""
    finality: Sequence[tuple[float, int]]
    """(time, finalized head) of each advance, the first at the start."""
    tally: Tally
    ended_at: float
    kept_up: bool
    """Whether no final block waited longer than the scenario's patience."""
    left: int
    """Final blocks that are not settled at the end."""
    holes: Sequence[str] = field(default_factory=tuple)
    """What the policy waits for, in its own words, where blocks are left."""

    @property
    def makespan(self) -> float:
        """Seconds until the last settlement; 0 without one."""
        return self.settlements[-1].settled_at if self.settlements else 0.0

    def lag_seconds(self) -> Figures:
        """Return how long blocks wait from finality to settlement, each block counted once."""
        return _figures(list(self._waits()))

    def lag_blocks(self) -> Figures:
        """Return how many final blocks are not settled, over the time."""
        return _figures([(s.behind, seconds) for s, seconds in self._held()])

    def queue(self) -> Figures:
        """Return how many range requests wait for a slot, over the time."""
        return _figures([(s.waiting, seconds) for s, seconds in self._held()])

    def in_flight(self) -> Figures:
        """Return how many range requests are in flight, over the time."""
        return _figures([(s.in_flight, seconds) for s, seconds in self._held()])

    def _held(self) -> list[tuple[Sample, float]]:
        ends = [*(s.at for s in self.samples[1:]), self.ended_at]
        return [(s, end - s.at) for s, end in zip(self.samples, ends, strict=True)]

    def _waits(self) -> "list[tuple[float, float]]":
        """Pair each wait with the number of blocks that had it: a settlement spans several advances of finality."""
        waits: list[tuple[float, float]] = []
        step = 0
        for settlement in self.settlements:
            at = settlement.start
            while at < settlement.block:
                while self.finality[step][1] <= at:
                    step += 1
                upto = min(self.finality[step][1], settlement.block)
                waits.append((settlement.settled_at - self.finality[step][0], upto - at))
                at = upto
        return waits
