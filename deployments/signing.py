"""Who signs the proposer's transactions: a remote signer, or a key in this process."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from deployments.values import read_address, read_url

if TYPE_CHECKING:
    from blocks.signer import LocalSigner
    from blocks.web3signer import Web3Signer

SECRETS = ("PRIVATE_KEY", "SIGNER_URL")
NONE = (
    "PRIVATE_KEY: not set; set it (or PRIVATE_KEY_FILE) to the key of an approved proposer, or SIGNER_URL and "
    "SIGNER_ADDRESS to the remote signer that holds it; or look on without a key: proposer up --dry-run, or "
    "DRY_RUN=true"
)
"""What is said where a signer is needed and none is set."""
_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
_ORDER = 2**256 - 0x14551231950B75FC4402DA1732FC9BEBF


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A private key in this process."""

    private_key: SecretStr


@dataclass(frozen=True, slots=True)
class RemoteSigner:
    """A Web3Signer that holds the key of this account."""

    url: SecretStr
    address: str


def read_signer(names: Mapping[str, str], problems: list[str]) -> LocalKey | RemoteSigner | None:
    """Read the signer; None where none is set, and where there is a problem."""
    key, remote = names.get("PRIVATE_KEY"), "SIGNER_URL" in names or "SIGNER_ADDRESS" in names
    if key is not None and remote:
        problems.append(
            "PRIVATE_KEY: set together with SIGNER_URL or SIGNER_ADDRESS, so it is not clear who signs; unset "
            "PRIVATE_KEY to sign with the remote signer, or the other two to sign with the key"
        )
        return None
    if key is not None:
        if not _KEY.fullmatch(key) or not 0 < int(key, 16) < _ORDER:
            problems.append("PRIVATE_KEY: not a private key; it is 64 hex digits, with or without 0x")
            return None
        return LocalKey(SecretStr(key))
    if not remote:
        return None
    if "SIGNER_URL" not in names:
        problems.append(
            "SIGNER_URL: not set, but SIGNER_ADDRESS is; set it to the Web3Signer that holds that account's key"
        )
    url = read_url(names, "SIGNER_URL", problems, "one signer signs") if "SIGNER_URL" in names else ""
    address = read_address(names, "SIGNER_ADDRESS", problems, "the account that the remote signer signs for")
    return RemoteSigner(SecretStr(url), address) if url and address else None


def account_of(setting: LocalKey | RemoteSigner) -> str:
    """Return the EIP-55 address that a setting signs for."""
    from eth_account import Account

    match setting:
        case LocalKey(private_key):
            return Account.from_key(private_key.get_secret_value()).address
        case RemoteSigner(_, address):
            return address


def signer_block(setting: LocalKey | RemoteSigner) -> "LocalSigner | Web3Signer":
    """Make the block; Prefect is imported here and not before."""
    from blocks.signer import LocalSigner
    from blocks.web3signer import Web3Signer

    match setting:
        case LocalKey(private_key):
            return LocalSigner(private_key=private_key)
        case RemoteSigner(url, address):
            return Web3Signer(url=url, address=address)
