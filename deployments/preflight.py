"""What must be right before the proposer spends anything: every problem at once, each with its remedy."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from blocks.l1 import L1Chain
from blocks.ledger import LedgerIdentity
from blocks.op_node import OpNode, RollupConfig
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import Signer
from deployments.environment import Parts
from deployments.signing import signer_block
from proposer.errors import EndpointDown, FixConfiguration, InvalidSettings, ProposerError

T = TypeVar("T")

_UP = "check the address and that it runs"


async def problems_of(parts: Parts) -> list[str]:
    """Check online what of an environment with problems can be checked, so that all of them are named at once."""
    preflight = Preflight(
        l1=L1Chain(urls=parts.l1_rpc) if parts.l1_rpc else None,
        node=OpNode(urls=parts.node_rpc) if parts.node_rpc else None,
        oracle=L2OutputOracle(address=parts.oracle_address) if parts.oracle_address else None,
        server=SuccinctServer(url=parts.server_url) if parts.server_url else None,
        signer=signer_block(parts.signer) if parts.signer else None,
    )
    try:
        return (await preflight.look(None)).problems
    finally:
        for block in (preflight.l1, preflight.node, preflight.server, preflight.signer):
            if block is not None:
                await block.aclose()


@dataclass(kw_only=True)
class Look:
    """What one look found: the chain ids that could be read, and every problem."""

    problems: list[str] = field(default_factory=list[str])
    chain_id: int | None = None
    config: RollupConfig | None = None


@dataclass(kw_only=True)
class Preflight:
    """The blocks to check; one that could not be made is None and is not checked."""

    l1: L1Chain | None
    node: OpNode | None
    oracle: L2OutputOracle | None
    server: SuccinctServer | None
    signer: Signer | None

    async def check(self, known: LedgerIdentity | None) -> LedgerIdentity:
        """Run every check and return whose ledger this is; `known` is the identity it has already.

        Raises `InvalidSettings` listing all problems. An endpoint that is away or answers with an error is one only
        at the very first start; later it is a Reason, and everything else runs.
        """
        look = await self.look(known)
        if look.problems:
            raise InvalidSettings(look.problems)
        if known is not None:
            return known
        # unreachable is a problem at the first start, and `up` makes every block
        assert look.chain_id is not None and look.config is not None and self.oracle is not None
        return LedgerIdentity(look.chain_id, look.config.l2_chain_id, self.oracle.address.lower())

    async def look(self, known: LedgerIdentity | None) -> Look:
        """Run every check that can be run."""
        look, first = Look(), known is None
        look.chain_id, look.config = await asyncio.gather(
            self._try(look.problems, first, "L1_RPC", self.l1.chain_id() if self.l1 else None),
            self._try(look.problems, first, "L2_NODE_RPC", self.node.rollup_config() if self.node else None),
        )
        await asyncio.gather(
            self._contract(look.problems, first, look.chain_id),
            self._server(look.problems, first),
            self._try(look.problems, first, "SIGNER_URL", self.signer.check() if self.signer else None),
        )
        self._chains(look, known)
        return look

    def _chains(self, look: Look, known: LedgerIdentity | None) -> None:
        problems, chain_id, config = look.problems, look.chain_id, look.config
        if chain_id is not None and config is not None and config.l1_chain_id not in (None, chain_id):
            problems.append(
                f"L1_RPC: serves chain {chain_id}, but the rollup of L2_NODE_RPC settles on chain "
                f"{config.l1_chain_id}; set both to the same network"
            )
        if known is None or self.oracle is None:
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
        if chain_id is None or self.l1 is None or self.oracle is None:
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
            view = await self.oracle.view(self.l1, at, self.signer.address if self.signer else None)
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
        if self.signer is not None and not view.approved:
            problems.append(
                f"{self.signer.setting}: its account {self.signer.address} is not an approved proposer of the "
                "contract; use one that is, or have the contract's owner call addProposer"
            )

    async def _server(self, problems: list[str], first: bool) -> None:
        if self.server is not None and self.oracle is not None:
            asked = self.server.validate_config(self.oracle.address)
            await self._try(problems, first, "OP_SUCCINCT_SERVER_URL", asked)

    async def _try(self, problems: list[str], first: bool, name: str, read: Awaitable[T] | None) -> T | None:
        if read is None:
            return None
        try:
            async with asyncio.timeout(15):
                return await read
        except TimeoutError:
            error: ProposerError = EndpointDown("no answer within 15 s")
        except ProposerError as raised:
            error = raised
        if first or isinstance(error, FixConfiguration):
            remedy = _UP if isinstance(error, EndpointDown) else "check what it serves"
            # what is for a person to set right says how
            problems.append(f"{name}: {error}" + ("" if isinstance(error, FixConfiguration) else f"; {remedy}"))
        return None
