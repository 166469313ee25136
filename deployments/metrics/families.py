"""From what was read to Prometheus's text. What could not be read is NaN, never the number of before."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from blocks.ledger.figures import LIVE, Figures
from blocks.ledger.totals import BOUNDS, Durations, Totals
from deployments.metrics.catalogue import ALL_STAGES, CATALOGUE, GO, OURS, RUST, Metric
from deployments.metrics.sources import Account, Seen
from flows.record import Record
from proposer.l1_transactions import UNSETTLED, Purpose, TxStatus
from proposer.ranges import BlockRange
from proposer.requests import Failure, Kind, Status
from proposer.snapshot import OracleView, next_required
from proposer.units import ETHER

VERSION = "0.1.0"
STALE_SECONDS = 60.0
"""Beyond three poll intervals, the age at which a cycle's findings are no longer told."""

Values = dict[str, dict[tuple[str, ...], float]]
_WITNESS = (Failure.WITNESS_FAILED, Failure.WITNESS_TIMEOUT, Failure.OUTCOME_UNKNOWN)
_UNKNOWN = (Failure.WITNESS_TIMEOUT, Failure.OUTCOME_UNKNOWN)

_PROCESS = CollectorRegistry()
ProcessCollector(registry=_PROCESS)


def text_of(seen: Seen) -> bytes:
    """Write the exposition in the text format that every Prometheus reads."""
    return generate_latest(_Collected(list(families(seen)))) + process_text()


def process_text() -> bytes:
    """Write the standard metrics of this process: memory, CPU, files."""
    return generate_latest(_PROCESS)


class _Collected(Collector):
    def __init__(self, found: list[Family]) -> None:
        self._found = found

    def collect(self) -> Iterable[Family]:
        """Return the families."""
        return self._found


def families(seen: Seen) -> Iterator[Family]:
    """Return every metric of the catalogue."""
    values = _values(seen)
    totals = seen.figures.totals if seen.figures else None
    for metric in CATALOGUE.values():
        if metric.type == "histogram":
            yield _histogram(metric, totals)
            continue
        known = values.get(metric.name, {})
        samples = {**dict.fromkeys(metric.domain, math.nan), **known}
        yield _family(metric, samples)


def _family(metric: Metric, samples: Mapping[tuple[str, ...], float]) -> Family:
    if metric.type == "counter":
        counter = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in samples.items():
            counter.add_metric(labels, value)
        return counter
    family = Family(metric.name, metric.help, metric.type)
    for labels, value in samples.items():
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    return family


def _histogram(metric: Metric, totals: Totals | None) -> Family:
    phase = metric.name.removeprefix(f"{OURS}_").removesuffix("_seconds")
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    names = [*(f"{bound:.1f}" for bound in BOUNDS), "+Inf"]
    for (kind,) in metric.domain:
        took = totals.durations(phase, kind) if totals else Durations((0,) * len(names), math.nan)
        counts = [float(n) if totals else math.nan for n in accumulate(took.buckets)]
        family.add_metric([kind], list(zip(names, counts, strict=True)), took.seconds)
    return family


def _values(seen: Seen) -> Values:
    values: Values = {}
    ours = _one(seen.settings.min_balance_ether, "min_balance_ether")
    identity = seen.identity
    labels = (seen.name, identity.contract, str(identity.l1_chain_id), str(identity.l2_chain_id))
    values |= {f"{OURS}_info": {labels: 1}, f"{GO}_info": {(VERSION,): 1}, f"{GO}_up": {(): 1}}
    values |= ours | _one(seen.leading, "leading") | _endpoints(seen) | _process(seen)
    if seen.oracle is not None:
        values |= _chain(seen, seen.oracle)
    if seen.account is not None:
        values |= _account(seen.account)
    if seen.node is not None and seen.node.finalized > 0:  # 0 while it starts
        names = ("finalized_block", f"{GO}_l2_finalized_block", f"{RUST}_l2_finalized_block")
        values |= _one(seen.node.finalized, *names) | _one(seen.node.unsafe, f"{RUST}_l2_unsafe_head_block")
    if seen.figures is not None:
        values |= _ledger(seen.figures)
        if seen.figures.totals is not None:
            values |= _totals(seen.figures.totals, seen.record)
    return values


def _one(value: float, *names: str) -> Values:
    """Give one value to metrics without labels; a name without its prefix is one of ours."""
    return {name if name in CATALOGUE else f"{OURS}_{name}": {(): float(value)} for name in names}


