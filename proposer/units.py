"""Units and references that must not be mixed up."""

from dataclasses import dataclass
from typing import NewType

L2Block = NewType("L2Block", int)
L1Block = NewType("L1Block", int)
Wei = NewType("Wei", int)

GWEI = 10**9
ETHER = 10**18


@dataclass(frozen=True, slots=True)
class L1Ref:
    """An L1 block by number and hash, with its time in unix seconds."""

    number: L1Block
    hash: bytes
    timestamp: int


def ago(seconds: float | None) -> str:
    """Say a time span in the two largest units that matter."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole < 172_800 else f"{whole // 86_400} days"
