"""What a stage acts with: the blocks, the ledger, and the claim to be the leader."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from uuid import UUID

from prefect.client.orchestration import PrefectClient

from blocks.l1 import L1Chain
from blocks.ledger import Ledger, Writer
from blocks.ledger.figures import FiguresReader
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import Signer
from flows.record import Record
from proposer.errors import FixConfiguration, NotLeader
from proposer.imagine import as_remembered, imagine
from proposer.intents import Move, Plan
from proposer.permission import Permission
from proposer.settings import ProposerSettings
from proposer.snapshot import OracleView, Outside, ServerView, Snapshot


@dataclass(frozen=True, slots=True)
class Page:
    """A page in Prefect as it was written last: its artifact, what it showed, and since when, by `time.monotonic`."""

    artifact: UUID
    mark: object
    begun_at: float
    written_at: float


@dataclass(kw_only=True)
class Proposer:
    """One rollup's proposer while it leads: everything that stages and flows act with."""

    name: str
    settings: ProposerSettings
    ledger: Ledger
    ledger_id: str
    l1: L1Chain
    oracle: L2OutputOracle
    node: OpNode
    server: SuccinctServer
    signer: Signer | None
    epoch: int
    still_leads: Callable[[], bool]
    """Whether the claim to leadership holds now; asked before every request and broadcast."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever the ledger changed outside a cycle: the process looks at once."""
    cycle_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Cycles run one after the other, recorded by Prefect or not."""
    transactions_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One at a time decides about the signer's next nonce."""
    looking: set[int] = field(default_factory=set[int])
    """Requests whose proof is being looked at: nobody else looks at them meanwhile."""
    rounds: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])
    """Rounds of looks under way."""
    last_cycle_at: float = 0.0
    """When a cycle last began, by `time.monotonic`."""
    witnesses: dict[int, asyncio.Task[None]] = field(default_factory=dict[int, "asyncio.Task[None]"])
    """Proof requests waiting for the server's answer, by request id."""
    unknown_since: dict[int, datetime] = field(default_factory=dict[int, datetime])
    """Since when the server has said, look after look, that it does not know a request's id."""
    last_server: ServerView | None = None
    """The server's answer to `validate_config` in the last cycle."""
    last_oracle: OracleView | None = None
    """The contract at the L1 head of the last look."""
    tended_at: bytes | None = None
    """The L1 head at which every unsettled transaction was last looked at."""
    pruned_at: float = -inf
    """When proofs that are not needed any more were last deleted, by `time.monotonic`."""
    watched: str | None = None
    """Account to look at and to simulate as where there is no signer: in a dry run."""
    draining: bool = False
    """Nothing new is claimed any more."""
    drained_at: float | None = None
    """When a stop waits for answers no longer, by `time.monotonic`; None before it waits."""
    record: Record = field(default_factory=Record)
    """What became of this process's cycles."""
    pages: dict[str, Page] = field(default_factory=dict[str, Page])
    """What this process has written to Prefect's UI beside its runs."""
    prefect: PrefectClient | None = None
    """The process's own client, while it is attached to Prefect: one made anew reads all certificates anew."""
    publishing: "asyncio.Task[None] | None" = None
    """Pages being written."""
    figures: FiguresReader | None = None
    """What the cost page is read with: it remembers what it has added up."""

    @property
    def account(self) -> str | None:
        """EIP-55 address of the proposer's account, as far as it is known."""
        return self.signer.address if self.signer is not None else self.watched

    def write(self) -> AbstractAsyncContextManager[Writer]:
        """Write to the ledger as the leader."""
        return self.ledger.write(self.epoch)

    def shown(self, tx_hash: bytes) -> str:
        """Return a transaction's hash for a person: with its address in the explorer where one is set."""
        shown, explorer = f"0x{tx_hash.hex()}", self.settings.explorer_url
        return f"{shown} ({explorer}/tx/{shown})" if explorer else shown

    def drain_left(self) -> float:
        """Return the seconds that a stop still waits for answers; they count from the first call."""
        if self.drained_at is None:
            self.drained_at = time.monotonic() + self.settings.drain_seconds
        return max(0.0, self.drained_at - time.monotonic())

    def must_lead(self) -> None:
        """Raise `NotLeader` unless the claim holds now: the last check before money is spent."""
        if not self.still_leads():
            raise NotLeader("the leadership was lost: nothing is sent")


@dataclass(kw_only=True)
class Cycle:
    """One cycle's parameters, what it saw, and the snapshot its stages decide on."""

    proposer: Proposer
    settings: ProposerSettings
    outside: Outside
    permission: Permission
    run_id: str | None = None
    dry_run: bool = False
    _imagined: Snapshot | None = None

    async def snapshot(self) -> Snapshot:
        """Read the ledger anew beside the outside as this cycle saw it; in a dry run once, with what is imagined."""
        if not self.dry_run:
            return await snapshot_of(self.proposer, self.outside, self.settings)
        if self._imagined is None:
            self._imagined = as_remembered(await snapshot_of(self.proposer, self.outside, self.settings))
        return self._imagined

    def said(self, move: Move) -> str:
        """Say what a move does, or in a dry run would do."""
        verb = f"would be {move.to.value.lower()}" if self.dry_run else move.to.value.lower()
        return f"{verb}: request {move.request}, {move.why}"

    async def imagine(self, plan: Plan) -> None:
        """Let the stages that follow in a dry run decide as if this plan had been carried out."""
        self._imagined = imagine(await self.snapshot(), plan)


async def snapshot_of(proposer: Proposer, outside: Outside, settings: ProposerSettings) -> Snapshot:
    """Read the ledger beside a look at the outside."""
    head, l1_block = (outside.oracle.latest_block, outside.oracle.at.number) if outside.oracle else (0, None)
    view = await proposer.ledger.view(head, l1_block)
    return Snapshot(
        now=view.now,
        settings=settings,
        outside=outside,
        requests=view.requests,
        transactions=view.transactions,
        finalized=view.finalized,
        required=view.required,
        attempts_above=view.attempts_above,
        checkpointed=view.checkpointed,
    )


CURRENT: ContextVar[Proposer] = ContextVar("proposer")


def current() -> Proposer:
    """Return the proposer of this process. Raises `FixConfiguration` in any other process."""
    try:
        return CURRENT.get()
    except LookupError:
        raise FixConfiguration(
            "this flow runs inside the proposer's own process only: start `proposer up`, and stop any other worker "
            "that polls its work pool"
        ) from None
