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
