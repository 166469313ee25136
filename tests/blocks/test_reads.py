"""JSON-RPC, the rollup node, reverts and the contract's encoding."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.l1 import L1Chain, Sent
from blocks.op_node import OpNode, RollupConfig, SyncStatus
from blocks.output_oracle import SELECTORS, L2OutputOracle, encode_checkpoint, encode_propose
from blocks.reverts import WITHOUT_DATA, decode, reverted
from blocks.rpc import HttpStatus, RpcError
from proposer.errors import (
    BadReply,
    ChainMoved,
    EndpointDown,
    InvalidSettings,
    OutcomeUnknown,
    ProposerError,
    RateLimited,
    Reverted,
    WrongChain,
)
from proposer.units import L1Block, L1Ref, L2Block
from tests.blocks.loopback import KEY, Say, Server

H = "0x" + "33" * 32
ROOT = "0xd50bf2ff34ced71be0d2f0be7c2433c6b39d9c3b16c95daf1ed6f24b7578a3b2"
AT = L1Ref(L1Block(5), b"\x33" * 32, 0)
TO = "0x" + "11" * 20
CHAINS = {"l1_chain_id": 1, "l2_chain_id": 10}

pytestmark = pytest.mark.usefixtures("usual_depth")


def output(**changed: Any) -> dict[str, Any]:
    """An answer of optimism_outputAtBlock (appendix A's root)."""
    roots = {"stateRoot": "0x" + "11" * 32, "withdrawalStorageRoot": "0x" + "22" * 32, "version": "0x" + "00" * 32}
    return {**roots, "outputRoot": ROOT, "blockRef": {"number": 7, "hash": H}, **changed}


async def test_output_roots_are_checked(server: Server) -> None:
    """A wrong version or block, or a root that is none, names its field."""
    said = output()
    server.rpc(lambda method, params: said)
    async with OpNode(urls=server.url) as node:
        assert (await node.output_root(7)).hex() == ROOT[2:]
        zero = "0x" + "00" * 32
        for field, value in [
            ("version", H),
            ("blockRef", {"number": 8, "hash": H}),
            ("outputRoot", "0x"),
            ("outputRoot", zero),
        ]:
            said = output(**{field: value})
            with pytest.raises(BadReply, match=field):
                await node.output_root(7)


async def test_sync_status_and_config(server: Server) -> None:
    """Numbers are plain integers."""
    l2 = {"number": 9, "hash": H, "timestamp": 1}
    heads = {name: {"number": 3} for name in ("current_l1", "head_l1", "safe_l1", "finalized_l1")}
    status = heads | {"unsafe_l2": l2, "safe_l2": l2, "finalized_l2": l2 | {"number": 4}}
    config = {"l1_chain_id": 1, "l2_chain_id": 10, "block_time": 2}
    server.rpc(lambda method, params: status if method == "optimism_syncStatus" else config)
    async with OpNode(urls=server.plain) as node:
        assert await node.sync_status() == SyncStatus(L2Block(4), L2Block(9))
        assert await node.rollup_config() == RollupConfig(1, 10)
        del config["l1_chain_id"]
        assert await node.rollup_config() == RollupConfig(None, 10)
        config["l1_chain_id"] = None
        assert await node.rollup_config() == RollupConfig(None, 10)
        config["l1_chain_id"] = 2**63
        with pytest.raises(BadReply, match="l1_chain_id"):
            await node.rollup_config()
        for number in ("0x4", 10, True, 4.0, -1, 2**63, 2**64):
            status["finalized_l2"] = {"number": number}
            with pytest.raises(BadReply, match=r"finalized_l2\.number"):
                await node.sync_status()


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (Say(drop=True), EndpointDown),
        (Say(hang=True), EndpointDown),
        (Say(status=429), RateLimited),
        (Say(f"no {KEY}", status=403), HttpStatus),
        (Say(status=500), HttpStatus),
        (Say("{"), BadReply),
        (Say({"id": 99, "result": 1}), BadReply),
        (Say({"id": 1}), BadReply),
        (Say([1]), BadReply),
        (Say([{"id": 1, "result": CHAINS}]), BadReply),
        (Say({"id": True, "result": CHAINS}), BadReply),
        (Say({"id": 1.0, "result": CHAINS}), BadReply),
        (Say({"id": "1", "result": CHAINS}), BadReply),
        (Say({"id": 1, "error": "no"}), BadReply),
        (Say({"id": 1, "error": "no", "result": CHAINS}), BadReply),
        (Say({"id": 99, "error": {"code": 1, "message": "x"}}), BadReply),
        (Say({"id": True, "error": {"code": 1, "message": "x"}}), BadReply),
        (Say({"id": 1, "error": {}}), RpcError),
        (Say({"id": None, "error": {"code": "x", "message": {"a": [1]}, "data": [0]}}), RpcError),
        (Say({"id": 1, "error": {"code": True, "message": None}}), RpcError),
        (Say({"id": 1, "error": {"code": 2**70, "message": "x" * 100_000}}), RpcError),
        (Say(b"<html>", headers={"Content-Type": "text/html"}), BadReply),
        (Say(b'{"id": 1, "result": ' + b"[" * 1000 + b"]" * 1000 + b"}"), BadReply),
        (Say(b" " * 2**23), BadReply),
        (Say({"id": 1, "error": {"code": -32000, "message": f"no {KEY}"}}), RpcError),
        (Say({"id": 1, "error": {"code": -32000, "message": "x"}}, status=400), RpcError),
        (Say({"id": 1, "error": {"code": -32005, "message": "daily request count exceeded"}}), RateLimited),
    ],
)
async def test_errors_of_json_rpc(
    server: Server, say: Say, error: type[ProposerError], caplog: pytest.LogCaptureFixture
) -> None:
    """Each answer has its one class; neither error nor log shows the key."""
    caplog.set_level(logging.DEBUG)
    server.answer = lambda *_: say
    async with OpNode(urls=server.url, timeout_seconds=2) as node:
        with pytest.raises(ProposerError) as caught:
            await node.rollup_config()
    assert type(caught.value) is error
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert KEY not in str(caught.value) + caplog.text


