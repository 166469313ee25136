"""Judge a run by what cannot lie: the chain, the server's own log and, if given, the ledger's rows.

Nothing here asks the proposer. Each rule is one function that returns sentences, one per violation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from infra.devnet.ledger_rows import Ledger, read_ledger
from infra.devnet.log import read_log
from infra.devnet.rpc import Rpc, calldata

Event = dict[str, Any]

# Topics of section 5.1: keccak256 of the event's signature.
OUTPUT_PROPOSED = "0xa7aaf2512769da4e444e3de247be2564225c2e7a8f74cfe528e46e17d24868e2"
OUTPUTS_DELETED = "0x4ee37ac2c786ec85e87592d3c5c8a1dd66f8496dda3f125d9ea8ca5f657629b6"
CHECKPOINT_SELECTOR = "0x1e856800"
# After one of these a paid proof is worth nothing any more, and asking again is right.
_ENDED = {"unfulfillable", "unexecutable", "expired", "unknown_id"}
_BATCH = 200


@dataclass
class Report:
    """What a run came to; ``violations`` is empty when every promise was kept."""

    outputs_settled: int = 0
    l2_block_settled: int = 0
    proof_requests: int = 0
    l1_transactions: int = 0
    reverted_transactions: int = 0
    duplicates: int = 0
    unknown_outcomes: int = 0
    gas_used: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Say whether nothing was violated."""
        return not self.violations


@dataclass
class Chain:
    """What the checker read from L1."""

    starting_block: int
    # (event name, index, root, L2 block, sender) of OutputProposed; (name, new next index) of OutputsDeleted.
    events: list[tuple[Any, ...]]
    # The proposer's transactions to the oracle with their receipts, by block.
    transactions: list[tuple[Event, Event]]


async def check(
    *,
    l1_rpc: str,
    oracle: str,
    proposer: str,
    output_root: Callable[[int], bytes],
    log: Path | list[Event],
    ledger_url: str | None = None,
) -> Report:
    """Check a run and return the report.

    ``output_root`` gives the right root of an L2 block, ``log`` is the server's log (a path or its events), and
    ``ledger_url`` a PostgreSQL URL with the tables ``proof_requests`` and ``l1_transactions``.
    """
    events = read_log(log) if isinstance(log, Path) else log
    async with Rpc(l1_rpc) as rpc:
        chain = await read_chain(rpc, oracle, proposer)
    ledger = await read_ledger(ledger_url) if ledger_url else None
    report = Report(l2_block_settled=chain.starting_block)
    settled = check_outputs(chain, output_root, report)
    check_transactions(chain, ledger, report)
    check_payments(events, [end for _, end, _ in settled], ledger, report)
    if ledger is not None:
        ours = [(start, end) for start, end, sender in settled if sender == proposer.lower()]
        report.violations += check_ledger(ledger, events, ours)
    return report


async def read_chain(rpc: Rpc, oracle: str, proposer: str) -> Chain:
    """Read the oracle's events and the proposer's transactions from every L1 block."""
    head = await rpc.block_number()
    starting = int.from_bytes(await rpc.eth_call(oracle, calldata("startingBlockNumber()")), "big")
    query = {
        "address": oracle,
        "fromBlock": "0x0",
        "toBlock": hex(head),
        "topics": [[OUTPUT_PROPOSED, OUTPUTS_DELETED]],
    }
    logs = await rpc.call("eth_getLogs", query)
    senders: dict[str, str] = {}
    ours: list[Event] = []
    for first in range(0, head + 1, _BATCH):
        numbers = range(first, min(first + _BATCH, head + 1))
        for block in await rpc.batch([("eth_getBlockByNumber", [hex(number), True]) for number in numbers]):
            for transaction in block["transactions"]:
                senders[transaction["hash"]] = transaction["from"].lower()
                to = (transaction["to"] or "").lower()
                if transaction["from"].lower() == proposer.lower() and to == oracle.lower():
                    ours.append(transaction)
    receipts: list[Event] = []
    for first in range(0, len(ours), _BATCH):
        batch = ours[first : first + _BATCH]
        receipts += await rpc.batch([("eth_getTransactionReceipt", [transaction["hash"]]) for transaction in batch])
    events: list[tuple[Any, ...]] = []
    for entry in logs:
        topics = entry["topics"]
        if topics[0] == OUTPUT_PROPOSED:
            sender = senders.get(entry["transactionHash"], "")
            events.append(("proposed", int(topics[2], 16), topics[1], int(topics[3], 16), sender))
        else:
            events.append(("deleted", int(topics[2], 16)))
    return Chain(starting, events, list(zip(ours, receipts, strict=True)))


