"""What a stage and a cycle did, and why they did no more."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from proposer.reasons import Reason
from proposer.requests import Failure
from proposer.snapshot import Outside
from proposer.would import Would

_TOLD_IN_FULL = (
    "proposed ",
    "would propose ",
    "would checkpoint ",
    "checkpoint of ",
    "planned aggregation ",
    "would plan aggregation ",
)
_COUNTED = (
    "requested",
    "proven",
    "planned",
    "relayed",
    "cancelled",
    "complete",
    *(failure.value for failure in Failure),
    "would plan",
    "would request",
    "would ask",
)


@dataclass
class StageReport:
    """Sentences of what was done (in a dry run: would be done), the reasons for what was not, and what failed alone."""

    did: list[str] = field(default_factory=list[str])
    reasons: Sequence[Reason] = ()
    errors: list[str] = field(default_factory=list[str])
    would: list[Would] = field(default_factory=list[Would])
    """In a dry run: what would have been asked and sent, in full."""


@dataclass
class CycleReport:
    """All stages of one cycle; `failed` maps a stage's name to its error."""

    stages: dict[str, StageReport] = field(default_factory=dict[str, StageReport])
    failed: dict[str, str] = field(default_factory=dict[str, str])
    outside: Outside | None = None

    @property
    def did(self) -> list[str]:
        """Everything that was done, in order."""
        return [sentence for stage in self.stages.values() for sentence in stage.did]

    @property
    def would(self) -> list[Would]:
        """What a dry run would have asked and sent, in order."""
        return [one for stage in self.stages.values() for one in stage.would]

    @property
    def headline(self) -> str:
        """What was done in a few words, the rarest first: `proposed block 1060 · 2 requested · 3 relayed`."""
        counts = Counter(_verb(sentence) for sentence in self.did)
        first = [sentence.split(":", 1)[0] for sentence in self.did if sentence.startswith(_TOLD_IN_FULL)]
        rest = [_count(verb, counts[verb]) for verb in _COUNTED if counts[verb]]
        return " · ".join([*first, *rest]) or "looked after its transactions"

    @property
    def reasons(self) -> list[Reason]:
        """Every reason once."""
        seen: dict[tuple[str, str], Reason] = {}
        for stage in self.stages.values():
            for reason in stage.reasons:
                seen.setdefault((reason.code.value, str(reason.facts.get("request", reason.sentence))), reason)
        return list(seen.values())


def _verb(sentence: str) -> str:
    words = sentence.split(" ", 2)
    return " ".join(words[:2]) if words[0] == "would" else words[0].rstrip(":")


def _count(verb: str, count: int) -> str:
    return f"{verb} {count}" if verb.startswith("would ") else f"{count} {verb}"
