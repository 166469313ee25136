"""The simulated L2 and the op-node stand-in: roots, heads, wire formats and faults."""

import asyncio
from typing import Any

import httpx
import pytest

from infra.devnet import Devnet, NodeFaults, SimulatedL2
from infra.devnet.l2 import output_root_v0

pytestmark = pytest.mark.asyncio


async def rpc(http: httpx.AsyncClient, url: str, method: str, *params: Any) -> dict[str, Any]:
    """Call one method and return the whole answer."""
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}
    return (await http.post(url, json=body)).json()


async def test_output_root_matches_the_golden_vector() -> None:
    """Version 0 is keccak256(version, state root, withdrawal storage root, block hash)."""
    root = output_root_v0(b"\x11" * 32, b"\x22" * 32, b"\x33" * 32)
    assert root.hex() == "d50bf2ff34ced71be0d2f0be7c2433c6b39d9c3b16c95daf1ed6f24b7578a3b2"


async def test_the_l2_is_a_function_of_its_seed_and_its_heads_of_the_clock() -> None:
    """Same seed, same hashes; the finalized head moves, pauses, jumps and stops at its limit."""
    now = [0.0]
    l2 = SimulatedL2(3, blocks_per_second=10, initial_finalized=100, limit=400, clock=lambda: now[0])
    assert l2.output_root(5) == SimulatedL2(3).output_root(5) != SimulatedL2(4).output_root(5)
    assert l2.parent_hash(6) == l2.block_hash(5)
    now[0] = 5.0
    assert (l2.finalized, l2.safe, l2.unsafe) == (150, 160, 170)
    l2.pause()
    now[0] = 10.0
    assert l2.finalized == 150
    l2.resume()
    l2.set_speed(1)
    now[0] = 12.0
    assert l2.finalized == 152
    now[0] = 1000.0
    assert l2.finalized == 400
    l2.advance_to(500)
    assert l2.finalized == 500


