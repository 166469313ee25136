"""Hold the server's log against the ledger: what was paid twice, what was lost, what was asked again too often."""

import re
from collections import defaultdict
from typing import Any

from infra.devnet.ledger_rows import BY_HAND, EventRow, Ledger, RequestRow
from infra.devnet.report import Report

Event = dict[str, Any]

# After one of these a paid proof is worth nothing any more, and asking again is right.
_ENDED = {"unfulfillable", "unexecutable", "expired", "unknown_id"}
# Failures that say the answer to the POST did not come, although it may have been paid.
_NO_ANSWER = {"OutcomeUnknown", "WitnessGenTimeout"}
_PROOF_ID = re.compile(r"\b[0-9a-f]{64}\b")
_UNKNOWN_ONCE = 1
_KINDS = {"range": "RANGE", "aggregation": "AGG"}


def check_payments(events: list[Event], settled: list[int], ledger: Ledger | None, report: Report) -> None:
    """Check that no proof was paid while a live one for the same blocks existed.

    Paying again is right when the earlier proof had ended without use, when its answer was lost on the way (an unknown
    outcome: the POST was cut off, or the ledger did not get its id in time), or when an output settled inside of it.
    """
    paid = _paid(events)
    report.proof_requests = len(paid)
    ended = {
        event["proof_id"]: event["time"]
        for event in reversed(events)
        if event["event"] in _ENDED or (event["event"] == "fulfilled" and event["fault"] == "empty_proof")
    }
    lost = _without_answer(events, ledger)
    late = _late_answers(ledger) if ledger is not None else set[str]()
    asked_again: set[str] = set()
    for later_index, later in enumerate(paid):
        for earlier in paid[:later_index]:
            if not _same_work(earlier, later) or ended.get(earlier["proof_id"], later["time"]) < later["time"]:
                continue
            if any(earlier["start"] < block < earlier["end"] and later["start"] >= block for block in settled):
                continue
            if earlier["proof_id"] in lost | late:
                asked_again.add(earlier["proof_id"])
                continue
            report.proofs_paid_twice += 1
            report.violations.append(
                f"{later['kind']} {later['start']}-{later['end']} was paid ({later['proof_id'][:8]}) while "
                f"{earlier['start']}-{earlier['end']} ({earlier['proof_id'][:8]}) was live"
            )
    report.unknown_outcomes = len(lost | (asked_again & late))
    if ledger is not None:
        report.violations += check_asked_again(paid, lost, set(ended), ledger)


def check_asked_again(paid: list[Event], lost: set[str], ended: set[str], ledger: Ledger) -> list[str]:
    """Check that blocks whose outcome is unknown were asked for again once, and after that by a person only.

    What follows a proof that the network has ended is not asked because of an unknown outcome.
    """
    violations: list[str] = []
    for row in ledger.requests:
        if row.unknown_outcomes <= _UNKNOWN_ONCE or not _because_unknown(row, ledger):
            continue
        history = ledger.history(row.id)
        sent = next((i for i, event in enumerate(history) if event.to == "WITNESSGEN"), None)
        if sent is not None and not any(_by_hand(event) for event in history[:sent]):
            violations.append(f"request {row.id} was sent by itself after {row.unknown_outcomes} unknown outcomes")
    work: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for event in paid:
        work[event["kind"], event["start"], event["end"], event.get("head")].append(event["proof_id"])
    for (kind, start, end, _), proof_ids in work.items():
        unknown = [i for i, proof_id in enumerate(proof_ids) if proof_id in lost]
        if len(unknown) <= _UNKNOWN_ONCE:
            continue
        after = sum(before not in ended for before in proof_ids[unknown[_UNKNOWN_ONCE] : -1])
        by_hand = sum(
            _by_hand(event)
            for row in ledger.requests
            if (row.kind, row.start, row.end) == (_KINDS[kind], start, end)
            for event in ledger.history(row.id)
        )
        if after > by_hand:
            violations.append(
                f"{kind} {start}-{end} was paid {after} times after its second unknown outcome, {by_hand} by hand"
            )
    return violations


