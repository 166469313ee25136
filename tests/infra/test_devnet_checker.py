"""The checker passes an honest run and names every planted violation."""

from typing import Any

import psycopg
import pytest

from infra.devnet import Devnet, Report, check
from infra.devnet.checker import (
    CHECKPOINT_SELECTOR,
    Chain,
    Deleted,
    Mined,
    Proposed,
    check_ledger,
    check_outputs,
    check_transactions,
)
from infra.devnet.ledger_rows import EventRow, Ledger, RequestRow, TransactionRow, read_ledger
from infra.devnet.payments import check_losses, check_payments
from infra.devnet.rpc import calldata
from tests.devnets import StartDevnet

PROPOSE = "proposeL2Output(bytes32,uint256,uint256,bytes)"


async def judged(devnet: Devnet, **changes: Any) -> Report:
    """Check a devnet with the competitor in the proposer's place."""
    given: dict[str, Any] = {
        "l1_rpc": devnet.l1_rpc,
        "oracle": devnet.oracle_address,
        "proposer": devnet.competitor,
        "output_root": devnet.l2.output_root,
        "log": devnet.prover.log.events,
    }
    return await check(**(given | changes))


@pytest.mark.asyncio
async def test_an_honest_run_has_no_violations(devnet: Devnet) -> None:
    """Outputs, a rewind and new outputs are in order, and are counted as the chain has them now."""
    await devnet.competing_proposal(1150, mine=True)
    await devnet.competing_proposal(1300, mine=True)
    await devnet.delete_outputs(2, mine=True)
    await devnet.anvil.mine()
    await devnet.competing_proposal(1400, mine=True)
    report = await judged(devnet)
    assert report.ok, report.violations
    assert (report.outputs_settled, report.l2_block_settled, report.l1_transactions) == (2, 1400, 6)


@pytest.mark.asyncio
async def test_a_wrong_root_is_seen(start_devnet: StartDevnet) -> None:
    """Only the mock verifier lets a wrong root in; the checker compares every root with the L2."""
    devnet = await start_devnet(mock=True)
    number = await devnet.l1.block_number() - 1
    await devnet.send(devnet.competitor, "checkpointBlockHash(uint256)", number, mine=True)
    await devnet.send(devnet.competitor, PROPOSE, b"\x01" * 32, 1100, number, b"", mine=True)
    assert [line.split(" for")[0] for line in (await judged(devnet)).violations] == ["output 1 has a wrong root"]


@pytest.mark.asyncio
async def test_reverted_and_repeated_transactions_are_seen(devnet: Devnet) -> None:
    """A reverted transaction and a second checkpoint of one block are violations, each with its nonce."""
    number = await devnet.l1.block_number() - 1
    for _ in range(2):
        await devnet.send(devnet.competitor, "checkpointBlockHash(uint256)", number, mine=True)
    data = calldata(PROPOSE, b"\x01" * 32, 1100, number, b"\x00" * 36)
    transaction = {"from": devnet.competitor, "to": devnet.oracle_address, "data": data, "gas": hex(500_000)}
    await devnet.l1.call("eth_sendTransaction", transaction)
    await devnet.anvil.mine()
    report = await judged(devnet)
    assert (report.reverted_transactions, report.duplicate_transactions) == (1, 1)
    assert [line.split(") ")[1] for line in report.violations] == ["checkpoints a block a second time", "reverted"]


OURS, THEIRS, ROOT = "0x" + "aa" * 20, "0x" + "bb" * 20, "0x" + "01" * 32


def mined(nonce: int, l1_block: int, proposes: int, *, succeeded: bool = True) -> Mined:
    """Make a proposal of ours in a block."""
    data = calldata(PROPOSE, b"\x01" * 32, proposes, 5, b"")
    return Mined(f"0x{nonce:02x}", nonce, l1_block, data, succeeded, 1)


