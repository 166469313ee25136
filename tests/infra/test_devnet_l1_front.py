"""The front of L1: what it passes on, what it loses, and what it does to a seeded share of calls."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from eth_account import Account

from infra.devnet import Devnet, L1Faults, NodeFaults
from tests.infra.places import eventually, names, record

pytestmark = pytest.mark.asyncio
DROPPED = (httpx.ReadError, httpx.RemoteProtocolError)


def call(method: str, *params: Any, number: int = 1) -> dict[str, Any]:
    """Make the body of one call."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}


async def transfer(devnet: Devnet) -> tuple[str, str]:
    """Sign a transfer of nothing and return its hash and its raw bytes as 0x hex."""
    nonce = int(await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "pending"), 16)
    fees = {"gas": 21_000, "maxFeePerGas": 10**11, "maxPriorityFeePerGas": 10**9}
    tx = {"chainId": 31337, "nonce": nonce, "to": devnet.owner, "value": 0, "type": 2, **fees}
    signed = Account.sign_transaction(tx, devnet.proposer_key)
    return "0x" + bytes(signed.hash).hex(), "0x" + bytes(signed.raw_transaction).hex()


async def known(devnet: Devnet, tx_hash: str) -> bool:
    """Say whether anvil knows a transaction."""
    return await devnet.l1.call("eth_getTransactionByHash", tx_hash) is not None


async def test_single_calls_batches_and_errors_pass_unchanged(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """The answers are anvil's own, in order; a batch reaches the places of each of its calls."""
    seen = record(devnet.traps)
    batch = [call("eth_chainId", number=7), call("eth_nothing", number=8)]
    chain, error = (await http.post(devnet.l1_rpc, json=batch)).json()
    assert (chain, error["id"]) == ({"jsonrpc": "2.0", "id": 7, "result": "0x7a69"}, 8)
    assert error["error"]["code"] == -32601
    await eventually(6, seen)
    methods = ("eth_chainId", "eth_nothing")
    assert names(seen) == [f"l1.{m}.{p}" for p in ("arrived", "forwarded", "answered") for m in methods]
    assert [facts["answer"]["id"] for facts in seen[2:4]] == [7, 8]
    assert "error" in (await http.post(devnet.l1_rpc, content=b"{")).json()


async def test_a_lost_send_was_never_there_or_is_there_unsaid(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """`lose_sends` closes the connection before anvil has the transaction, or after; other calls pass."""
    expected = {"request": False, "answer": True}
    for lose in ("request", "answer"):
        devnet.l1_front.faults = L1Faults(lose_sends=lose)
        tx_hash, raw = await transfer(devnet)
        with pytest.raises(DROPPED):
            await http.post(devnet.l1_rpc, json=call("eth_sendRawTransaction", raw))
        assert await known(devnet, tx_hash) is expected[lose]
        assert (await http.post(devnet.l1_rpc, json=call("eth_chainId"))).status_code == 200
    assert devnet.l1_front.applied == {"lost_request": 1, "lost_answer": 1}


@pytest.mark.parametrize(
    ("place", "mined"),
    [("arrived", False), ("forwarded", True)],
)
async def test_a_send_is_held_where_the_observer_wants(
    devnet: Devnet, http: httpx.AsyncClient, place: str, mined: bool
) -> None:
    """At arrival L1 does not know the transaction, when forwarded it does; either way it goes on without the client."""
    tx_hash, raw = await transfer(devnet)
    found: list[bool] = []

    async def look_and_cut(_: Mapping[str, Any]) -> None:
        found.append(await known(devnet, tx_hash))
        client.cancel()

    devnet.traps.arm(f"l1.eth_sendRawTransaction.{place}", look_and_cut)
    client = asyncio.create_task(http.post(devnet.l1_rpc, json=call("eth_sendRawTransaction", raw)))
    await asyncio.wait({client})
    async with asyncio.timeout(60):
        while not await known(devnet, tx_hash):  # noqa: ASYNC110  (the state is behind HTTP)
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)  # an answer would be on its way
    assert found == [mined]
    assert devnet.traps.counts["l1.eth_sendRawTransaction.answered"] == 0


async def test_l1_fails_in_every_way_it_is_told(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """500 text, 429, a dropped connection, a hang, and an outage; the devnet's own way is never touched."""
    front, url = devnet.l1_front, devnet.l1_rpc
    front.faults = L1Faults(text_500=True)
    assert (await http.post(url, json=call("eth_chainId"))).status_code == 500
    front.faults = L1Faults(retry_after_s=4)
    answer = await http.post(url, json=call("eth_chainId"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "4")
    front.faults = L1Faults(drop=True)
    with pytest.raises(DROPPED):
        await http.post(url, json=call("eth_chainId"))
    front.faults = L1Faults(hang=True)
    with pytest.raises(httpx.ReadTimeout):
        await http.post(url, json=call("eth_chainId"), timeout=2)
    await devnet.anvil.stop()
    with pytest.raises(httpx.ConnectError):
        await http.post(url, json=call("eth_chainId"))
    assert await devnet.l1.call("eth_chainId") == "0x7a69"
    front.faults = L1Faults()
    await devnet.anvil.start()
    assert (await http.post(url, json=call("eth_chainId"))).json()["result"] == "0x7a69"
    assert front.applied == {"text_500": 1, "status_429": 1, "drop": 1, "hang": 1}


async def test_an_outage_cuts_a_call_that_anvil_still_thinks_about(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A frozen node does not answer; the outage ends the wait, and after both everything works."""
    devnet.anvil.freeze()
    waiting = asyncio.create_task(http.post(devnet.l1_rpc, json=call("eth_chainId")))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await devnet.anvil.stop()
    with pytest.raises(DROPPED):
        await waiting
    devnet.anvil.thaw()
    await devnet.anvil.start()
    assert (await http.post(devnet.l1_rpc, json=call("eth_chainId"))).status_code == 200


@pytest.mark.parametrize("edge", ["l1", "node"])
async def test_rates_take_a_share_that_repeats_with_its_seed(
    devnet: Devnet, http: httpx.AsyncClient, edge: str
) -> None:
    """The same seed fails the same calls, another seed others; what was applied is counted."""
    server, url = (devnet.l1_front, devnet.l1_rpc) if edge == "l1" else (devnet.op_node, devnet.node_rpc)
    body = call("eth_chainId") if edge == "l1" else call("optimism_rollupConfig")

    async def outcomes(seed: int) -> list[str]:
        kind = L1Faults if edge == "l1" else NodeFaults
        server.faults = kind(error_rate=0.3, drop_rate=0.3, slow_rate=0.3, slow_s=0.02, seed=seed)
        server.applied.clear()
        seen: list[str] = []
        for _ in range(30):
            slow = server.applied["slow"]
            try:
                seen.append(str((await http.post(url, json=body)).status_code))
            except DROPPED:
                seen.append("dropped")
            seen[-1] += " slowly" * (server.applied["slow"] - slow)
        assert server.applied["drop"] == sum("dropped" in one for one in seen)
        assert server.applied["text_500"] == sum("500" in one for one in seen)
        return seen

    first = await outcomes(5)
    assert {"200", "500", "dropped"} <= {one.removesuffix(" slowly") for one in first}
    assert any(one.endswith("slowly") for one in first)
    assert await outcomes(5) == first
    assert await outcomes(6) != first
