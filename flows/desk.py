"""What an operator looks at: the same reads and decisions as in a cycle, beside a running proposer and without one."""

from flows import probe
from flows.context import Proposer, snapshot_of
from flows.stages import observe
from proposer.explain import Explanation, Settled, explain_block, explain_next, explain_request
from proposer.imagine import as_remembered
from proposer.permission import permission
from proposer.requests import Kind, Status
from proposer.situation import Situation, decide


async def look(proposer: Proposer) -> Situation:
    """Read the outside and the ledger and make every decision; nothing is written, sent or asked of the prover.

    Needs no leadership: the proposer's `epoch` and claim are not used.
    """
    outside = await observe.observe(proposer, observe.plainly)
    snapshot = as_remembered(await snapshot_of(proposer, outside, proposer.settings))
    allowed = permission(outside, proposer.settings.min_balance, await proposer.ledger.paused())
    decided = decide(snapshot, allowed)
    readable = snapshot.oracle is not None
    usual = {kind: await proposer.ledger.usual(kind) for kind in Kind}
    return Situation(
        snapshot=snapshot,
        allowed=allowed,
        leader=await proposer.ledger.leader(),
        decided=decided,
        stopped=await probe.stopped(proposer, snapshot, decided) if readable else {},
        stuck=await probe.stuck(proposer, snapshot) if readable else {},
        usual={kind: known for kind, known in usual.items() if known is not None},
    )


async def explain(
    proposer: Proposer, situation: Situation, *, request: int | None = None, block: int | None = None
) -> Explanation:
    """Explain a request, a block, or the next output. Raises `UnknownRequest`."""
    if request is not None:
        return await _request(proposer, situation, request)
    if block is None:
        return explain_next(situation)
    return explain_block(situation, block, await _settled(proposer, situation, block))


async def _request(proposer: Proposer, situation: Situation, number: int) -> Explanation:
    found = await proposer.ledger.request(number)
    settled = await _settled(proposer, situation, found.range.end)
    follow = await proposer.ledger.carried_on_by(number) if found.status is Status.FAILED else []
    return explain_request(situation, found, settled, follow)


async def _settled(proposer: Proposer, situation: Situation, block: int) -> Settled | None:
    """Find what has settled a block; what the ledger knows serves while L1 cannot be read."""
    oracle = situation.snapshot.oracle
    if oracle is not None and block > oracle.latest_block:
        return None
    by = await proposer.ledger.settled_by(block)
    if by is None:
        return Settled() if oracle is not None else None
    return Settled(by, await proposer.ledger.proposed_by(by.id))