async def test_reads_go_to_the_next_endpoint_and_remember(server: Server, second: Server) -> None:
    """A dead endpoint is passed over, and rests."""
    server.answer = lambda *_: Say(status=503)
    second.rpc(lambda *_: {"l1_chain_id": 1, "l2_chain_id": 10, "block_time": 2})
    async with OpNode(urls=f"{server.url},{second.url}") as node:
        for _ in range(3):
            assert (await node.rollup_config()).l2_chain_id == 10
    assert len(server.seen) == 1


async def test_an_endpoint_of_another_chain_is_refused(server: Server, second: Server) -> None:
    """Fail-over never reads another chain."""
    server.rpc(lambda method, params: "0x1" if method == "eth_chainId" else Say(status=503))
    second.rpc(lambda method, params: "0x5")
    async with L1Chain(urls=f"{server.url},{second.url}") as l1:
        with pytest.raises(WrongChain, match="serves chain 5, not 1"):
            await l1.balance(TO)


def chain(server: Server, said: Any) -> L1Chain:
    """An L1 that answers everything but the chain id with `said`."""

    def results(method: str, params: list[Any]) -> Any:
        if method == "eth_chainId":
            return "0x1"
        return said(method, params) if callable(said) else said

    server.rpc(results)
    return L1Chain(urls=server.plain, timeout_seconds=2)


def err(code: int, message: str, data: object = None) -> dict[str, Any]:
    """A JSON-RPC error."""
    return {"error": {"code": code, "message": message, "data": data}}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("hash 0x33 is not currently canonical", -32603),
        ("header for hash not found", -32000),
        ("Resource not found", -32001),
        ("block not found: hash 0x33", -32001),
    ],
)
async def test_a_pinned_block_that_is_gone(server: Server, message: str, code: int) -> None:
    """geth, erigon, reth and anvil say it differently."""
    async with chain(server, err(code, message)) as l1:
        with pytest.raises(ChainMoved, match="block 5"):
            await l1.call(TO, b"", AT)


async def test_a_node_without_block_hashes_is_asked_by_number(server: Server) -> None:
    """The block's hash is compared afterwards, so that the read stays pinned."""
    now = H

    def said(method: str, params: list[Any]) -> Any:
        if method == "eth_getBlockByNumber":
            return {"number": "0x5", "hash": now, "timestamp": "0x0"}
        return err(-32602, "invalid argument 1") if isinstance(params[-1], dict) else "0x2a"

    async with chain(server, said) as l1:
        assert await l1.balance(TO, AT) == 42
        now = "0x" + "44" * 32
        with pytest.raises(ChainMoved):
            await l1.balance(TO, AT)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("0x" + keccak(b"\2").hex(), Sent.ACCEPTED),
        (err(-32000, "already known"), Sent.ALREADY_KNOWN),
        (err(-32000, "AlreadyKnown"), Sent.ALREADY_KNOWN),
        (err(-32000, "Known transaction"), Sent.ALREADY_KNOWN),
        (err(-32003, "nonce too low: next nonce 5, tx nonce 4"), Sent.NONCE_TOO_LOW),
        (err(-32000, "replacement transaction underpriced"), Sent.UNDERPRICED),
        (err(-32000, "FeeTooLowToCompete"), Sent.UNDERPRICED),
        (err(-32000, "max fee per gas less than block base fee"), Sent.UNDERPRICED),
        (err(-32000, "insufficient funds for gas * price + value"), Sent.INSUFFICIENT_FUNDS),
        (err(-32000, "invalid sender"), RpcError),
        (Say(hang=True), OutcomeUnknown),
        (Say(drop=True), OutcomeUnknown),
        (Say(status=502), OutcomeUnknown),
        (Say(status=429), RateLimited),
    ],
)
async def test_outcomes_of_a_send(server: Server, said: Any, outcome: Any) -> None:
    """What may have been taken is told apart from what was not; nothing is sent twice."""
    async with chain(server, lambda method, _: said if method == "eth_sendRawTransaction" else None) as l1:
        if isinstance(outcome, Sent):
            assert await l1.send_raw(b"\2") is outcome
        else:
            with pytest.raises(ProposerError) as caught:
                await l1.send_raw(b"\2")
            assert type(caught.value) is outcome
    assert sum(b"eth_sendRaw" in body for _, _, body in server.seen) == 1


