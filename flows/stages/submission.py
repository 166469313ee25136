"""Stage 6, SubmitAggProofs: tend what is under way, then propose the best aggregation."""

from blocks.output_oracle import encode_propose
from flows.context import Cycle, Proposer
from flows.report import StageReport
from flows.transactions import send, tend
from flows.would import would_call, would_tend
from proposer.errors import ProposerError, Reverted
from proposer.l1_transactions import Purpose
from proposer.plan_submission import blames_the_proof, plan_submission
from proposer.reasons import Code, Reason
from proposer.requests import Failure, ProofRequest
from proposer.retry import successors

MAX_REVERTED = 2
"""Proposals of one aggregation that may revert on chain before a person has to look."""


async def submit(cycle: Cycle) -> StageReport:
    """Tend pending transactions, then simulate and propose the best complete aggregation; never wait for a block."""
    report = StageReport(await would_tend(cycle.proposer)) if cycle.dry_run else await tend(cycle.proposer)
    decided = plan_submission(await cycle.snapshot(), cycle.permission.may_submit)
    report.reasons = [*report.reasons, *decided.reasons]
    if decided.request is None:
        return report
    request = await cycle.proposer.ledger.request(decided.request)
    if request.output_root is None:
        report.reasons = [*report.reasons, root_unknown(request)]
        return report
    reason = await node_still_agrees(cycle.proposer, request)
    if reason is None:
        reason = await _propose(cycle, request, report)
    if reason is not None:
        report.reasons = [*report.reasons, reason]
    return report


async def _propose(cycle: Cycle, request: ProofRequest, report: StageReport) -> Reason | None:
    proposer = cycle.proposer
    assert request.output_root is not None and request.checkpoint is not None  # checked by the plan and above
    if await proposer.ledger.reverted_proposals(request.id) >= MAX_REVERTED:
        return reverts_when_mined(request)
    proof = await proposer.ledger.proof(request.id)
    calldata = encode_propose(request.output_root, request.range.end, request.checkpoint.number, proof)
    if cycle.dry_run:
        report.did.append(f"would propose block {request.range.end}, root 0x{request.output_root.hex()}")
        report.would.append(await would_call(proposer, Purpose.PROPOSE, calldata, request))
        return None
    try:
        sent = await send(proposer, Purpose.PROPOSE, calldata, request=request.id)
    except Reverted as error:
        await _note_revert(cycle, request, calldata, error)
        return would_revert(request, error)
    if isinstance(sent, Reason):
        return sent
    report.did.append(f"proposed block {request.range.end}: {proposer.shown(sent)}")
    return None


def would_revert(request: ProofRequest, error: Reverted) -> Reason:
    """Say that a proposal's simulation reverts."""
    return Reason(
        Code.PROPOSAL_REVERTS,
        f"The proposal of block {request.range.end} (request {request.id}) would revert: {error.name}.",
        "Nothing was sent and no gas was spent. It is simulated again in every cycle; see docs/troubleshooting.md for "
        "this error's name.",
        {"request": request.id, "revert": error.name},
    )


def reverts_when_mined(request: ProofRequest) -> Reason:
    """Say that a proposal was mined and reverted too often."""
    return Reason(
        Code.PROPOSAL_REVERTS,
        f"The proposal of block {request.range.end} (request {request.id}) was mined and reverted {MAX_REVERTED} times "
        "although its simulation passes.",
        "Nothing more is sent for it. Look at the transactions: gas limit, or a contract that another proposer changes "
        "in the same block.",
        {"request": request.id},
    )


async def _note_revert(cycle: Cycle, request: ProofRequest, calldata: bytes, error: Reverted) -> None:
    """Write the revert down; the second time that it is about the proof itself, build another aggregation.

    The estimate may have been a node's that lags behind the contract's head, where no proof from that head is right.
    """
    proposer = cycle.proposer
    if blames_the_proof(error.name) and not await _reverts_where_read(cycle, calldata):
        return
    sentence = f"the proposal would revert: {error.name}; nothing was sent"
    again = any(event.why == sentence for event in await proposer.ledger.events(request.id))
    async with proposer.write() as writer:
        await writer.note(request.id, sentence)
    if again and blames_the_proof(error.name):
        now = await proposer.ledger.now()
        failure = Failure.REFUSED_BY_CONTRACT
        follow = successors(request, failure, proposer.settings.retry_policy, now)
        async with proposer.write() as writer:
            await writer.fail(request, failure, f"the contract refuses it twice: {error.name}", follow, poll=False)


async def _reverts_where_read(cycle: Cycle, calldata: bytes) -> bool:
    """Whether a call reverts in the very block that the contract was read at."""
    proposer = cycle.proposer
    assert cycle.outside.oracle is not None  # nothing is proposed without it
    try:
        await proposer.l1.call(proposer.oracle.address, calldata, cycle.outside.oracle.at, proposer.account)
    except Reverted:
        return True
    except ProposerError:
        return False
    return False


async def node_still_agrees(proposer: Proposer, request: ProofRequest) -> Reason | None:
    """A node that says another root than planned stops the proposal; one that says nothing of use stops nothing.

    That the planned root is the proven one is for the contract to verify.
    """
    try:
        root = await proposer.node.output_root(request.range.end)
    except ProposerError:
        return None
    if root == request.output_root:
        return None
    assert request.output_root is not None  # checked by the caller
    return Reason(
        Code.ROOT_CHANGED,
        f"The L2 node now says another output root for block {request.range.end} than when the aggregation was "
        "planned.",
        "Nothing is proposed. Find out whether the node is on a fork; if the chain itself was reorganised, cancel the "
        "aggregation and its ranges.",
        {"request": request.id, "planned": request.output_root.hex(), "node": root.hex()},
    )


def root_unknown(request: ProofRequest) -> Reason:
    """Say that what is to be proposed is not known."""
    return Reason(
        Code.ROOT_UNKNOWN,
        f"Aggregation {request.range} is proven, but the L2 node has not said the output root of its end yet.",
        "It is proposed as soon as the node answers.",
        {"request": request.id},
    )
