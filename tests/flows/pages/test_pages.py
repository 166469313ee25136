"""The pages as text: what they say, and that what others wrote is quoted, never obeyed."""

import re
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from datetime import timedelta, timezone
from typing import Any
from xml.etree import ElementTree as ET

from blocks.ledger.totals import Totals
from flows.pages.cost import cost_page
from flows.pages.picture import LABELS, RIGHT, TOP, WIDTH, picture
from flows.pages.status import status_page
from flows.pages.text import hash_link, plain
from flows.pages.timeline import LIVES, timeline_page
from proposer.explain import explain_next
from proposer.history import History, Life, Step
from proposer.orders import Order, OrderKind
from proposer.ranges import BlockRange
from proposer.reasons import Code, Reason
from proposer.requests import Failure, Kind, Status
from proposer.snapshot import Snapshot
from proposer.standing import Standing
from tests.proposer.samples import NOW, ago, oracle, request, snapshot, transaction
from tests.proposer.test_explain import situation

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<img src=x onerror=alert(1)> | [click](javascript:x) `a` *b*\n# title"


def page(
    seen: Snapshot,
    *,
    explorer: str | None = None,
    paused: Order | None = None,
    failed: dict[str, str] | None = None,
    **changes: Any,
) -> str:
    found = situation(seen, **changes)
    standing = Standing(name="proposer", contract="0xc0", situation=found, paused=paused, orders=[], block_seconds=2)
    return status_page(standing, explain_next(found), explorer, failed or {})


def life(number: int, *steps: Step, kind: Kind = Kind.RANGE, run: str | None = "run-id") -> Life:
    blocks = BlockRange(100 * number, 100 * number + 100)
    return Life(id=number, kind=kind, range=blocks, attempt=1, steps=steps, run=run)


def lived(number: int, *words: Status, every: float = 60, **failed: Any) -> Life:
    """A life with a step every so many seconds, the last one now or `every` seconds ago."""
    steps = [Step(ago(every * (len(words) - i)), word) for i, word in enumerate(words)]
    if failed:
        steps[-1] = Step(steps[-1].at, steps[-1].status, **failed)
    return life(number, *steps)


def told(*lives: Life, **changes: Any) -> History:
    values: dict[str, Any] = {"now": NOW, "since": ago(6 * 3600), "lives": lives, "settled": []}
    return History(**(values | changes))


ALL = (Status.UNREQ, Status.WITNESSGEN, Status.PROVING, Status.COMPLETE, Status.RELAYED)


# -- the status page


def test_the_status_names_the_stages_that_failed() -> None:
    """A cycle that failed does not say that all goes its way."""
    text = page(snapshot(finalized=30, contract=oracle(0)), failed={"SubmitAggProofs": "no answer | within 10 s"})
    assert text.startswith("**Failed, and tried again in the next cycle: SubmitAggProofs**")
    (row,) = [line for line in text.splitlines() if line.startswith("| SubmitAggProofs |")]
    assert "no answer" in row


def test_the_status_says_the_heads_the_lag_the_requests_and_when() -> None:
    requests = [request(1, 0, 10, Status.PROVING, since=ago(90)), request(2, 10, 20, Status.PROVING, since=ago(7300))]
    text = page(snapshot(requests, finalized=30, contract=oracle(0)))
    assert text.startswith("**All goes its way**")
    for row in (
        "| Contract head | L2 block 0 |",
        "| Next required | L2 block 1 |",
        "| Finalized | L2 block 30 |",
        "| Behind | 30 blocks, 1.0 minutes of L2 time |",
        "| Proving | 2 | 2 h 1 min |",
    ):
        assert row in text
    assert re.search(r"\| Next settlement \| Expected in about .*, at 2026-03-01 12:\d\d:\d\d UTC\. ", text)
    assert "As of 2026-03-01 12:00:00 UTC." in text
    assert "**Cause: proof-under-way.** Nothing to do" in text