TEXT = bytes.fromhex("08c379a0") + encode(["string"], ["no entry"])


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (RpcError("w", 3, "execution reverted", "0x" + TEXT.hex()), "no entry"),
        (RpcError("w", -32015, "VM execution error", "Reverted 0x" + TEXT.hex()), "no entry"),
        (RpcError("w", -32000, "execution reverted", {"data": "0x22aa3a98"}), "L1BlockHashNotCheckpointed"),
        (RpcError("w", 3, "execution reverted: custom error 0x84c06864"), "L1BlockHashNotAvailable"),
        (RpcError("w", -32000, "execution reverted: no entry"), "no entry"),
        (RpcError("w", -32000, "execution reverted"), WITHOUT_DATA),
        (RpcError("w", 3, "x", "0x4e487b71" + "0" * 63 + "1"), "Panic(0x01)"),
        (RpcError("w", 3, "x", "0xf208777e" + "00" * 32), "RouteNotFound"),
        (RpcError("w", 3, "x", "0xebf10823" + "00" * 32), "RouteIsFrozen"),
        (RpcError("w", 3, "x", "0xdeadbeef"), "0xdeadbeef"),
        (RpcError("w", -32000, "insufficient funds"), None),
    ],
)
def test_reverts_have_names(error: RpcError, name: str | None) -> None:
    """Whatever shape the node gives them."""
    found = reverted(error)
    assert (found and found.name) == name


@given(st.binary(max_size=200), st.sampled_from([b"", TEXT[:4], bytes.fromhex("4e487b71")]))
def test_any_revert_data_has_a_name(tail: bytes, selector: bytes) -> None:
    """No error gets out."""
    assert isinstance(decode(selector + tail), str)


