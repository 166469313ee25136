"""What must be right before the proposer spends anything: every problem at once, each with its remedy."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from blocks.l1 import L1Chain
from blocks.ledger import Ledger, LedgerIdentity
from blocks.op_node import OpNode, RollupConfig
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import Signer
from proposer.errors import EndpointDown, FixConfiguration, InvalidSettings, ProposerError
from proposer.settings import ProposerSettings

T = TypeVar("T")

_UP = "check the address and that it runs"


@dataclass(kw_only=True)
class Preflight:
    """The blocks to check, and whether the ledger knows its identity (then an endpoint may be away)."""

    l1: L1Chain
    node: OpNode
    oracle: L2OutputOracle
    server: SuccinctServer
    signer: Signer
    settings: ProposerSettings
    ledger: Ledger

    async def check(self) -> LedgerIdentity:
        """Run every check and return whose ledger this is.

        Raises `InvalidSettings` listing all problems. An endpoint that is away or answers with an error is one only
        at the very first start; later it is a Reason, and everything else runs.
        """
        problems: list[str] = []
        known = await self.ledger.identity()
        first = known is None
        chain_id, config = await asyncio.gather(
            self._try(problems, first, "L1_RPC", self.l1.chain_id()),
            self._try(problems, first, "L2_NODE_RPC", self.node.rollup_config()),
        )
        await asyncio.gather(self._contract(problems, first, chain_id), self._server(problems, first))
        self._chains(problems, chain_id, config, known)
        if problems:
            raise InvalidSettings(problems)
        if known is not None:
            return known
        assert chain_id is not None and config is not None  # unreachable is a problem at the first start
        return LedgerIdentity(chain_id, config.l2_chain_id, self.oracle.address.lower())

    def _chains(
        self, problems: list[str], chain_id: int | None, config: RollupConfig | None, known: LedgerIdentity | None
    ) -> None:
        if chain_id is not None and config is not None and config.l1_chain_id not in (None, chain_id):
            problems.append(
                f"L1_RPC: serves chain {chain_id}, but the rollup of L2_NODE_RPC settles on chain "
                f"{config.l1_chain_id}; set both to the same network"
            )
        if known is None:
            return
        address = self.oracle.address.lower()
        if known.contract != address:
            problems.append(
                f"L2OO_ADDRESS: this ledger belongs to {known.contract}, not to {address}; set DATABASE_URL or "
                "PROPOSER_HOME to another ledger, or correct the address"
            )
        if chain_id not in (None, known.l1_chain_id):
            problems.append(f"L1_RPC: serves chain {chain_id}, but this ledger belongs to chain {known.l1_chain_id}")
        if config is not None and config.l2_chain_id != known.l2_chain_id:
            problems.append(
                f"L2_NODE_RPC: serves L2 chain {config.l2_chain_id}, but this ledger belongs to {known.l2_chain_id}"
            )

    async def _contract(self, problems: list[str], first: bool, chain_id: int | None) -> None:
        if chain_id is None:
            return
        try:
            at = await self.l1.head()
            if not await self.l1.code(self.oracle.address):
                problems.append(
                    f"L2OO_ADDRESS: {self.oracle.address} has no code on chain {chain_id}; set it to the rollup's "
                    "L2OutputOracle, and L1_RPC to its network"
                )
                return
            if await self.oracle.speaks_v1(self.l1) is False:
                problems.append(
                    f"L2OO_ADDRESS: the contract at {self.oracle.address} does not know "
                    "proposeL2Output(bytes32,uint256,uint256,bytes); only OPSuccinctL2OutputOracle v1 is supported"
                )
                return
            view = await self.oracle.view(self.l1, at, self.signer.address)
        except EndpointDown as error:
            if first:
                problems.append(f"L1_RPC: {error}; {_UP}")
            return
        except ProposerError as error:
            if first or isinstance(error, FixConfiguration):
                problems.append(
                    f"L2OO_ADDRESS: {self.oracle.address} does not answer as an L2OutputOracle does ({error}); "
                    "set it to the rollup's L2OutputOracle, not to its verifier or another contract"
                )
            return
        if not view.approved:
            problems.append(
                f"PRIVATE_KEY: its account {self.signer.address} is not an approved proposer of the contract; use the "
                "key of one that is, or have the contract's owner call addProposer"
            )
        interval = max(view.submission_interval, self.settings.submission_interval)
        reach = self.settings.max_block_range * self.settings.max_aggregation_members
        if interval > reach:
            problems.append(
                f"MAX_BLOCK_RANGE_PER_SPAN_PROOF: {self.settings.max_aggregation_members} ranges of "
                f"{self.settings.max_block_range} blocks cannot reach the next output, {interval} blocks on; raise it "
                "or MAX_AGGREGATION_MEMBERS"
            )

    async def _server(self, problems: list[str], first: bool) -> None:
        await self._try(problems, first, "OP_SUCCINCT_SERVER_URL", self.server.validate_config(self.oracle.address))

    async def _try(self, problems: list[str], first: bool, name: str, read: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(15):
                return await read
        except TimeoutError:
            error: ProposerError = EndpointDown("no answer within 15 s")
        except ProposerError as raised:
            error = raised
        if first or isinstance(error, FixConfiguration):
            remedy = _UP if isinstance(error, EndpointDown) else "check what it serves"
            problems.append(f"{name}: {error}; {remedy}")
        return None