@pytest.mark.parametrize(
    ("events", "second", "duplicates", "reverted", "lost_races"),
    [
        pytest.param([], mined(2, 20, 1200), 0, 0, 0, id="another-block"),
        pytest.param([], mined(2, 20, 1100), 1, 0, 0, id="again"),
        pytest.param([Deleted(1, 15)], mined(2, 20, 1100), 0, 0, 0, id="again-after-a-deletion"),
        pytest.param([Deleted(1, 25)], mined(2, 20, 1100), 1, 0, 0, id="again-before-a-deletion"),
        pytest.param([], mined(2, 20, 1200, succeeded=False), 0, 1, 0, id="reverted"),
        pytest.param([(THEIRS, 19)], mined(2, 20, 1200, succeeded=False), 0, 0, 1, id="lost-by-a-block"),
        pytest.param([(THEIRS, 20)], mined(2, 20, 1100, succeeded=False), 0, 0, 1, id="lost-in-the-block"),
        pytest.param([(THEIRS, 18)], mined(2, 20, 1200, succeeded=False), 0, 1, 0, id="late-by-two-blocks"),
        pytest.param([(THEIRS, 21)], mined(2, 20, 1200, succeeded=False), 0, 1, 0, id="before-theirs"),
        pytest.param([(OURS, 19)], mined(2, 20, 1200, succeeded=False), 0, 1, 0, id="beside-our-own"),
    ],
)
def test_a_proposal_sent_again_or_too_late_is_named(
    events: list[Any], second: Mined, duplicates: int, reverted: int, lost_races: int
) -> None:
    """The same block twice needs a deletion between; a revert needs somebody else's output right before it."""
    chain = [Proposed(1, ROOT, 1100, *each) if isinstance(each, tuple) else each for each in events]
    report = Report()
    check_transactions(Chain(1000, chain, [mined(1, 10, 1100), second]), OURS, None, report)
    assert (report.duplicate_transactions, report.reverted_transactions) == (duplicates, reverted)
    assert len(report.lost_races) == lost_races
    assert len(report.violations) == duplicates + reverted


def test_a_reverted_checkpoint_is_never_a_lost_race() -> None:
    """Whoever else proposes, a checkpoint of ours has no reason to revert."""
    data = CHECKPOINT_SELECTOR + f"{5:064x}"
    report = Report()
    chain = Chain(
        1000, [Proposed(1, ROOT, 1100, THEIRS, 10)], [Mined("0x01", 1, 10, data, succeeded=False, gas_used=1)]
    )
    check_transactions(chain, OURS, None, report)
    assert (report.reverted_transactions, report.lost_races) == (1, [])


def test_the_journal_has_one_live_row_per_nonce_and_every_mined_hash() -> None:
    """A mined hash nobody signed in the journal, and a nonce with two rows neither of them displaced, are named."""
    chain = Chain(1000, [], [mined(1, 10, 1100)])
    first = TransactionRow("1", 1, "CONFIRMED", frozenset({"01"}))
    for rows, violations in (
        ([first], []),
        ([TransactionRow("1", 1, "DISPLACED"), TransactionRow("2", 1, "CONFIRMED", frozenset({"01"}))], []),
        ([first, TransactionRow("2", 1, "PENDING")], ["nonce 1 has two live rows in l1_transactions"]),
        (
            [TransactionRow("1", 1, "CONFIRMED", frozenset({"02"}))],
            ["transaction 0x01 (nonce 1) is not in l1_transactions"],
        ),
    ):
        report = Report()
        check_transactions(chain, OURS, Ledger(transactions=rows), report)
        assert report.violations == violations
        assert report.duplicate_transactions == len(violations)


def event(name: str, start: int, end: int, proof_id: str, at: float, **more: Any) -> dict[str, Any]:
    """Make one event of the server's log."""
    return {
        "event": name,
        "kind": "range",
        "start": start,
        "end": end,
        "proof_id": proof_id,
        "time": at,
        "fault": None,
    } | more


PAID = [event("paid", 1000, 1100, "aa", 1), event("answered", 1000, 1100, "aa", 1)]
SECOND_ANSWERED = event("answered", 0, 0, "bb", 3)


