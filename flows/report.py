"""What a stage and a cycle did, and why they did no more."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from proposer.reasons import Reason


@dataclass
class StageReport:
    """Sentences of what was done (in a dry run: would be done), and the reasons for what was not."""

    did: list[str] = field(default_factory=list[str])
    reasons: Sequence[Reason] = ()


@dataclass
class CycleReport:
    """All stages of one cycle; `failed` maps a stage's name to its error."""

    stages: dict[str, StageReport] = field(default_factory=dict[str, StageReport])
    failed: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def did(self) -> list[str]:
        """Everything that was done, in order."""
        return [sentence for stage in self.stages.values() for sentence in stage.did]

    @property
    def reasons(self) -> list[Reason]:
        """Every reason once."""
        seen: dict[tuple[str, str], Reason] = {}
        for stage in self.stages.values():
            for reason in stage.reasons:
                seen.setdefault((reason.code.value, str(reason.facts.get("request", reason.sentence))), reason)
        return list(seen.values())
