"""The policy of the Go proposer that op-succinct began with, over the parts of this one.

A clock ticks; a tick runs the stages one after another: every proof is looked at in turn, at most one request is sent,
and an aggregation is requested in the tick after its checkpoint. Left out, in its favour: that it waits for
confirmations of a transaction and for two more L1 blocks before a proposal.
"""

import asyncio
import time
from collections.abc import Callable

from flows.context import Cycle, Proposer
from flows.report import StageReport
from flows.stages import aggregations, observe, proving, ranges, submission, witnesses
from flows.stages.requests import _checkpoint, _start
from flows.transactions import tend
from proposer.errors import ProposerError
from proposer.l1_transactions import TxStatus
from proposer.permission import permission
from proposer.plan_requests import plan_requests
from proposer.polling import Ended, Proven, judge
from proposer.requests import Kind, Status

TICK_SECONDS = 12.0
"""Its default POLL_INTERVAL; its compose file sets 20."""
MINED_LOOK_SECONDS = 0.05


class SeedPolicy:
    """Ticks until cancelled."""

    def __init__(self, proposer: Proposer, say: Callable[[str], None], tick_seconds: float = TICK_SECONDS) -> None:
        self._proposer, self._say, self._tick_seconds = proposer, say, tick_seconds

    async def run(self) -> None:
        """Tick for ever; a tick that takes longer than the interval drops those that it misses."""
        began = time.monotonic()
        while True:
            passed = time.monotonic() - began
            await asyncio.sleep(self._tick_seconds - passed % self._tick_seconds)
            try:
                await self._tick()
            except ProposerError as error:
                self._say(f"the seed's tick ended with {error}")

    async def _tick(self) -> None:
        proposer = self._proposer
        outside = await observe.observe(proposer, observe.plainly)
        await observe.remember(proposer, outside)
        allowed = permission(outside, proposer.settings.min_balance, None)
        cycle = Cycle(proposer=proposer, settings=proposer.settings, outside=outside, permission=allowed)
        await ranges.plan(cycle)
        await self._look_at_each()
        await witnesses.recover(cycle)
        await aggregations.derive(cycle)
        await self._request_one(cycle)
        await submission.submit(cycle)
        await self._mined()

    async def _look_at_each(self) -> None:
        """Stage 2: one after the other."""
        proposer, now = self._proposer, await self._proposer.ledger.now()
        for request in (await proposer.ledger.view(0)).requests:
            if request.status is not Status.PROVING or request.prover_id is None:
                continue
            status = await proposer.server.status(request.prover_id)
            match judge(request, status, proposer.settings.max_proof_time, now):
                case Proven(proof):
                    await proving.take(proposer, request, proof)
                case Ended(failure, text):
                    await proving.give_up(proposer, request, failure, text, now)
                case None:
                    pass

    async def _request_one(self, cycle: Cycle) -> None:
        """Stage 5: an aggregation before any range; its checkpoint takes a tick of its own."""
        snapshot = await cycle.snapshot()
        decided, report = plan_requests(snapshot, cycle.permission.may_request), StageReport()
        by_id = {request.id: request for request in snapshot.requests}
        first = sorted(decided.start, key=lambda i: (by_id[i].kind is not Kind.AGG, by_id[i].range.start))
        if decided.checkpoint and not (first and by_id[first[0]].kind is Kind.AGG):
            request_id, number = decided.checkpoint[0]
            await _checkpoint(cycle, by_id[request_id], number, report)
            await self._mined()
        elif first:
            await _start(cycle, by_id[first[0]], decided.anchors.get(first[0]), report)

    async def _mined(self) -> None:
        """Wait until nothing that was sent is still to be mined."""
        proposer = self._proposer
        while any(t.status is TxStatus.PENDING for t in await proposer.ledger.transactions(unsettled=True)):
            await asyncio.sleep(MINED_LOOK_SECONDS)
            await tend(proposer)
