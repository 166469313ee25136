"""The server's log: what was asked, paid and answered, the truth a checker compares the ledger with."""

import time
from pathlib import Path
from typing import Any

import orjson


class RequestLog:
    """Append events to memory and, if given a path, to a JSON-lines file.

    Events: ``post`` (a request arrived), ``paid`` (the network has it, with its proof id), ``answered`` (200 sent),
    ``refused`` (an error or a dropped connection instead), ``hung_up`` (the client went away, or an outage cut it,
    before paying or after), and of a paid proof: ``fulfilled``, ``unfulfillable``, ``unexecutable``, ``expired``
    (looked at after its deadline), ``unknown_id`` (a look at it was answered with "unknown"). ``post`` numbers tie the
    events of one POST together.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Log to memory, and to ``path`` if given."""
        self.path = path
        self.events: list[dict[str, Any]] = []
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        event: str,
        kind: str,
        start: int | None,
        end: int | None,
        *,
        post: int,
        proof_id: str | None = None,
        paid: bool = False,
        fault: str | None = None,
        **more: Any,
    ) -> None:
        """Append one event; ``paid`` says whether money was spent for this request by now."""
        record = {
            "time": time.time(),
            "event": event,
            "kind": kind,
            "start": start,
            "end": end,
            "post": post,
            "proof_id": proof_id,
            "paid": paid,
            "fault": fault,
            **more,
        }
        self.events.append(record)
        if self.path is not None:
            with self.path.open("ab") as file:
                file.write(orjson.dumps(record) + b"\n")

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the events of one name, oldest first."""
        return [record for record in self.events if record["event"] == event]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read a JSON-lines log; a last line without its newline (a write in progress) is left out."""
    if not path.exists():
        return []
    return [orjson.loads(line) for line in path.read_bytes().split(b"\n")[:-1] if line]