def test_what_a_person_must_do_comes_first_with_its_remedy() -> None:
    parked = request(1, 0, 10, Status.PARKED, failure=Failure.UNFULFILLABLE, failure_text="no bids")
    text = page(snapshot([parked], finalized=10))
    assert text.startswith("**A person must act: request-parked**")
    assert "| **CRITICAL** | request-parked |" in text
    assert "proposer retry 1" in text


def test_a_pause_and_a_transaction_are_shown_with_their_links() -> None:
    paused = Order(1, OrderKind.PAUSE, None, "ops", "contract upgrade", ago(60), None, None)
    sent = snapshot(transactions=[transaction()])
    text = page(sent, paused=paused, explorer="https://explorer.example")
    assert "| Paused | by ops at 2026-03-01T11:59:00+00:00: contract upgrade |" in text
    assert f"](https://explorer.example/tx/0x{'aa' * 32})" in text
    assert f"`0x{'aa' * 32}`" in page(sent)
    assert "http" not in page(sent)


def test_what_could_not_be_read_is_unknown() -> None:
    seen = snapshot(contract_read=False, finalized=None)
    text = page(replace(seen, outside=replace(seen.outside, errors={"l1": "connection refused"})))
    assert "| Contract head | L2 block unknown |" in text
    assert "| Behind | unknown blocks, unknown minutes of L2 time |" in text


def test_a_great_many_reasons_are_cut() -> None:
    """The page stays small, whatever goes wrong at once."""
    stopped = {i: Reason(Code.PROPOSAL_REVERTS, "x" * 5000, "Look at it.", {"request": i}) for i in range(200)}
    text = page(snapshot(), stopped=stopped)
    assert text.count("| proposal-reverts |") == 20
    assert re.search(r"\n18\d more: see `proposer status`\.", text)
    assert len(text) < 30_000


# -- the timeline


def test_every_phase_is_drawn_to_scale_and_the_end_is_marked() -> None:
    """Five steps in five minutes: four bars of a fifth each, a mark at four fifths."""
    drawing = ET.fromstring(picture(told(lived(1, *ALL), settled=[(ago(60), 1100)])))
    assert drawing.tag == f"{SVG}svg"
    bars = [r for r in drawing.iter(f"{SVG}rect") if float(r.get("y", 0)) >= TOP]
    fifth = (WIDTH - LABELS - RIGHT) / 5
    assert [round(float(bar.get("width", 0))) for bar in bars] == [round(fifth)] * 4
    assert [round(float(bar.get("x", 0))) for bar in bars] == [round(LABELS + fifth * i) for i in range(4)]
    words = [t.text for t in drawing.iter(f"{SVG}text")]
    assert {"range 100→200 · attempt 1", "1100", "11:56", "11:59", "2026-03-01, times in UTC"} <= set(words)
    assert {"queued", "witness", "proving", "complete, not settled", "settled", "failed", "superseded"} <= set(words)


def test_a_failure_is_named_inside_the_picture_and_in_the_table() -> None:
    ended = lived(2, Status.PROVING, Status.FAILED, every=1, failure=Failure.WITNESS_TIMEOUT, why=EVIL)
    drawing = ET.fromstring(picture(told(lived(1, *ALL), ended)))
    (name,) = [t for t in drawing.iter(f"{SVG}text") if t.text == "WitnessGenTimeout"]
    assert name.get("text-anchor") == "end"  # at the right edge it is written to the left
    text = timeline_page(told(ended))
    assert f"| [range 200→300 · attempt 1](../../runs/flow-run/run-id) | `WitnessGenTimeout` | {plain(EVIL)} |" in text


def test_nothing_is_drawn_outside_the_picture() -> None:
    """A life that began days ago, one that begins now, and ends that are all the same instant."""
    lives = [lived(1, *ALL, every=90_000), life(2, Step(NOW, Status.UNREQ)), *(lived(i, *ALL) for i in range(3, 30))]
    drawing = ET.fromstring(picture(told(*lives, settled=[(NOW, 10**9 + i) for i in range(50)])))
    for rect in list(drawing.iter(f"{SVG}rect"))[1:]:
        assert 0 <= float(rect.get("x", 0)) <= float(rect.get("x", 0)) + float(rect.get("width", 0)) <= WIDTH
    heads = [t for t in drawing.iter(f"{SVG}text") if (t.text or "").startswith("10000000")]
    assert len(heads) == 1, "block numbers that would lie on one another are left out"


