"""L1: an Ethereum execution node, or several."""

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar, Literal

from eth_utils.crypto import keccak
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.base import CONFIG, Outside
from blocks.fields import bad, data, member, number, quantity
from blocks.http import endpoints
from blocks.reverts import reverted
from blocks.rpc import Failover, JsonRpc, RpcError, all_down
from proposer.errors import BadReply, ChainMoved, EndpointDown, OutcomeUnknown, WrongChain
from proposer.l1_transactions import Receipt
from proposer.units import GWEI, L1Block, L1Ref, Wei

Tag = Literal["latest", "safe", "finalized"]
_METHOD_NOT_FOUND, _INVALID_PARAMS, _NOT_FOUND, _UNKNOWN_BLOCK = -32601, -32602, -32001, -39001
_GONE = re.compile(
    r"not (?:currently )?canonical|header(?: for hash)? not found|block.*not found|unknown block", re.IGNORECASE
)
_NO_OBJECTS = re.compile(r"cannot unmarshal|invalid argument|invalid type|unexpected|hex string", re.IGNORECASE)
_NO_TAG = re.compile(r"block not found|unknown block|not found|invalid argument|not supported", re.IGNORECASE)


class Sent(Enum):
    """What became of a broadcast."""

    ACCEPTED = "accepted"
    ALREADY_KNOWN = "already known"
    """The very same transaction is in the node's pool, or mined."""
    NONCE_TOO_LOW = "nonce too low"
    """Its nonce is used: by itself, or by another."""
    UNDERPRICED = "underpriced"
    """Too cheap, or too cheap to replace what is in the pool."""
    INSUFFICIENT_FUNDS = "insufficient funds"


# geth, reth, erigon, besu, anvil; and Nethermind's names (NethermindEth/nethermind#12153). Order matters.
_REFUSALS: tuple[tuple[re.Pattern[str], Sent], ...] = (
    (re.compile(r"already ?known|known transaction|already imported", re.IGNORECASE), Sent.ALREADY_KNOWN),
    (re.compile(r"nonce (?:is )?too low|OldNonce|nonce .*(?:below|lower than)", re.IGNORECASE), Sent.NONCE_TOO_LOW),
    (re.compile(r"insufficient ?funds|upfront cost exceeds", re.IGNORECASE), Sent.INSUFFICIENT_FUNDS),
    (re.compile(r"underpriced|FeeTooLow|ReplacementNotAllowed", re.IGNORECASE), Sent.UNDERPRICED),
    (re.compile(r"(?:fee|price|tip).*too low", re.IGNORECASE), Sent.UNDERPRICED),
    (re.compile(r"(?:below|less than) .*(?:base fee|minimum)", re.IGNORECASE), Sent.UNDERPRICED),
)  # fmt: skip