@given(st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_result_is_read_or_refused(said: object) -> None:
    """Only named errors get out of a whole read."""

    async def run() -> None:
        async with Server() as server, chain(server, [said]) as l1:
            server.rpc(lambda method, params: "0x1" if method == "eth_chainId" else said)
            for read in (l1.head(), l1.receipt(b"\1" * 32), l1.balance(TO), l1.call(TO, b"")):
                with suppress(ProposerError):
                    await read

    asyncio.run(run())


def test_a_reverts_name_is_short_and_plain() -> None:
    """It becomes an event's text, whatever a contract says."""
    said = TEXT[:4] + encode(["string"], ["no\0 \x1b entry" + "x" * 5000])
    assert decode(said).startswith("no")
    assert decode(said).isprintable()
    assert len(decode(said)) == len(decode(b"\xde\xad\xbe\xef" * 5000)) == 300


def test_golden_calldata() -> None:
    """Appendix A of the seed's protocol."""
    word = "{:064x}".format
    assert encode_checkpoint(200).hex() == "1e856800" + word(200)
    tail = word(100) + word(200) + word(128) + word(1) + "02".ljust(64, "0")
    assert encode_propose(b"\1" + b"\0" * 31, 100, 200, b"\2").hex() == "9ad84880" + "01".ljust(64, "0") + tail


def test_golden_selectors() -> None:
    """The seed's table."""
    golden = {
        "version()": "54fd4d50",
        "latestBlockNumber()": "4599c788",
        "checkpointBlockHash(uint256)": "1e856800",
        "historicBlockHashes(uint256)": "a196b525",
        "proposeL2Output(bytes32,uint256,uint256,bytes)": "9ad84880",
        "aggregationVkey()": "c32e4e3e",
        "rangeVkeyCommitment()": "2b31841e",
        "rollupConfigHash()": "6d9a1c8b",
        "submissionInterval()": "e1a41bcf",
        "approvedProposers(address)": "d4651276",
        "optimisticMode()": "60caf7a0",
        "finalizationPeriodSeconds()": "ce5db8d6",
        "nextOutputIndex()": "6abcf563",
        "getL2Output(uint256)": "a25ae557",
        "startingBlockNumber()": "70872aa5",
        "startingTimestamp()": "88786272",
        "l2BlockTime()": "93991af3",
    }
    assert {signature: selector.hex() for signature, selector in SELECTORS.items()} == golden


@pytest.mark.parametrize(
    "address", ["0x12", "", "0x" + "00" * 20, "0x5FbDB2315678afecb367f032d93F642f64180aA4", "11" * 20]
)
def test_bad_addresses_are_refused(address: str) -> None:
    """The message names the setting."""
    with pytest.raises(InvalidSettings, match="L2OO_ADDRESS"):
        L2OutputOracle(address=address)


@pytest.mark.parametrize("count", [0, 3])
async def test_the_view(server: Server, count: int) -> None:
    """All is read at one block; the root only where there is an output."""
    words = {
        "nextOutputIndex()": count.to_bytes(32),
        "latestBlockNumber()": (100).to_bytes(32),
        "submissionInterval()": (50).to_bytes(32),
        "getL2Output(uint256)": b"\7" * 32 + bytes(64),
        "approvedProposers(address)": bytes(32),
        "optimisticMode()": bytes(32),
    }
    by_selector = {"0x" + SELECTORS[s].hex(): w for s, w in words.items()}

    def said(method: str, params: list[Any]) -> Any:
        if method == "eth_getBlockByNumber":
            return None
        assert params[-1]["blockHash"] == H
        if method == "eth_getBalance":
            return "0x5"
        return "0x" + by_selector.get(params[0]["data"][:10], b"\1".rjust(32, b"\0")).hex()

    async with chain(server, said) as l1:
        seen = await L2OutputOracle(address=TO).view(l1, AT, TO)
    assert (seen.latest_block, seen.submission_interval, seen.balance, seen.safe) == (100, 50, 5, None)
    assert seen.latest_root == (b"\7" * 32 if count else None)
    assert not seen.approved
    assert not seen.optimistic


@pytest.mark.parametrize("said", ["0x", "0x01", err(3, "execution reverted")])
async def test_an_address_that_is_not_the_contract(server: Server, said: Any) -> None:
    """The function and the remedy are named; a revert with a reason stays one."""
    async with chain(server, said) as l1:
        oracle = L2OutputOracle(address=TO)
        with pytest.raises(BadReply, match=r"l2BlockTime\(\) .*L2OO_ADDRESS"):
            await oracle.l2_block_time(l1, AT)
    async with chain(server, err(3, "execution reverted", "0x" + TEXT.hex())) as l1:
        with pytest.raises(Reverted, match="no entry"):
            await oracle.l2_block_time(l1, AT)


@pytest.mark.parametrize(
    ("code", "slot", "speaks"), [("639ad84880", 0, True), ("634599c788", 0, False), ("60", 0, None)]
)
async def test_speaks_v1(server: Server, code: str, slot: int, speaks: bool | None) -> None:
    """The selector is looked for in the code."""
    async with chain(server, lambda m, p: "0x" + (f"{slot:064x}" if m == "eth_getStorageAt" else code)) as l1:
        assert await L2OutputOracle(address=TO).speaks_v1(l1) is speaks


async def test_speaks_v1_through_a_proxy(server: Server) -> None:
    """The implementation's code counts."""
    said = {TO: "0x60", "0x" + "22" * 20: "0x639ad84880"}
    async with chain(server, lambda m, p: "0x" + "22".zfill(24).ljust(64, "2") if m == "eth_getStorageAt" else
                     said[p[0].lower()]) as l1:  # fmt: skip
        assert await L2OutputOracle(address=TO).speaks_v1(l1) is True


async def test_an_error_that_may_be_the_nodes_own_leads_on_and_an_answer_does_not(
    server: Server, second: Server
) -> None:
    """State that one has pruned another has; what reverts at one reverts everywhere. Where all refuse: the first's."""
    pruned = {"error": {"code": -32000, "message": "missing trie node 5e1f (path )"}}
    server.rpc(lambda method, _: "0x1" if method == "eth_chainId" else pruned)
    second.rpc(lambda method, _: "0x1" if method == "eth_chainId" else "0x2a")
    async with L1Chain(urls=f"{server.plain},{second.plain}") as l1:
        assert await l1.balance("0x" + "11" * 20) == 42
        second.rpc(lambda *_: {"error": {"code": -32601, "message": "the method does not exist"}})
        with pytest.raises(RpcError, match="missing trie node"):
            await l1.balance("0x" + "11" * 20)
        server.rpc(lambda *_: {"error": {"code": 3, "message": "execution reverted: no"}})
        asked = len(second.seen)
        with pytest.raises(Reverted, match="no"):
            await l1.call("0x" + "11" * 20, b"")
        assert len(second.seen) == asked
