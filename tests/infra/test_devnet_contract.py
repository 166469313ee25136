"""The oracle and its verifiers behave as the real ones: checks, their order, revert data and events."""

from typing import Any

import pytest
from eth_abi.abi import decode

from infra.devnet import Devnet
from infra.devnet.checker import OUTPUT_PROPOSED, OUTPUTS_DELETED
from infra.devnet.contracts import bytecode
from infra.devnet.proofs import VERIFIER_SELECTOR, Commitments, aggregation_proof, public_values
from infra.devnet.rpc import RpcError, calldata
from tests.devnets import StartDevnet

pytestmark = pytest.mark.asyncio

PROPOSE = "proposeL2Output(bytes32,uint256,uint256,bytes)"
OPTIMISTIC = "proposeL2Output(bytes32,uint256,bytes32,uint256)"
CHECKPOINT = "checkpointBlockHash(uint256)"


async def checkpoint(devnet: Devnet) -> tuple[int, bytes]:
    """Checkpoint a recent L1 block as the proposer; return its number and hash."""
    number = await devnet.l1.block_number() - 1
    await devnet.send(devnet.proposer_address, CHECKPOINT, number, mine=True)
    return number, await devnet.read("historicBlockHashes(uint256)", number)


async def revert_of(devnet: Devnet, signature: str, *arguments: Any, sender: str | None = None) -> str:
    """Return the revert of a call as the reason of an Error(string), or as hex."""
    with pytest.raises(RpcError) as caught:
        await devnet.l1.eth_call(
            devnet.oracle_address, calldata(signature, *arguments), sender or devnet.proposer_address
        )
    assert caught.value.code == 3
    data = str(caught.value.data)
    return decode(["string"], bytes.fromhex(data[10:]))[0] if data.startswith("0x08c379a0") else data


async def test_calldata_matches_the_golden_vectors() -> None:
    """The selectors and layouts are those of appendix A."""
    root = b"\x01" + bytes(31)
    words = ["64", "c8", "80", "01"]
    expected = "0x9ad84880" + root.hex() + "".join(word.rjust(64, "0") for word in words) + "02".ljust(64, "0")
    assert calldata(PROPOSE, root, 100, 200, b"\x02") == expected
    assert calldata(CHECKPOINT, 200) == "0x1e856800" + "c8".rjust(64, "0")


async def test_a_valid_proposal_is_stored_and_announced(devnet: Devnet) -> None:
    """A proposal with a proof for exactly this head becomes the next output."""
    number, l1_hash = await checkpoint(devnet)
    assert "0x" + l1_hash.hex() == (await devnet.l1.block(number) or {})["hash"]
    root, proof = devnet.l2.output_root(1150), await devnet.make_proof(1150, l1_hash)
    receipt = await devnet.send(devnet.proposer_address, PROPOSE, root, 1150, number, proof, mine=True)
    topics = receipt["logs"][0]["topics"]
    assert topics == [OUTPUT_PROPOSED, "0x" + root.hex(), "0x" + f"{1:064x}", "0x" + f"{1150:064x}"]
    stored = decode(["bytes32", "uint128", "uint128"], await devnet.read("getL2Output(uint256)", 1))
    assert (stored[0], stored[2]) == (root, 1150)
    assert await devnet.latest_block_number() == 1150
    assert await devnet.read_uint("nextBlockNumber()") == 1250
    assert await devnet.read("getL2OutputAfter(uint256)", 1100) == await devnet.read("getL2Output(uint256)", 1)


async def test_getters_answer_under_both_spellings(devnet: Devnet) -> None:
    """Constants, counters and the starting output are readable as on mainnet."""
    for name, value in {
        "SUBMISSION_INTERVAL()": 100,
        "submissionInterval()": 100,
        "L2_BLOCK_TIME()": 2,
        "l2BlockTime()": 2,
        "startingBlockNumber()": 1000,
        "latestOutputIndex()": 0,
        "nextOutputIndex()": 1,
        "finalizationPeriodSeconds()": 604_800,
        "optimisticMode()": 0,
        "proposer()": 0,
    }.items():
        assert await devnet.read_uint(name) == value, name
    assert decode(["string"], await devnet.read("version()")) == ("v1.0.0",)
    assert (await devnet.read("getL2Output(uint256)", 0))[:32] == devnet.l2.output_root(1000)
    assert await devnet.read_uint("approvedProposers(address)", devnet.proposer_address) == 1
    assert await devnet.read_uint("computeL2Timestamp(uint256)", 1500) == devnet.l2.timestamp(1500)


