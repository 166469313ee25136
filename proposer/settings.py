"""The proposer's policy: one frozen model, validated as a whole.

Defaults are op-succinct's own unless a comment says otherwise. Names in capitals are the environment's.
"""

import re
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from proposer.fees import FeePolicy
from proposer.retry import RetryPolicy
from proposer.units import ETHER, GWEI, Wei

_GO_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|h|m|s))+")
_EXPLORER = re.compile(r"https?://[^\s/?#@<>()\[\]\\\"'`|]+(/[^\s?#<>()\[\]\\\"'`|]*)?")
_GO_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_seconds(value: object) -> object:
    """Read `20`, `20.5` or a Go duration such as `1h30m`, `20s`, `500ms` as seconds; pass on what is neither."""
    if isinstance(value, str) and _GO_DURATION.fullmatch(value.strip()):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", value)
        return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)
    return value


Seconds = Annotated[float, BeforeValidator(parse_seconds), Field(allow_inf_nan=False, le=366 * 86400)]


class ProposerSettings(BaseModel):
    """How the proposer plans, asks and sends; every field is an environment name."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    max_block_range: int = Field(default=300, ge=1, alias="MAX_BLOCK_RANGE_PER_SPAN_PROOF")
    """L2 blocks of one range proof."""
    max_witness_gen: int = Field(default=5, ge=1, alias="MAX_CONCURRENT_WITNESS_GEN")
    """Range requests in witness generation at the same time."""
    max_proof_requests: int = Field(default=20, ge=1, alias="MAX_CONCURRENT_PROOF_REQUESTS")
    """Range requests in witness generation or proving at the same time."""
    max_aggregations: int = Field(default=2, ge=1, alias="MAX_CONCURRENT_AGGREGATIONS")
    """Aggregations in flight at the same time: a budget of their own, so that neither kind starves the other."""
    witness_gen_timeout: Seconds = Field(default=1200, gt=0, alias="WITNESS_GEN_TIMEOUT")
    """Seconds the server may take to answer a request."""
    max_proof_time: Seconds = Field(default=14400, gt=0, alias="MAX_PROOF_TIME")
    """Seconds the network may prove before the request is given up after one last look."""
    submission_interval: int = Field(default=1, ge=1, alias="SUBMISSION_INTERVAL")
    """Least L2 blocks between two outputs; the contract's own interval holds where it is larger."""
    max_tail_wait: Seconds = Field(default=1800, ge=0, alias="MAX_TAIL_WAIT")
    """Seconds after which a shorter range may complete the next required block."""
    num_confirmations: int = Field(default=10, ge=1, alias="NUM_CONFIRMATIONS")
    """L1 blocks, the including one counted, after which a proposal is final for the proposer."""
    poll_interval: Seconds = Field(default=60, gt=0, alias="POLL_INTERVAL")
    """Seconds between two scheduled cycles; what happens in between starts a cycle at once."""
    look_interval: Seconds = Field(default=15, gt=0, alias="LOOK_INTERVAL")
    """Most seconds between two looks at a request that is being proven."""
    drain_timeout: Seconds | None = Field(default=None, ge=0, alias="DRAIN_TIMEOUT")
    """Seconds to wait on SIGTERM for requests under way; `WITNESS_GEN_TIMEOUT` where not set."""
    mock: bool = Field(default=False, alias="OP_SUCCINCT_MOCK")
    """Use the server's mock endpoints (for contracts with the mock verifier)."""
    max_attempts: int = Field(default=5, ge=1, alias="MAX_ATTEMPTS")
    """Failed attempts after which a range is parked for a person."""
    retry_delay: Seconds = Field(default=60, gt=0, alias="RETRY_DELAY")
    """Seconds before the second attempt; doubles with each further one."""
    max_retry_delay: Seconds = Field(default=1800, gt=0, alias="MAX_RETRY_DELAY")
    """Most seconds between two attempts."""
    max_aggregation_members: int = Field(default=64, ge=1, alias="MAX_AGGREGATION_MEMBERS")
    """Range proofs in one aggregation."""
    max_aggregation_headers: int = Field(default=7200, ge=1, alias="MAX_AGGREGATION_HEADERS")
    """L1 headers between an aggregation's oldest range proof and its checkpoint."""
    resubmission_timeout: Seconds = Field(default=48, gt=0, alias="RESUBMISSION_TIMEOUT")
    """Seconds after which an unmined transaction is sent again with a higher fee."""
    fee_limit_multiplier: int = Field(default=5, ge=1, alias="TXMGR_FEE_LIMIT_MULTIPLIER")
    """A bumped fee stays below this multiple of the suggested one."""
    fee_limit_threshold_gwei: int = Field(default=100, ge=1, alias="TXMGR_FEE_LIMIT_THRESHOLD")
    """Gwei below which the multiplier does not bind."""
    min_tip_gwei: int = Field(default=1, ge=0, alias="TXMGR_MIN_TIP_CAP")
    """Least priority fee, in gwei."""
    min_base_fee_gwei: int = Field(default=1, ge=0, alias="TXMGR_MIN_BASEFEE")
    """Least base fee to reckon with, in gwei."""
    min_balance_ether: float = Field(default=0.1, ge=0, le=1e9, allow_inf_nan=False, alias="MIN_BALANCE")
    """Balance of the proposer's account, in ether, below which it warns."""
    alert_no_settlement_after: Seconds = Field(default=14400, ge=10, alias="ALERT_NO_SETTLEMENT_AFTER")
    """Seconds that an output may be due before a person is told."""
    alert_silent_after: Seconds = Field(default=300, ge=10, alias="ALERT_SILENT_AFTER")
    """Seconds without a sign of life of a leading process before a person is told."""
    alert_outage_after: Seconds = Field(default=600, ge=0, alias="ALERT_OUTAGE_AFTER")
    """Seconds that an endpoint may be away or behind before a person is told."""
    alert_failed_cycles: int = Field(default=3, ge=1, alias="ALERT_FAILED_CYCLES")
    """Cycles that fail in a row before a person is told."""

    explorer_url: str | None = Field(default=None, alias="EXPLORER_URL")
    """Block explorer of L1, such as https://etherscan.io: what Prefect shows then links to `/tx/<hash>` there."""

    @field_validator("explorer_url")
    @classmethod
    def _explorer(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if _EXPLORER.fullmatch(value) is None:
            raise ValueError("must be an http(s) address without credentials, query and spaces: https://host[/path]")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        problems: list[str] = []
        if self.max_witness_gen > self.max_proof_requests:
            problems.append(
                f"MAX_CONCURRENT_WITNESS_GEN ({self.max_witness_gen}) is above MAX_CONCURRENT_PROOF_REQUESTS "
                f"({self.max_proof_requests}), which counts witness generation too: lower the first or raise the second"
            )
        if self.retry_delay > self.max_retry_delay:
            problems.append(
                f"RETRY_DELAY ({self.retry_delay:g} s) is above MAX_RETRY_DELAY ({self.max_retry_delay:g} s): "
                "lower the first or raise the second"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def retry_policy(self) -> RetryPolicy:
        """The policy for failed attempts."""
        return RetryPolicy(self.max_attempts, self.retry_delay, self.max_retry_delay)

    @property
    def fee_policy(self) -> FeePolicy:
        """The rules for transaction fees, in wei."""
        return FeePolicy(
            min_tip=Wei(self.min_tip_gwei * GWEI),
            min_base_fee=Wei(self.min_base_fee_gwei * GWEI),
            limit_multiplier=self.fee_limit_multiplier,
            limit_threshold=Wei(self.fee_limit_threshold_gwei * GWEI),
        )

    @property
    def min_balance(self) -> Wei:
        """Balance of the proposer's account below which it warns."""
        return Wei(int(self.min_balance_ether * ETHER))

    @property
    def drain_seconds(self) -> float:
        """Seconds to wait on SIGTERM for requests under way."""
        return self.witness_gen_timeout if self.drain_timeout is None else self.drain_timeout