def check_outputs(chain: Chain, output_root: Callable[[int], bytes], report: Report) -> list[tuple[int, int, str]]:
    """Replay the outputs and return (start, end, sender) of each ever: no hole, blocks rising, roots right."""
    blocks = [chain.starting_block]
    ever: list[tuple[int, int, str]] = []
    for event in chain.events:
        if event[0] == "deleted":
            del blocks[event[1] :]
            continue
        _, index, root, block, sender = event
        if index != len(blocks):
            report.violations.append(f"output {index} follows output {len(blocks) - 1}")
        if blocks and block <= blocks[-1]:
            report.violations.append(f"output {index} is for block {block}, not above {blocks[-1]}")
        if root != "0x" + output_root(block).hex():
            report.violations.append(f"output {index} has a wrong root for block {block}")
        ever.append((blocks[-1] if blocks else chain.starting_block, block, sender))
        blocks.append(block)
    report.outputs_settled = max(0, len(blocks) - 1)
    report.l2_block_settled = blocks[-1] if blocks else chain.starting_block
    return ever


def check_transactions(chain: Chain, ledger: Ledger | None, report: Report) -> None:
    """Check the proposer's transactions: none reverted, no block checkpointed twice, each in the ledger's journal."""
    checkpoints: set[str] = set()
    for transaction, receipt in chain.transactions:
        report.l1_transactions += 1
        report.gas_used += int(receipt["gasUsed"], 16)
        where = f"{transaction['hash']} (nonce {int(transaction['nonce'], 16)})"
        if receipt["status"] != "0x1":
            report.reverted_transactions += 1
            report.violations.append(f"transaction {where} reverted")
        if transaction["input"].startswith(CHECKPOINT_SELECTOR):
            if transaction["input"] in checkpoints:
                report.violations.append(f"transaction {where} checkpoints a block a second time")
            checkpoints.add(transaction["input"])
        if ledger is not None and int(transaction["nonce"], 16) not in ledger.nonces:
            report.violations.append(f"transaction {where} is not in l1_transactions")


def check_payments(events: list[Event], settled: list[int], ledger: Ledger | None, report: Report) -> None:
    """Check that no proof was paid while a live one for the same blocks existed.

    Paying again is right when the earlier proof had ended without use, when its answer was lost on the way (an unknown
    outcome: the POST was cut off, or the ledger never got its id), or when an output settled inside of it.
    """
    paid = sorted((event for event in events if event["event"] == "paid"), key=lambda event: event["time"])
    report.proof_requests = len(paid)
    answered = {event["proof_id"] for event in events if event["event"] == "answered"}
    ended = {
        event["proof_id"]: event["time"]
        for event in reversed(events)
        if event["event"] in _ENDED or (event["event"] == "fulfilled" and event["fault"] == "empty_proof")
    }
    lost = {event["proof_id"] for event in paid if event["proof_id"] not in answered}
    if ledger is not None:
        lost |= {event["proof_id"] for event in paid if event["proof_id"] not in ledger.proof_ids}
    unknown: set[str] = set()
    for later_index, later in enumerate(paid):
        for earlier in paid[:later_index]:
            if not _same_work(earlier, later) or ended.get(earlier["proof_id"], later["time"]) < later["time"]:
                continue
            if any(earlier["start"] < block < earlier["end"] and later["start"] >= block for block in settled):
                continue
            if earlier["proof_id"] in lost:
                unknown.add(earlier["proof_id"])
                continue
            report.duplicates += 1
            report.violations.append(
                f"{later['kind']} {later['start']}-{later['end']} was paid ({later['proof_id'][:8]}) while "
                f"{earlier['start']}-{earlier['end']} ({earlier['proof_id'][:8]}) was live"
            )
    report.unknown_outcomes = len(unknown)


def _same_work(earlier: Event, later: Event) -> bool:
    if earlier["kind"] != later["kind"]:
        return False
    if earlier["kind"] == "range":
        return bool(earlier["start"] < later["end"] and later["start"] < earlier["end"])
    return all(earlier.get(key) == later.get(key) for key in ("start", "end", "head"))


def check_ledger(ledger: Ledger, events: list[Event], settled: list[tuple[int, int]]) -> list[str]:
    """Check the ledger's rows against the log and the chain's (start, end) of each output the proposer settled."""
    known = {event["proof_id"] for event in events if event["event"] == "paid"}
    violations = [
        f"request {row.id} has a proof id the server never gave: {row.prover_request_id[:16]}"
        for row in ledger.requests
        if row.prover_request_id and row.prover_request_id not in known
    ]
    open_ranges = sorted((row.start, row.end, row.id) for row in ledger.requests if row.kind == "RANGE" and row.is_open)
    for (_, end, first), (start, _, second) in pairwise(open_ranges):
        if start < end:
            violations.append(f"open ranges {first} and {second} overlap")
    steps: dict[int, set[int]] = {}
    for row in ledger.requests:
        if row.kind == "RANGE" and row.status in {"COMPLETE", "RELAYED"}:
            steps.setdefault(row.start, set()).add(row.end)
    violations += [
        f"no chain of proven ranges leads from {start} to {end}, which was settled"
        for start, end in settled
        if not _reaches(steps, start, end)
    ]
    return violations


def _reaches(steps: dict[int, set[int]], start: int, end: int) -> bool:
    seen, todo = {start}, [start]
    while todo:
        here = todo.pop()
        if here == end:
            return True
        ahead = {block for block in steps.get(here, set()) if block <= end} - seen
        seen |= ahead
        todo += ahead
    return False
