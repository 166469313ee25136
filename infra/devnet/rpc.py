"""A small JSON-RPC client for anvil: what the devnet itself needs, with a deadline on every call."""

import asyncio
import itertools
from types import TracebackType
from typing import Any, Self

import httpx
import orjson
from eth_abi.abi import encode
from eth_utils.abi import function_signature_to_4byte_selector

CALL_TIMEOUT_S = 10.0
RECEIPT_TIMEOUT_S = 60.0


class RpcError(RuntimeError):
    """The node answered with a JSON-RPC error: ``code``, ``message`` and, for a revert, ``data``."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        """Keep the parts of the error; ``data`` is the revert data as hex, or None."""
        super().__init__(f"{message} (code {code})")
        self.code, self.message, self.data = code, message, data


def calldata(signature: str, *arguments: Any) -> str:
    """Encode a call by its full signature, such as ``transfer(address,uint256)``, as 0x hex."""
    types = signature[signature.index("(") + 1 : -1]
    encoded = encode(types.split(",") if types else [], arguments)
    return "0x" + (function_signature_to_4byte_selector(signature) + encoded).hex()


class Rpc:
    """Call one JSON-RPC endpoint over a kept connection."""

    def __init__(self, url: str, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Prepare a client for ``url``; nothing is sent yet."""
        self.url = url
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False)
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, method: str, *params: Any) -> Any:
        """Call one method and return its result; raise ``RpcError`` for a JSON-RPC error."""
        return (await self.batch([(method, list(params))]))[0]

    async def batch(self, calls: list[tuple[str, list[Any]]]) -> list[Any]:
        """Call many methods in one request and return the results in order; raise the first error."""
        if not calls:
            return []
        bodies = [{"jsonrpc": "2.0", "id": next(self._ids), "method": m, "params": p} for m, p in calls]
        content = orjson.dumps(bodies if len(bodies) > 1 else bodies[0])
        answer = await self._client.post(self.url, content=content, headers={"content-type": "application/json"})
        answer.raise_for_status()
        parsed = orjson.loads(answer.content)
        by_id = {item["id"]: item for item in (parsed if isinstance(parsed, list) else [parsed])}
        results: list[Any] = []
        for body in bodies:
            item = by_id[body["id"]]
            if error := item.get("error"):
                raise RpcError(error["code"], error["message"], error.get("data"))
            results.append(item.get("result"))
        return results

    async def block_number(self) -> int:
        """Return the number of the newest block."""
        return int(await self.call("eth_blockNumber"), 16)

    async def block(self, tag: str | int, *, full: bool = False) -> dict[str, Any] | None:
        """Return a block by tag or number (``full`` with its transactions), or None."""
        return await self.call("eth_getBlockByNumber", hex(tag) if isinstance(tag, int) else tag, full)

    async def eth_call(self, to: str, data: str, sender: str | None = None, block: str = "latest") -> bytes:
        """Call a contract without a transaction; a revert raises ``RpcError`` with its data."""
        transaction = {"to": to, "data": data} | ({"from": sender} if sender else {})
        return bytes.fromhex((await self.call("eth_call", transaction, block))[2:])

    async def send(self, sender: str, to: str | None, data: str, *, mine: bool = False, gas: int = 8_000_000) -> Any:
        """Send a transaction from one of anvil's unlocked accounts and return its receipt once mined.

        ``mine`` asks for a block at once instead of waiting for the next. A revert is found by ``eth_call`` first and
        raised as ``RpcError``, so that it never becomes a transaction.
        """
        transaction = {"from": sender, "data": data, "gas": hex(gas)} | ({"to": to} if to else {})
        await self.call("eth_call", transaction, "pending")
        tx_hash = await self.call("eth_sendTransaction", transaction)
        if mine:
            await self.call("evm_mine")
        async with asyncio.timeout(RECEIPT_TIMEOUT_S):
            while (receipt := await self.call("eth_getTransactionReceipt", tx_hash)) is None:  # noqa: ASYNC110  (another process)
                await asyncio.sleep(0.05)
        if receipt["status"] != "0x1":
            raise RpcError(3, f"transaction {tx_hash} reverted")
        return receipt