async def test_sync_status_carries_plain_integers(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """Every ref has hash, number, parentHash and timestamp; L2 refs an origin; numbers are not hex."""
    status = (await rpc(http, devnet.node_rpc, "optimism_syncStatus"))["result"]
    assert status["finalized_l2"]["number"] == 2000
    assert status["unsafe_l2"]["number"] > status["safe_l2"]["number"] > 2000
    assert status["head_l1"]["number"] >= status["safe_l1"]["number"] >= status["finalized_l1"]["number"] > 0
    assert set(status["head_l1"]) == {"hash", "number", "parentHash", "timestamp"}
    assert set(status["safe_l2"]["l1origin"]) == {"hash", "number"}
    header = await devnet.l1.block(status["safe_l1"]["number"]) or {}
    assert header["hash"] == status["safe_l1"]["hash"]


async def test_output_at_block_can_be_verified_and_ends_at_the_unsafe_head(
    devnet: Devnet, http: httpx.AsyncClient
) -> None:
    """The root is the hash of its parts; above the unsafe head, and for a plain number, the answer is an error."""
    result = (await rpc(http, devnet.node_rpc, "optimism_outputAtBlock", hex(1500)))["result"]
    parts = (result["stateRoot"], result["withdrawalStorageRoot"], result["blockRef"]["hash"])
    assert result["outputRoot"] == "0x" + output_root_v0(*(bytes.fromhex(part[2:]) for part in parts)).hex()
    assert (result["version"], result["blockRef"]["number"]) == ("0x" + "00" * 32, 1500)
    assert "finalized_l2" in result["syncStatus"]
    error = (await rpc(http, devnet.node_rpc, "optimism_outputAtBlock", hex(devnet.l2.unsafe + 1)))["error"]
    assert error["code"] == -32000
    assert "not found" in error["message"]
    assert (await rpc(http, devnet.node_rpc, "optimism_outputAtBlock", 5))["error"]["code"] == -32602


async def test_the_other_methods_and_batches(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """rollupConfig, safeHeadAtL1Block, an unknown method and bad JSON answer by the JSON-RPC rules."""
    calls = [
        {"jsonrpc": "2.0", "id": 1, "method": "optimism_rollupConfig", "params": []},
        {"jsonrpc": "2.0", "id": 2, "method": "optimism_safeHeadAtL1Block", "params": ["0x3"]},
        {"jsonrpc": "2.0", "id": 3, "method": "optimism_nothing", "params": []},
        {"jsonrpc": "2.0", "id": 4, "method": "optimism_safeHeadAtL1Block", "params": ["0xffffff"]},
    ]
    config, safe, unknown, missing = (await http.post(devnet.node_rpc, json=calls)).json()
    assert (config["result"]["l2_chain_id"], config["result"]["block_time"]) == (901, 2)
    assert set(safe["result"]) == {"l1Block", "safeHead"}
    assert unknown["error"]["code"] == -32601
    assert missing["error"]["message"] == "not found"
    assert (await http.post(devnet.node_rpc, content=b"{")).json()["error"]["code"] == -32700


async def test_the_node_fails_in_every_way_it_is_told(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """500 text, 429, dropped connection, hang, zero heads, lagging finality, wrong roots, and an outage."""
    node, url = devnet.op_node, devnet.node_rpc
    node.faults = NodeFaults(text_500=True)
    assert (await http.post(url, json={})).status_code == 500
    node.faults = NodeFaults(retry_after_s=3)
    answer = await http.post(url, json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    node.faults = NodeFaults(drop=True)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await http.post(url, json={})
    node.faults = NodeFaults(hang=True)
    with pytest.raises(httpx.ReadTimeout):
        await http.post(url, json={}, timeout=1)
    node.faults = NodeFaults(starting=True)
    status = (await rpc(http, url, "optimism_syncStatus"))["result"]
    assert (status["finalized_l2"]["number"], status["head_l1"]["number"] > 0) == (0, True)
    node.faults = NodeFaults(finalized_lag=50, wrong_roots={1500})
    assert (await rpc(http, url, "optimism_syncStatus"))["result"]["finalized_l2"]["number"] == 1950
    root = (await rpc(http, url, "optimism_outputAtBlock", hex(1500)))["result"]["outputRoot"]
    assert root != "0x" + devnet.l2.output_root(1500).hex()
    node.faults = NodeFaults()
    await node.stop()
    with pytest.raises(httpx.ConnectError):
        await http.post(url, json={})
    await node.start()
    assert "result" in await rpc(http, url, "optimism_syncStatus")


async def test_an_l1_outage_refuses_connections_and_keeps_the_chain(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """During an outage L1's URL refuses, cuts kept connections, and afterwards the chain has gone on."""
    before = int((await rpc(http, devnet.l1_rpc, "eth_blockNumber"))["result"], 16)
    await devnet.anvil.stop()
    with pytest.raises(httpx.TransportError):
        await http.post(devnet.l1_rpc, json={})
    with pytest.raises(httpx.ConnectError):
        await http.post(devnet.l1_rpc, json={})
    async with asyncio.timeout(60):
        while await devnet.l1.block_number() <= before:  # noqa: ASYNC110  (the state is behind HTTP)
            await asyncio.sleep(0.05)
    await devnet.anvil.start()
    assert int((await rpc(http, devnet.l1_rpc, "eth_blockNumber"))["result"], 16) > before


async def test_a_reorg_replaces_blocks(devnet: Devnet) -> None:
    """After a reorg the newest blocks have other hashes, older ones the same."""
    await devnet.anvil.set_block_time(0)
    head = await devnet.l1.block_number()
    before = [(await devnet.l1.block(number) or {})["hash"] for number in (head - 3, head)]
    await devnet.anvil.reorg(2)
    after = [(await devnet.l1.block(number) or {})["hash"] for number in (head - 3, head)]
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)
