"""A deterministic simulated L2: every hash is a function of the seed and the block number, heads follow a clock."""

import time
from collections.abc import Callable
from functools import lru_cache

from eth_utils.crypto import keccak

VERSION_0 = bytes(32)


def output_root_v0(state_root: bytes, withdrawal_storage_root: bytes, block_hash: bytes) -> bytes:
    """Compute the output root of OP Stack version 0: keccak256(version, state, withdrawal storage, block hash)."""
    return keccak(VERSION_0 + state_root + withdrawal_storage_root + block_hash)


class SimulatedL2:
    """A rollup whose blocks are hashes and whose heads advance with the clock.

    The finalized head is the one that moves; the safe head is ``safe_lead`` blocks and the unsafe head
    ``unsafe_lead`` blocks ahead of it. ``limit`` caps the finalized head.
    """

    def __init__(
        self,
        seed: int = 1,
        *,
        block_time: int = 2,
        genesis_timestamp: int = 0,
        blocks_per_second: float = 10.0,
        initial_finalized: int = 0,
        limit: int | None = None,
        safe_lead: int = 10,
        unsafe_lead: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at ``initial_finalized`` now; ``block_time`` and ``genesis_timestamp`` are in seconds."""
        self.seed, self.block_time, self.genesis_timestamp = seed, block_time, genesis_timestamp
        self.safe_lead, self.unsafe_lead = safe_lead, unsafe_lead
        self.limit = limit
        self._clock = clock
        self._speed = blocks_per_second
        self._paused = False
        self._since, self._base = clock(), float(initial_finalized)
        self._hash = lru_cache(maxsize=65536)(self._make_hash)

    def _make_hash(self, what: str, number: int) -> bytes:
        return keccak(f"{self.seed}/{what}/{number}".encode())

    def block_hash(self, number: int) -> bytes:
        """Return the hash of a block."""
        return self._hash("block", number)

    def parent_hash(self, number: int) -> bytes:
        """Return the hash of the block before; zero for genesis."""
        return self._hash("block", number - 1) if number else bytes(32)

    def state_root(self, number: int) -> bytes:
        """Return the state root of a block."""
        return self._hash("state", number)

    def withdrawal_storage_root(self, number: int) -> bytes:
        """Return the storage root of the message passer at a block."""
        return self._hash("withdrawals", number)

    def output_root(self, number: int) -> bytes:
        """Return the output root of a block."""
        return output_root_v0(self.state_root(number), self.withdrawal_storage_root(number), self.block_hash(number))

    def timestamp(self, number: int) -> int:
        """Return the time of a block in unix seconds."""
        return self.genesis_timestamp + number * self.block_time

    @property
    def finalized(self) -> int:
        """The newest finalized block now."""
        now = 0.0 if self._paused else self._clock() - self._since
        reached = int(self._base + now * self._speed)
        return reached if self.limit is None else min(reached, self.limit)

    @property
    def safe(self) -> int:
        """The newest safe block now."""
        return self.finalized + self.safe_lead

    @property
    def unsafe(self) -> int:
        """The newest block now."""
        return self.finalized + self.unsafe_lead

    @property
    def blocks_per_second(self) -> float:
        """The speed of the finalized head."""
        return self._speed

    def _rebase(self, at: int | None = None) -> None:
        self._base, self._since = float(self.finalized if at is None else at), self._clock()

    def set_speed(self, blocks_per_second: float) -> None:
        """Change how fast the heads move from now on."""
        self._rebase()
        self._speed = blocks_per_second

    def pause(self) -> None:
        """Stand still."""
        self._rebase()
        self._paused = True

    def resume(self) -> None:
        """Move again from where it stood."""
        self._rebase()
        self._paused = False

    def advance_to(self, number: int) -> None:
        """Put the finalized head at ``number`` now, raising the limit if it is lower."""
        if self.limit is not None:
            self.limit = max(self.limit, number)
        self._rebase(number)