def check_losses(events: list[Event], ledger: Ledger, head: int) -> list[str]:
    """Check that every fulfilled proof whose id was ever written down is used, looked at, or said to be of no use.

    ``head`` is the contract's newest L2 block: nobody needs a proof below it.
    """
    fulfilled = {
        event["proof_id"]: event.get("digest")
        for event in events
        if event["event"] == "fulfilled" and event["fault"] != "empty_proof"
    }
    named = {i for event in ledger.events if event.to == "PROVING" for i in _PROOF_ID.findall(event.why)}
    rows: dict[str, list[RequestRow]] = defaultdict(list)
    for row in ledger.requests:
        if row.prover_request_id:
            rows[row.prover_request_id].append(row)
    proven = sorted((row.start, row.end) for row in ledger.requests if row.kind == "RANGE" and row.is_proven)
    violations: list[str] = []
    for proof_id in sorted(set(fulfilled) & (named | set(rows))):
        if not rows[proof_id]:
            violations.append(f"proof {proof_id[:8]} was written down and is in no row any more")
        elif not any(_is_used(row) or _says_why_not(row, ledger, head, proven) for row in rows[proof_id]):
            row = rows[proof_id][0]
            violations.append(
                f"proof {proof_id[:8]} of {row.kind.lower()} {row.start}-{row.end} was fulfilled and is lost: "
                f"request {row.id} is {row.status} {row.failure or ''}".rstrip()
            )
        elif wrong := [row for row in rows[proof_id] if row.is_proven and row.digest != fulfilled[proof_id]]:
            violations.append(f"proof {proof_id[:8]} is not the one that request {wrong[0].id} has stored")
    return violations


def _paid(events: list[Event]) -> list[Event]:
    return sorted((event for event in events if event["event"] == "paid"), key=lambda event: event["time"])


def _without_answer(events: list[Event], ledger: Ledger | None) -> set[str]:
    """Return the ids that were paid for and never reached the proposer, or never its ledger."""
    answered = {event["proof_id"] for event in events if event["event"] == "answered"}
    known = answered if ledger is None else answered & ledger.proof_ids
    return {event["proof_id"] for event in events if event["event"] == "paid"} - known


def _late_answers(ledger: Ledger) -> set[str]:
    """Return the ids that were written down on requests which had been given up without an answer."""
    given_up = {event.request for event in ledger.events if event.failure in _NO_ANSWER}
    return {row.prover_request_id for row in ledger.requests if row.id in given_up and row.prover_request_id}


def _same_work(earlier: Event, later: Event) -> bool:
    if earlier["kind"] != later["kind"]:
        return False
    if earlier["kind"] == "range":
        return bool(earlier["start"] < later["end"] and later["start"] < earlier["end"])
    return all(earlier.get(key) == later.get(key) for key in ("start", "end", "head"))


def _because_unknown(row: RequestRow, ledger: Ledger) -> bool:
    """Say whether a request is there because the one before it got no answer; one that was refused said so."""
    ended = [event.failure for event in ledger.history(row.parent or "") if event.to == "FAILED"]
    return not ended or ended[-1] in _NO_ANSWER | {"LostByServer"}


def _by_hand(event: EventRow) -> bool:
    return event.frm == "PARKED" and event.why.startswith(BY_HAND)


def _is_used(row: RequestRow) -> bool:
    return row.is_proven or row.looked_at


def _says_why_not(row: RequestRow, ledger: Ledger, head: int, proven: list[tuple[int, int]]) -> bool:
    """Say whether a request that ended without its proof has a good reason, and its history tells it."""
    why = [event.why for event in ledger.history(row.id) if event.to == row.status and event.why]
    if row.is_open or not why:
        return False
    if row.failure == "CancelledByOperator" or row.end <= head:
        return True
    if row.kind != "RANGE":
        return row.failure in {"Superseded", "RefusedInSimulation"}
    if row.failure == "Superseded" and (row.start < head or "commitments" in why[-1]):
        return True
    return _covers(proven, row.start, row.end)


def _covers(proven: list[tuple[int, int]], start: int, end: int) -> bool:
    """Say whether proven ranges, in order, leave no hole between two blocks."""
    for first, last in proven:
        if first <= start < last:
            start = last
    return start >= end
