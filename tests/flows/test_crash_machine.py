"""The real flows over the real ledger against a hostile outside, with a crash between any two writes.

hypothesis chooses what happens and when the process dies. After every step the ledger must be legal and the outside
must have seen nothing twice and nothing that is not written down; at the end everything settles.
"""

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import DateTime, text
from sqlalchemy.ext.asyncio import create_async_engine

from blocks.ledger.database import async_url
from blocks.ledger.tables import leadership, metadata
from flows import witness
from flows.context import Proposer
from flows.cycle import call, run_stages
from flows.stages import observe, proving
from flows.transactions import tend
from flows.witness import take_answers
from proposer.errors import ProposerError
from proposer.intents import Move
from proposer.requests import OPEN, TRANSITIONS, Failure, Kind, Status
from proposer.settings import ProposerSettings
from tests.flows.mortal import Died, Doom, End, Family, World
from tests.flows.mortal_ledger import Turnstile
from tests.flows.mortal_process import Process
from tests.flows.outside_l1 import DEEPEST_REORG, Chain
from tests.flows.outside_prover import Answer, Fate, Prover

CONFIRMATIONS = DEEPEST_REORG + 1
MOST_FINALIZED = 36
MOST_ROUNDS = 80
STEPS = 12
STEP_SECONDS = 20
PHASES = (Phase.generate,)
"""Without shrinking: it takes longer than a test may, and a program of twelve steps can be read as it is."""

ENDS = tuple(End)
EARLY = st.sampled_from((1, 2, 3, 4, 5, 6, 8, 10, 13))
DOOMS = st.one_of(
    st.none(),
    st.builds(Doom, st.sampled_from((End.DIES_BEFORE, End.DIES_AFTER)), st.just(Family.WRITE), EARLY),
    st.builds(Doom, st.sampled_from(ENDS), st.just(Family.WRITE), EARLY),
    st.builds(Doom, st.sampled_from(ENDS), st.just(Family.SEND), st.integers(1, 3)),
    st.builds(Doom, st.just(End.FAILS_BEFORE), st.just(Family.READ), st.integers(1, 20)),
)
ACTS = st.sampled_from(("tend", "look", "cycle", "cycle", "works", "works"))
SECONDS = (5, 60, 600, 1300, 5000, 15000)
EVENTS = (
    *(f"request: {how}" for how in Answer),
    *(f"request: {Answer.ACCEPTED}" for _ in range(3)),
    *(f"proof: {fate}" for fate in Fate),
    *("leader: killed", "leader: succeeded", "leader: wakes", "leader: wakes"),
    *("l1: mines", "l1: too dear", "l1: too dear", "l1: reorg", "l1: reorg that loses"),
    *("l1: competitor", "l1: deletion"),
    *("down: l1", "down: node", "down: server", "down: ledger"),
    *("person: parks", "person: takes up"),
    *("finality", "time", "time", "time"),
)

T = TypeVar("T")


def _pick(among: Sequence[T], choice: int) -> Sequence[T]:
    """One of them, or none where there is none."""
    return [among[choice % len(among)]] if among else []


class Rig:
    """What all examples share: one event loop, one database."""

    def __init__(self, runner: "asyncio.Runner", url: str) -> None:
        self.run = runner.run
        self.url = url
        # in a hurry: nobody cuts the power here, and one connection after another is the same one
        options = "-c timezone=UTC -c synchronous_commit=off"
        self.engine = create_async_engine(async_url(url), pool_size=2, connect_args={"options": options})
        tables = ", ".join(t.name for t in metadata.sorted_tables)
        self._truncate = f"TRUNCATE {tables} RESTART IDENTITY CASCADE"
        self._shifts = [
            f"UPDATE {table.name} SET " + ", ".join(f"{c} = {c} - make_interval(secs => :s)" for c in times)
            for table in metadata.sorted_tables
            if table is not leadership
            and (times := [column.name for column in table.c if isinstance(column.type, DateTime)])
        ]

    async def query(self, sql: str, **values: Any) -> list[Any]:
        """Read rows."""
        async with self.engine.connect() as connection:
            return list((await connection.execute(text(sql), values)).all())

    async def execute(self, *statements: str, **values: Any) -> None:
        """Change the database behind everybody's back."""
        async with self.engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement), values)
            await connection.commit()

    async def empty(self) -> None:
        """Begin anew."""
        await self.execute(self._truncate)

    async def wait(self, seconds: float) -> None:
        """Let time pass: every time in the ledger is the database's, and now further back."""
        await self.execute(*self._shifts, s=seconds)


