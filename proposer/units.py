"""Units that must not be mixed up."""

from typing import NewType

L2Block = NewType("L2Block", int)
L1Block = NewType("L1Block", int)
Wei = NewType("Wei", int)

GWEI = 10**9
ETHER = 10**18