def _filled(name: str, known: Mapping[tuple[str, ...], float]) -> Values:
    """Give values to a metric with labels, 0 where there is none."""
    full = name if name in CATALOGUE else f"{OURS}_{name}"
    return {full: {labels: float(known.get(labels, 0)) for labels in CATALOGUE[full].domain}}


def _endpoints(seen: Seen) -> Values:
    up: dict[tuple[str, ...], float] = {
        ("ledger",): seen.figures is not None,
        ("l1",): seen.oracle is not None,
        ("node",): seen.node is not None,
        ("prefect",): seen.prefect,
    }
    if _is_fresh(seen) and seen.record.server_answers is not None:
        up["server",] = seen.record.server_answers
    read_at = {(name,): at for name, at in seen.read_at.items()}
    return {f"{OURS}_endpoint_up": up, f"{OURS}_endpoint_last_read_timestamp_seconds": read_at}


def _is_fresh(seen: Seen) -> bool:
    """Whether this process leads and what its last cycle saw is not too old to be told."""
    ended_at = seen.record.ended_at
    most = STALE_SECONDS + 3 * seen.settings.poll_interval
    return seen.leading and ended_at is not None and time.time() - ended_at < most


def _process(seen: Seen) -> Values:
    record = seen.record
    values = (
        _filled("cycles_total", {("ok",): record.succeeded, ("failed",): record.failed})
        | _filled("stage_failures_total", {(name,): record.stage_failures[name] for name in ALL_STAGES})
        | _filled("read_failures_total", {(name,): many for name, many in record.unread.items()})
        | _filled(f"{GO}_error_count", {("get_proof_status",): record.stage_failures["ProcessProvingRequests"]})
        | _one(record.unread.total(), f"{RUST}_network_call_timeout_count")
        | _one(0, f"{RUST}_current_execute_proofs", f"{RUST}_retry_error_count")
        | {f"{OURS}_stage_last_success_timestamp_seconds": {(n,): t for n, t in record.stage_succeeded_at.items()}}
    )
    if record.succeeded_at is not None:
        values |= _one(record.succeeded_at, "cycle_last_success_timestamp_seconds")
    if record.seconds is not None:
        values |= _one(record.seconds, "cycle_seconds")
    if _is_fresh(seen):
        values |= _filled("reason", {(r.code.value, r.severity.value): 1 for r in record.reasons})
    return values


def _chain(seen: Seen, oracle: OracleView) -> Values:
    head = oracle.latest_block
    contract = ("contract_block", f"{GO}_latest_contract_l2_block", f"{RUST}_latest_contract_l2_block")
    output = ("next_output_block", f"{GO}_min_block_to_prove_to_agg", f"{RUST}_min_block_to_prove_to_agg")
    values = (
        _one(head, *contract)
        | _filled(f"{GO}_refs_number", {("l2", "proposed"): head})
        | _one(next_required(head, seen.settings, oracle), *output)
        | _one(oracle.at.number, "l1_block")
        | _one(oracle.at.timestamp, "l1_block_timestamp_seconds")
        | _one(oracle.approved, "approved")
        | _one(oracle.optimistic, "optimistic_mode")
    )
    if oracle.balance is not None:
        values |= _one(oracle.balance / ETHER, "balance_ether", f"{GO}_balance")
    if seen.node is not None and seen.node.finalized > 0:
        lag = max(0, seen.node.finalized - head)
        values |= _one(lag, "lag_blocks")
        if seen.block_seconds is not None:
            values |= _one(lag * seen.block_seconds, "lag_seconds")
    if seen.figures is not None:
        proven = ("proven_block", f"{GO}_highest_proven_contiguous_l2_block", f"{RUST}_highest_proven_contiguous_block")
        values |= _one(_reach(head, seen.figures.proven), *proven)
    return values


def _reach(head: int, proven: Iterable[BlockRange]) -> int:
    """The furthest block that a gap-free chain of proofs leads to from the contract's head."""
    reached = {head}
    for span in sorted(proven):  # by start: whatever leads to a block comes before what goes on from it
        if span.start in reached:
            reached.add(span.end)
    return max(reached)


def _account(account: Account) -> Values:
    return (
        _one(account.nonce, "nonce", f"{GO}_txmgr_current_nonce")
        | _one(account.pending_nonce, "pending_nonce")
        | _one(account.base_fee, f"{GO}_txmgr_basefee_wei")
        | _one(account.tip, f"{GO}_txmgr_tipcap_wei")
    )


