"""What is simulated: the chain, the prover, L1, the service's own latencies, prices, and the policy's settings."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from proposer.settings import ProposerSettings, Seconds
from proposer.simulation.durations import Spread


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Chain(_Part):
    """The L2: a backlog that is final at the start, then blocks that become final in steps."""

    blocks: int = Field(default=43_200, ge=0)
    """L2 blocks produced after the start."""
    backlog: int = Field(default=0, ge=0)
    """L2 blocks that are final and not settled at the start."""
    block_seconds: float = Field(default=2.0, gt=0, le=86_400)
    """Seconds between two L2 blocks."""
    finality_lag: Seconds = Field(default=1_200, ge=0)
    """Seconds from an L2 block to the earliest look at which it counts as final: its batch, and L1's two epochs."""
    finality_step: Seconds = Field(default=384, gt=0)
    """Seconds between two advances of the finalized head: one L1 epoch."""

    @model_validator(mode="after")
    def _something_to_settle(self) -> Self:
        if self.blocks + self.backlog == 0:
            raise ValueError("there is nothing to settle: give blocks, or a backlog")
        return self

    @property
    def last(self) -> int:
        """The last block there will be."""
        return self.backlog + self.blocks

    def finalized(self, step: int) -> int:
        """Return the finalized head from the step's time on; step 0 is the start."""
        made = int((step * self.finality_step - self.finality_lag) / self.block_seconds + 1e-9)
        return self.backlog + min(max(made, 0), self.blocks)

    @property
    def last_step(self) -> int:
        """The first step at which every block is final."""
        if not self.blocks:
            return 0
        guess = int((self.blocks * self.block_seconds + self.finality_lag) / self.finality_step)
        return next(step for step in range(max(guess - 1, 0), guess + 3) if self.finalized(step) == self.last)


class Prover(_Part):
    """The prover server and its network, for ranges of `reference_blocks`."""

    range_witness: Spread = Spread(90, 180)
    """Seconds until the server answers a range request."""
    range_proving: Spread = Spread(600, 1_500)
    """Seconds from the server's answer to the range proof."""
    aggregation_witness: Spread = Spread(20, 40)
    """Seconds until the server answers an aggregation request."""
    aggregation_proving: Spread = Spread(300, 600)
    """Seconds from the server's answer to the aggregation proof."""
    reference_blocks: int = Field(default=300, ge=1)
    """Size of the ranges that the durations are of."""
    fixed_share: float = Field(default=0.2, ge=0, le=1)
    """Share of a range's witness and proving time that does not grow with its size."""
    unfulfillable: float = Field(default=0.0, ge=0, lt=1)
    """Share of the requests that the network gives up."""
    witness_failures: float = Field(default=0.0, ge=0, lt=1)
    """Share of the requests that the server answers with an error; those cost nothing."""
    unexecutable_above: int | None = Field(default=None, ge=1)
    """L2 blocks above which a range cannot be executed; None where there is no limit."""
    outage_every: Seconds | None = Field(default=None, gt=0)
    """Mean seconds between two outages of the server; None where there are none."""
    outage_seconds: Seconds = Field(default=600, gt=0)
    """How long each outage lasts."""

    def scale(self, blocks: int) -> float:
        """Return how much longer than the reference a range of this size takes."""
        return self.fixed_share + (1 - self.fixed_share) * blocks / self.reference_blocks


class L1(_Part):
    """The chain that is settled on."""

    block_seconds: float = Field(default=12.0, gt=0, le=3_600)
    """Seconds between two L1 blocks."""
    epoch_blocks: int = Field(default=32, ge=1)
    """L1 blocks of an epoch; the safe block is the first of the epoch before."""
    inclusion_seconds: float = Field(default=1.0, ge=0, le=3_600)
    """Seconds before a block by which a transaction must be broadcast to be in it."""
    submission_interval: int = Field(default=1, ge=1)
    """The contract's own least L2 blocks between two outputs."""


class Service(_Part):
    """What the service itself adds: see docs/simulate.md for where the defaults come from."""

    loop_seconds: float = Field(default=1.0, ge=0, le=60)
    """Between two looks at the ledger and the transactions."""
    cycle_start: float = Field(default=1.0, ge=0, le=60)
    """From what happened to the decisions of the cycle that it starts."""
    cycle_seconds: float = Field(default=0.5, ge=0, le=60)
    """How long a cycle keeps the next one waiting."""
    brisk_seconds: float = Field(default=2.0, ge=0, le=60)
    """Between two looks at L1 and the L2 node while something waits for the next L1 block."""
    status_seconds: float = Field(default=0.05, ge=0, le=60)
    """The server's answer to one look at a proof."""
    operator_seconds: Seconds = Field(default=3_600, gt=0)
    """Until a person takes a parked request up again."""


class Prices(_Part):
    """What things cost; proofs in a currency of your choice."""

    range_proof: float = Field(default=0.0, ge=0)
    """Per range proof that the network was asked for, whatever its size."""
    block: float = Field(default=0.0, ge=0)
    """Per L2 block in such a range."""
    aggregation_proof: float = Field(default=0.0, ge=0)
    """Per aggregation proof that the network was asked for."""
    checkpoint_gas: int = Field(default=50_000, ge=0)
    """Gas of a checkpoint transaction."""
    proposal_gas: int = Field(default=430_000, ge=0)
    """Gas of a proposal."""
    gas_gwei: float = Field(default=10.0, ge=0)
    """Price of gas, in gwei."""
    ether: float = Field(default=0.0, ge=0)
    """Price of one ether in the currency of the proofs; 0 keeps gas out of the total."""


class Scenario(_Part):
    """One simulation. Everything but the policy's settings is outside of its control."""

    settings: ProposerSettings = ProposerSettings()
    """The policy; what the service is started with."""
    chain: Chain = Chain()
    prover: Prover = Prover()
    l1: L1 = L1()
    service: Service = Service()
    prices: Prices = Prices()
    seed: int = Field(default=1, ge=0)
    """The same seed gives the same outcome."""
    patience: Seconds = Field(default=172_800, gt=0)
    """Seconds after which a final block that is not settled ends the simulation: the policy does not keep up."""