class Crashes(RuleBasedStateMachine):
    """Everything that may happen to one rollup, its ledger and its processes, in any order."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig
        self.names = itertools.count(1)
        self.standbys: list[Process] = []
        self.leader: Process | None = None
        self.known_ids: dict[str, int] = {}
        self.intact = False
        rig.run(rig.empty())

    @initialize(size=st.integers(4, 9), interval=st.integers(3, 9), finalized=st.integers(9, 24))
    def begin(self, size: int, interval: int, finalized: int) -> None:
        self.settings = ProposerSettings(
            max_block_range=size,
            max_witness_gen=3,
            max_proof_requests=5,
            num_confirmations=CONFIRMATIONS,
            max_tail_wait=600,
            max_attempts=4,
        )
        self.chain = Chain(interval)
        self.prover = Prover(self.chain)
        self.world = World(self.chain, self.prover, finalized)
        self.turnstile = Turnstile()
        self.rig.run(self._start(None))
        self.intact = True

    # -- processes

    async def _start(self, standby: Process | None) -> None:
        self.leader = standby or Process(
            self.world,
            self.settings,
            self.rig.engine,
            self.rig.url,
            self.turnstile,
            f"process {next(self.names)}",
            note,
        )
        await self.leader.lead()
        note(f"{self.leader.life.name} leads with epoch {self.leader.proposer.epoch}")
        await self._rest()

    async def _rest(self) -> None:
        """Let everybody's tasks go on as far as they can, and bury who died."""
        for process in [*self.standbys, *([self.leader] if self.leader else [])]:
            await process.rest()
            if not process.life.alive:
                note(f"{process.life.name} is dead")
                await process.bury()
                if process is self.leader:
                    self.leader = None
                else:
                    self.standbys.remove(process)

    async def _do(self, process: Process, what: str, act: Callable[[], Awaitable[Any]]) -> None:
        """Have a process do one thing, unless it dies of it."""
        if not process.life.alive:
            return
        try:
            done = await act()
        except Died:
            return
        except ProposerError as error:
            note(f"{what}: {type(error).__name__}: {error}")
        else:
            sentences = done if isinstance(done, list) else [*done.did, *getattr(done, "failed", {}).items()]
            note(f"{what}: {sentences}")
        await process.rest()

    async def _act(self, process: Process, what: str) -> None:
        proposer = process.proposer
        match what:
            case "cycle":
                await self._do(process, what, lambda: run_stages(proposer, call, observe.plainly))
            case "look":
                await self._do(process, what, lambda: _look(proposer))
            case _:
                await self._do(process, what, lambda: tend(proposer))

    async def _lead(self) -> Process:
        """Return who leads; where everybody is dead, who stands by or a new process takes over."""
        if self.leader is None:
            await self._start(self.standbys.pop() if self.standbys else None)
        assert self.leader is not None
        return self.leader

    @rule(before=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 99)), max_size=4), what=ACTS, doom=DOOMS)
    def goes_on(self, before: list[tuple[str, int]], what: str, doom: Doom | None) -> None:
        """Some things happen outside, then the leader goes on, to its doom.

        One rule, not one for each event: hypothesis would switch most of them off in most examples.
        """

        async def step() -> None:
            for event, choice in before:
                note(f"{event} ({choice})")
                await self._happens(event, choice)
                await self._rest()
            process = await self._lead()
            process.life.begin(doom)
            if what == "works":
                await self._round(process)
                await self._round(process)
            await self._act(process, "cycle" if what == "works" else what)
            await self._rest()
            await self._judge()

        async def in_time() -> None:
            async with asyncio.timeout(STEP_SECONDS):
                await step()

        self.intact = False
        self.rig.run(in_time())
        self.intact = True

    async def _round(self, process: Process) -> None:
        await self._act(process, "cycle")
        for post in list(self.prover.posts):
            self.prover.finish(post, Answer.ACCEPTED)
        await process.rest()
        self._prove_all()
        await self._pass(20, blocks=2)
        await self._act(process, "look")
        await self._act(process, "tend")

    def _prove_all(self) -> None:
        for paid in self.prover.paid.values():
            paid.fate = Fate.FULFILLED if paid.fate is Fate.PROVING else paid.fate

    async def _pass(self, seconds: float, *, blocks: int) -> None:
        self.chain.clock += seconds
        self.chain.mine(blocks)
        await self.rig.wait(seconds)

    async def _happens(self, event: str, choice: int) -> None:
        """Have one thing happen, if it can; `choice` picks among several, and whether an answer can be written."""
        match event.split(": "):
            case ["leader", how]:
                await self._leadership(how)
            case ["request", how]:
                if self.leader:
                    self.leader.life.begin(Doom(ENDS[choice % 4], Family.WRITE, 1) if choice < 50 else None)
                for post in _pick(self.prover.posts, choice):
                    self.prover.finish(post, Answer(how))
            case ["proof", fate]:
                for paid in _pick(self.prover.going_on(), choice):
                    paid.fate = Fate(fate)
            case ["l1", how]:
                self._l1(how, choice)
            case ["down", endpoint]:
                self.world.down = set() if self.world.down else {endpoint}
            case ["person", how]:
                await self._person(how, choice)
            case ["finality"]:
                self.world.finalized = min(self.world.finalized + 1 + choice % 8, MOST_FINALIZED)
            case _:
                await self._pass(SECONDS[choice % len(SECONDS)], blocks=choice % 3)

    async def _leadership(self, how: str) -> None:
        if how == "wakes":
            for process in _pick(self.standbys, 0):
                process.life.begin(None)
                for what in ("cycle", "look", "tend"):
                    await self._act(process, what)
        elif self.leader is not None and how == "killed":
            self.leader.life.alive = False
        elif self.leader is not None and len(self.standbys) < 2:
            self.leader.life.leads = False
            self.standbys.append(self.leader)
            await self._start(None)

    def _l1(self, how: str, choice: int) -> None:
        least = self.chain.state.head + self.chain.interval
        match how:
            case "mines":
                self.chain.mine(1 + choice % 3)
            case "too dear":
                self.chain.mine(1 + choice % 3, including=False)
            case "reorg" | "reorg that loses":
                self.chain.reorg(1 + choice % DEEPEST_REORG, keep=how == "reorg", including=choice % 2 == 0)
            case "competitor" if least <= self.world.finalized:
                self.chain.someone_proposes(least + choice % (self.world.finalized - least + 1))
                self.chain.mine(choice % 2)
            case "deletion":
                for index in _pick(self.chain.deletable(), choice):
                    self.chain.delete_outputs(index)
                    self.chain.mine(choice % 2)
            case _:
                pass

    async def _person(self, how: str, choice: int) -> None:
        if self.leader is not None and "ledger" not in self.world.down:
            wanted = "status IN ('UNREQ', 'WITNESSGEN', 'PROVING')" if how == "parks" else "status = 'PARKED'"
            rows = await self.rig.query(f"SELECT id FROM proof_requests WHERE {wanted} ORDER BY id")
            for row in _pick(rows, choice):
                await self._by_hand(row.id, park=how == "parks")

    async def _by_hand(self, request_id: int, *, park: bool) -> None:
        assert self.leader is not None
        proposer = self.leader.proposer
        self.leader.life.begin(None)
        note(f"request {request_id} is {'parked' if park else 'taken up'} by hand")
        request = await proposer.ledger.request(request_id)
        async with proposer.write() as writer:
            if park:
                why = Failure.CANCELLED_BY_OPERATOR
                await writer.move(Move(request_id, request.status, Status.PARKED, "by hand", why))
            else:
                await writer.take_up(request_id, "taken up by hand", self.settings.witness_gen_timeout)

    # -- what must hold

    async def _judge(self) -> None:
        rows = {row.id: row for row in await self.rig.query("SELECT * FROM proof_requests ORDER BY id")}
        events = await self.rig.query("SELECT * FROM request_events ORDER BY id")
        self._histories_are_legal(rows, events)
        self._open_ranges_do_not_overlap(rows)
        left = {row.prover_request_id for row in await self.rig.query("SELECT * FROM late_answers")}
        self._no_id_is_lost(rows, left | {word for event in events for word in event.why.split()})
        self._unknown_outcomes_are_asked_once(rows, events)
        await self._the_journal_is_complete()
        self._nothing_is_checkpointed_twice()
        assert not self.world.violations, self.world.violations
        assert not self.chain.needless_reverts, self.chain.needless_reverts

    def _histories_are_legal(self, rows: dict[int, Any], events: list[Any]) -> None:
        at: dict[int, str] = {}
        for event in events:
            before = at.get(event.request_id)
            assert event.from_status == before, f"request {event.request_id}: {event} after {before}"
            if before is not None and event.to_status != before:
                assert Status(event.to_status) in TRANSITIONS[Status(before)], event
            at[event.request_id] = event.to_status
        assert at == {number: row.status for number, row in rows.items()}

    def _open_ranges_do_not_overlap(self, rows: dict[int, Any]) -> None:
        held = sorted(
            (row.start_block, row.end_block)
            for row in rows.values()
            if row.kind == Kind.RANGE and Status(row.status) in OPEN
        )
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(held)), held

    def _no_id_is_lost(self, rows: dict[int, Any], elsewhere: set[str]) -> None:
        """An id stays in its row, is in one row only, and whoever lives has written down what it was told.

        `elsewhere` is what was left for the leader, or is in a history because its row has another id.
        """
        ids = {row.prover_request_id: row.id for row in rows.values() if row.prover_request_id is not None}
        assert self.known_ids.items() <= ids.items(), (self.known_ids, ids)
        self.known_ids = ids
        assert ids.keys() <= self.prover.paid.keys()
        for process in [*self.standbys, *([self.leader] if self.leader else [])]:
            stalled = any(not task.done() for task in process.life.stalled if task is not None)
            assert stalled or process.life.told <= ids.keys() | elsewhere, f"{process.life.name} forgot an id"

    def _unknown_outcomes_are_asked_once(self, rows: dict[int, Any], events: list[Any]) -> None:
        """What may have been paid twice already waits for a person."""
        parked = {event.request_id for event in events if event.to_status == Status.PARKED}
        for row in rows.values():
            assert row.unknown_outcomes <= 1 or row.id in parked or row.status == Status.CANCELLED, row

    async def _the_journal_is_complete(self) -> None:
        signed = {row.hash: row for row in await self.rig.query("SELECT * FROM l1_signed")}
        missing = [tx_hash for tx_hash in self.chain.first_seen if tx_hash not in signed]
        assert not missing, missing
        live = await self.rig.query(
            "SELECT sender, nonce FROM l1_transactions WHERE status <> 'DISPLACED' GROUP BY 1, 2 HAVING count(*) > 1"
        )
        assert not live, live

    def _nothing_is_checkpointed_twice(self) -> None:
        """One checkpoint of a block is enough. (The contract itself takes no output twice.)"""
        done = [tx.what for tx, succeeded, _ in self.chain.ours() if succeeded and tx.what.startswith("checkpoint")]
        twice = [what for what, count in Counter(done).items() if count > 1]
        assert not twice, twice

    # -- the end

    def teardown(self) -> None:
        if self.intact:
            self.rig.run(self._settle())
        for process in [*self.standbys, *([self.leader] if self.leader else [])]:
            self.rig.run(process.bury())

    async def _settle(self) -> None:
        """If the outside behaves from now on, everything settles, once people took up what is parked."""
        note("-- from here on the outside behaves")
        self.world.down.clear()
        await self._rest()
        process = await self._lead()
        process.life.begin(None)
        for _ in range(MOST_ROUNDS):
            for paid in self.prover.going_on():
                paid.fate = Fate.PROVING
            for row in await self.rig.query("SELECT id FROM proof_requests WHERE status = 'PARKED' ORDER BY id"):
                await self._by_hand(row.id, park=False)
            await self._round(process)
            await self._pass(2500, blocks=CONFIRMATIONS)
            assert process.life.alive
            if await self._is_settled():
                break
        else:
            rows = await self.rig.query("SELECT * FROM proof_requests WHERE status <> 'RELAYED' ORDER BY id")
            raise AssertionError(f"stuck at {self.chain.state.head} of {self.world.finalized}: {rows}")
        await self._rest()
        await self._judge()
        await self._everything_paid_is_accounted_for()

    async def _is_settled(self) -> bool:
        if self.chain.state.head + self.chain.interval <= self.world.finalized:
            return False
        open_ones = "status IN ('UNREQ', 'WITNESSGEN', 'PROVING', 'PARKED')"
        unsettled = "SELECT 1 FROM l1_transactions WHERE status IN ('PENDING', 'MINED')"
        aggregations = f"SELECT 1 FROM proof_requests WHERE {open_ones} AND kind = 'AGG'"
        return not await self.rig.query(aggregations) and not await self.rig.query(unsettled)

    async def _everything_paid_is_accounted_for(self) -> None:
        """A fulfilled proof whose id we had is stored, or its row is closed and says why."""
        rows = {row.prover_request_id: row for row in await self.rig.query("SELECT * FROM proof_requests")}
        for paid in self.prover.paid.values():
            row = rows.get(paid.id)
            if paid.fate is not Fate.FULFILLED or row is None or row.proof_digest is not None:
                continue
            assert row.status in {Status.FAILED, Status.CANCELLED}, row
            assert row.failure is not None and row.failure_text, row
            assert row.end_block <= self.chain.state.head or row.next_poll_at is not None, row


