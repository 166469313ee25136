"""What must be right before anything is spent, against a real chain, node, server and ledger."""

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from blocks.ledger import Ledger, LedgerIdentity
from deployments.preflight import Preflight
from infra.devnet import Devnet
from infra.devnet.anvil import Anvil, account_key
from infra.devnet.loopback import bind_loopback, free_port
from infra.devnet.signer import SignerStandIn
from proposer.errors import InvalidSettings
from tests.deployments.helpers import blocks_of

STRANGER = account_key(5)[1]
"""The key of an account that nobody approved."""
NOBODY = "0x000000000000000000000000000000000000dEaD"
ANVIL_CHAIN = 31337


async def check(devnet: Devnet, ledger: Ledger, seconds: float = 5, **changes: str) -> LedgerIdentity:
    """Run the preflight of a devnet's environment with these changes."""
    async with blocks_of(devnet, seconds, **changes) as blocks:
        return await Preflight(**vars(blocks)).check(await ledger.identity())


async def problems(devnet: Devnet, ledger: Ledger, seconds: float = 5, **changes: str) -> tuple[str, ...]:
    """Run it and return what it refuses."""
    with pytest.raises(InvalidSettings) as refused:
        await check(devnet, ledger, seconds, **changes)
    found = refused.value.problems
    assert devnet.proposer_key.removeprefix("0x") not in str(refused.value)
    return found


def ours(devnet: Devnet) -> LedgerIdentity:
    """Whose the ledger of this devnet is."""
    return LedgerIdentity(ANVIL_CHAIN, devnet.config.l2_chain_id, devnet.oracle_address.lower())


async def test_where_all_is_well_it_says_whose_ledger_it_is(devnet: Devnet, ledger: Ledger) -> None:
    """At the first start and at every later one; it writes nothing itself."""
    identity = await check(devnet, ledger)
    assert identity == ours(devnet)
    assert await ledger.identity() is None
    await ledger.claim_identity(identity)
    assert await check(devnet, ledger) == identity


async def test_a_key_that_nobody_approved_is_refused_by_its_address(devnet: Devnet, ledger: Ledger) -> None:
    (problem,) = await problems(devnet, ledger, PRIVATE_KEY=STRANGER)
    assert problem.startswith(f"PRIVATE_KEY: its account {account_key(5)[0]} is not an approved proposer")
    assert "have the contract's owner call addProposer" in problem
    assert STRANGER.removeprefix("0x") not in problem


async def test_an_address_without_code_is_refused(devnet: Devnet, ledger: Ledger) -> None:
    found = await problems(devnet, ledger, L2OO_ADDRESS=NOBODY)
    assert found[0].startswith(f"L2OO_ADDRESS: {NOBODY} has no code on chain {ANVIL_CHAIN}; set it to")


async def test_another_contract_is_refused(devnet: Devnet, ledger: Ledger) -> None:
    found = await problems(devnet, ledger, L2OO_ADDRESS=devnet.verifier_address)
    (problem,) = [problem for problem in found if problem.startswith("L2OO_ADDRESS: ")]
    assert devnet.verifier_address in problem
    assert "set it to the rollup's L2OutputOracle" in problem


async def test_an_l1_of_another_chain_is_refused_at_the_first_start(devnet: Devnet, ledger: Ledger) -> None:
    """The op-node knows where its rollup settles."""
    async with Anvil(block_time_s=None, extra=("--chain-id", "31338")) as other:
        found = await problems(devnet, ledger, L1_RPC=other.url)
    assert any(f"serves chain 31338, but the rollup of L2_NODE_RPC settles on chain {ANVIL_CHAIN}" in p for p in found)
    assert any(p.startswith("L2OO_ADDRESS:") and "no code on chain 31338" in p for p in found)


async def test_two_l1_endpoints_of_different_chains_are_refused(devnet: Devnet, ledger: Ledger) -> None:
    """The fail-over asks the second only when the first is away: then it must not answer for another chain."""
    await ledger.claim_identity(ours(devnet))
    async with Anvil(block_time_s=None, extra=("--chain-id", "31338")) as other:
        found = await problems(devnet, ledger, L1_RPC=f"http://127.0.0.1:{free_port()},{other.url}")
    assert any("31338" in problem and "L1_RPC" in problem for problem in found)