@pytest.mark.parametrize(
    ("between", "second", "settled", "duplicates", "unknown"),
    [
        pytest.param([], (1000, 1100), [], 1, 0, id="live"),
        pytest.param([], (1050, 1150), [], 1, 0, id="overlap"),
        pytest.param([], (1100, 1200), [], 0, 0, id="neighbours"),
        pytest.param([event("fulfilled", 1000, 1100, "aa", 2)], (1000, 1100), [], 1, 0, id="fulfilled"),
        pytest.param([event("unfulfillable", 1000, 1100, "aa", 2)], (1000, 1100), [], 0, 0, id="unfulfillable"),
        pytest.param([event("unexecutable", 1000, 1100, "aa", 2)], (1000, 1050), [], 0, 0, id="halved"),
        pytest.param([event("unexecutable", 1000, 1100, "aa", 9)], (1000, 1050), [], 1, 0, id="halved-too-early"),
        pytest.param([], (1060, 1160), [1060], 0, 0, id="head-moved-inside"),
    ],
)
def test_paying_twice_is_a_duplicate_unless_excused(
    between: list[dict[str, Any]], second: tuple[int, int], settled: list[int], duplicates: int, unknown: int
) -> None:
    """A second payment for the same blocks needs an ended, lost or overtaken first one."""
    report = Report()
    events = [*PAID, *between, event("paid", *second, "bb", 3), SECOND_ANSWERED]
    check_payments(events, settled, None, report)
    assert (report.proofs_paid_twice, report.unknown_outcomes) == (duplicates, unknown)
    assert len(report.violations) == duplicates


def row(number: int, start: int, end: int, status: str, proof_id: str | None = None, **more: Any) -> RequestRow:
    """Make one range of a ledger."""
    return RequestRow(str(number), "RANGE", start, end, status, proof_id, **more)


def moved(number: int, frm: str | None, to: str, why: str = "because", failure: str | None = None) -> EventRow:
    """Make one event of a request's history."""
    return EventRow(str(number), frm, to, failure, why)


def test_a_lost_answer_is_an_unknown_outcome_not_a_duplicate() -> None:
    """An answer cut off, or one whose id the ledger never got, is counted; its blocks may be asked for again."""
    again = [event("paid", 1000, 1100, "bb", 3), SECOND_ANSWERED]
    for events, ledger in (
        ([PAID[0], *again], None),
        ([*PAID, *again], Ledger([row(1, 1000, 1100, "PROVING", "bb")])),
        ([*PAID], Ledger()),
    ):
        report = Report()
        check_payments(events, [], ledger, report)
        assert (report.ok, report.unknown_outcomes) == (True, 1)


def test_an_id_written_down_after_its_request_was_given_up_excuses_the_second_payment() -> None:
    """A proposer that was stopped over the answer writes it down late; a failure of another kind excuses nothing."""
    rows = [row(1, 1000, 1100, "COMPLETE", "aa"), row(2, 1000, 1100, "CANCELLED", "bb")]
    for failure, unknown, paid_twice in (
        ("OutcomeUnknown", 1, 0),
        ("WitnessGenTimeout", 1, 0),
        ("WitnessFailed", 0, 1),
    ):
        ledger = Ledger(rows, [moved(1, "WITNESSGEN", "FAILED", failure=failure)])
        report = Report()
        check_payments([*PAID, event("paid", 1000, 1100, "bb", 3), SECOND_ANSWERED], [], ledger, report)
        assert (report.unknown_outcomes, report.proofs_paid_twice) == (unknown, paid_twice)


TAKEN_UP = moved(3, "PARKED", "UNREQ", "taken up by hand in Prefect")