def _ledger(figures: Figures) -> Values:
    live = {(kind.value, status.value): held.count for (kind, status), held in figures.live.items()}
    ages = {(kind.value, status.value): held.oldest_seconds for (kind, status), held in figures.live.items()}
    by_status = Counter[Status]()
    for (_, status), held in figures.live.items():
        by_status[status] += held.count
    requests = _filled("requests", live)
    if figures.totals is None:
        closed = [(kind.value, status.value) for kind in Kind for status in Status if status not in LIVE]
        requests[f"{OURS}_requests"] |= dict.fromkeys(closed, math.nan)
    else:
        requests[f"{OURS}_requests"] |= {
            (kind.value, status.value): float(figures.totals.closed(kind.value, status.value))
            for kind in Kind
            for status in Status
            if status not in LIVE
        }
    leadership = figures.leadership
    owner: Values = {f"{OURS}_leader_info": {(leadership.owner,): 1}} if leadership.owner else {}
    return (
        requests
        | owner
        | _filled("oldest_request_seconds", ages)
        | _one(by_status[Status.PROVING], f"{GO}_num_proving", f"{RUST}_current_proving_proofs")
        | _one(by_status[Status.WITNESSGEN], f"{GO}_num_witness_gen", f"{RUST}_current_witnessgen_proofs")
        | _one(by_status[Status.UNREQ], f"{GO}_num_unrequested", f"{RUST}_current_unrequested_proofs")
        | _one(figures.orders, "orders_waiting")
        | _one(figures.paused, "paused")
        | _one(leadership.owner is not None, "leader_present")
        | _one(leadership.epoch, "leadership_epoch")
        | _one(figures.unsettled, "unsettled_transactions", f"{GO}_txmgr_pending_txs")
    )


def _totals(totals: Totals, record: Record) -> Values:
    sums, failures = totals.sums, totals.failures
    by_kind = [kind.value for kind in Kind]
    witness = {kind: failures(*_WITNESS, kind=kind) for kind in by_kind}
    reverted = sums["transactions", Purpose.PROPOSE.value, TxStatus.REVERTED.value]
    repeated = {(kind,): sums["again", kind] for kind in by_kind}
    purposes = [purpose.value for purpose in Purpose]
    values = (
        _filled("attempts_failed_total", {(k, f.value): failures(f, kind=k) for k in by_kind for f in Failure})
        | _filled("attempts_repeated_total", repeated)
        | _filled("proofs_paid_total", {(kind,): sums["paid", kind] for kind in by_kind})
        | _filled("proofs_wasted_total", {(kind,): sums["wasted", kind] for kind in by_kind})
        | _filled("outcomes_unknown_total", {(kind,): failures(*_UNKNOWN, kind=kind) for kind in by_kind})
        | _filled(
            "l1_transactions_total",
            {(p, s.value): sums["transactions", p, s.value] for p in purposes for s in set(TxStatus) - UNSETTLED},
        )
        | _filled("l1_gas_total", {(purpose,): sums["gas", purpose] for purpose in purposes})
        | _filled("l1_fees_ether_max_total", {(purpose,): sums["most", purpose] / ETHER for purpose in purposes})
        | _filled(f"{GO}_prove_failures", {("unfulfillable",): failures(Failure.UNFULFILLABLE)})
        | _filled(
            f"{GO}_witness_gen_failures",
            {("Timeout",): failures(Failure.WITNESS_TIMEOUT), ("Failed",): failures(Failure.WITNESS_FAILED)},
        )
        | _one(sum(repeated.values()), f"{RUST}_proof_request_retry_count")
        | _one(failures(*Failure) + record.stage_failures.total(), f"{RUST}_total_error_count")
        | _one(failures(Failure.PROOF_TIMEOUT), f"{RUST}_proof_request_timeout_error_count")
        | _one(sum(witness.values()), f"{RUST}_witnessgen_error_count")
        | _one(failures(Failure.UNEXECUTABLE), f"{RUST}_execution_error_count")
        | _one(witness[Kind.RANGE.value], f"{RUST}_range_proof_request_error_count")
        | _one(witness[Kind.AGG.value], f"{RUST}_agg_proof_request_error_count")
        | _one(
            failures(Failure.REFUSED_IN_SIMULATION, Failure.NOT_AGGREGATABLE),
            f"{RUST}_agg_proof_validation_error_count",
        )
        | _one(reverted + failures(Failure.REFUSED_BY_CONTRACT), f"{RUST}_relay_agg_proof_error_count")
    )
    settled = totals.last.get((Kind.AGG.value, Status.RELAYED.value))
    return values | (_one(settled, "last_settlement_timestamp_seconds") if settled else {})