async def _look(proposer: Proposer) -> list[str]:
    """Look as the process does between cycles."""
    return [*await take_answers(proposer), *await proving.look(proposer)]


def _quietly_if_dead(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Nobody asks for the outcome of a dead process's tasks."""
    if not isinstance(context.get("exception"), Died):
        loop.default_exception_handler(context)


@pytest.fixture
def rig(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """One event loop and one database for all examples; what is lost in a power cut does not matter here."""
    monkeypatch.setattr(witness, "WRITE_AGAIN_SECONDS", 0)
    logging.getLogger("proposer").setLevel(logging.CRITICAL)
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(_quietly_if_dead)
        rig = Rig(runner, database_url)
        yield rig
        runner.run(rig.engine.dispose())
    logging.getLogger("proposer").setLevel(logging.NOTSET)


@pytest.mark.parametrize("chance", range(6))
def test_nothing_is_lost_or_done_twice_wherever_it_crashes(rig: Rig, chance: int) -> None:
    """Whatever happens outside, and wherever a process dies: the promises hold, and everything settles in the end.

    Several short runs with a seed each: in a long one hypothesis spends most examples on variations of the last.
    """
    run_state_machine_as_test(
        seed(chance)(lambda: Crashes(rig)),
        settings=settings(
            max_examples=5,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=PHASES,
            suppress_health_check=list(HealthCheck),
        ),
    )