async def test_every_refusal_is_named_and_checked_in_order(devnet: Devnet) -> None:
    """Each check of proposeL2Output reverts with its own words, the earlier check first."""
    number, l1_hash = await checkpoint(devnet)
    root, proof = devnet.l2.output_root(1150), await devnet.make_proof(1150, l1_hash)
    far = 1000 + 40 * 86_400
    assert await revert_of(devnet, PROPOSE, bytes(32), 1, 0, b"", sender=devnet.challenger) == (
        "L2OutputOracle: only approved proposers can propose new outputs"
    )
    assert await revert_of(devnet, PROPOSE, bytes(32), 1099, 0, b"") == (
        "L2OutputOracle: block number must be greater than or equal to next expected block number"
    )
    assert await revert_of(devnet, PROPOSE, bytes(32), far, 0, b"") == (
        "L2OutputOracle: cannot propose L2 output in the future"
    )
    assert await revert_of(devnet, PROPOSE, bytes(32), 1150, 0, b"") == (
        "L2OutputOracle: L2 output proposal cannot be the zero hash"
    )
    assert await revert_of(devnet, PROPOSE, root, 1150, 0, proof) == "0x22aa3a98"
    assert (await revert_of(devnet, PROPOSE, root, 1150, number, b"\xde\xad\xbe\xef")).startswith("0xf208777edeadbeef")
    await devnet.owner_call("enableOptimisticMode", 60, mine=True)
    assert await revert_of(devnet, PROPOSE, bytes(32), 1, 0, b"", sender=devnet.challenger) == (
        "L2OutputOracle: optimistic mode is enabled"
    )


async def test_the_verifier_refuses_altered_public_values(devnet: Devnet) -> None:
    """A proof holds for its root, block, L1 head, pre-root, config and vkeys and for nothing else."""
    number, l1_hash = await checkpoint(devnet)
    root, pre = devnet.l2.output_root(1150), devnet.l2.output_root(1000)
    own, other = devnet.commitments, Commitments.from_seed(99)
    mixed = Commitments(own.aggregation_vkey, other.range_vkey, own.rollup_config_hash)
    cases = [
        (own.aggregation_vkey, public_values(bytes(32), pre, root, 1150, own)),
        (own.aggregation_vkey, public_values(l1_hash, root, root, 1150, own)),
        (own.aggregation_vkey, public_values(l1_hash, pre, pre, 1150, own)),
        (own.aggregation_vkey, public_values(l1_hash, pre, root, 1151, own)),
        (own.aggregation_vkey, public_values(l1_hash, pre, root, 1150, mixed)),
        (other.aggregation_vkey, public_values(l1_hash, pre, root, 1150, own)),
    ]
    for vkey, values in cases:
        refusal = await revert_of(devnet, PROPOSE, root, 1150, number, aggregation_proof(vkey, values))
        assert refusal == "0x7fcdd1f4"
    assert await revert_of(devnet, PROPOSE, root, 1150, number, VERIFIER_SELECTOR) == "0x7fcdd1f4"
    good = aggregation_proof(own.aggregation_vkey, public_values(l1_hash, pre, root, 1150, own))
    call = calldata(PROPOSE, root, 1150, number, good)
    assert await devnet.l1.eth_call(devnet.oracle_address, call, devnet.proposer_address) == b""


async def test_a_proof_is_worthless_once_the_head_has_moved(devnet: Devnet) -> None:
    """After another proposal the old proof no longer verifies, for its pre-root is gone."""
    number, l1_hash = await checkpoint(devnet)
    proof = await devnet.make_proof(1400, l1_hash)
    await devnet.competing_proposal(1200, mine=True)
    assert await revert_of(devnet, PROPOSE, devnet.l2.output_root(1400), 1400, number, proof) == "0x7fcdd1f4"


async def test_only_the_last_256_blocks_can_be_checkpointed(devnet: Devnet) -> None:
    """In block M the window is M-256 to M-1; outside of it the error has its name."""
    await devnet.anvil.mine(300)
    await devnet.anvil.set_block_time(0)
    head = await devnet.l1.block_number()
    assert await revert_of(devnet, CHECKPOINT, head) == "0x84c06864"
    assert await revert_of(devnet, CHECKPOINT, head - 257) == "0x84c06864"
    await devnet.l1.eth_call(devnet.oracle_address, calldata(CHECKPOINT, head - 256))


