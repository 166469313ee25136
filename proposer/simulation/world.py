"""What every policy lives in: virtual L2 and L1, a clock, and the record of what happens."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from proposer.simulation.clock import Clock
from proposer.simulation.l1 import VirtualL1
from proposer.simulation.outcome import Outcome, Sample, Settlement, Tally
from proposer.simulation.prover import Outages
from proposer.simulation.scenario import Scenario


class Queue(Protocol):
    """What a run records of a policy's requests."""

    @property
    def version(self) -> int:
        """Another one after each change."""
        ...

    def queue(self) -> tuple[int, int]:
        """Return how many ranges wait for a slot and how many are in flight."""
        ...


class World:
    """A run of one scenario; a policy is told of finality and asked for its queue."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.tally = Tally()
        self.l1 = VirtualL1(scenario.l1, scenario.settings, self.clock)
        self.outages = Outages(scenario.prover, scenario.seed)
        self.finality: list[tuple[float, int]] = [(0.0, scenario.chain.finalized(0))]
        self._settlements: list[Settlement] = []
        self._samples: list[Sample] = []
        self._sampled = (-1, -1, -1)
        self._late = False

    @property
    def finalized(self) -> int:
        """The L2's finalized head."""
        return self.finality[-1][1]

    def run(self, on_finality: Callable[[], None], queue: Queue, done: Callable[[], bool]) -> bool:
        """Let time pass until the policy is done, nothing happens any more, or a block has waited too long.

        Return whether nothing had to wait too long.
        """
        chain = self.scenario.chain

        def advance(step: int) -> None:
            if (now := chain.finalized(step)) > self.finalized:
                self.finality.append((self.clock.now, now))
                on_finality()
            if step < chain.last_step:
                self.clock.at((step + 1) * chain.finality_step, lambda: advance(step + 1))

        if chain.last_step > 0:
            self.clock.at(chain.finality_step, lambda: advance(1))
        on_finality()
        while not done() and not self._late and self.clock.step():
            self._sample(queue)
            self._late = self._overdue()
        return not self._late

    def settled(self, block: int) -> None:
        """The contract's head has moved to this block, now."""
        start, self.l1.head = self.l1.head, block
        self.tally.proposals += 1
        self._settlements.append(Settlement(start, block, self.final_at(block), self.clock.now))

    def final_at(self, block: int) -> float:
        """Return since when a block is final."""
        return self.finality[bisect_left(self.finality, block, key=lambda advance: advance[1])][0]

    def outcome(self, kept_up: bool, holes: Sequence[str] = ()) -> Outcome:
        """Return the record."""
        self.tally.outages = self.outages.begun(self.clock.now)
        return Outcome(
            settlements=tuple(self._settlements),
            samples=tuple(self._samples),
            finality=tuple(self.finality),
            tally=self.tally,
            ended_at=self.clock.now,
            kept_up=kept_up,
            left=self.finalized - self.l1.head,
            holes=tuple(holes),
        )

    def _sample(self, policy: Queue) -> None:
        state = (policy.version, self.l1.head, self.finalized)
        if state == self._sampled:
            return
        self._sampled = state
        waiting, in_flight = policy.queue()
        sample = Sample(self.clock.now, self.finalized, self.l1.head, waiting, in_flight)
        last = self._samples[-1] if self._samples else None
        if last is not None and last.at == sample.at:
            self._samples[-1] = sample
        elif last is None or replace(last, at=sample.at) != sample:
            self._samples.append(sample)

    def _overdue(self) -> bool:
        if self.l1.head >= self.finalized:
            return False
        return self.clock.now - self.final_at(self.l1.head + 1) > self.scenario.patience