def test_the_page_holds_the_picture_the_durations_and_what_is_left_out() -> None:
    text = timeline_page(told(lived(1, *ALL), lived(2, *ALL[:3]), left_out=7, settled=[(ago(60), 1100)]))
    (image,) = re.findall(r"!\[[\w ]+\]\(data:image/svg\+xml;base64,([\w+/=]+)\)", text)
    assert b64decode(image).decode().startswith("<svg")
    assert "The 7 that moved before them are left out." in text
    assert "Outputs settled: 1100." in text
    assert "· attempt 1](../../runs/flow-run/run-id) | 1 | 60 s | 60 s | 60 s | 60 s | settled |" in text
    assert "| 2 | 60 s | 60 s | 60 s |  | proving … |" in text
    assert "No request moved in the 6 hours before 2026-03-01 12:00:00 UTC." in timeline_page(told())


def test_the_page_is_bounded() -> None:
    failed = {"failure": Failure.UNFULFILLABLE, "why": "x" * 9000}
    lives = [lived(10**7 + i, *ALL[:4], Status.FAILED, **failed) for i in range(LIVES)]
    assert len(timeline_page(told(*lives))) < 45_000


# -- the cost


def test_the_cost_is_told_by_kind_and_purpose() -> None:
    sums: Counter[tuple[str, ...]] = Counter(
        {
            ("paid", "RANGE"): 5,
            ("wasted", "RANGE"): 1,
            ("again", "RANGE"): 2,
            ("paid", "AGG"): 2,
            ("move", "RANGE", "PROVING", "FAILED", "Unfulfillable"): 1,
            ("move", "RANGE", "WITNESSGEN", "FAILED", "OutcomeUnknown"): 3,
            ("move", "RANGE", "COMPLETE", "RELAYED", ""): 4,
            ("transactions", "propose", "CONFIRMED"): 2,
            ("transactions", "propose", "REVERTED"): 1,
            ("transactions", "propose", "PENDING"): 9,
            ("gas", "propose"): 1_234_567,
            ("most", "propose"): 5 * 10**15,
            ("transactions", "cancel", "CONFIRMED"): 1,
            ("gas", "cancel"): 21_000,
        }
    )
    text = cost_page(Totals(sums), NOW)
    for row in (
        "| range | 5 | 4 | 2 | 1 | 3 |",
        "| aggregation | 2 | 0 | 0 | 0 | 0 |",
        "| **both** | **7** | **4** | **2** | **1** | **3** |",
        "| `Unfulfillable` | 1 | 0 |",
        "| propose an output | 3 | 1 | 1,234,567 | 0.005000 |",
        "| cancel (a nonce used up by nothing) | 1 | 0 | 21,000 | 0.000000 |",
        "| **all** | **4** | **1** | **1,255,567** | **0.005000** |",
    ):
        assert row in text


def test_a_ledger_in_which_nothing_happened_has_cost_nothing() -> None:
    text = cost_page(Totals(Counter()), NOW)
    assert "## Failed attempts\n\nNone." in text
    assert "| **all** | **0** | **0** | **0** | **0.000000** |" in text


# -- quoting


def test_what_others_wrote_is_one_line_of_plain_text() -> None:
    quoted = plain(EVIL)
    assert "\n" not in quoted
    assert "<" not in quoted
    assert re.search(r"(?<!\\)[|`*\[\]#]", quoted) is None
    assert plain("x" * 1000).endswith("x…")
    assert len(plain("x" * 1000)) == 300


def test_a_hash_is_whole_without_an_explorer_and_a_link_with_one() -> None:
    whole = "0x" + "ab" * 32
    assert hash_link(whole, None) == f"`{whole}`"
    assert hash_link(whole, "https://x") == f"[`0xabababab…abababab`](https://x/tx/{whole})"


def test_times_are_told_in_utc_whatever_the_zone() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    assert "as of 2026-03-01 12:00:00 UTC" in cost_page(Totals(Counter()), east)
