"""Print the part of requirements.lock that the proposer itself needs: the image has no linters, tests or compiler.

The lock says of each package what it is there for (`# via`), and that is followed from the project's own dependencies.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = "op-succinct-proposer (pyproject.toml)"
"""How the lock names the project's own dependencies; those of a group are `pyproject.toml:dev`."""

_NAME = re.compile(r"^([a-z0-9][a-z0-9._-]*)==", re.MULTILINE)


def entries(lock: str) -> Iterator[tuple[str, set[str], str]]:
    """Yield each package's name, the names it is there for, and its lines."""
    starts = [match.start() for match in _NAME.finditer(lock)]
    for start, end in zip(starts, [*starts[1:], len(lock)], strict=True):
        lines = lock[start:end]
        match = _NAME.match(lines)
        assert match is not None  # it starts there
        comments = re.findall(r"^ +#(?: via)? *(.*)$", lines, re.MULTILINE)
        yield match[1], {comment for comment in comments if comment}, lines


def runtime(lock: str) -> dict[str, str]:
    """Return the lines of every package that the proposer needs, by name."""
    packages = {name: (users, lines) for name, users, lines in entries(lock)}
    needed = {PROJECT}
    while more := {name for name, (users, _) in packages.items() if users & needed} - needed:
        needed |= more
    return {name: lines for name, (_, lines) in packages.items() if name in needed}


if __name__ == "__main__":
    sys.stdout.write("".join(runtime(Path(sys.argv[1]).read_text(encoding="utf-8")).values()))
