"""The proposer's key."""

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from eth_account import Account
from eth_account.signers.local import LocalAccount
from prefect.blocks.core import Block
from pydantic import Field, PrivateAttr, SecretStr

from blocks.base import CONFIG, Outside
from proposer.errors import InvalidSettings

_KEY_BYTES = 32


class Signer(Protocol):
    """Whatever signs the proposer's transactions."""

    setting: ClassVar[str]
    """The setting that says whose account it is."""

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        ...

    async def check(self) -> None:
        """Ask whether it signs for the account; raises what `sign` raises."""
        ...

    async def aclose(self) -> None:
        """Close the connections, where it has any."""
        ...

    async def sign(self, tx: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Sign an EIP-1559 transaction; return its hash and raw bytes.

        Raises `EndpointDown` where the signer is down, and `SignerRefuses`, `WrongSignature` or `BadReply` where a
        person has to look at it. Signing costs nothing, and what was signed and not journaled is never sent.
        """
        ...


class LocalSigner(Outside, Block):
    """A private key held in this process."""

    model_config = CONFIG
    _block_type_name: ClassVar[str | None] = "OP Succinct Local Signer"
    _block_type_slug: ClassVar[str | None] = "op-succinct-local-signer"
    _description: ClassVar[str | None] = "Signs the proposer's L1 transactions with a private key."

    setting: ClassVar[str] = "PRIVATE_KEY"

    private_key: SecretStr = Field(description="Private key of the proposer's account: 32 bytes in hex.")
    _account: LocalAccount = PrivateAttr()

    def block_initialization(self) -> None:
        """Read the key; raises `InvalidSettings`, without it, where it is malformed."""
        text = self.private_key.get_secret_value().strip().removeprefix("0x")
        try:
            key = bytes.fromhex(text)
            if len(key) != _KEY_BYTES:
                raise ValueError
            self._account = Account.from_key(key)
        # eth_account answers a key of zero, or one above the curve's order, with a ValueError too
        except ValueError:
            problem = "PRIVATE_KEY is not a private key: it must be 64 hex digits, with or without 0x"
            raise InvalidSettings([problem]) from None

    @property
    def address(self) -> str:
        """EIP-55 address of the account."""
        return self._account.address

    async def check(self) -> None:
        """Do nothing: the key is here."""

    async def sign(self, tx: Mapping[str, Any]) -> tuple[bytes, bytes]:
        """Sign an EIP-1559 transaction; return its hash and raw bytes.

        Keys of `tx`: chainId, nonce, to, data, gas, maxFeePerGas, maxPriorityFeePerGas, and value where not 0.
        """
        signed = self._account.sign_transaction({"value": 0, **tx, "type": 2})
        return bytes(signed.hash), bytes(signed.raw_transaction)
