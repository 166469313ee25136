"""The contracts of the devnet in Vyper: compile them offline (once per process) and deploy them."""

from functools import cache
from pathlib import Path
from typing import Any

from eth_abi.abi import encode
from eth_utils.address import to_checksum_address

from infra.devnet.rpc import Rpc

_FOLDER = Path(__file__).parent
_ORACLE_TYPES = [
    *("address", "address", "address"),
    *("uint256", "uint256", "uint256", "uint256"),
    "bytes32",
    "uint256",
    *("bytes32", "bytes32", "bytes32"),
]


@cache
def bytecode(name: str) -> str:
    """Compile ``name``.vy and return its creation code as 0x hex."""
    from vyper.compiler import compile_code

    return str(compile_code((_FOLDER / f"{name}.vy").read_text(), output_formats=["bytecode"])["bytecode"])


async def deploy(
    rpc: Rpc, sender: str, name: str, types: list[str] | None = None, values: list[Any] | None = None
) -> str:
    """Deploy a contract from an unlocked account, mine it at once, and return its address (EIP-55)."""
    data = bytecode(name) + encode(types or [], values or []).hex()
    receipt = await rpc.send(sender, None, data, mine=True)
    return to_checksum_address(receipt["contractAddress"])


async def deploy_oracle(
    rpc: Rpc,
    sender: str,
    *,
    verifier: str,
    challenger: str,
    proposer: str,
    submission_interval: int,
    l2_block_time_s: int,
    starting_block: int,
    starting_timestamp: int,
    starting_root: bytes,
    finalization_period_s: int,
    aggregation_vkey: bytes,
    range_vkey: bytes,
    rollup_config_hash: bytes,
) -> str:
    """Deploy an initialised oracle owned by ``sender``: its output 0 is the starting root at the starting block."""
    values = [
        *(verifier, challenger, proposer),
        *(submission_interval, l2_block_time_s, starting_block, starting_timestamp),
        starting_root,
        finalization_period_s,
        *(aggregation_vkey, range_vkey, rollup_config_hash),
    ]
    return await deploy(rpc, sender, "L2OutputOracle", _ORACLE_TYPES, values)
