"""What a look reads of L1."""

from dataclasses import replace

from flows.stages import observe
from infra.devnet import Devnet
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer


async def test_a_look_between_cycles_reads_the_contract_once_per_l1_block(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """Nothing there changes without a block; a cycle reads it all the same, since money hangs on it."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    proposer = await make_proposer(devnet)
    first = await observe.observe(proposer, observe.plainly)
    before = devnet.traps.arrived("l1")
    assert (await observe.observe(proposer, observe.plainly, afresh=False)).oracle == first.oracle
    assert devnet.traps.arrived("l1") - before == 1
    await observe.observe(proposer, observe.plainly)
    assert devnet.traps.arrived("l1") - before > 10
    await devnet.anvil.mine(1)
    again = await observe.observe(proposer, observe.plainly, afresh=False)
    assert first.oracle is not None
    assert again.oracle is not None
    assert again.oracle.at.number == first.oracle.at.number + 1


async def test_a_server_that_agreed_is_not_asked_between_cycles_and_one_that_did_not_is(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """What was repaired is noticed at once, however far the next cycle is."""
    proposer = await make_proposer(devnet)
    agreed = (await observe.observe(proposer, observe.plainly)).server
    assert agreed is not None
    asked = devnet.traps.counts["prover.config.answered"]
    assert asked
    proposer.last_server = agreed
    await observe.observe(proposer, observe.plainly, afresh=False)
    assert devnet.traps.counts["prover.config.answered"] == asked
    proposer.last_server = replace(agreed, agg_vkey_valid=False)
    assert (await observe.observe(proposer, observe.plainly, afresh=False)).server == agreed


async def test_no_answer_takes_back_a_mismatch(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Requests stay paused while the server is away: what answers next may still be the old one."""
    proposer = await make_proposer(devnet)
    agreed = (await observe.observe(proposer, observe.plainly)).server
    assert agreed is not None
    proposer.last_server = differs = replace(agreed, range_vkey_valid=False)
    await devnet.prover.stop()
    for afresh in (True, False):
        silent = await observe.observe(proposer, observe.plainly, afresh=afresh)
        assert silent.server == differs
        assert "server" in silent.errors