async def test_a_mock_verifier_takes_only_an_empty_proof(start_devnet: StartDevnet) -> None:
    """In mock mode a proposal carries no proof; any bytes are Panic(0x01)."""
    devnet = await start_devnet(mock=True)
    assert devnet.env()["OP_SUCCINCT_MOCK"] == "true"
    number, _ = await checkpoint(devnet)
    root = devnet.l2.output_root(1100)
    assert await revert_of(devnet, PROPOSE, root, 1100, number, b"\x01") == "0x4e487b71" + f"{1:064x}"
    await devnet.send(devnet.proposer_address, PROPOSE, root, 1100, number, b"", mine=True)
    assert await devnet.latest_block_number() == 1100


async def test_the_optimistic_overload_works_in_optimistic_mode_only(devnet: Devnet) -> None:
    """Selector 0x9aaab648 takes exactly the next block, without a proof."""
    root = devnet.l2.output_root(1100)
    assert calldata(OPTIMISTIC, root, 1100, bytes(32), 0).startswith("0x9aaab648")
    assert await revert_of(devnet, OPTIMISTIC, root, 1100, bytes(32), 0) == (
        "L2OutputOracle: optimistic mode is not enabled"
    )
    await devnet.owner_call("enableOptimisticMode", 60, mine=True)
    assert await revert_of(devnet, OPTIMISTIC, root, 1101, bytes(32), 0) == (
        "L2OutputOracle: block number must be equal to next expected block number"
    )
    assert await revert_of(devnet, OPTIMISTIC, root, 1100, b"\x01" * 32, 1) == (
        "L2OutputOracle: block hash does not match the hash at the expected height"
    )
    await devnet.send(devnet.proposer_address, OPTIMISTIC, root, 1100, bytes(32), 0, mine=True)
    assert await devnet.latest_block_number() == 1100
    await devnet.owner_call("disableOptimisticMode", 60, mine=True)
    assert await devnet.read_uint("optimisticMode()") == 0


async def test_the_challenger_rewinds_the_head(devnet: Devnet) -> None:
    """deleteL2Outputs drops the outputs from an index on, by the challenger, and announces it."""
    await devnet.competing_proposal(1100, mine=True)
    await devnet.competing_proposal(1250, mine=True)
    assert await revert_of(devnet, "deleteL2Outputs(uint256)", 1) == (
        "L2OutputOracle: only the challenger address can delete outputs"
    )
    receipt = await devnet.delete_outputs(1, mine=True)
    assert receipt["logs"][0]["topics"] == [OUTPUTS_DELETED, "0x" + f"{3:064x}", "0x" + f"{1:064x}"]
    assert await devnet.latest_block_number() == 1000
    await devnet.competing_proposal(1300, mine=True)
    assert await devnet.latest_block_number() == 1300


async def test_the_owner_changes_the_rules(devnet: Devnet) -> None:
    """Owner functions take effect and emit the events of section 5.1; nobody else may call them."""
    topics = {
        "updateSubmissionInterval": (50, "0xc1bf9abf"),
        "updateAggregationVkey": (devnet.foreign_hash(), "0x390b73b2"),
        "updateRangeVkeyCommitment": (devnet.foreign_hash(), "0xbf8cab63"),
        "updateRollupConfigHash": (devnet.foreign_hash(), "0x5d9ebe9f"),
        "updateVerifier": (devnet.verifier_address, "0x0243549a"),
        "addProposer": ("0x" + "00" * 20, "0x5df38d39"),
        "removeProposer": (devnet.competitor, "0x5df38d39"),
        "enableOptimisticMode": (60, "0x1f5c872f"),
        "transferOwnership": (devnet.challenger, "0x8be0079c"),
    }
    for function, (argument, topic) in topics.items():
        receipt = await devnet.owner_call(function, argument, mine=True)
        assert receipt["logs"][0]["topics"][0].startswith(topic), function
    assert await devnet.read_uint("nextBlockNumber()") == 1050
    assert await revert_of(devnet, "updateSubmissionInterval(uint256)", 1) == "L2OutputOracle: caller is not the owner"


async def test_contracts_are_compiled_once() -> None:
    """The compiler's output is kept for the life of the process."""
    assert bytecode("Verifier") is bytecode("Verifier")
