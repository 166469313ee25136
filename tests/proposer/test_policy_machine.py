"""The whole policy against a hostile outside: hypothesis chooses what happens, the invariants must hold."""

import itertools
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proposer.requests import IN_FLIGHT, OPEN, Failure, Kind, ProofRequest, Status
from tests.proposer.samples import OURS, THEIRS
from tests.proposer.world import World

ASKED_FAILURES = (Failure.WITNESS_FAILED, Failure.WITNESS_TIMEOUT, Failure.OUTCOME_UNKNOWN)
PROVING_FAILURES = (
    Failure.UNEXECUTABLE,
    Failure.UNFULFILLABLE,
    Failure.PROOF_TIMEOUT,
    Failure.LOST_BY_SERVER,
    Failure.BAD_PROOF,
)


class Policy(RuleBasedStateMachine):
    """Everything that may happen to one rollup, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.cycled = False

    @initialize(
        size=st.integers(1, 8), members=st.integers(1, 6), interval=st.integers(1, 6), finalized=st.integers(0, 60)
    )
    def start(self, size: int, members: int, interval: int, finalized: int) -> None:
        self.world = World(max_block_range=size, max_aggregation_members=members, submission_interval=interval)
        self.world.finalized = finalized

    def _pick(self, data: Any, rows: list[ProofRequest]) -> ProofRequest:
        return rows[data.draw(st.integers(0, len(rows) - 1))]

    def _in(self, *statuses: Status) -> list[ProofRequest]:
        return [r for r in self.world.rows.values() if r.status in statuses]

    @rule(blocks=st.integers(1, 30), seconds=st.integers(1, 2000))
    def finality_advances(self, blocks: int, seconds: int) -> None:
        self.world.finalized += blocks
        self.world.wait(seconds)
        self.cycled = False

    @rule(submit=st.booleans(), seconds=st.integers(0, 2000))
    def cycle(self, submit: bool, seconds: int) -> None:
        self.world.wait(seconds)
        head = self.world.head
        self.world.cycle(submit=submit)
        self.cycled = self.world.head == head

    @rule()
    def prover_works(self) -> None:
        self.world.work()
        self.cycled = False

    @precondition(lambda self: self._in(Status.WITNESSGEN))
    @rule(data=st.data())
    def answered(self, data: Any) -> None:
        self.world.answer(self._pick(data, self._in(Status.WITNESSGEN)).id)

    def _unspoilt(self) -> list[ProofRequest]:
        """Range proofs in hand that may turn out bad: none while the culprit of a refusal is looked for."""
        refused = any(r.failure is Failure.REFUSED_IN_SIMULATION for r in self._in(Status.FAILED))
        proven = [r for r in self._in(Status.COMPLETE) if r.kind is Kind.RANGE and r.id not in self.world.bad]
        return [] if refused or self.world.aggregations(*IN_FLIGHT) else proven

    @precondition(lambda self: self._unspoilt())
    @rule(data=st.data())
    def a_range_proof_turns_out_bad(self, data: Any) -> None:
        self.world.bad.add(self._pick(data, self._unspoilt()).id)

    @rule(depth=st.integers(1, 20), lose_checkpoints=st.booleans())
    def l1_is_reorganised(self, depth: int, lose_checkpoints: bool) -> None:
        self.world.reorg(depth, lose_checkpoints=lose_checkpoints)
        self.cycled = False

    @precondition(lambda self: self._in(Status.PROVING))
    @rule(data=st.data())
    def proven(self, data: Any) -> None:
        self.world.complete(self._pick(data, self._in(Status.PROVING)).id)
        self.cycled = False

    @precondition(lambda self: self._in(Status.WITNESSGEN))
    @rule(data=st.data(), failure=st.sampled_from(ASKED_FAILURES))
    def request_fails(self, data: Any, failure: Failure) -> None:
        self.world.fail(self._pick(data, self._in(Status.WITNESSGEN)).id, failure)

    @precondition(lambda self: self._in(Status.PROVING))
    @rule(data=st.data(), failure=st.sampled_from(PROVING_FAILURES))
    def proof_fails(self, data: Any, failure: Failure) -> None:
        self.world.fail(self._pick(data, self._in(Status.PROVING)).id, failure)

    @precondition(lambda self: self._late())
    @rule(data=st.data())
    def proof_arrives_late(self, data: Any) -> None:
        self.world.complete(self._pick(data, self._late()).id)
        self.cycled = False

    def _late(self) -> list[ProofRequest]:
        closed = self._in(Status.FAILED, Status.CANCELLED, Status.PARKED, Status.UNREQ)
        return [r for r in closed if r.prover_id is not None and r.proof_digest is None]

    @precondition(lambda self: self._in(Status.WITNESSGEN))
    @rule(data=st.data())
    def server_is_down(self, data: Any) -> None:
        row = self._pick(data, self._in(Status.WITNESSGEN))
        self.world.postpone(row.id)
        assert self.world.rows[row.id].attempt == row.attempt

    @precondition(lambda self: self.world.aggregations(Status.COMPLETE))
    @rule(data=st.data())
    def aggregation_is_refused(self, data: Any) -> None:
        row = self._pick(data, self.world.aggregations(Status.COMPLETE))
        if any(r.range.start == row.range.start for r in self.world.aggregations(*OPEN)):
            return  # its twin is open: stage 6 refuses only what it would submit
        self.world.fail(row.id, Failure.REFUSED_BY_CONTRACT)

    @precondition(lambda self: self.world.next_required <= self.world.finalized)
    @rule(data=st.data())
    def someone_else_proposes(self, data: Any) -> None:
        world = self.world
        world.outputs.append(data.draw(st.integers(world.next_required, world.finalized)))
        self.cycled = False

    @precondition(lambda self: len(self.world.outputs) > 1)
    @rule(data=st.data())
    def outputs_are_deleted(self, data: Any) -> None:
        del self.world.outputs[data.draw(st.integers(1, len(self.world.outputs) - 1)) :]
        self.cycled = False

    @rule(interval=st.integers(1, 20))
    def submission_interval_changes(self, interval: int) -> None:
        self.world.interval = interval
        self.cycled = False

    @rule(commitments=st.sampled_from((OURS, THEIRS)))
    def commitments_change(self, commitments: Any) -> None:
        self.world.commitments = commitments
        self.cycled = False

    @precondition(lambda self: self._in(Status.UNREQ, Status.WITNESSGEN, Status.PROVING))
    @rule(data=st.data())
    def operator_parks(self, data: Any) -> None:
        row = self._pick(data, self._in(Status.UNREQ, Status.WITNESSGEN, Status.PROVING))
        self.world.move(row.id, row.status, Status.PARKED, failure=Failure.CANCELLED_BY_OPERATOR)

    @precondition(lambda self: self._in(Status.PARKED))
    @rule(data=st.data())
    def operator_takes_up(self, data: Any) -> None:
        self.world.take_up(self._pick(data, self._in(Status.PARKED)).id)

    @invariant()
    def no_two_open_ranges_overlap(self) -> None:
        open_ranges = self.world.ranges(*OPEN)
        for one, other in itertools.pairwise(open_ranges):
            assert not one.range.overlaps(other.range)

    @invariant()
    def after_a_cycle_everything_is_planned(self) -> None:
        if self.cycled:
            self.world.assert_tiled()
            self.world.assert_aggregations_chained()

    def teardown(self) -> None:
        """If the outside behaves from now on, the head reaches finality, once a person took up what is parked."""
        for _ in range(20):
            self.world.settle()
            parked = self._in(Status.PARKED)
            if not parked:
                break
            for row in parked:
                self.world.take_up(row.id)
        self.world.assert_settled()
        self.world.assert_tiled()
        assert not [r for r in self.world.rows.values() if r.kind is Kind.AGG and r.status in OPEN]


TestPolicy = Policy.TestCase
TestPolicy.settings = settings(
    max_examples=200,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
