"""Every metric there is: name, type, labels and meaning. `docs/metrics.md` has the same table; a test compares them."""

from dataclasses import dataclass
from itertools import product

from flows.cycle import STAGES
from proposer.l1_transactions import Purpose, TxStatus
from proposer.reasons import SEVERITY, Code
from proposer.requests import Failure, Kind, Status

OURS = "op_succinct_proposer"
GO = "op_succinct_proposer_default"
RUST = "succinct"

KINDS = tuple((kind.value,) for kind in Kind)
ALL_STAGES = ("ValidateConfig", *STAGES)
ENDPOINTS = ("ledger", "l1", "node", "prefect", "server")


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `domain` are the label values that are always there, with NaN where they could not be read."""

    name: str
    type: str
    """gauge, counter, histogram, or untyped: a Go counter whose name has no `_total`."""
    help: str
    labels: tuple[str, ...] = ()
    domain: tuple[tuple[str, ...], ...] = ((),)


def _stages() -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in ALL_STAGES)


def _all(*values: object) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(str(one) for one in combination) for combination in product(*values))  # type: ignore[arg-type]


_OWN = (
    Metric("info", "gauge", "1, with what this proposer is.", ("name", "contract", "l1_chain", "l2_chain"), ()),
    Metric("lag_blocks", "gauge", "L2 blocks that are finalized and not settled."),
    Metric("lag_seconds", "gauge", "The same as time on L2."),
    Metric("contract_block", "gauge", "L2 block of the newest output in the contract."),
    Metric("finalized_block", "gauge", "Newest finalized L2 block, as the L2 node says now."),
    Metric("next_output_block", "gauge", "Least L2 block that the next output may have."),
    Metric("proven_block", "gauge", "L2 block up to which a gap-free chain of range proofs reaches."),
    Metric("l1_block", "gauge", "Newest L1 block."),
    Metric("l1_block_timestamp_seconds", "gauge", "Time of the newest L1 block."),
    Metric("approved", "gauge", "1 while the account is an approved proposer of the contract."),
    Metric("optimistic_mode", "gauge", "1 while the contract is in optimistic mode."),
    Metric("requests", "gauge", "Proof requests by kind and status.", ("kind", "status"), _all(Kind, Status)),
    Metric(
        "oldest_request_seconds",
        "gauge",
        "Age of the request that has had its status longest; 0 without one.",
        ("kind", "status"),
        _all(Kind, [s for s in Status if s not in {Status.FAILED, Status.RELAYED, Status.CANCELLED}]),
    ),
    Metric("orders_waiting", "gauge", "Orders of operators that no leader has carried out yet."),
    Metric("paused", "gauge", "1 while an operator's pause is in force."),
    Metric(
        "reason",
        "gauge",
        "1 while the last cycle named this reason for doing no more. NaN in a process that does not lead.",
        ("code", "severity"),
        tuple((code.value, SEVERITY[code].value) for code in Code),
    ),
    Metric("leading", "gauge", "1 while this process leads, 0 while it stands by."),
    Metric("leader_present", "gauge", "1 while any process leads."),
    Metric("leader_info", "gauge", "1, with the process that leads.", ("owner",), ()),
    Metric("leadership_epoch", "gauge", "Number of the leadership; rises with every takeover."),
    Metric("balance_ether", "gauge", "Balance of the proposer's account on L1."),
    Metric("min_balance_ether", "gauge", "MIN_BALANCE: the balance below which the proposer warns."),
    Metric("nonce", "gauge", "The account's next nonce, by what is mined."),
    Metric("pending_nonce", "gauge", "The account's next nonce, the L1 node's pool counted."),
    Metric("unsettled_transactions", "gauge", "L1 transactions not mined, or not under enough blocks."),
    Metric(
        "last_settlement_timestamp_seconds",
        "gauge",
        "When an aggregation of this ledger was last seen settled. NaN before the first.",
    ),
    Metric(
        "cycle_last_success_timestamp_seconds",
        "gauge",
        "When this process's last cycle without a failed stage ended.",
    ),
    Metric(
        "stage_last_success_timestamp_seconds",
        "gauge",
        "When a stage of this process last succeeded. NaN before the first time.",
        ("stage",),
        _stages(),
    ),
    Metric("cycle_seconds", "gauge", "How long this process's last cycle took."),
    Metric(
        "cycles_total", "counter", "Cycles of this process, by how they ended.", ("result",), (("ok",), ("failed",))
    ),
    Metric("stage_failures_total", "counter", "Stages of this process's cycles that failed.", ("stage",), _stages()),
    Metric(
        "read_failures_total",
        "counter",
        "Endpoints that this process's cycles could not read.",
        ("endpoint",),
        (("l1",), ("node",), ("server",)),
    ),
    Metric(
        "endpoint_up",
        "gauge",
        "1 where the endpoint answered this scrape; the prover server: the last cycle.",
        ("endpoint",),
        _all(ENDPOINTS),
    ),
    Metric(
        "endpoint_last_read_timestamp_seconds",
        "gauge",
        "When the endpoint last answered a scrape of this process. NaN before the first time.",
        ("endpoint",),
        _all([name for name in ENDPOINTS if name != "server"]),
    ),
    Metric(
        "attempts_failed_total",
        "counter",
        "Attempts that ended without a proof, by cause.",
        ("kind", "failure"),
        _all(Kind, Failure),
    ),
    Metric("attempts_repeated_total", "counter", "Requests that carry on a failed one.", ("kind",), KINDS),
    Metric("proofs_paid_total", "counter", "Requests that the prover network accepted.", ("kind",), KINDS),
    Metric("proofs_wasted_total", "counter", "Accepted requests that were closed without a proof.", ("kind",), KINDS),
    Metric(
        "outcomes_unknown_total",
        "counter",
        "Requests cut off before their answer, which may have been paid.",
        ("kind",),
        KINDS,
    ),
    Metric(
        "l1_transactions_total",
        "counter",
        "L1 transactions under enough blocks, by what they did and how it ended.",
        ("purpose", "status"),
        _all(Purpose, [TxStatus.CONFIRMED, TxStatus.REVERTED, TxStatus.DISPLACED]),
    ),
    Metric("l1_gas_total", "counter", "Gas of mined L1 transactions.", ("purpose",), _all(Purpose)),
    Metric(
        "l1_fees_ether_max_total",
        "counter",
        "Most ether that mined L1 transactions can have cost: gas times fee cap.",
        ("purpose",),
        _all(Purpose),
    ),
    Metric("witness_seconds", "histogram", "From the request to the server's answer.", ("kind",), KINDS),
    Metric("proving_seconds", "histogram", "From the server's answer to the proof.", ("kind",), KINDS),
    Metric("settlement_seconds", "histogram", "From planned to settled.", ("kind",), KINDS),
)

_GO = (
    Metric("info", "gauge", "1.", ("version",), ()),
    Metric("up", "gauge", "1."),
    Metric("num_proving", "gauge", "Requests in PROVING."),
    Metric("num_witness_gen", "gauge", "Requests in WITNESSGEN."),
    Metric("num_unrequested", "gauge", "Requests in UNREQ."),
    Metric("l2_finalized_block", "gauge", "As finalized_block."),
    Metric("latest_contract_l2_block", "gauge", "As contract_block."),
    Metric("highest_proven_contiguous_l2_block", "gauge", "As proven_block."),
    Metric("min_block_to_prove_to_agg", "gauge", "As next_output_block."),
    Metric(
        "error_count",
        "untyped",
        "Failed ProcessProvingRequests stages of this process.",
        ("type",),
        (("get_proof_status",),),
    ),
    Metric("prove_failures", "untyped", "Attempts that ended Unfulfillable.", ("reason",), (("unfulfillable",),)),
    Metric(
        "witness_gen_failures",
        "untyped",
        "Attempts that ended WitnessGenTimeout (Timeout) or WitnessFailed (Failed).",
        ("reason",),
        (("Timeout",), ("Failed",)),
    ),
    Metric("balance", "gauge", "As balance_ether."),
    Metric("refs_number", "gauge", "As contract_block.", ("layer", "type"), (("l2", "proposed"),)),
    Metric("txmgr_current_nonce", "gauge", "As nonce."),
    Metric("txmgr_pending_txs", "gauge", "As unsettled_transactions."),
    Metric("txmgr_basefee_wei", "gauge", "Base fee of the newest L1 block."),
    Metric("txmgr_tipcap_wei", "gauge", "Tip that the L1 node suggests."),
)

_RUST = (
    Metric("current_unrequested_proofs", "gauge", "Requests in UNREQ."),
    Metric("current_proving_proofs", "gauge", "Requests in PROVING."),
    Metric("current_witnessgen_proofs", "gauge", "Requests in WITNESSGEN."),
    Metric("current_execute_proofs", "gauge", "0: there is no such status here."),
    Metric("highest_proven_contiguous_block", "gauge", "As proven_block."),
    Metric("latest_contract_l2_block", "gauge", "As contract_block."),
    Metric("l2_unsafe_head_block", "gauge", "Newest L2 block of the L2 node."),
    Metric("l2_finalized_block", "gauge", "As finalized_block."),
    Metric("min_block_to_prove_to_agg", "gauge", "As next_output_block."),
    Metric("proof_request_retry_count", "gauge", "As attempts_repeated_total, both kinds."),
    Metric("total_error_count", "gauge", "Failed attempts, and failed stages of this process."),
    Metric("proof_request_timeout_error_count", "gauge", "Attempts that ended ProofTimeout."),
    Metric("retry_error_count", "gauge", "0: a failure and what carries on are one write."),
    Metric(
        "witnessgen_error_count", "gauge", "Attempts that ended WitnessFailed, WitnessGenTimeout or OutcomeUnknown."
    ),
    Metric("execution_error_count", "gauge", "Attempts that ended Unexecutable."),
    Metric("range_proof_request_error_count", "gauge", "As witnessgen_error_count, ranges only."),
    Metric("agg_proof_request_error_count", "gauge", "As witnessgen_error_count, aggregations only."),
    Metric("agg_proof_validation_error_count", "gauge", "Attempts that ended RefusedInSimulation or NotAggregatable."),
    Metric("relay_agg_proof_error_count", "gauge", "Reverted proposals, and attempts that ended RefusedByContract."),
    Metric("network_call_timeout_count", "gauge", "As read_failures_total, all endpoints."),
)


def _named(prefix: str, metrics: tuple[Metric, ...]) -> dict[str, Metric]:
    named = (Metric(f"{prefix}_{m.name}", m.type, m.help, m.labels, m.domain) for m in metrics)
    return {metric.name: metric for metric in named}


CATALOGUE = _named(OURS, _OWN) | _named(GO, _GO) | _named(RUST, _RUST)
"""Every metric by its full name; beside these the endpoint has the standard `process_*`."""
