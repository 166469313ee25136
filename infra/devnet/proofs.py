"""What a devnet proof is: opaque bytes that bind exactly the statement they were made for."""

from dataclasses import asdict, dataclass
from typing import Self

import orjson
from eth_abi.abi import encode
from eth_utils.crypto import keccak

# The selector Verifier.vy knows; the first four bytes of an aggregation proof.
VERIFIER_SELECTOR = bytes.fromhex("0de7e701")
_MAGIC = b"devnet-range-proof\n"


class BadProofError(ValueError):
    """The bytes are no range proof of this devnet."""


@dataclass(frozen=True)
class Commitments:
    """The three values the contract and the server must agree on, 32 bytes each."""

    aggregation_vkey: bytes
    range_vkey: bytes
    rollup_config_hash: bytes

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """Derive the commitments of a devnet from its seed."""
        return cls(*(keccak(f"{seed}/{name}".encode()) for name in ("aggregation-vkey", "range-vkey", "config")))


@dataclass(frozen=True)
class RangeProof:
    """The statement of a range proof; hashes are 0x hex."""

    start: int
    end: int
    pre_root: str
    post_root: str
    config_hash: str
    range_vkey: str
    l1_head_number: int
    l1_head_hash: str

    def encode(self, size: int) -> bytes:
        """Return the proof's bytes, padded to ``size`` bytes (longer if the statement needs it)."""
        return (_MAGIC + orjson.dumps(asdict(self)) + b"\n").ljust(size, b"\xa5")

    @classmethod
    def decode(cls, proof: bytes) -> Self:
        """Read the statement back; raise ``BadProofError`` for anything else."""
        head, _, rest = proof.partition(b"\n")
        if head + b"\n" != _MAGIC:
            raise BadProofError("no range proof")
        try:
            return cls(**orjson.loads(rest.partition(b"\n")[0]))
        except (orjson.JSONDecodeError, TypeError) as error:
            raise BadProofError("damaged range proof") from error


def public_values(
    l1_head: bytes, pre_root: bytes, claim_root: bytes, claim_block: int, commitments: Commitments
) -> bytes:
    """Encode the six words the contract hands to the verifier, 192 bytes."""
    return encode(
        ["bytes32", "bytes32", "bytes32", "uint256", "bytes32", "bytes32"],
        [l1_head, pre_root, claim_root, claim_block, commitments.rollup_config_hash, commitments.range_vkey],
    )


def aggregation_proof(vkey: bytes, values: bytes) -> bytes:
    """Make the proof ``Verifier.vy`` accepts for exactly this vkey and these public values, 36 bytes."""
    return VERIFIER_SELECTOR + keccak(vkey + values)
