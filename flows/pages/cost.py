"""The cost page: what was paid for since the ledger began, and what of it was of no use."""

from datetime import datetime

from blocks.ledger.totals import Totals
from flows.pages.text import paragraphs, table, utc
from proposer.l1_transactions import UNSETTLED, Purpose, TxStatus
from proposer.requests import Failure, Kind
from proposer.units import ETHER

_NAMES = {Kind.RANGE: "range", Kind.AGG: "aggregation"}
_WHAT = {
    Purpose.CHECKPOINT: "checkpoint of an L1 block",
    Purpose.PROPOSE: "propose an output",
    Purpose.CANCEL: "cancel (a nonce used up by nothing)",
}


def cost_page(totals: Totals, now: datetime) -> str:
    """Say what proofs and transactions have cost."""
    return paragraphs(
        f"Since the ledger began, as of {utc(now)}.",
        "## Proofs",
        _proofs(totals),
        "**Paid**: accepted by the prover network. **Again**: carries on a failed one. **Wasted**: paid, and ended "
        "without a proof, or no longer of use when it came. **Outcome unknown**: cut off before the answer, may have "
        "been paid. What the network charges is in its own account: nobody tells the proposer.",
        "## Failed attempts",
        _failures(totals) or "None.",
        "## L1 transactions",
        _transactions(totals),
        "**Ether at most**: gas used times the fee cap it was signed with. What was really paid is less: the block's "
        "base fee and the tip.",
    )


def _proofs(totals: Totals) -> str:
    rows = [[name, *map(str, _of(totals, kind))] for kind, name in _NAMES.items()]
    sums = [sum(column) for column in zip(*(_of(totals, kind) for kind in Kind), strict=True)]
    rows.append(["**both**", *(f"**{number}**" for number in sums)])
    return table(("proofs", "paid", "settled", "again", "wasted", "outcome unknown"), rows, numbers=range(1, 6))


def _of(totals: Totals, kind: Kind) -> tuple[int, ...]:
    sums = totals.sums
    unknown = totals.failures(Failure.OUTCOME_UNKNOWN.value, Failure.WITNESS_TIMEOUT.value, kind=kind.value)
    settled = totals.closed(kind.value, "RELAYED")
    return (sums["paid", kind.value], settled, sums["again", kind.value], sums["wasted", kind.value], unknown)


def _failures(totals: Totals) -> str:
    rows = [
        [f"`{failure.value}`", *(str(totals.failures(failure.value, kind=kind.value)) for kind in Kind)]
        for failure in Failure
        if totals.failures(failure.value)
    ]
    return table(("cause", *_NAMES.values()), rows, numbers=(1, 2))


def _transactions(totals: Totals) -> str:
    sums = totals.sums
    mined = {p: sum(sums["transactions", p.value, s.value] for s in _IN_A_BLOCK) for p in Purpose}
    reverted = {p: sums["transactions", p.value, TxStatus.REVERTED.value] for p in Purpose}
    rows = [
        [what, str(mined[p]), str(reverted[p]), f"{sums['gas', p.value]:,}", _ether(sums["most", p.value])]
        for p, what in _WHAT.items()
    ]
    gas, most = (sum(sums[name, p.value] for p in Purpose) for name in ("gas", "most"))
    total = (str(sum(mined.values())), str(sum(reverted.values())), f"{gas:,}", _ether(most))
    rows.append(["**all**", *(f"**{figure}**" for figure in total)])
    return table(("purpose", "mined", "reverted", "gas used", "ether at most"), rows, numbers=range(1, 5))


def _ether(wei: float) -> str:
    return f"{wei / ETHER:.6f}"


_IN_A_BLOCK = (TxStatus.CONFIRMED, TxStatus.REVERTED, *(UNSETTLED - {TxStatus.PENDING}))
