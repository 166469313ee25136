"""The status page: what `proposer status` and `proposer explain` say, as it was at the end of a cycle."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from flows.pages.text import hash_link, paragraphs, plain, table, utc
from proposer.explain import Explanation
from proposer.reasons import Reason, Severity
from proposer.standing import Standing, standing_json
from proposer.units import ago

REASONS = 20
"""Most reasons and transactions on the page; `proposer status` has them all."""
_STATES = {
    "unreq": "Unrequested",
    "witnessgen": "WitnessGen",
    "proving": "Proving",
    "complete": "Complete, not settled yet",
    "parked": "**Parked**",
}


def status_page(standing: Standing, explanation: Explanation, explorer: str | None, failed: Mapping[str, str]) -> str:
    """Say where everything stands, why the next output is not settled yet, and what `failed` in a cycle, by stage."""
    shown, now = standing_json(standing), standing.situation.snapshot.now
    reasons = standing.situation.reasons()
    return paragraphs(
        f"**{_headline(reasons, failed)}**",
        f"As of {utc(now)}.",
        _heads(shown, now),
        "## Requests",
        _requests(shown["requests"]),
        _transactions(shown["transactions"], explorer),
        f"## Why {plain(explanation.subject)} is not settled yet",
        _chain(explanation),
        "## Active reasons" if reasons else "",
        _reasons(reasons),
        "## Failed in this cycle" if failed else "",
        table(("stage", "error"), [(plain(stage), plain(error)) for stage, error in failed.items()]) if failed else "",
    )


def _headline(reasons: Sequence[Reason], failed: Mapping[str, str]) -> str:
    critical = [r for r in reasons if r.severity is Severity.CRITICAL]
    warnings = [r for r in reasons if r.severity is Severity.WARNING]
    if critical:
        return f"A person must act: {', '.join(sorted({r.code.value for r in critical}))}"
    if warnings:
        return f"Warning: {', '.join(sorted({r.code.value for r in warnings}))}"
    if failed:
        return f"Failed, and tried again in the next cycle: {', '.join(failed)}"
    return "All goes its way"


def _heads(shown: dict[str, Any], now: datetime) -> str:
    heads, lag, following, leader = shown["heads"], shown["lag"], shown["next_output"], shown["leader"]
    seconds, block = following["seconds"], _known(following["block"])
    due = "Not known when"
    if seconds is not None:
        due = f"Expected in about {ago(seconds)}, at {utc(now + timedelta(seconds=seconds))}"
    rows = [
        ("Contract head", f"L2 block {_known(heads['contract'])}"),
        ("Next required", f"L2 block {block}"),
        ("Finalized", f"L2 block {_known(heads['finalized'])}"),
        ("Behind", f"{_known(lag['blocks'])} blocks, {_known(lag['minutes'])} minutes of L2 time"),
        ("Next settlement", f"{due}. {plain(following['waits_for'])}"),
        ("L1", f"head {_known(heads['l1'])}, safe {_known(heads['safe_l1'])}"),
        ("Contract", f"`{shown['contract']}`"),
        ("Leader", f"{plain(leader['owner'])} (epoch {leader['epoch']})" if leader else "**nobody**"),
    ]
    if (paused := shown["paused"]) is not None:
        rows.append(("Paused", f"by {plain(paused['who'])} at {paused['at']}: {plain(paused['why'])}"))
    orders = [f"{o['kind']} {o['request'] or ''} by {plain(o['who'])}" for o in shown["orders"]]
    if orders:
        rows.append(("Orders that wait", plain(", ".join(orders))))
    return table(("", ""), rows)


def _known(value: object) -> str:
    return "unknown" if value is None else str(value)


def _requests(requests: dict[str, dict[str, int | None]]) -> str:
    rows = [
        (_STATES[name], str(found["count"]), ago(found["oldest_seconds"]))
        for name, found in requests.items()
        if found["count"]
    ]
    return table(("state", "requests", "the oldest since"), rows, numbers=(1, 2)) or "None is under way."


def _transactions(transactions: Sequence[dict[str, Any]], explorer: str | None) -> str:
    rows = [
        (tx["purpose"], tx["status"], str(tx["nonce"]), ago(tx["age_seconds"]), hash_link(tx["hash"], explorer))
        for tx in transactions[:REASONS]
    ]
    shown = table(("transaction", "status", "nonce", "age", "hash"), rows, numbers=(2, 3))
    return f"## L1 transactions\n\n{shown}" if shown else ""


def _chain(explanation: Explanation) -> str:
    links = [f"{number}. {plain(reason.sentence)}" for number, reason in enumerate(explanation.chain, 1)]
    cause = explanation.cause
    return "\n".join(links) + f"\n\n**Cause: {cause.code.value}.** {plain(cause.remedy)}"


def _reasons(reasons: Sequence[Reason]) -> str:
    rows = [
        (_severity(r.severity), r.code.value, plain(r.sentence), plain(r.remedy) or "Nothing.")
        for r in reasons[:REASONS]
    ]
    more = f"\n\n{len(reasons) - REASONS} more: see `proposer status`." if len(reasons) > REASONS else ""
    return table(("", "reason", "what is so", "what to do"), rows) + more


def _severity(severity: Severity) -> str:
    return severity.value if severity is Severity.WAITING else f"**{severity.value.upper()}**"
