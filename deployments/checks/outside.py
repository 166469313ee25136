"""Checks of what the proposer talks to: L1, the contract, the account, the L2 node, the prover server."""

import time
from collections.abc import Awaitable, Callable, Sequence

from pydantic import SecretStr

from blocks.http import endpoints
from blocks.l1 import L1Chain
from blocks.op_node import OpNode
from deployments.checks.bench import Bench, Check, Found, error, ok, warning
from deployments.environment import Parts
from deployments.preflight import problems_of
from flows.transactions import why_not_signed
from proposer.errors import ProposerError
from proposer.plan_ranges import L1_BEHIND_SECONDS
from proposer.reasons import Code
from proposer.units import ETHER

FUTURE_SECONDS = 15
"""How far L1's newest block may be ahead of this machine's clock: a slot and a little."""


def _each(urls: SecretStr, setting: str) -> Sequence[tuple[str, SecretStr]]:
    """Split a list of addresses; the name of each shows nothing secret."""
    value = urls.get_secret_value()
    parts = [part.strip() for part in value.split(",") if part.strip()]
    return [(endpoint.name, SecretStr(part)) for endpoint, part in zip(endpoints(value, setting), parts, strict=True)]


async def _all_serve(
    urls: SecretStr, setting: str, chain_of: Callable[[SecretStr], Awaitable[int]], what: str, expected: int | None
) -> Found:
    """Ask every address for its chain; some that fail are a warning, all of them an error."""
    problems: list[str] = []
    each = _each(urls, setting)
    for name, url in each:
        try:
            found = await chain_of(url)
        except ProposerError as failed:
            problems.append(f"{name}: {failed}")
        else:
            if expected is not None and found != expected:
                problems.append(f"{name} serves {what} {found}, not {expected}")
    if not problems:
        return ok(f"{len(each)} answer{'s' if len(each) == 1 else ''}")
    remedy = f"Check {setting}: that address, its key, and that the node runs."
    return (error if len(problems) == len(each) else warning)("; ".join(problems), remedy)


async def check_settings_lead_somewhere(bench: Bench) -> Found:
    """What the settings point at is what a first start needs."""
    environment = bench.environment
    parts = Parts(
        l1_rpc=environment.l1_rpc,
        node_rpc=environment.node_rpc,
        oracle_address=environment.oracle_address,
        signer=environment.signer,
        server_url=environment.server_url,
    )
    problems = await problems_of(parts)
    return error("; ".join(problems), "Each names its remedy.") if problems else ok("every endpoint, and the contract")


async def check_l1_nodes(bench: Bench) -> Found:
    """Every L1 node of L1_RPC answers and serves the right chain."""
    known = await bench.proposer.ledger.identity() if bench.is_open else None

    async def chain_of(url: SecretStr) -> int:
        async with L1Chain(urls=url) as l1:
            return await l1.chain_id()

    expected = known.l1_chain_id if known is not None else None
    return await _all_serve(bench.environment.l1_rpc, "L1_RPC", chain_of, "chain", expected)


async def check_l1_follows_the_chain(bench: Bench) -> Found:
    """L1's newest block is recent, and not in this machine's future."""
    head = await bench.proposer.l1.head()
    age = time.time() - head.timestamp
    if age > L1_BEHIND_SECONDS:
        return error(
            f"block {head.number} is {age / 60:.0f} minutes old", "Check that the first node of L1_RPC is synced."
        )
    if age < -FUTURE_SECONDS:
        return warning(f"block {head.number} is {-age:.0f} s in the future", "Synchronise this machine's clock (NTP).")
    return ok(f"block {head.number}, {max(0.0, age):.0f} s old")


async def check_contract(bench: Bench) -> Found:
    """The contract is an L2OutputOracle of version 1."""
    proposer = bench.proposer
    remedy = "Set L2OO_ADDRESS to the rollup's OPSuccinctL2OutputOracle v1, and L1_RPC to its network."
    if not await proposer.l1.code(proposer.oracle.address):
        return error(f"{proposer.oracle.address} has no code on this chain", remedy)
    if await proposer.oracle.speaks_v1(proposer.l1) is False:
        return error(f"{proposer.oracle.address} does not know proposeL2Output(bytes32,uint256,uint256,bytes)", remedy)
    return ok(proposer.oracle.address)


async def check_contract_takes_proofs(bench: Bench) -> Found:
    """The contract takes proofs: it is not in optimistic mode."""
    await _contract_read(bench)
    return await bench.by_reason("it does", Code.OPTIMISTIC_MODE)


async def check_account_is_approved(bench: Bench) -> Found:
    """The proposer's account may propose."""
    await _contract_read(bench)
    return await bench.by_reason("it may", Code.NOT_APPROVED)


async def check_signer(bench: Bench) -> Found:
    """The signer answers and has the key of the proposer's account."""
    signer = bench.proposer.signer
    if signer is None:
        return warning("there is none", "Set SIGNER_URL and SIGNER_ADDRESS, or PRIVATE_KEY.")
    reason = await why_not_signed(signer)
    if reason is None:
        return ok(f"{signer.setting} {signer.address}")
    return error(reason.sentence, reason.remedy)


async def check_balance(bench: Bench) -> Found:
    """The proposer's account can pay for its transactions."""
    balance = await _contract_read(bench)
    held = "?" if balance is None else f"{balance / ETHER:.4f}"
    return await bench.by_reason(f"{held} ETH", Code.CANNOT_PAY, Code.LOW_BALANCE)


async def _contract_read(bench: Bench) -> int | None:
    """Return the account's balance. Raises where the contract cannot be read."""
    situation = await bench.situation()
    if situation.snapshot.oracle is None:
        raise ProposerError(f"L1 cannot be read: {situation.snapshot.outside.errors.get('l1', 'no answer')}")
    return situation.snapshot.oracle.balance


async def check_l2_nodes(bench: Bench) -> Found:
    """Every node of L2_NODE_RPC answers and serves the right chain."""
    known = await bench.proposer.ledger.identity() if bench.is_open else None

    async def chain_of(url: SecretStr) -> int:
        async with OpNode(urls=url) as node:
            return (await node.rollup_config()).l2_chain_id

    expected = known.l2_chain_id if known is not None else None
    return await _all_serve(bench.environment.node_rpc, "L2_NODE_RPC", chain_of, "L2 chain", expected)


async def check_l2_node_is_synced(bench: Bench) -> Found:
    """The L2 node knows the finalized head, and it is not lower than before."""
    return await bench.by_reason("it does", Code.NODE_DOWN, Code.NODE_STARTING, Code.NODE_BEHIND)


async def check_l2_node_agrees(bench: Bench) -> Found:
    """The L2 node's output root at the contract head is the stored one."""
    await _contract_read(bench)
    return await bench.by_reason("it is", Code.NODE_DOWN, Code.NODE_DISAGREES)


async def check_prover_server(bench: Bench) -> Found:
    """The prover server answers, and its program is the one that the contract expects."""
    return await bench.by_reason("it does, and it is", Code.SERVER_DOWN, Code.CONFIG_MISMATCH)


CHECKS: tuple[Check, ...] = (
    check_settings_lead_somewhere,
    check_l1_nodes,
    check_l1_follows_the_chain,
    check_contract,
    check_contract_takes_proofs,
    check_account_is_approved,
    check_signer,
    check_balance,
    check_l2_nodes,
    check_l2_node_is_synced,
    check_l2_node_agrees,
    check_prover_server,
)
