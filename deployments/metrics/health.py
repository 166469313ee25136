"""Whether the process does its work: a sentence where it does not."""

import time

from deployments.claim import Claim
from flows.context import Proposer

CLAIM_SECONDS = 30.0
"""How long the ledger's database may be silent about who leads."""


def unready(proposer: Proposer, claim: Claim, most_seconds: float) -> str | None:
    """Say why this process is not doing its work, or None.

    A leader works while a cycle has succeeded within `most_seconds`, a standby while the ledger answers who leads.
    """
    if proposer.draining:
        return "stopping: nothing new is asked for, requests under way are waited for"
    if not claim.holds():
        silent = time.monotonic() - claim.answered_at
        if silent <= CLAIM_SECONDS:
            return None
        return (
            f"neither leading nor standing by: the ledger's database has not said who leads for {silent:.0f} s; "
            "check DATABASE_URL"
        )
    record = proposer.record
    since_success = time.time() - record.succeeded_at if record.succeeded_at is not None else float("inf")
    idle = min(since_success, time.monotonic() - claim.leading_since)
    if idle <= most_seconds:
        return None
    why = f"the last one failed: {record.error[:500]}" if record.error else "none has ended; see the log"
    return f"leading, and no cycle has succeeded for {idle:.0f} s: {why}"


def role(claim: Claim) -> str:
    """Say what a process that does its work does."""
    return "leading" if claim.holds() else "standing by"
