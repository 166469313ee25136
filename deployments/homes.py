"""A rollup's name, and the folder on this machine that is its own."""

import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

DEFAULT_NAME = "proposer"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED = "prefect"
"""Prefect keeps work pools that begin so for itself."""


def read_name(names: Mapping[str, str], problems: list[str]) -> str:
    """Read the rollup's name: what Prefect's blocks and work pools may be called."""
    name = names.get("PROPOSER_NAME", DEFAULT_NAME)
    if not _NAME.fullmatch(name):
        problems.append(
            f"PROPOSER_NAME: {name[:80]!r} is not a name; set it (or --name) to lowercase letters, digits and dashes, "
            "at most 63, a dash neither first nor last"
        )
    elif name.startswith(_RESERVED):
        problems.append(
            f"PROPOSER_NAME: {name!r} begins with {_RESERVED!r}, which Prefect keeps for itself; choose another"
        )
    return name


def read_home(names: Mapping[str, str], name: str, problems: list[str]) -> Path:
    """Read the rollup's folder: `~/.proposer`, and `~/.proposer-NAME` under another name, where none is set."""
    value = names.get("PROPOSER_HOME", "~/.proposer" if name == DEFAULT_NAME else f"~/.proposer-{name}")
    try:
        return Path(value).expanduser().resolve()
    except (RuntimeError, ValueError, OSError):  # an unknown ~user, no home folder at all, a NUL byte, a link loop
        problems.append(f"PROPOSER_HOME: {value!r} is not a folder's path; set it to an absolute path")
        return Path()


def problem_with_home(home: Path, name: str) -> str | None:
    """Say that the folder is another rollup's, where it is."""
    owner = _owner(home)
    if owner in (None, name):
        return None
    return (
        f"PROPOSER_HOME: {home} is the folder of rollup {owner!r}, and this is {name!r}; set PROPOSER_HOME to a folder "
        f"of its own, or PROPOSER_NAME (or --name) to {owner!r} if that is meant"
    )


def claim_home(home: Path, name: str) -> str | None:
    """Make the folder this rollup's for good; say what is wrong where it is another's."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=home, prefix="name.", encoding="utf-8") as file:
        file.write((_owner_without_file(home) or name) + "\n")
        file.flush()
        with suppress(FileExistsError):
            os.link(file.name, home / "name")  # all of it or nothing: two may begin at the same instant
    return problem_with_home(home, name)


def _owner(home: Path) -> str | None:
    try:
        return (home / "name").read_text(encoding="utf-8").strip() or None
    except OSError:
        return _owner_without_file(home)


def _owner_without_file(home: Path) -> str | None:
    """Return whose folder it is that was made before rollups had names."""
    return DEFAULT_NAME if (home / "postgres").is_dir() else None
