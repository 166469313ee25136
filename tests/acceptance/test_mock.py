"""`OP_SUCCINCT_MOCK=true`: the mock endpoints from the first range to the settled output."""

from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Ledger, Prefect, settled
from tests.devnets import StartDevnet


async def test_mock_proofs_settle_an_output(
    start_devnet: StartDevnet, up: StartUp, prefect: Prefect, rows: Ledger
) -> None:
    """Mock requests go from witness generation to complete, and the mock verifier takes the empty aggregation."""
    devnet = await start_devnet(mock=True)
    one = up(devnet)
    assert one.environment["OP_SUCCINCT_MOCK"] == "true"
    await settled(devnet, 1100, one)
    await rows.having("status = 'RELAYED'", at_least=3, alive=one)
    answered = devnet.prover.log.of("answered")
    assert len(answered) == 3
    assert all(event["mock"] for event in answered)
    for row in rows.requests():
        assert rows.history(row["id"]) == ["UNREQ", "WITNESSGEN", "COMPLETE", "RELAYED"]
        assert (row["proof_length"] == 0) == (row["kind"] == "AGG")
    await prefect.equal(rows)
    assert await one.terminate() == 0
