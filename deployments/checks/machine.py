"""Checks of this machine."""

import shutil
from pathlib import Path

from deployments.checks.bench import Bench, Check, Found, error, ok, warning

WARN_BYTES, ERROR_BYTES = 2 * 2**30, 200 * 2**20


async def check_disk(bench: Bench) -> Found:
    """PROPOSER_HOME has room on its disk."""
    return room(bench.environment.home, shutil.disk_usage(_existing(bench.environment.home)).free)


def room(home: Path, free: int) -> Found:
    """Say whether so many bytes are enough."""
    said = f"{free / 2**30:.1f} GiB free for {home}"
    if free < ERROR_BYTES:
        return error(said, "Make room: the embedded PostgreSQL stops when the disk is full.")
    if free < WARN_BYTES:
        return warning(said, "Make room before it runs out.")
    return ok(said)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


CHECKS: tuple[Check, ...] = (check_disk,)
