"""What the prover stand-in is told to do wrong: a declarative, seeded plan, and the engine that applies it."""

import random
from collections import Counter
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ProofKind = Literal["range", "aggregation"]
FaultKind = Literal[
    # Decided when the request is paid, seen later in /status.
    "unexecutable",  # (4, 3): for a range "split it"; in mock mode a dropped connection
    "unfulfillable",  # (4, 2): "retry it"
    "late",  # fulfilled `seconds` later than usual
    "empty_proof",  # fulfilled with no bytes
    # Decided when the POST arrives.
    "post_429",  # 429 with Retry-After `seconds`, at once: nothing asked
    "post_500",  # 500 text after the witness time, nothing paid
    "hang",  # no answer for `seconds` (0: until the client goes), nothing paid
    "drop_before_paying",  # connection closed after the witness time, nothing paid
    "drop_after_paying",  # paid, then the connection is closed: the id is lost
    "refuse_simulation",  # aggregation only: 500 "Failed to request proof: Program simulation failed"
    # Decided at every look.
    "status_429",  # 429 with Retry-After `seconds`
    "status_500",  # 500 text
    "hang_status",  # no answer until the client goes
    "garbage",  # 200 with a body that is not the documented shape, another one each time
    "slow_status",  # answered `seconds` late
    "unknown_id",  # 500: the network does not know the id
]


class Fault(BaseModel):
    """One rule: do `kind` to what matches.

    A range matches ``block`` when it proves it (start < block <= end). ``longer_than`` asks for more blocks than that.
    ``first`` stops after so many matches (a POST or a look each); ``rate`` takes a seeded share of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    on: Literal["range", "aggregation", "any"] = "range"
    block: int | None = None
    longer_than: int | None = Field(default=None, ge=0)
    first: int | None = Field(default=None, ge=0)
    rate: float = Field(default=1.0, ge=0.0, le=1.0)
    seconds: float = Field(default=0.0, ge=0.0)

    def covers(self, proof: ProofKind, start: int, end: int) -> bool:
        """Say whether the rule speaks of this proof at all."""
        return (
            self.on in (proof, "any")
            and (self.block is None or start < self.block <= end)
            and (self.longer_than is None or end - start > self.longer_than)
        )


class FaultPlan(BaseModel):
    """A seed and rules; the first rule of a kind that matches applies. JSON-able, changeable at run time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    rules: tuple[Fault, ...] = ()

    @classmethod
    def culprit(cls, block: int) -> "FaultPlan":
        """Make a plan in which no range that proves ``block`` can ever be executed, whatever its size."""
        return cls(rules=(Fault(kind="unexecutable", block=block),))

    @classmethod
    def too_big(cls, longer_than: int, block: int | None = None) -> "FaultPlan":
        """Make a plan in which ranges of more than ``longer_than`` blocks (that prove ``block``) cannot execute."""
        return cls(rules=(Fault(kind="unexecutable", block=block, longer_than=longer_than),))


class Faults:
    """Apply a plan: count what each rule has matched and roll its dice, the same for the same seed and order."""

    def __init__(self, plan: FaultPlan | None = None) -> None:
        """Start with ``plan``, or with none."""
        self.plan = plan or FaultPlan()
        # How often each kind was applied, over all plans.
        self.applied: Counter[str] = Counter()
        self._seen: dict[int, int] = {}

    def replace(self, plan: FaultPlan) -> None:
        """Take another plan from now on; every count starts anew."""
        self.plan, self._seen = plan, {}

    def hit(self, kind: FaultKind, proof: ProofKind, start: int, end: int) -> Fault | None:
        """Return the rule that makes ``kind`` happen to this proof now, or None; counts as a match."""
        for index, rule in enumerate(self.plan.rules):
            if rule.kind != kind or not rule.covers(proof, start, end):
                continue
            seen = self._seen.get(index, 0)
            if rule.first is not None and seen >= rule.first:
                continue
            self._seen[index] = seen + 1
            if rule.rate >= 1.0 or random.Random(f"{self.plan.seed}/{index}/{seen}").random() < rule.rate:
                self.applied[kind] += 1
                return rule
        return None
