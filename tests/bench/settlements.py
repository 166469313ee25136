"""Where the time of each settlement went: from the last range proof it needed to its output on the chain.

Taken from outside: the prover server's log, the chain's blocks as they appear, the arrival of transactions at L1, and
the ledger's rows for what belongs together. All clocks are this machine's.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from eth_utils.crypto import keccak

from infra.devnet import Devnet
from tests.acceptance.helpers import Ledger

BLOCK_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Settlement:
    """One aggregation that was proposed; times are seconds."""

    end: int
    whole: float
    """From the arrival of the first request for one of its ranges at the server to the proposal mined."""
    total: float
    """From the last needed range proof, fulfilled at the server, to the proposal mined."""
    proving: float
    """Of it: witness and proof of the aggregation, from the arrival of the request at the server."""
    l1: float
    """Of it: transactions at L1, from their arrival to their block."""

    @property
    def dead(self) -> float:
        """What is left: the proposer's own doing."""
        return self.total - self.proving - self.l1


class L1Watch:
    """Remembers when each block appeared and when each transaction arrived at L1."""

    def __init__(self, devnet: Devnet) -> None:
        self._devnet = devnet
        self.appeared: dict[int, float] = {}
        self.arrived: dict[bytes, float] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        self._devnet.traps.arm("l1.eth_sendRawTransaction.arrived", self._note)
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        assert self._watching is not None
        self._watching.cancel()
        with suppress(asyncio.CancelledError):
            await self._watching

    async def _note(self, facts: Mapping[str, Any]) -> bool:
        self.arrived.setdefault(keccak(bytes.fromhex(facts["params"][0][2:])), time.time())
        return False  # stay armed

    async def _watch(self) -> None:
        while True:
            number = await self._devnet.l1.block_number()
            self.appeared.setdefault(number, time.time())
            await asyncio.sleep(BLOCK_LOOK_SECONDS)


def settlements(devnet: Devnet, watch: L1Watch, ledger: Ledger) -> list[Settlement]:
    """Return every settlement so far, in order."""
    fulfilled = {event["proof_id"]: event["time"] for event in devnet.prover.log.of("fulfilled")}
    paid = {event["proof_id"]: event["post"] for event in devnet.prover.log.of("paid")}
    posts = {event["post"]: event["time"] for event in devnet.prover.log.of("post")}
    found: list[Settlement] = []
    for row in ledger.query(_PROPOSED):
        mined = _mined_at(watch, row["block_number"])
        needed = max(fulfilled[member] for member in row["members"])
        first = min(posts[paid[member]] for member in row["members"])
        proving = (posts[paid[row["prover_request_id"]]], fulfilled[row["prover_request_id"]])
        l1 = [(watch.arrived[bytes(row["proposal"])], mined)]
        l1 += [
            (watch.arrived[bytes(tx["mined_hash"])], _mined_at(watch, tx["block_number"]))
            for tx in ledger.query(_CHECKPOINT, row["id"])
        ]
        within = (needed, mined)
        parts = _length([proving], within), _length(l1, within)
        found.append(Settlement(row["end_block"], mined - first, mined - needed, *parts))
    return found


_PROPOSED = """
    SELECT r.id, r.start_block, r.end_block, r.prover_request_id, t.block_number, t.mined_hash AS proposal,
           (SELECT array_agg(m.prover_request_id) FROM aggregation_members a JOIN proof_requests m ON m.id = a.range_id
             WHERE a.aggregation_id = r.id) AS members
      FROM proof_requests r JOIN l1_transactions t ON t.request_id = r.id
     WHERE r.kind = 'AGG' AND t.purpose = 'propose' AND t.mined_hash IS NOT NULL AND t.status <> 'REVERTED'
     ORDER BY r.end_block
"""
_CHECKPOINT = """
    SELECT mined_hash, block_number FROM l1_transactions
     WHERE request_id = %s AND purpose = 'checkpoint' AND mined_hash IS NOT NULL
"""


def _mined_at(watch: L1Watch, block: int) -> float:
    """When a block was first seen; one that came and was followed within a look counts with its successor."""
    return min(at for number, at in watch.appeared.items() if number >= block)


def _length(spans: Sequence[tuple[float, float]], within: tuple[float, float]) -> float:
    """The time that spans, which do not overlap each other, cover of another one."""
    return sum(max(0.0, min(end, within[1]) - max(start, within[0])) for start, end in spans)
