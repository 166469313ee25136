"""The whole devnet in one context manager: anvil, the contracts, an op-node and an op-succinct-server."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from eth_utils.crypto import keccak

from infra.devnet.anvil import Anvil, account_key
from infra.devnet.contracts import deploy, deploy_oracle
from infra.devnet.faults import FaultPlan
from infra.devnet.l1_front import L1Front
from infra.devnet.l2 import SimulatedL2
from infra.devnet.log import RequestLog
from infra.devnet.op_node import OpNode
from infra.devnet.proofs import Commitments, aggregation_proof, public_values
from infra.devnet.prover import Prover
from infra.devnet.proving import ProverTiming
from infra.devnet.rpc import Rpc, calldata
from infra.devnet.stack import Stack
from infra.devnet.traps import Traps

# Blocks mined before anyone looks, so that there are L1 heads to prove against and safe and finalized are not 0.
_FIRST_L1_BLOCKS = 8

OWNER_FUNCTIONS = {
    "updateSubmissionInterval": "uint256",
    "updateAggregationVkey": "bytes32",
    "updateRangeVkeyCommitment": "bytes32",
    "updateRollupConfigHash": "bytes32",
    "updateVerifier": "address",
    "addProposer": "address",
    "removeProposer": "address",
    "enableOptimisticMode": "uint256",
    "disableOptimisticMode": "uint256",
    "transferOwnership": "address",
}


@dataclass(kw_only=True)
class DevnetConfig:
    """Every knob of a devnet. Times are seconds, lengths are blocks; ports of 0 mean any free one."""

    seed: int = 1
    mock: bool = False
    # Where the server's log (server.jsonl) goes; None keeps it in memory only.
    folder: Path | None = None
    l1_port: int = 0
    node_port: int = 0
    prover_port: int = 0
    l1_block_time_s: float = 1.0
    # Which account of the mnemonic is the approved proposer.
    proposer_account: int = 1
    submission_interval: int = 100
    starting_block: int = 1000
    finalization_period_s: int = 604_800
    l2_chain_id: int = 901
    l2_block_time_s: int = 2
    l2_blocks_per_second: float = 10.0
    # The finalized head at start; None: the starting block.
    l2_initial_finalized: int | None = None
    l2_limit: int | None = None
    # How old the starting block is: L2 time must stay below L1 time however fast the L2 runs here.
    l2_age_s: int = 30 * 86_400
    timing: ProverTiming = field(default_factory=ProverTiming)
    range_proof_size: int = 2048
    range_l1_head_lag: int = 2
    faults: FaultPlan = field(default_factory=FaultPlan)


class Devnet(Stack):
    """A running devnet; use as ``async with Devnet(config) as devnet``.

    Accounts of anvil's well-known mnemonic: 0 owns the oracle, 1 is the proposer (approved, configurable), 2 the
    challenger, 3 another approved proposer.
    """

    def __init__(self, config: DevnetConfig | None = None, *, beside: Self | None = None) -> None:
        """Describe a devnet; nothing runs yet. One ``beside`` another is one more rollup on that one's running L1."""
        super().__init__()
        self.config = config or DevnetConfig()
        self.owner, _ = account_key(0)
        self.proposer_address, self.proposer_key = account_key(self.config.proposer_account)
        self.challenger, _ = account_key(2)
        self.competitor, _ = account_key(3)
        self.commitments = Commitments.from_seed(self.config.seed)
        self.oracle_address = ""
        self.verifier_address = ""
        # shared by the prover, the op-node and the front of L1
        self.traps = Traps()
        self._beside = beside
        self.anvil: Anvil
        self.l2: SimulatedL2
        self.op_node: OpNode
        self.prover: Prover

    async def _start(self) -> None:
        config = self.config
        if self._beside is not None:
            self.anvil = self._beside.anvil
        else:
            anvil = Anvil(port=config.l1_port, block_time_s=config.l1_block_time_s, traps=self.traps)
            self.anvil = await self._stack.enter_async_context(anvil)
            await self.anvil.mine(_FIRST_L1_BLOCKS)
        starting_timestamp = int(time.time()) - config.l2_age_s
        initial = config.l2_initial_finalized
        self.l2 = SimulatedL2(
            config.seed,
            block_time=config.l2_block_time_s,
            genesis_timestamp=starting_timestamp - config.starting_block * config.l2_block_time_s,
            blocks_per_second=config.l2_blocks_per_second,
            initial_finalized=config.starting_block if initial is None else initial,
            limit=config.l2_limit,
        )
        await self._deploy(starting_timestamp)
        speed = config.l2_blocks_per_second or 1.0
        self.op_node = OpNode(
            self.l2,
            self.l1,
            l2_chain_id=config.l2_chain_id,
            l1_blocks_per_l2_block=1.0 / max(1.0, speed * config.l1_block_time_s),
            starting_block=config.starting_block,
            port=config.node_port,
            traps=self.traps,
        )
        self.prover = Prover(
            self.l2,
            self.l1,
            self.commitments,
            seed=config.seed,
            timing=config.timing,
            faults=config.faults,
            log=RequestLog(config.folder / "server.jsonl" if config.folder else None),
            range_proof_size=config.range_proof_size,
            range_l1_head_lag=config.range_l1_head_lag,
            port=config.prover_port,
            traps=self.traps,
        )
        for part in (self.op_node, self.prover):
            await part.start()
            self._stack.push_async_callback(part.stop)

    async def _deploy(self, starting_timestamp: int) -> None:
        config = self.config
        self.verifier_address = await deploy(self.l1, self.owner, "MockVerifier" if config.mock else "Verifier")
        self.oracle_address = await deploy_oracle(
            self.l1,
            self.owner,
            verifier=self.verifier_address,
            challenger=self.challenger,
            proposer=self.proposer_address,
            submission_interval=config.submission_interval,
            l2_block_time_s=config.l2_block_time_s,
            starting_block=config.starting_block,
            starting_timestamp=starting_timestamp,
            starting_root=self.l2.output_root(config.starting_block),
            finalization_period_s=config.finalization_period_s,
            aggregation_vkey=self.commitments.aggregation_vkey,
            range_vkey=self.commitments.range_vkey,
            rollup_config_hash=self.commitments.rollup_config_hash,
        )
        await self.owner_call("addProposer", self.competitor, mine=True)

    @property
    def l1(self) -> Rpc:
        """The devnet's own way to L1, which no fault touches."""
        return self.anvil.rpc

    @property
    def l1_front(self) -> L1Front:
        """What stands between everyone else and L1."""
        return self.anvil.front

    @property
    def l1_rpc(self) -> str:
        """The URL of L1."""
        return self.anvil.url

    @property
    def node_rpc(self) -> str:
        """The URL of the op-node."""
        return self.op_node.http.url

    @property
    def prover_url(self) -> str:
        """The URL of the op-succinct-server."""
        return self.prover.url

    def env(self) -> dict[str, str]:
        """Return the environment a proposer of this devnet needs; ``PRIVATE_KEY`` is anvil's public test key."""
        env = {
            "L1_RPC": self.l1_rpc,
            "L2_NODE_RPC": self.node_rpc,
            "L2OO_ADDRESS": self.oracle_address,
            "PRIVATE_KEY": self.proposer_key,
            "OP_SUCCINCT_SERVER_URL": self.prover_url,
        }
        return env | ({"OP_SUCCINCT_MOCK": "true"} if self.config.mock else {})

    async def read(self, signature: str, *arguments: Any) -> bytes:
        """Call a getter of the oracle by its full signature and return the raw words."""
        return await self.l1.eth_call(self.oracle_address, calldata(signature, *arguments))

    async def read_uint(self, signature: str, *arguments: Any) -> int:
        """Call a getter that returns one number."""
        return int.from_bytes(await self.read(signature, *arguments), "big")

    async def latest_block_number(self) -> int:
        """Return the L2 block of the newest output."""
        return await self.read_uint("latestBlockNumber()")

    async def send(self, sender: str, signature: str, *arguments: Any, mine: bool = False) -> Any:
        """Send a transaction to the oracle from an unlocked account and return its receipt."""
        return await self.l1.send(sender, self.oracle_address, calldata(signature, *arguments), mine=mine)

    async def owner_call(self, function: str, argument: Any, *, mine: bool = False) -> Any:
        """Call one of ``OWNER_FUNCTIONS`` as the owner; 32-byte values may be bytes or 0x hex."""
        kind = OWNER_FUNCTIONS[function]
        if kind == "bytes32" and isinstance(argument, str):
            argument = bytes.fromhex(argument.removeprefix("0x"))
        return await self.send(self.owner, f"{function}({kind})", argument, mine=mine)

    async def delete_outputs(self, index: int, *, mine: bool = False) -> Any:
        """Delete the outputs from ``index`` on, as the challenger."""
        return await self.send(self.challenger, "deleteL2Outputs(uint256)", index, mine=mine)

    async def latest_root(self) -> bytes:
        """Return the newest stored output root."""
        index = await self.read_uint("latestOutputIndex()")
        return (await self.read("getL2Output(uint256)", index))[:32]

    async def make_proof(self, end: int, l1_head: bytes) -> bytes:
        """Make the proof the oracle accepts now for ``end`` with this checkpointed hash (empty in mock mode)."""
        if self.config.mock:
            return b""
        values = public_values(l1_head, await self.latest_root(), self.l2.output_root(end), end, self.commitments)
        return aggregation_proof(self.commitments.aggregation_vkey, values)

    async def competing_proposal(self, end: int, *, mine: bool = False) -> Any:
        """Propose a valid output for ``end`` as another approved proposer and return the receipt."""
        number = await self.l1.block_number() - 1
        await self.send(self.competitor, "checkpointBlockHash(uint256)", number, mine=mine)
        l1_head = await self.read("historicBlockHashes(uint256)", number)
        proof = await self.make_proof(end, l1_head)
        signature = "proposeL2Output(bytes32,uint256,uint256,bytes)"
        return await self.send(self.competitor, signature, self.l2.output_root(end), end, number, proof, mine=mine)

    def foreign_hash(self) -> bytes:
        """Return 32 bytes that are none of this devnet's commitments, for a mismatch."""
        return keccak(b"foreign" + self.commitments.rollup_config_hash)
