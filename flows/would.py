"""What a dry run shows: requests as they would be posted, transactions priced and simulated. Nothing is sent."""

from dataclasses import replace
from typing import assert_never

from flows.context import Proposer
from flows.transactions import GAS_MARGIN, look_at, why_not_free
from proposer.errors import ProposerError, Reverted
from proposer.imagine import named
from proposer.l1_reasons import cannot_pay, without_key
from proposer.l1_transactions import Bump, L1Transaction, Purpose, Rebroadcast, Record, Replace
from proposer.requests import Checkpoint, Kind, ProofRequest
from proposer.would import Call, Post


async def would_ask(proposer: Proposer, request: ProofRequest, anchor: Checkpoint | None) -> Post:
    """Show a request for a proof."""
    server = proposer.server
    if request.kind is Kind.RANGE:
        return Post(request=named(request), url=server.range_url, body=server.range_body(request.range))
    members = {r.id: r for r in await proposer.ledger.requests(request.members)}
    subproofs = [_digest(members[i]) for i in request.members if i in members]
    head = anchor.hash.hex() if anchor is not None else ""
    body = {"subproofs": subproofs, "head": f"0x{head}"}
    return Post(request=named(request), url=server.aggregation_url, body=body)


def _digest(member: ProofRequest) -> str:
    digest = member.proof_digest.hex() if member.proof_digest is not None else "?"
    return f"<request {member.id}: {member.proof_length} bytes, sha256 {digest}>"


async def would_call(proposer: Proposer, purpose: Purpose, calldata: bytes, request: ProofRequest) -> Call:
    """Simulate and price a call of the contract; nothing is signed."""
    sender = proposer.account
    call = Call(
        purpose=purpose,
        request=named(request),
        to=proposer.oracle.address,
        sender=sender,
        calldata=calldata,
        simulation="not possible without an account: set SIGNER_ADDRESS to the proposer's",
        stopped=without_key() if proposer.signer is None else None,
    )
    if sender is None:
        return call
    busy, _ = await why_not_free(proposer, sender, await proposer.l1.nonce(sender))
    call = replace(call, stopped=busy or call.stopped)
    try:
        gas = await proposer.l1.estimate_gas({"from": sender, "to": call.to, "data": calldata})
    except Reverted as error:
        return replace(call, simulation=f"reverts with {error.name}")
    limit = int(gas * GAS_MARGIN)
    fees = proposer.settings.fee_policy.suggest(*await proposer.l1.fee_suggestion())
    most, balance = limit * fees.cap, await proposer.l1.balance(sender)
    poor = cannot_pay(f"The {purpose.value} transaction", most, balance) if balance < most else None
    return replace(call, simulation="passes", gas=gas, gas_limit=limit, most_wei=most, stopped=call.stopped or poor)


async def would_tend(proposer: Proposer) -> list[str]:
    """Say what is due for each unsettled transaction; one that cannot be looked at says that instead."""
    return [await _due_for(proposer, tx) for tx in await proposer.ledger.transactions(unsettled=True)]


async def _due_for(proposer: Proposer, tx: L1Transaction) -> str:
    try:
        step, why = await look_at(proposer, tx, await proposer.l1.head())
    except ProposerError as error:
        return f"cannot look at the {tx}: {error}"
    match step:
        case Record(status, _):
            return f"would write down that the {tx} is {status.value}"
        case Replace(action):
            return f"would use the nonce of the {tx} for a {action.purpose.value} transaction: {why}"
        case Bump():
            return f"would sign the {tx} again with a higher fee"
        case Rebroadcast():
            return f"would see to it that L1 knows the {tx}"
        case None:
            return f"would wait for the {tx}"
        case _:
            assert_never(step)
