"""Checks of the ledger: its database, whose it is, who leads, and what waits for an operator."""

import time
from datetime import UTC, datetime

from deployments.checks.bench import Bench, Check, Found, error, ok, warning
from deployments.desk import schema_problem
from proposer.reasons import Code
from proposer.requests import Status

SKEW_SECONDS = 5.0
WAITING_SECONDS = 15.0
_NO_COVERAGE = 2**62  # a head above every block: only what is open is read


async def check_ledger_database(bench: Bench) -> Found:
    """The ledger's database answers, and its schema is this version's."""
    if not bench.is_open:
        return error(bench.why, "Nothing is lost: what was asked and paid is in there. See docs/troubleshooting.md.")
    started = time.monotonic()
    problem = schema_problem(await bench.proposer.ledger.revision())
    took = time.monotonic() - started
    return (
        error(problem, "Start proposer up of this version.") if problem else ok(f"it answers in {took * 1000:.0f} ms")
    )


async def check_ledger_identity(bench: Bench) -> Found:
    """The ledger belongs to this contract and these chains."""
    proposer = bench.proposer
    known = await proposer.ledger.identity()
    if known is None:
        return warning("it belongs to no contract yet", "Start proposer up once: it claims an empty ledger.")
    config = await proposer.node.rollup_config()
    here = (await proposer.l1.chain_id(), config.l2_chain_id, proposer.oracle.address.lower())
    if here != (known.l1_chain_id, known.l2_chain_id, known.contract):
        return error(
            f"it belongs to {known}; the settings lead to contract {here[2]} on L1 chain {here[0]}, L2 chain {here[1]}",
            "Set DATABASE_URL or PROPOSER_HOME to its ledger, or correct L1_RPC, L2_NODE_RPC and L2OO_ADDRESS.",
        )
    return ok(str(known))


async def check_leader(bench: Bench) -> Found:
    """A proposer process leads."""
    leader = await bench.proposer.ledger.leader()
    if leader is not None and leader.leads:
        return ok(f"{leader.owner} since {leader.since:%Y-%m-%d %H:%M:%S} UTC, epoch {leader.epoch}")
    last = f"; {leader.owner} led until {leader.until:%Y-%m-%d %H:%M:%S} UTC" if leader is not None else ""
    return error(f"nobody leads{last}", "Start one: proposer up. If one runs, look at its log.")


async def check_clock_of_database(bench: Bench) -> Found:
    """The clock of this machine agrees with the ledger database's."""
    before = datetime.now(UTC)
    theirs = await bench.proposer.ledger.now()
    after = datetime.now(UTC)
    skew = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    if skew > SKEW_SECONDS:
        return warning(
            f"they differ by {skew:.0f} s", "Synchronise both clocks (NTP): ages and L1's lag are told by them."
        )
    return ok("within a few seconds")


async def check_orders(bench: Bench) -> Found:
    """No operator's order waits to be carried out."""
    ledger = bench.proposer.ledger
    now = await ledger.now()
    waiting = await ledger.orders_to_do()
    late = [order for order in waiting if (now - order.at).total_seconds() > WAITING_SECONDS]
    if late:
        first = late[0]
        named = f"{first.kind.value}{f' {first.request}' if first.request else ''} by {first.who}"
        return warning(
            f"{len(late)} wait, the oldest {(now - first.at).total_seconds():.0f} s ({named})",
            "A leading process carries them out within a second: see the check of the leader and its log.",
        )
    return ok("none")


async def check_pause(bench: Bench) -> Found:
    """The proposer is not paused."""
    paused = await bench.proposer.ledger.paused()
    if paused is not None:
        return warning(f"paused by {paused.who} at {paused.at:%Y-%m-%d %H:%M} UTC: {paused.why}", "proposer resume")
    return ok("it is not")


async def check_parked(bench: Bench) -> Found:
    """No request is parked."""
    view = await bench.proposer.ledger.view(_NO_COVERAGE)
    parked = [r for r in view.requests if r.status is Status.PARKED]
    if parked:
        named = "; ".join(f"{r}: {r.failure_text or 'out of attempts'}" for r in parked[:5])
        more = f" and {len(parked) - 5} more" if len(parked) > 5 else ""
        return error(f"{len(parked)} parked: {named}{more}", "Repair the cause, then: proposer retry NUMBER.")
    return ok("none")


async def check_stuck_transactions(bench: Bench) -> Found:
    """Nothing keeps transactions from being sent and mined."""
    return await bench.by_reason(
        "nothing does",
        Code.FEE_CAP,
        Code.CANNOT_PAY,
        Code.KEY_CHANGED,
        Code.PROPOSAL_REVERTS,
        Code.CHECKPOINT_REVERTS,
        Code.ROOT_CHANGED,
    )


CHECKS: tuple[Check, ...] = (
    check_ledger_database,
    check_ledger_identity,
    check_leader,
    check_clock_of_database,
    check_orders,
    check_pause,
    check_parked,
    check_stuck_transactions,
)
