"""As much of PostgreSQL's protocol 3 as it takes to see transactions pass: which statement wrote where, what commits.

The source is the manual's chapter "Frontend/Backend Protocol", message formats and message flow.
"""

import re
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SSL_REQUEST, GSSENC_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
READY = b"Z"

# What is written inside of strings, dollar quotes and comments is no statement.
_QUOTED = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$", re.DOTALL)
_WRITES = re.compile(
    r"(?<!for )(?<!key )(?<!do )(?<!on )\b(?:insert into|update|delete from|merge into) (?:only )?([\w.\"]+)"
)
# `create trigger ... update on t` and `... update of c`
_NO_TABLES = {"on", "of"}
_COMMITS, _ENDS, _BEGINS = {"commit", "end"}, {"rollback", "abort"}, {"begin", "start"}


class Statement(NamedTuple):
    """What one SQL statement does to its transaction."""

    does: Literal["begin", "commit", "rollback", "other"]
    wrote: frozenset[str]


def statements(sql: str) -> list[Statement]:
    """Return what the statements of a query string do; COPY and functions that write are not seen."""
    bare = " ".join(_QUOTED.sub(" '' ", sql).lower().split())
    return [_statement(part.strip()) for part in bare.split(";") if part.strip()]


def _statement(sql: str) -> Statement:
    first, _, rest = sql.partition(" ")
    nothing: frozenset[str] = frozenset()
    if first in _BEGINS:
        return Statement("begin", nothing)
    if first in _COMMITS and not rest.startswith("prepared"):
        return Statement("commit", nothing)
    if first in _ENDS and re.match(r"(?:work |transaction )?to |prepared", rest) is None:
        return Statement("rollback", nothing)
    tables = (name.rpartition(".")[2].strip('"') for name in _WRITES.findall(sql))
    return Statement("other", frozenset(name for name in tables if name not in _NO_TABLES))


def messages(buffer: bytearray) -> Iterator[tuple[bytes, bytes]]:
    """Take every whole typed message off the front of ``buffer``: its kind, and all of its bytes."""
    while len(buffer) >= 5:
        size = 1 + struct.unpack_from("!I", buffer, 1)[0]
        if len(buffer) < size:
            return
        whole = bytes(memoryview(buffer)[:size])
        del buffer[:size]
        yield whole[:1], whole


def startup_parameters(body: bytes) -> dict[str, str]:
    """Return the names and values of a startup message after its protocol version."""
    words = [word.decode(errors="replace") for word in body.split(b"\0")]
    return dict(zip(words[::2], words[1::2], strict=False))


@dataclass
class Cycle:
    """What a client asks until the next ReadyForQuery; ``wrote`` is not empty if writes commit in it."""

    wrote: set[str] = field(default_factory=set)
    # The message that commits has been seen: from here on answers tell the client about it.
    committing: bool = False
    committed: bool = False
    failed: bool = False
    explicit: bool = False


class Conversation:
    """Follow one connection's transactions by the messages of both sides, pipelined ones included."""

    def __init__(self) -> None:
        """Begin after the startup message."""
        self._statements: dict[bytes, list[Statement]] = {}
        self._portals: dict[bytes, list[Statement]] = {}
        self._cycles: deque[Cycle] = deque()
        self._open: Cycle | None = None
        self._in_block = self._aborted = False
        self._wrote: set[str] = set()

    def asked(self, kind: bytes, message: bytes) -> Cycle | None:
        """Take a client's message; return its cycle if with this message PostgreSQL begins to commit writes."""
        body = message[5:]
        if kind == b"Q":
            cycle = Cycle()
            self._cycles.append(cycle)
            self._run(statements(_text(body)), cycle)
            return self._commits(cycle, at_its_end=True)
        if kind not in {b"P", b"B", b"D", b"E", b"C", b"H", b"S", b"F"}:
            return None
        cycle = self._open
        if cycle is None:
            cycle = self._open = Cycle()
            self._cycles.append(cycle)
        if kind == b"P":
            name, sql = body.split(b"\0", 2)[:2]
            self._statements[name] = statements(_text(sql))
        elif kind == b"B":
            portal, name = body.split(b"\0", 2)[:2]
            self._portals[portal] = self._statements.get(name, [])
        elif kind == b"E":
            self._run(self._portals.get(body.split(b"\0", 1)[0], []), cycle)
        elif kind in {b"S", b"F"}:
            self._open = None
        return self._commits(cycle, at_its_end=self._open is None)

    def _run(self, parts: list[Statement], cycle: Cycle) -> None:
        for does, wrote in parts:
            if does == "begin":
                self._in_block = True
            elif does == "commit":
                if not self._aborted and self._wrote:
                    cycle.wrote |= self._wrote
                    cycle.explicit = True
                self._in_block, self._wrote = False, set()
            elif does == "rollback":
                self._in_block, self._wrote = False, set()
            else:
                self._wrote |= wrote

    def _commits(self, cycle: Cycle, *, at_its_end: bool) -> Cycle | None:
        if at_its_end and not self._in_block and self._wrote:
            cycle.wrote |= self._wrote
            self._wrote = set()
        if cycle.committing or not cycle.wrote:
            return None
        cycle.committing = True
        return cycle

    def answered(self, kind: bytes, message: bytes) -> Cycle | None:
        """Take a server's message; return the cycle it belongs to, which ends with ReadyForQuery."""
        if not self._cycles:
            return None
        cycle = self._cycles[0]
        if kind == b"E":
            cycle.failed = True
        elif kind == b"C" and message[5:] == b"COMMIT\0":
            cycle.committed = True
        elif kind == READY:
            self._cycles.popleft()
            cycle.committed = bool(cycle.wrote) and (cycle.committed or not (cycle.explicit or cycle.failed))
            if not self._cycles:
                self._in_block, self._aborted = message[5:] != b"I", message[5:] == b"E"
                self._wrote = self._wrote if self._in_block else set()
        return cycle


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")