@pytest.mark.parametrize(
    ("history", "violations"),
    [
        pytest.param([moved(3, None, "PARKED")], 0, id="parked"),
        pytest.param([moved(3, None, "PARKED"), TAKEN_UP, moved(3, "UNREQ", "WITNESSGEN")], 0, id="by-hand"),
        pytest.param([moved(3, None, "UNREQ"), moved(3, "UNREQ", "WITNESSGEN")], 1, id="by-itself"),
        pytest.param(
            [moved(3, None, "UNREQ"), moved(3, "UNREQ", "WITNESSGEN"), moved(3, "PARKED", "UNREQ", TAKEN_UP.why)],
            1,
            id="by-hand-too-late",
        ),
    ],
)
def test_a_second_unknown_outcome_leaves_the_third_request_to_a_person(
    history: list[EventRow], violations: int
) -> None:
    """The ledger's own count of unknown outcomes stands on the row; its history says who sent it."""
    third = [row(3, 1000, 1100, "PARKED", unknown_outcomes=2, parent="2")]
    for failure, counted in (("OutcomeUnknown", violations), ("LostByServer", violations), ("WitnessFailed", 0)):
        report = Report()
        check_payments([], [], Ledger(third, [moved(2, "WITNESSGEN", "FAILED", failure=failure), *history]), report)
        assert len(report.violations) == counted, "a refusal is an answer, and what follows it is no third request"
    report = Report()
    check_payments([], [], Ledger(third, history), report)
    assert len(report.violations) == violations, "planned anew, with the count carried over"


@pytest.mark.parametrize(("payments", "by_hand", "violations"), [(2, 0, 0), (3, 0, 1), (3, 1, 0), (4, 1, 1)])
def test_payments_after_the_second_unknown_outcome_are_counted_in_the_log(
    payments: int, by_hand: int, violations: int
) -> None:
    """Whatever the ledger counts: after two answers that were lost, each further payment needs a person."""
    paid = [event("paid", 1000, 1100, f"{number:02x}", number) for number in range(payments)]
    ledger = Ledger([row(3, 1000, 1100, "PARKED")], [TAKEN_UP] * by_hand)
    report = Report()
    check_payments(paid, [], ledger, report)
    assert len(report.violations) == violations
    assert report.unknown_outcomes == payments


def test_what_follows_a_proof_that_the_network_ended_is_no_third_request() -> None:
    """A person took the third up; the network gave it up, and the fourth follows from that."""
    paid = [event("paid", 1000, 1100, f"{number:02x}", 10 * number) for number in range(4)]
    answers = [event("answered", 1000, 1100, f"{number:02x}", 10 * number) for number in (2, 3)]
    gave_up = [event("unfulfillable", 1000, 1100, "02", 25)]
    rows = [row(3, 1000, 1100, "FAILED", "02"), row(4, 1000, 1100, "COMPLETE", "03")]
    for ended, violations in ((gave_up, 0), ([], 1)):
        report = Report()
        check_payments([*paid, *answers, *ended], [], Ledger(rows, [TAKEN_UP]), report)
        asked = [violation for violation in report.violations if "after its second unknown outcome" in violation]
        assert len(asked) == violations, report.violations


FULFILLED = [*PAID, event("fulfilled", 1000, 1100, "aa", 2)]


@pytest.mark.parametrize(
    ("status", "more", "others", "lost"),
    [
        pytest.param("COMPLETE", {}, [], 0, id="used"),
        pytest.param("RELAYED", {}, [], 0, id="settled"),
        pytest.param("PROVING", {"looked_at": True}, [], 0, id="looked-at"),
        pytest.param("PROVING", {}, [], 1, id="forgotten"),
        pytest.param("PARKED", {"failure": "OutcomeUnknown"}, [], 1, id="parked"),
        pytest.param("FAILED", {"failure": "ProofTimeout"}, [], 1, id="timed-out"),
        pytest.param("FAILED", {"failure": "ProofTimeout", "looked_at": True}, [], 0, id="timed-out-and-looked-at"),
        pytest.param(
            "FAILED",
            {"failure": "ProofTimeout"},
            [row(2, 990, 1050, "COMPLETE"), row(3, 1050, 1100, "COMPLETE")],
            0,
            id="its-blocks-are-proven",
        ),
        pytest.param("FAILED", {"failure": "ProofTimeout"}, [row(2, 1000, 1090, "COMPLETE")], 1, id="most-are-proven"),
        pytest.param("CANCELLED", {"failure": "Superseded"}, [], 1, id="superseded-by-nothing"),
        pytest.param("CANCELLED", {"failure": "CancelledByOperator"}, [], 0, id="cancelled-by-a-person"),
    ],
)
def test_a_fulfilled_proof_that_was_written_down_is_used_or_accounted_for(
    status: str, more: dict[str, Any], others: list[RequestRow], lost: int
) -> None:
    """An id in the ledger whose proof is there must be used, still looked at, or not needed any more."""
    ledger = Ledger([row(1, 1000, 1100, status, "aa", **more), *others], [moved(1, "PROVING", status)])
    assert len(check_losses(FULFILLED, ledger, 900)) == lost
    assert check_losses(PAID, ledger, 900) == [], "nothing was fulfilled"


