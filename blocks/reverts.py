"""Reverts: where nodes put them, and what they are called."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from eth_abi.abi import decode as abi_decode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from blocks.rpc import RpcError
from proposer.errors import Reverted

_ERROR = keccak(text="Error(string)")[:4]
_PANIC = keccak(text="Panic(uint256)")[:4]
_SIGNATURES = (
    "L1BlockHashNotAvailable()",
    "L1BlockHashNotCheckpointed()",
    "RouteNotFound(bytes4)",
    "RouteIsFrozen(bytes4)",
    "WrongVerifierSelector(bytes4,bytes4)",
    "InvalidProof()",
    "ProofInvalid()",
    "PublicInputNotInField()",
    "NoImplementation(uint32)",
    "IncorrectBondAmount()",
    "GameAlreadyExists(bytes32)",
)
CUSTOM_ERRORS: Mapping[bytes, str] = MappingProxyType({keccak(text=s)[:4]: s.partition("(")[0] for s in _SIGNATURES})
"""Names by selector: the oracle's own, and the SP1 verifiers' and gateway's that shine through it."""

WITHOUT_DATA = "execution reverted without data"
_REVERT_CODES = {3, -32015}
_REVERT_TEXT = re.compile(r"revert|invalid opcode|vm (?:execution )?(?:error|exception)", re.IGNORECASE)
_REASON = re.compile(r"execution reverted: *(.+)", re.IGNORECASE | re.DOTALL)
_HEX = re.compile(r"0x((?:[0-9a-fA-F]{2})+)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME_CHARACTERS = 300


def decode(data: bytes) -> str:
    """Name revert data: the text of `Error(string)`, `Panic(0x01)`, a custom error's name, or the data in hex.

    The name is one line of at most 300 characters, whatever the contract says.
    """
    return _CONTROL.sub(" ", _decode(data))[:_NAME_CHARACTERS]


def _decode(data: bytes) -> str:
    if not data:
        return WITHOUT_DATA
    selector, arguments = data[:4], data[4:]
    try:
        if selector == _ERROR:
            return str(abi_decode(["string"], arguments)[0])
        if selector == _PANIC:
            return f"Panic(0x{abi_decode(['uint256'], arguments)[0]:02x})"
    except (DecodingError, UnicodeDecodeError, OverflowError):
        return "0x" + data.hex()
    return CUSTOM_ERRORS.get(selector, "0x" + data.hex())


def reverted(error: RpcError) -> Reverted | None:
    """Recognise a revert in a node's error; None for every other error.

    geth, reth, erigon, anvil: code 3, `data` is hex. Nethermind and OpenEthereum: -32015, `data` is `Reverted 0x..`.
    hardhat: `data` is an object with `data` in it. Some proxies keep only the message, `execution reverted: <text>`.
    """
    data = _find(error.data)
    said = error.code in _REVERT_CODES or bool(_REVERT_TEXT.search(error.rpc_message))
    if not said:
        return None
    if data:
        return Reverted(decode(data), data)
    code = re.search(r"custom error 0x([0-9a-fA-F]{8})", error.rpc_message)
    if code:
        return Reverted(decode(bytes.fromhex(code[1])), bytes.fromhex(code[1]))
    reason = _REASON.search(error.rpc_message)
    if reason:
        return Reverted(reason[1].strip()[:_NAME_CHARACTERS])
    opcode = re.search(r"invalid opcode", error.rpc_message, re.IGNORECASE)
    return Reverted("invalid opcode" if opcode else WITHOUT_DATA)


def _find(value: object, depth: int = 3) -> bytes:
    """Find hex bytes in an error's `data`: a string, or an object that has them under some key."""
    if isinstance(value, str):
        found = _HEX.search(value)
        return bytes.fromhex(found[1]) if found else b""
    if isinstance(value, dict) and depth:
        inner: dict[str, object] = value  # pyright: ignore[reportUnknownVariableType]
        for key in ("data", "result", "return", "originalError", *(k for k in inner if k.startswith("0x"))):
            if found := _find(inner.get(key), depth - 1):
                return found
    return b""
