"""One POST for a proof, as the server stand-in keeps book of it."""

from typing import Any

from starlette.responses import Response

from infra.devnet.faults import ProofKind
from infra.devnet.log import RequestLog


class Post:
    """What a POST asks for, and its lines in the log."""

    def __init__(self, log: RequestLog, number: int, kind: ProofKind, *, mock: bool) -> None:
        """Begin the book of the server's ``number``-th POST."""
        self.kind: ProofKind = kind
        self.mock = mock
        self.number = number
        self.start: int | None = None
        self.end: int | None = None
        self.proof_id: str | None = None
        self.head: str | None = None
        self._log = log

    def note(self, event: str, fault: str | None = None) -> None:
        """Log an event of this POST as far as it has come."""
        more: dict[str, Any] = {"mock": True} if self.mock else {}
        if self.head is not None:
            more["head"] = self.head
        paid = self.proof_id is not None
        self._log.add(
            event,
            self.kind,
            self.start,
            self.end,
            post=self.number,
            proof_id=self.proof_id,
            paid=paid,
            fault=fault,
            **more,
        )

    def refuse(self, fault: str, response: Response) -> Response:
        """Log why it is not served and return ``response``."""
        self.note("refused", fault)
        return response

    @property
    def facts(self) -> dict[str, Any]:
        """What an observer is told: the blocks, and the proof id once paid."""
        known = {"start": self.start, "end": self.end}
        return known if self.proof_id is None else known | {"proof_id": self.proof_id}