def test_blocks_below_the_head_need_no_proof_but_the_history_must_say_what_became_of_it() -> None:
    """What settled without it is no loss; a row that ended without a word is."""
    failed = row(1, 1000, 1100, "FAILED", "aa", failure="ProofTimeout")
    ended = moved(1, "PROVING", "FAILED")
    assert check_losses(FULFILLED, Ledger([failed], [ended]), 1100) == []
    assert len(check_losses(FULFILLED, Ledger([failed], [ended]), 1099)) == 1
    assert len(check_losses(FULFILLED, Ledger([failed], []), 1100)) == 1
    straddling = row(1, 1000, 1100, "CANCELLED", "aa", failure="Superseded")
    assert check_losses(FULFILLED, Ledger([straddling], [moved(1, "PROVING", "CANCELLED")]), 1050) == []
    assert len(check_losses(FULFILLED, Ledger([straddling], [moved(1, "PROVING", "CANCELLED")]), 1000)) == 1
    foreign = moved(1, "PROVING", "CANCELLED", "the contract's commitments changed")
    assert check_losses(FULFILLED, Ledger([straddling], [foreign]), 1000) == []


def test_an_aggregation_may_be_refused_or_superseded_but_not_just_fail() -> None:
    """A proof of an aggregation is of use at one moment only."""
    for failure, lost in (("Superseded", 0), ("RefusedInSimulation", 0), ("ProofTimeout", 1)):
        failed = RequestRow("1", "AGG", 1000, 1100, "FAILED", "aa", failure)
        assert len(check_losses(FULFILLED, Ledger([failed], [moved(1, "COMPLETE", "FAILED")]), 1000)) == lost


def test_an_id_that_only_the_history_knows_is_lost() -> None:
    """The history names every id that was accepted; the rows must still have it."""
    proof_id = "ab" * 32
    accepted = moved(1, "WITNESSGEN", "PROVING", f"accepted by the prover as {proof_id}")
    events = [event("fulfilled", 1000, 1100, proof_id, 2)]
    assert len(check_losses(events, Ledger([row(1, 1000, 1100, "PROVING", "aa")], [accepted]), 1000)) == 1
    kept = Ledger([row(1, 1000, 1100, "COMPLETE", proof_id)], [accepted])
    assert check_losses(events, kept, 1000) == []


def test_the_stored_proof_is_the_one_that_was_delivered() -> None:
    """What an odd answer put in its place makes a paid proof a lost one."""
    delivered = [event("fulfilled", 1000, 1100, "aa", 2, digest="d1")]
    ended = [moved(1, "PROVING", "COMPLETE")]
    for digest, lost in (("d1", 0), ("d2", 1)):
        ledger = Ledger([row(1, 1000, 1100, "COMPLETE", "aa", digest=digest)], ended)
        assert len(check_losses(delivered, ledger, 900)) == lost


def test_an_empty_proof_is_none() -> None:
    """The server may say fulfilled and deliver nothing: there was nothing to lose."""
    empty = [*PAID, event("fulfilled", 1000, 1100, "aa", 2, fault="empty_proof")]
    assert check_losses(empty, Ledger([row(1, 1000, 1100, "FAILED", "aa", failure="BadProof")]), 1000) == []