@pytest.mark.parametrize(
    ("identity", "setting", "says"),
    [
        ({"l1_chain_id": 1}, "L1_RPC", f"serves chain {ANVIL_CHAIN}, but this ledger belongs to chain 1"),
        ({"l2_chain_id": 10}, "L2_NODE_RPC", "serves L2 chain 901, but this ledger belongs to 10"),
        ({"contract": NOBODY.lower()}, "L2OO_ADDRESS", f"this ledger belongs to {NOBODY.lower()}, not to"),
    ],
    ids=["L1", "L2", "contract"],
)
async def test_the_ledger_of_another_is_refused(
    devnet: Devnet, ledger: Ledger, identity: dict[str, int | str], setting: str, says: str
) -> None:
    mine = ours(devnet)
    theirs = {"l1_chain_id": mine.l1_chain_id, "l2_chain_id": mine.l2_chain_id, "contract": mine.contract} | identity
    await ledger.claim_identity(LedgerIdentity(**theirs))  # type: ignore[arg-type]
    (problem,) = await problems(devnet, ledger)
    assert problem.startswith(f"{setting}: ")
    assert says in problem


async def test_several_problems_are_named_at_once(devnet: Devnet, ledger: Ledger) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    found = await problems(devnet, ledger, PRIVATE_KEY=STRANGER, L2_NODE_RPC=gone, OP_SUCCINCT_SERVER_URL=gone)
    assert sorted(problem.split(":")[0] for problem in found) == [
        "L2_NODE_RPC",
        "OP_SUCCINCT_SERVER_URL",
        "PRIVATE_KEY",
    ]


async def test_endpoints_that_are_away_stop_only_the_first_start(devnet: Devnet, ledger: Ledger) -> None:
    """Later they are reasons to wait, and everything else runs."""
    gone = f"http://127.0.0.1:{free_port()}"
    away = dict.fromkeys(("L1_RPC", "L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL"), gone)
    found = await problems(devnet, ledger, **away)
    assert sorted(problem.split(":")[0] for problem in found) == sorted(away)
    assert all("check the address and that it runs" in problem for problem in found)
    await ledger.claim_identity(ours(devnet))
    assert await check(devnet, ledger, **away) == ours(devnet)


async def test_a_server_that_answers_with_an_error_stops_only_the_first_start(devnet: Devnet, ledger: Ledger) -> None:
    """The prover server answers 500 while its own L1 is away; that must not keep a proposer from starting again."""
    devnet.op_node.faults.text_500 = True
    elsewhere = {"OP_SUCCINCT_SERVER_URL": devnet.node_rpc}
    found = await problems(devnet, ledger, **elsewhere)
    assert {problem.split(":")[0] for problem in found} == {"L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL"}
    await ledger.claim_identity(ours(devnet))
    assert await check(devnet, ledger, **elsewhere) == ours(devnet)


async def test_endpoints_that_hang_have_a_deadline(devnet: Devnet, ledger: Ledger) -> None:
    """They accept the connection and never answer, as a frozen node does."""
    with bind_loopback() as silent:
        silent.listen()
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        away = dict.fromkeys(("L1_RPC", "L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL"), hanging)
        started = time.monotonic()
        found = await problems(devnet, ledger, seconds=0.5, **away)
        assert time.monotonic() - started < 20
    assert sorted(problem.split(":")[0] for problem in found) == sorted(away)


@pytest_asyncio.fixture
async def signer(devnet: Devnet) -> AsyncIterator[SignerStandIn]:
    """A Web3Signer with the proposer's key that is not started yet."""
    made = SignerStandIn(devnet.proposer_key, ANVIL_CHAIN)
    yield made
    await made.stop()


async def test_a_remote_signer_is_asked_for_the_account(devnet: Devnet, ledger: Ledger, signer: SignerStandIn) -> None:
    """Well, without the account, down at the first start; at a later one a signer that is down is waited for."""
    remote = {"PRIVATE_KEY": "", **signer.env()}
    (problem,) = await problems(devnet, ledger, **remote)
    assert problem.startswith(f"SIGNER_URL: {signer.http.url} cannot be reached")
    await signer.start()
    assert await check(devnet, ledger, **remote) == ours(devnet)
    signer.faults.locked = True
    (problem,) = await problems(devnet, ledger, **remote)
    assert f"none is that of {devnet.proposer_address}; load its key there" in problem
    found = sorted(await problems(devnet, ledger, **(remote | {"SIGNER_ADDRESS": account_key(5)[0]})))
    assert [one.split(":")[0] for one in found] == ["SIGNER_ADDRESS", "SIGNER_URL"]
    assert f"its account {account_key(5)[0]} is not an approved proposer" in " ".join(found)
    await signer.stop()
    await ledger.claim_identity(ours(devnet))
    assert await check(devnet, ledger, **remote) == ours(devnet)
