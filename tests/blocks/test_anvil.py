"""The L1 block against a real node."""

import httpx
import pytest

from blocks.l1 import L1Chain, Sent
from blocks.output_oracle import L2OutputOracle
from blocks.reverts import decode
from blocks.signer import LocalSigner
from blocks.web3signer import Web3Signer
from proposer.errors import BadReply, ChainMoved, Reverted
from proposer.units import GWEI

# anvil's first well-known development key
KEY = "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"


async def rpc(url: str, method: str, *params: object) -> None:
    """Tell anvil something."""
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})
        assert "error" not in reply.json(), reply.text


async def test_pinned_reads_sends_and_reorgs(anvil: str) -> None:
    """A pinned read ends with its block; a transaction is accepted once and found again by its hash."""
    signer = LocalSigner(private_key=KEY)
    async with L1Chain(urls=anvil) as l1:
        await rpc(anvil, "anvil_mine", "0x3")
        head = await l1.head()
        assert head.number == 3
        assert await l1.block(3) == head
        assert await l1.block(99) is None
        before = await l1.balance(signer.address, head)

        tip, base = await l1.fee_suggestion()
        tx = {"chainId": await l1.chain_id(), "nonce": 0, "to": "0x" + "22" * 20, "value": GWEI, "gas": 21_000}
        fees = {"maxFeePerGas": tip + 2 * base, "maxPriorityFeePerGas": tip}
        hash_, raw = await signer.sign({**tx, **fees})
        assert not await l1.knows(hash_)
        assert await l1.send_raw(raw) is Sent.ACCEPTED
        assert await l1.send_raw(raw) is Sent.ALREADY_KNOWN
        assert await l1.knows(hash_)
        assert await l1.receipt(hash_) is None
        assert (await l1.nonce(signer.address), await l1.nonce(signer.address, "pending")) == (0, 1)

        _, cheaper = await signer.sign({**tx, **fees, "maxFeePerGas": tip + base, "maxPriorityFeePerGas": tip - 1})
        assert await l1.send_raw(cheaper) is Sent.UNDERPRICED
        await rpc(anvil, "anvil_mine", "0x1")
        receipt = await l1.receipt(hash_)
        assert receipt is not None
        assert (receipt.succeeded, receipt.block, receipt.gas_used) == (True, 4, 21_000)
        _, other = await signer.sign({**tx, **fees, "value": 1})
        assert await l1.send_raw(other) is Sent.NONCE_TOO_LOW
        _, rich = await signer.sign({**tx, **fees, "nonce": 1, "value": 10**24})
        assert await l1.send_raw(rich) is Sent.INSUFFICIENT_FUNDS

        assert await l1.balance(signer.address, head) == before
        assert await l1.balance(signer.address) < before
        await rpc(anvil, "anvil_reorg", 2, [])
        with pytest.raises(ChainMoved):
            await l1.balance(signer.address, head)


async def test_anvil_signs_as_a_web3signer_does(anvil: str) -> None:
    """Another implementation of the two methods: it signs the same bytes as the key itself."""
    signer = LocalSigner(private_key=KEY)
    tx = {"chainId": 31337, "nonce": 0, "to": "0x" + "22" * 20, "data": b"\1", "gas": 30_000}
    tx |= {"maxFeePerGas": 3 * GWEI, "maxPriorityFeePerGas": GWEI}
    async with Web3Signer(url=anvil, address=signer.address) as remote:
        await remote.check()
        assert await remote.sign(tx) == await signer.sign(tx)


async def test_reverts_and_missing_contracts(anvil: str) -> None:
    """A real revert is named; an address without code names the remedy."""
    # PUSH4 84c06864, shift to the left of the word, revert with 4 bytes
    code = "0x6384c0686460e01b5f5260045ffd"
    assert decode(bytes.fromhex("84c06864")) == "L1BlockHashNotAvailable"
    where = "0x" + "77" * 20
    async with L1Chain(urls=anvil) as l1:
        await rpc(anvil, "anvil_setCode", where, code)
        with pytest.raises(Reverted, match="L1BlockHashNotAvailable"):
            await l1.call(where, b"", await l1.head())
        with pytest.raises(Reverted, match="L1BlockHashNotAvailable"):
            await l1.estimate_gas({"from": LocalSigner(private_key=KEY).address, "to": where, "data": b"\1"})
        oracle = L2OutputOracle(address="0x" + "88" * 20)
        with pytest.raises(
            BadReply, match=r"latestBlockNumber|nextOutputIndex|Vkey|Interval|Mode|Seconds|Hash|Proposers"
        ):
            await oracle.view(l1, await l1.head(), None)