def test_the_ledger_is_held_against_log_and_chain() -> None:
    """A hole under a settled output, overlapping open ranges and an invented proof id are named."""
    good = Ledger([row(1, 1000, 1050, "RELAYED", "aa"), row(2, 1050, 1100, "COMPLETE")])
    assert check_ledger(good, PAID, [(1000, 1100)]) == []
    holes = Ledger([row(1, 1000, 1050, "RELAYED"), row(2, 1051, 1100, "RELAYED")])
    assert "no chain of proven ranges" in check_ledger(holes, PAID, [(1000, 1100)])[0]
    overlap = Ledger([row(1, 1000, 1100, "PROVING"), row(2, 1099, 1200, "UNREQ")])
    assert "overlap" in check_ledger(overlap, PAID, [])[0]
    invented = Ledger([row(1, 1000, 1100, "PROVING", "cc")])
    assert "never gave" in check_ledger(invented, PAID, [])[0]


def test_gaps_and_steps_back_between_outputs_are_seen() -> None:
    """An index left out and a block that does not rise are named."""
    report = Report()
    events: list[Proposed | Deleted] = [Proposed(2, ROOT, 1100, OURS, 10), Proposed(2, ROOT, 1100, OURS, 11)]
    check_outputs(Chain(1000, events, []), lambda _: b"\x01" * 32, report)
    assert report.violations == ["output 2 follows output 0", "output 2 is for block 1100, not above 1100"]


TABLES = """
CREATE TABLE proof_requests (id int, kind text, start_block bigint, end_block bigint, status text, failure text,
    prover_request_id text, next_poll_at timestamptz, unknown_outcomes int, parent_id int,
    proof_digest bytea);
CREATE TABLE request_events (id int, request_id int, from_status text, to_status text, failure text, why text);
CREATE TABLE l1_transactions (id int, nonce bigint, status text);
CREATE TABLE l1_signed (transaction_id int, hash bytea);
INSERT INTO proof_requests VALUES (1, 'RANGE', 1000, 1150, 'PROVING', NULL, '0xAA', now(), 1, 7, '\\xEE');
INSERT INTO request_events VALUES (2, 1, 'UNREQ', 'PROVING', NULL, 'because'), (1, 1, NULL, 'UNREQ', NULL, 'because');
INSERT INTO l1_transactions VALUES (1, 0, 'CONFIRMED');
INSERT INTO l1_signed VALUES (1, decode(repeat('cc', 32), 'hex')), (1, decode(repeat('dd', 32), 'hex'));
"""


@pytest.mark.asyncio
async def test_the_ledger_is_read_over_postgresql(devnet: Devnet, empty_database_url: str) -> None:
    """Rows come from a real server; transactions that are not journaled and a forgotten proof are violations."""
    url = empty_database_url
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=10) as connection:
        await connection.execute(TABLES)
    ledger = await read_ledger(url.replace("postgresql://", "postgresql+psycopg://"))
    assert (ledger.proof_ids, ledger.hashes) == ({"aa"}, {"cc" * 32, "dd" * 32})
    assert ledger.requests == [
        row(1, 1000, 1150, "PROVING", "aa", looked_at=True, unknown_outcomes=1, parent="7", digest="ee")
    ]
    assert ledger.history("1") == [moved(1, None, "UNREQ"), moved(1, "UNREQ", "PROVING")]
    await devnet.competing_proposal(1150, mine=True)
    paid = [event("paid", 1000, 1150, "aa", 1), event("fulfilled", 1000, 1150, "aa", 2)]
    report = await judged(devnet, ledger_url=url, log=paid)
    assert [line.partition(" is ")[2] for line in report.violations[:2]] == ["not in l1_transactions"] * 2
    assert report.violations[2:] == ["no chain of proven ranges leads from 1000 to 1150, which was settled"]
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=10) as connection:
        await connection.execute("UPDATE proof_requests SET next_poll_at = NULL")
    report = await judged(devnet, ledger_url=url, log=paid)
    assert report.proofs_lost == 1
    assert report.violations[-1].endswith("request 1 is PROVING")
