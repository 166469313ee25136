"""A remote signer: Web3Signer's JSON-RPC, or whatever answers `eth_signTransaction` as it does."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import rlp
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.address import is_address, to_checksum_address
from eth_utils.crypto import keccak
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr
from rlp.exceptions import RLPException

from blocks.base import CONFIG, Outside
from blocks.fields import bad, data
from blocks.http import Endpoint
from blocks.rpc import HttpStatus, JsonRpc, RpcError
from proposer.errors import InvalidSettings, SignerRefuses, WrongSignature

_TYPE = b"\2"
_SIGNED = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "data", "accessList")
"""The signed fields of an EIP-1559 transaction, in their order."""
_HALF_ORDER = (2**256 - 0x14551231950B75FC4402DA1732FC9BEBF) // 2
_CLIENT_ERRORS = range(400, 500)


class Web3Signer(Outside, Block):
    """Signs with a key that a Web3Signer holds (`eth_signTransaction`): the key is not in this process.

    Nothing that it answers is believed: the bytes must be the very transaction that was asked for, signed by the
    account. Asking costs nothing, so a signer that is down is only asked again. Methods raise `EndpointDown` where it
    is down or slow, `SignerRefuses` where it does not sign for the account, `BadReply` where it answers what is no
    JSON-RPC.
    """

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct Web3Signer"
    _block_type_slug: ClassVar[str | None] = "op-succinct-web3signer"
    _description: ClassVar[str | None] = "Has the proposer's L1 transactions signed by a Web3Signer."
    setting: ClassVar[str] = "SIGNER_ADDRESS"

    url: SecretStr = Field(description="URL of the Web3Signer, with user and password where it asks for them.")
    address: str = Field(description="Address of the proposer's account.")
    timeout_seconds: float = Field(default=10, gt=0, description="Seconds one signature may take.")
    _rpc: JsonRpc = PrivateAttr()

    def block_initialization(self) -> None:
        """Read URL and address; raises `InvalidSettings`."""
        if not is_address(self.address):
            raise InvalidSettings(["SIGNER_ADDRESS is not an address: it must be 0x and 40 hex digits"])
        self.address = to_checksum_address(self.address)
        self._rpc = JsonRpc(Endpoint(self.url.get_secret_value(), "SIGNER_URL"))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._rpc.aclose()

    async def check(self) -> None:
        """Ask whether it holds the account's key."""
        method = "eth_accounts"
        where = f"{method} of {self._rpc.name}"
        answer = await self._call(method)
        if not isinstance(answer, list):
            raise bad(where, "result", answer, "an array of addresses")
        accounts = {data(account, "result", where, 20) for account in answer}  # pyright: ignore[reportUnknownVariableType]
        if bytes.fromhex(self.address[2:]) not in accounts:
            raise SignerRefuses(
                f"{self._rpc.name} holds {len(accounts)} keys, and none is that of {self.address}; load its key there, "
                "or set SIGNER_ADDRESS to an account that the signer has"
            )

    async def sign(self, tx: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Have an EIP-1559 transaction signed; return its hash and raw bytes.

        Keys of `tx`: chainId, nonce, to, gas, maxFeePerGas, maxPriorityFeePerGas, and data and value where there are
        any. Raises `WrongSignature` as well, where it answers anything but that transaction, signed by the account.
        """
        asked = {"value": 0, "data": b"", **tx}
        method = "eth_signTransaction"
        where = f"{method} of {self._rpc.name}"
        shown = {name: _shown(value) for name, value in asked.items()}
        answer = await self._call(method, {"from": self.address, "type": "0x2", **shown})
        raw = data(answer, "result", where)
        self._must_be(raw, asked, where)
        return keccak(raw), raw

    async def _call(self, method: str, *params: object) -> object:
        try:
            return await self._rpc.call(method, params, self.timeout_seconds)
        except HttpStatus as error:
            if error.status not in _CLIENT_ERRORS:
                raise
            raise SignerRefuses(
                f"{error}; check path, user and password in SIGNER_URL, and that the signer lets this machine in"
            ) from None
        except RpcError as error:
            raise SignerRefuses(
                f"{error}; check that the signer runs in eth1 mode, holds the key of {self.address} and lets it sign"
            ) from None

    def _must_be(self, raw: bytes, asked: Mapping[str, Any], where: str) -> None:
        """Raise `WrongSignature` unless the bytes are this transaction, signed by the account."""

        def wrong(what: str) -> WrongSignature:
            return WrongSignature(
                f"{where} answered {what}; nothing was sent. Check that SIGNER_URL is the proposer's signer, and that "
                "its chain is L1's"
            )

        fields = _fields(raw)
        if fields is None:
            raise wrong("what is no signed EIP-1559 transaction")
        wanted = [[] if name == "accessList" else _encoded(asked[name]) for name in _SIGNED]
        different = [name for name, field, value in zip(_SIGNED, fields, wanted, strict=False) if field != value]
        if different:
            raise wrong(f"another transaction: its {', '.join(different)} is not what was asked for")
        v, r, s = (int.from_bytes(field, "big") for field in fields[len(_SIGNED) :])
        if v > 1 or not 0 < s <= _HALF_ORDER or not 0 < r < 2 * _HALF_ORDER:
            raise wrong("a signature that L1 does not take")
        if raw != _TYPE + rlp.encode([*wanted, *map(_encoded, (v, r, s))]):
            raise wrong("what is no signed EIP-1559 transaction in its one right encoding")
        try:
            signed = Signature(vrs=(v, r, s)).recover_public_key_from_msg_hash(keccak(_TYPE + rlp.encode(wanted)))
        except BadSignature:
            raise wrong("a signature that is none") from None
        if signed.to_canonical_address() != bytes.fromhex(self.address[2:]):
            raise wrong(f"a signature of {signed.to_checksum_address()}, not of {self.address}")


def _fields(raw: bytes) -> Sequence[Any] | None:
    """Take signed bytes apart; None where they are no EIP-1559 transaction."""
    if raw[:1] != _TYPE:
        return None
    try:
        fields = rlp.decode(raw[1:])
    # a list inside lists may be as deep as the answer is long
    except (RLPException, RecursionError):
        return None
    if not isinstance(fields, list | tuple) or len(fields) != len(_SIGNED) + 3:
        return None
    signature: Sequence[Any] = fields[len(_SIGNED) :]
    return (
        [list(f) if isinstance(f, tuple) else f for f in fields]
        if all(isinstance(f, bytes) for f in signature)
        else None
    )


def _encoded(value: int | bytes | str) -> bytes:
    """Encode as RLP's fields are: numbers big-endian without leading zeros, an address as its bytes."""
    if isinstance(value, int):
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes.fromhex(value[2:]) if isinstance(value, str) else value


def _shown(value: int | bytes | str) -> str:
    """Write as JSON-RPC does: numbers as hex quantities, bytes as 0x and hex."""
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return hex(value) if isinstance(value, int) else value