class L1Chain(Outside, Block):
    """L1's JSON-RPC. Reads go on to the next URL when one is down; an URL of another chain is refused (`WrongChain`).

    The chain is `expected_chain_id`, or that of the first URL that answered. Reads pinned to an `L1Ref` go by block
    hash (EIP-1898). A node that does not take hashes is asked by number, and the block's hash is compared afterwards.
    Every method raises `EndpointDown`, `RateLimited`, `RpcError` and `BadReply` as well as what it names.
    """

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct L1 Chain"
    _block_type_slug: ClassVar[str | None] = "op-succinct-l1-chain"
    _description: ClassVar[str | None] = "Reads from and sends to an L1 execution node, with fail-over."

    urls: SecretStr = Field(description="L1 execution RPC URL, or several separated by commas, in order of preference.")
    timeout_seconds: float = Field(default=5, gt=0, description="Seconds one call to one URL may take.")
    expected_chain_id: int | None = Field(
        default=None, description="Chain id of L1; empty takes that of the first URL that answers."
    )
    _rpc: Failover = PrivateAttr()
    _chain_id: int | None = PrivateAttr(default=None)
    _by_number: bool = PrivateAttr(default=False)

    def block_initialization(self) -> None:
        """Read the URLs; raises `InvalidSettings`."""
        among = endpoints(self.urls.get_secret_value(), "L1_RPC")
        self._rpc = Failover(among, self.timeout_seconds, self._admit, _is_answer)
        self._chain_id = self.expected_chain_id

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rpc.aclose()

    async def _admit(self, client: JsonRpc) -> None:
        """Let an endpoint serve if its chain id is the expected one."""
        answer = await client.call("eth_chainId", [], self.timeout_seconds)
        found = number(answer, "result", f"eth_chainId of {client.name}")
        if self._chain_id is None:
            self._chain_id = found
        if found != self._chain_id:
            raise WrongChain(f"L1_RPC: {client.name} serves chain {found}, not {self._chain_id}: correct or remove it")

    async def chain_id(self) -> int:
        """Read the chain id."""
        result, client = await self._rpc.call_with("eth_chainId")
        return number(result, "result", f"eth_chainId of {client.name}")

    async def head(self) -> L1Ref:
        """Read the latest block."""
        found = await self.block("latest")
        if found is None:
            raise BadReply("eth_getBlockByNumber: the node has no latest block")
        return found

    async def block(self, which: int | Tag) -> L1Ref | None:
        """Read a block by number or tag; None where there is none, or the node does not know the tag.

        Raises `BadReply` where the answer is about another block (a caching proxy does that).
        """
        found = await self._header(which)
        if found is None:
            return None
        header, where = found
        told = number(member(header, "number", where), "number", where)
        if isinstance(which, int) and told != which:
            raise bad(where, "number", told, f"the block asked for, {which}")
        return L1Ref(
            L1Block(told),
            data(member(header, "hash", where), "hash", where, 32),
            number(member(header, "timestamp", where), "timestamp", where),
        )

    async def _header(self, which: int | str) -> tuple[object, str] | None:
        method = "eth_getBlockByNumber"
        try:
            result, client = await self._rpc.call_with(method, hex(which) if isinstance(which, int) else which, False)
        except RpcError as error:
            if which in {"safe", "finalized"} and _NO_TAG.search(error.rpc_message):
                return None
            raise
        return None if result is None else (result, f"{method} of {client.name}")

    async def _at(self, method: str, params: Sequence[object], at: L1Ref | str | None) -> tuple[object, str]:
        """Read state at a block; raises `ChainMoved` where a pinned one is gone, and `Reverted`."""
        if not isinstance(at, L1Ref):
            return await self._stated(method, *params, at or "latest")
        pinned = {"blockHash": "0x" + at.hash.hex(), "requireCanonical": True}
        try:
            if not self._by_number:
                return await self._stated(method, *params, pinned)
        except RpcError as error:
            if _is_gone(error):
                raise ChainMoved(f"L1 block {at.number} (0x{at.hash.hex()[:8]}..) is no longer canonical") from error
            if error.code != _INVALID_PARAMS and not _NO_OBJECTS.search(error.rpc_message):
                raise
        answer = await self._stated(method, *params, hex(at.number))
        self._by_number = True
        now = await self.block(at.number)
        if now is None or now.hash != at.hash:
            raise ChainMoved(f"L1 block {at.number} (0x{at.hash.hex()[:8]}..) is no longer canonical")
        return answer

    async def _stated(self, method: str, *params: object) -> tuple[object, str]:
        try:
            result, client = await self._rpc.call_with(method, *params)
        except RpcError as error:
            if (revert := reverted(error)) is not None:
                raise revert from error
            raise
        return result, f"{method} of {client.name}"

    async def call(self, to: str, data_: bytes, at: L1Ref | None = None, sender: str | None = None) -> bytes:
        """Call a contract; raises `Reverted`, and `ChainMoved` where the pinned block is no longer canonical."""
        tx = {"to": to, "data": "0x" + data_.hex()} | ({"from": sender} if sender else {})
        result, where = await self._at("eth_call", [tx], at)
        return data(result, "result", where)

    async def code(self, address: str, at: L1Ref | None = None) -> bytes:
        """Read a contract's code; empty where there is none."""
        result, where = await self._at("eth_getCode", [address], at)
        return data(result, "result", where)

    async def storage(self, address: str, slot: bytes, at: L1Ref | None = None) -> bytes:
        """Read one word of storage."""
        result, where = await self._at("eth_getStorageAt", [address, "0x" + slot.hex()], at)
        word = data(result, "result", where)
        if len(word) > 32:
            raise bad(where, "result", f"{len(word)} bytes", "one word")
        return word.rjust(32, b"\0")

    async def balance(self, address: str, at: L1Ref | None = None) -> Wei:
        """Read a balance, in wei."""
        result, where = await self._at("eth_getBalance", [address], at)
        return Wei(quantity(result, "result", where))

    async def nonce(self, address: str, at: L1Ref | Literal["latest", "pending"] = "latest") -> int:
        """Read the next nonce: mined (`latest`), or with the node's own pool counted (`pending`)."""
        result, where = await self._at("eth_getTransactionCount", [address], at)
        return number(result, "result", where)

    async def receipt(self, hash_: bytes) -> Receipt | None:
        """Read a receipt; None where the transaction is not mined."""
        result, where = await self._stated("eth_getTransactionReceipt", "0x" + hash_.hex())
        if result is None:
            return None
        status = quantity(member(result, "status", where), "status", where)
        if status not in {0, 1}:
            raise bad(where, "status", status, "0 or 1")
        told = data(member(result, "transactionHash", where), "transactionHash", where, 32)
        if told != hash_:
            raise bad(where, "transactionHash", "0x" + told.hex(), "the transaction asked for")
        return Receipt(
            told,
            L1Block(number(member(result, "blockNumber", where), "blockNumber", where)),
            data(member(result, "blockHash", where), "blockHash", where, 32),
            status == 1,
            number(member(result, "gasUsed", where), "gasUsed", where),
        )

    async def knows(self, hash_: bytes) -> bool:
        """Whether the node has the transaction, mined or not."""
        method = "eth_getTransactionByHash"
        result, client = await self._rpc.call_with(method, "0x" + hash_.hex())
        if result is None:
            return False
        where = f"{method} of {client.name}"
        told = data(member(result, "hash", where), "hash", where, 32)
        if told != hash_:
            raise bad(where, "hash", "0x" + told.hex(), "the transaction asked for")
        return True

    async def estimate_gas(self, tx: Mapping[str, object]) -> int:
        """Estimate gas for `from`, `to`, `data` (bytes) and `value` (wei); raises `Reverted`."""
        shown = {name: _shown(value) for name, value in tx.items()}
        result, where = await self._stated("eth_estimateGas", shown)
        return number(result, "result", where)

    async def fee_suggestion(self) -> tuple[Wei, Wei]:
        """Read the suggested tip and the latest base fee, in wei; 1 gwei of tip where the node suggests none."""
        found = await self._header("latest")
        if found is None:
            raise BadReply("eth_getBlockByNumber: the node has no latest block")
        header, header_where = found
        base_fee = number(member(header, "baseFeePerGas", header_where), "baseFeePerGas", header_where)
        try:
            result, where = await self._stated("eth_maxPriorityFeePerGas")
        except RpcError as error:
            if error.code != _METHOD_NOT_FOUND:
                raise
            return Wei(GWEI), Wei(base_fee)
        return Wei(number(result, "result", where)), Wei(base_fee)

    async def send_raw(self, raw: bytes) -> Sent:
        """Broadcast signed bytes: to each URL at most once, in order, until one answers.

        The same bytes at another URL are the same transaction, so going on after a URL that is down, or that did not
        answer, cannot send a second one. Raises `RpcError` for a refusal without a name here, `OutcomeUnknown` where
        none answered and one may have it, `EndpointDown` where nothing was sent; `WrongChain` or `BadReply` where that
        is so because of what an endpoint is.
        """
        failures: list[EndpointDown] = []
        unusable: WrongChain | BadReply | None = None
        unknown: OutcomeUnknown | None = None
        refused: RpcError | None = None
        for client in self._rpc.clients:
            try:
                await self._rpc.admit(client)
                return await self._send_to(client, raw)
            except EndpointDown as error:
                failures.append(error)
            except (WrongChain, BadReply) as error:
                unusable = error
            except OutcomeUnknown as error:
                unknown = error
            except RpcError as error:  # such as a node without a pool, or with a full one; another may take it
                refused = error
        if unknown is not None:
            raise unknown
        if refused is not None:
            raise refused
        if unusable is not None:
            raise unusable
        raise all_down(failures)

    async def _send_to(self, client: JsonRpc, raw: bytes) -> Sent:
        method = "eth_sendRawTransaction"
        where = f"{method} of {client.name}"
        try:
            answer = await client.call(method, ["0x" + raw.hex()], self.timeout_seconds, sends=True)
            told = data(answer, "result", where, 32)
        except BadReply as error:  # it took the request and says nothing of use
            raise OutcomeUnknown(str(error)) from None
        except RpcError as error:
            for pattern, outcome in _REFUSALS:
                if pattern.search(error.rpc_message):
                    return outcome
            raise
        if told != keccak(raw):
            raise OutcomeUnknown(f"{where}: result is 0x{told.hex()}, not the transaction's hash")
        return Sent.ACCEPTED


def _is_gone(error: RpcError) -> bool:
    """Whether a node says that a pinned block is not on its chain."""
    return error.code in {_NOT_FOUND, _UNKNOWN_BLOCK} or bool(_GONE.search(error.rpc_message))


def _is_answer(error: RpcError) -> bool:
    """Whether an error is about the call and the chain, not about the node: another one is not asked."""
    return _is_gone(error) or reverted(error) is not None


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return hex(value) if isinstance(value, int) else value
