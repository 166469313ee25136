"""Judge a run by what cannot lie: the chain, the server's own log and, if given, the ledger's rows.

Nothing here asks the proposer. Each rule is one function that returns sentences, one per violation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from infra.devnet.ledger_rows import Ledger, read_ledger
from infra.devnet.log import read_log
from infra.devnet.payments import check_losses, check_payments
from infra.devnet.report import Report
from infra.devnet.rpc import Rpc, calldata

Event = dict[str, Any]

# Topics of section 5.1: keccak256 of the event's signature.
OUTPUT_PROPOSED = "0xa7aaf2512769da4e444e3de247be2564225c2e7a8f74cfe528e46e17d24868e2"
OUTPUTS_DELETED = "0x4ee37ac2c786ec85e87592d3c5c8a1dd66f8496dda3f125d9ea8ca5f657629b6"
CHECKPOINT_SELECTOR = "0x1e856800"
PROPOSE_SELECTOR = calldata("proposeL2Output(bytes32,uint256,uint256,bytes)", bytes(32), 0, 0, b"")[:10]
_BATCH = 200


@dataclass(frozen=True)
class Proposed:
    """An output that was proposed, by anyone."""

    index: int
    root: str
    l2_block: int
    sender: str
    l1_block: int


@dataclass(frozen=True)
class Deleted:
    """Outputs that were deleted: those from ``next_index`` on."""

    next_index: int
    l1_block: int


@dataclass(frozen=True)
class Mined:
    """A transaction of the proposer that is in a block."""

    hash: str
    nonce: int
    l1_block: int
    data: str
    succeeded: bool
    gas_used: int

    def __str__(self) -> str:
        return f"transaction {self.hash} (nonce {self.nonce})"

    @property
    def checkpointed(self) -> int | None:
        """The L1 block it checkpoints, if it is a checkpoint."""
        return self._word(0) if self.data.startswith(CHECKPOINT_SELECTOR) else None

    @property
    def proposed(self) -> int | None:
        """The L2 block it proposes, if it is a proposal."""
        return self._word(1) if self.data.startswith(PROPOSE_SELECTOR) else None

    def _word(self, index: int) -> int:
        first = len(CHECKPOINT_SELECTOR) + 64 * index
        return int(self.data[first : first + 64], 16)


@dataclass
class Chain:
    """What the checker read from L1; both lists are in the chain's order."""

    starting_block: int
    events: list[Proposed | Deleted]
    transactions: list[Mined]


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
    ``ledger_url`` a PostgreSQL URL with the proposer's tables.
    """
    events = read_log(log) if isinstance(log, Path) else log
    async with Rpc(l1_rpc) as rpc:
        chain = await read_chain(rpc, oracle, proposer)
    ledger = await read_ledger(ledger_url) if ledger_url else None
    report = Report(l2_block_settled=chain.starting_block)
    settled = check_outputs(chain, output_root, report)
    check_transactions(chain, proposer.lower(), ledger, report)
    check_payments(events, [end for _, end, _ in settled], ledger, report)
    if ledger is not None:
        ours = [(start, end) for start, end, sender in settled if sender == proposer.lower()]
        report.violations += check_ledger(ledger, events, ours)
        lost = check_losses(events, ledger, report.l2_block_settled)
        report.proofs_lost = len(lost)
        report.violations += lost
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
                if transaction["from"].lower() == proposer.lower():
                    ours.append(transaction)
    receipts: list[Event] = []
    for first in range(0, len(ours), _BATCH):
        batch = ours[first : first + _BATCH]
        receipts += await rpc.batch([("eth_getTransactionReceipt", [transaction["hash"]]) for transaction in batch])
    events: list[Proposed | Deleted] = []
    for entry in logs:
        topics, l1_block = entry["topics"], int(entry["blockNumber"], 16)
        if topics[0] == OUTPUT_PROPOSED:
            sender = senders.get(entry["transactionHash"], "")
            events.append(Proposed(int(topics[2], 16), topics[1], int(topics[3], 16), sender, l1_block))
        else:
            events.append(Deleted(int(topics[2], 16), l1_block))
    return Chain(starting, events, [_mined(*both) for both in zip(ours, receipts, strict=True)])


def _mined(transaction: Event, receipt: Event) -> Mined:
    return Mined(
        hash=transaction["hash"],
        nonce=int(transaction["nonce"], 16),
        l1_block=int(receipt["blockNumber"], 16),
        data=transaction["input"],
        succeeded=receipt["status"] == "0x1",
        gas_used=int(receipt["gasUsed"], 16),
    )


def check_outputs(chain: Chain, output_root: Callable[[int], bytes], report: Report) -> list[tuple[int, int, str]]:
    """Replay the outputs and return (start, end, sender) of each ever: no hole, blocks rising, roots right."""
    blocks = [chain.starting_block]
    ever: list[tuple[int, int, str]] = []
    for event in chain.events:
        if isinstance(event, Deleted):
            del blocks[event.next_index :]
            continue
        if event.index != len(blocks):
            report.violations.append(f"output {event.index} follows output {len(blocks) - 1}")
        if blocks and event.l2_block <= blocks[-1]:
            report.violations.append(f"output {event.index} is for block {event.l2_block}, not above {blocks[-1]}")
        if event.root != "0x" + output_root(event.l2_block).hex():
            report.violations.append(f"output {event.index} has a wrong root for block {event.l2_block}")
        ever.append((blocks[-1] if blocks else chain.starting_block, event.l2_block, event.sender))
        blocks.append(event.l2_block)
    report.outputs_settled = max(0, len(blocks) - 1)
    report.l2_block_settled = blocks[-1] if blocks else chain.starting_block
    return ever


def check_transactions(chain: Chain, proposer: str, ledger: Ledger | None, report: Report) -> None:
    """Check the proposer's transactions: none reverted, none did again what one had done, each in the journal."""
    checkpoints: set[int] = set()
    proposals: dict[int, Mined] = {}
    for tx in chain.transactions:
        report.l1_transactions += 1
        report.gas_used += tx.gas_used
        lost_race = not tx.succeeded and _lost_race(chain, proposer, tx)
        if lost_race:
            report.lost_races.append(str(tx))
        elif not tx.succeeded:
            report.reverted_transactions += 1
            report.violations.append(f"{tx} reverted")
        if tx.checkpointed is not None:
            if tx.checkpointed in checkpoints:
                _twice(report, f"{tx} checkpoints a block a second time")
            checkpoints.add(tx.checkpointed)
        if tx.proposed is not None and not lost_race:
            earlier = proposals.get(tx.proposed)
            if earlier is not None and not _deleted_between(chain, earlier.l1_block, tx.l1_block):
                _twice(report, f"{tx} proposes block {tx.proposed} a second time")
            proposals[tx.proposed] = tx
        if ledger is not None and tx.hash.removeprefix("0x") not in ledger.hashes:
            _twice(report, f"{tx} is not in l1_transactions")
    live: set[int] = set()
    for row in ledger.transactions if ledger is not None else ():
        if row.is_displaced:
            continue
        if row.nonce in live:
            _twice(report, f"nonce {row.nonce} has two live rows in l1_transactions")
        live.add(row.nonce)


def _twice(report: Report, violation: str) -> None:
    report.duplicate_transactions += 1
    report.violations.append(violation)


def _lost_race(chain: Chain, proposer: str, tx: Mined) -> bool:
    """Say whether a proposal met a head that somebody else had moved in the same or the previous L1 block."""
    return tx.proposed is not None and any(
        tx.l1_block - 1 <= event.l1_block <= tx.l1_block
        for event in chain.events
        if isinstance(event, Deleted) or event.sender != proposer
    )


def _deleted_between(chain: Chain, first: int, last: int) -> bool:
    return any(isinstance(event, Deleted) and first <= event.l1_block <= last for event in chain.events)


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
        if row.kind == "RANGE" and row.is_proven:
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
