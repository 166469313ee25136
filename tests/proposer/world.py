"""A rollup in memory: a ledger that obeys the real one's rules, a contract, and a clock. For tests of the policy."""

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from proposer.intents import Plan
from proposer.permission import Permission
from proposer.plan_aggregation import plan_aggregation
from proposer.plan_ranges import plan_ranges
from proposer.plan_requests import plan_requests
from proposer.plan_submission import plan_submission
from proposer.reasons import Reason
from proposer.requests import (
    IN_FLIGHT,
    OPEN,
    TRANSITIONS,
    Commitments,
    Failure,
    Kind,
    NewRequest,
    ProofRequest,
    Status,
)
from proposer.retry import successors
from proposer.settings import ProposerSettings
from proposer.snapshot import Anchor, Mark, Outside, Snapshot
from proposer.units import L1Block, L1Ref
from proposer.wake import to_do
from tests.proposer.samples import DIGEST, NOW, OURS, SERVER, node, oracle

CLOSED = frozenset({Status.FAILED, Status.CANCELLED})
COVERING = frozenset({Status.COMPLETE, Status.RELAYED})


def programs(commitments: Commitments) -> tuple[bytes, bytes]:
    """What a range proof is bound to."""
    return commitments.range_vkey, commitments.config_hash


class World:
    """The ledger's rows, the contract's outputs, and how the server behaves."""

    def __init__(self, **settings: Any) -> None:
        self.settings = ProposerSettings(
            **({"max_block_range": 8, "max_witness_gen": 4, "max_proof_requests": 6} | settings)
        )
        self.now = NOW
        self.l1 = 1000
        self.outputs = [0]
        self.interval = 1
        self.commitments = OURS
        self.finalized = 0
        self.required: Mark | None = None
        self.rows: dict[int, ProofRequest] = {}
        self.stored: dict[int, bytes] = {}
        self.bad: set[int] = set()
        """Range proofs that the aggregation program does not accept."""
        self._fork, self._fork_from = 0, 0
        self.reasons: list[Reason] = []
        self.paid = 0

    # -- what is there

    @property
    def head(self) -> int:
        """The contract's latest block."""
        return self.outputs[-1]

    @property
    def next_required(self) -> int:
        """The least block of the next output."""
        return self.head + max(self.interval, self.settings.submission_interval)

    def of(self, kind: Kind, statuses: Iterable[Status]) -> list[ProofRequest]:
        """Rows of one kind in these statuses, by block."""
        wanted = set(statuses)
        return sorted(
            (r for r in self.rows.values() if r.kind is kind and r.status in wanted), key=lambda r: (r.range, r.id)
        )

    def ranges(self, *statuses: Status) -> list[ProofRequest]:
        """Range rows in these statuses."""
        return self.of(Kind.RANGE, statuses)

    def aggregations(self, *statuses: Status) -> list[ProofRequest]:
        """Aggregation rows in these statuses."""
        return self.of(Kind.AGG, statuses)

    def live(self) -> list[ProofRequest]:
        """Open ranges, and proofs of the contract's programs, from the head on."""
        ours = programs(self.commitments)
        proven = [r for r in self.ranges(*COVERING) if programs(r.commitments) == ours and r.range.start >= self.head]
        return [*self.ranges(*OPEN), *proven]

    def snapshot(self) -> Snapshot:
        """As `Ledger.view` reads it."""
        rows = self.rows.values()
        contract = oracle(
            self.head,
            at=L1Ref(L1Block(self.l1), b"\x01" * 32, 0),
            safe=L1Block(self.l1 - 5),
            submission_interval=self.interval,
            commitments=self.commitments,
            anchors={number: Anchor(hash_, None) for number, hash_ in self.stored.items()}
            | {r.checkpoint.number: self._anchor(r.checkpoint.number) for r in rows if r.checkpoint},
        )
        return Snapshot(
            now=self.now,
            settings=self.settings,
            outside=Outside(oracle=contract, node=node(self.finalized), server=SERVER, errors={}),
            requests=[
                r
                for r in rows
                if r.status in OPEN
                or r.status is Status.COMPLETE
                or (r.status is Status.RELAYED and r.range.end > self.head)
            ],
            transactions=(),
            finalized=Mark(self.finalized, self.now) if self.finalized else None,
            required=self.required,
            attempts_above=[r for r in rows if r.status in CLOSED and r.range.end > self.head],
        )

    def _anchor(self, number: int) -> Anchor:
        return Anchor(self.stored.get(number), self.hash_of(number))

    def hash_of(self, number: int) -> bytes:
        """The hash of an L1 block on the chain as it is now; a reorg changes the newest ones."""
        forked = self._fork if number > self._fork_from else 0
        return f"{forked}/{number}".encode().rjust(32)

    # -- the ledger's own rules

    def insert(self, new: NewRequest) -> int:
        """Insert a row; the exclusion constraint and the unique index hold."""
        number = len(self.rows) + 1
        row = new.row(number, self.now)
        assert row.status in {Status.UNREQ, Status.PARKED}
        for other in self.of(row.kind, OPEN):
            if row.kind is Kind.RANGE:
                assert not other.range.overlaps(row.range), f"{row} overlaps {other}"
            else:
                assert other.range.start != row.range.start, f"{row} starts where {other} does"
        if row.kind is Kind.RANGE:
            self._assert_attempts_carried_over(row)
        self.rows[number] = row
        return number

    def _assert_attempts_carried_over(self, row: ProofRequest) -> None:
        """No re-plan resets a cap: the attempt is at least the highest ever charged over any of these blocks."""
        charged = [
            r.attempt
            for r in self.ranges(*CLOSED)
            if r.range.overlaps(row.range) and programs(r.commitments) == programs(row.commitments)
        ]
        assert row.attempt >= max(charged, default=1), f"{row} after attempts {charged}"

    def move(self, number: int, frm: Status, to: Status, **changes: Any) -> bool:
        """Compare and set."""
        row = self.rows[number]
        assert to in TRANSITIONS[frm], f"{row}: {frm} to {to}"
        if row.status is not frm:
            return False
        self.rows[number] = replace(row, status=to, since=self.now, **changes)
        return True

    def apply(self, plan: Plan) -> None:
        """Moves, then inserts."""
        self.reasons += plan.reasons
        for move in plan.moves:
            if move.failure is Failure.NOT_AGGREGATABLE:
                assert move.request in self.bad, f"{self.rows[move.request]} is blamed and is fine"
            self.move(move.request, move.frm, move.to, **({"failure": move.failure} if move.failure else {}))
        for new in plan.inserts:
            self.insert(new)

    # -- the proposer

    def cycle(self, *, submit: bool = True) -> bool:
        """Run the stages in order; return whether anything was done. What `to_do` says beforehand must agree."""
        if self.required is None or self.required.number != self.next_required:
            self.required = None if self.finalized < self.next_required else Mark(self.next_required, self.now)
        expected = to_do(self.snapshot(), Permission(True, submit))
        before = (dict(self.rows), list(self.outputs), dict(self.stored))
        self.reasons = []
        self.apply(plan_ranges(self.snapshot(), True))
        self.apply(plan_aggregation(self.snapshot(), True))
        self._request()
        if submit:
            self._submit()
        acted = before != (self.rows, self.outputs, self.stored)
        assert acted == bool(expected), f"expected {expected}"
        return acted

    def _request(self) -> None:
        requests = plan_requests(self.snapshot(), True)
        self.reasons += requests.reasons
        self.stored |= {number: self.hash_of(number) for _, number in requests.checkpoint}
        for number in requests.start:
            row = self.rows[number]
            changes: dict[str, Any] = {"requested_at": self.now, "failure": None}
            if row.kind is Kind.AGG:
                anchor = changes["checkpoint"] = requests.anchors[number]
                assert self.stored[anchor.number] == anchor.hash
            assert self.move(number, Status.UNREQ, Status.WITNESSGEN, **changes)
        in_flight = self.ranges(*IN_FLIGHT)
        assert len(in_flight) <= self.settings.max_proof_requests
        assert sum(r.status is Status.WITNESSGEN for r in in_flight) <= self.settings.max_witness_gen

    def _submit(self) -> None:
        submission = plan_submission(self.snapshot(), True)
        if submission.request is not None:
            row = self.rows[submission.request]
            assert row.range.start == self.head
            assert row.range.end >= self.head + self.interval, "the contract would revert"
            assert row.commitments == self.commitments
            assert row.checkpoint is not None
            assert self.stored.get(row.checkpoint.number) == row.checkpoint.hash, "the contract would revert"
            self.outputs.append(row.range.end)

    # -- the outside

    def wait(self, seconds: float) -> None:
        """Let time pass, and L1 with it."""
        self.now += timedelta(seconds=seconds)
        self.l1 += max(1, int(seconds // 12))

    def reorg(self, depth: int, *, lose_checkpoints: bool) -> None:
        """L1 replaces its newest blocks, and with them the checkpoints made of or in them."""
        self._fork += 1
        self._fork_from = self.l1 - depth
        gone = {n for n in self.stored if n > self._fork_from or lose_checkpoints}
        self.stored = {n: hash_ for n, hash_ in self.stored.items() if n not in gone}

    def answer(self, number: int) -> None:
        """The server answers: an aggregation over a bad range proof is refused, and costs nothing."""
        row = self.rows[number]
        if row.kind is Kind.AGG and self.bad.intersection(row.members):
            self.fail(number, Failure.REFUSED_IN_SIMULATION)
        else:
            self.accept(number)

    def accept(self, number: int) -> None:
        """The server answers with an id."""
        assert not self.bad.intersection(self.rows[number].members)
        self.paid += 1
        changes: dict[str, Any] = {
            "prover_id": f"0x{number:x}",
            "l1_head": L1Block(self.l1 - 1),
            "l1_head_hash": b"\x01" * 32,
        }
        if not self.move(number, Status.WITNESSGEN, Status.PROVING, **changes):
            self.rows[number] = replace(self.rows[number], **changes)

    def complete(self, number: int) -> None:
        """The proof arrives, whatever the row is by now."""
        frm = self.rows[number].status
        assert self.move(number, frm, Status.COMPLETE, proof_digest=DIGEST, proof_length=4, failure=None)

    def fail(self, number: int, failure: Failure) -> None:
        """The attempt ends; what carries on is inserted beside it."""
        row = self.rows[number]
        assert self.move(number, row.status, Status.FAILED, failure=failure)
        for new in successors(row, failure, self.settings.retry_policy, self.now):
            self.insert(new)

    def postpone(self, number: int) -> None:
        """The server was away: nothing was asked."""
        until = self.now + timedelta(seconds=30)
        assert self.move(number, Status.WITNESSGEN, Status.UNREQ, next_attempt_at=until, requested_at=None)

    def take_up(self, number: int) -> None:
        """A person repairs the cause and takes a parked request up."""
        assert self.move(number, Status.PARKED, Status.UNREQ, next_attempt_at=self.now, failure=None)

    def work(self) -> None:
        """The prover does everything it was asked, and the clock moves on past every back-off."""
        for row in list(self.rows.values()):
            if row.status is Status.WITNESSGEN:
                self.answer(row.id)
            if self.rows[row.id].status is Status.PROVING:
                self.complete(row.id)
        self.wait(2400)

    def settle(self, most_cycles: int = 400) -> None:
        """Run cycles with a well-behaved outside until nothing changes any more."""
        quiet = 0
        for _ in range(most_cycles):
            quiet = 0 if self.cycle() else quiet + 1
            if quiet == 3:
                return
            self.work()
        raise AssertionError(f"still busy after {most_cycles} cycles: {self}")

    def assert_settled(self) -> None:
        """The head is as near to finality as the contract's interval allows."""
        assert self.next_required > self.finalized, f"stuck at {self.head} of {self.finalized}: {self}"

    def assert_tiled(self) -> None:
        """From the head on, live ranges reach to within a tail of finality; open ranges never overlap."""
        open_ranges = self.ranges(*OPEN)
        assert all(a.range.end <= b.range.start for a, b in itertools.pairwise(open_ranges))
        reached = {self.head}
        for row in sorted(self.live(), key=lambda r: r.range):
            if row.range.start in reached:
                reached.add(row.range.end)
        reach = max(reached)
        assert all(r.range.start >= self.head for r in open_ranges)
        assert reach >= max((r.range.end for r in open_ranges), default=self.head), f"a hole after {reach}: {self}"
        tail = self.finalized - reach
        assert tail < self.settings.max_block_range, f"{tail} blocks after {reach} are not planned: {self}"
        due = self.required is not None and self.now - self.required.at >= timedelta(
            seconds=self.settings.max_tail_wait
        )
        if due and reach < self.next_required <= self.finalized:
            raise AssertionError(f"the tail after {reach} is due and not planned: {self}")

    def assert_aggregations_chained(self) -> None:
        """Open aggregations follow one another from the head, through complete ones, over members without a gap."""
        ends = {self.head}
        for row in self.aggregations(*OPEN, Status.COMPLETE):
            if row.range.start in ends:
                ends.add(row.range.end)
        for row in self.aggregations(*OPEN):
            follows = row.range.start in ends or row.status in IN_FLIGHT
            assert follows, f"{row} does not follow from the head {self.head}: {self}"
            members = [self.rows[i].range for i in row.members]
            assert members[0].start == row.range.start
            assert members[-1].end == row.range.end
            assert all(a.end == b.start for a, b in itertools.pairwise(members))

    def __str__(self) -> str:
        rows = "\n".join(f"  {r} {r.status} {r.failure or ''} {r.members or ''}" for r in self.rows.values())
        return f"head {self.head}, interval {self.interval}, finalized {self.finalized}\n{rows}"
