"""Metrics and health of real processes: a leader and its standby."""

import math

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import eventually, free_port, settled
from tests.devnets import StartDevnet

OURS = "op_succinct_proposer_"


def _gauges(text: str) -> dict[str, float]:
    """The metrics of ours without labels."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples if not sample.labels]
    return {s.name.removeprefix(OURS): s.value for s in samples if s.name.startswith(OURS)}


async def test_a_leader_and_its_standby_are_watched(start_devnet: StartDevnet, up: StartUp) -> None:
    """Both answer while one settles; after a kill the standby's own numbers say that it leads. No secret is in them."""
    devnet = await start_devnet()
    ports = [free_port(), free_port()]
    first = up(devnet, METRICS_PORT=str(ports[0]))
    await settled(devnet, 1100, first)
    second = up(devnet, "second", METRICS_PORT=str(ports[1]))
    await second.says("standing by")
    async with httpx.AsyncClient(timeout=10, trust_env=False) as http:

        async def get(port: int, path: str) -> httpx.Response:
            return await http.get(f"http://127.0.0.1:{port}{path}")

        assert [(await get(port, "/healthz")).status_code for port in ports] == [200, 200]
        assert [(await get(port, "/readyz")).text for port in ports] == ["leading\n", "standing by\n"]
        for port, leading in zip(ports, (1, 0), strict=True):

            async def is_watched(port: int = port, leading: int = leading) -> str:
                text = (await get(port, "/metrics")).text
                now = _gauges(text)
                assert now["leading"] == leading
                assert math.isnan(now["cycle_last_success_timestamp_seconds"]) == (not leading)
                # what does not answer a scrape in its time is NaN or down in this one
                read = (now["contract_block"], now["lag_blocks"]) == (1100, 0)
                return text if read and 'op_succinct_proposer_endpoint_up{endpoint="prefect"} 1.0' in text else ""

            text = await eventually("a scrape says everything", is_watched)
            for secret in ("PRIVATE_KEY", "DATABASE_URL", "L1_RPC", "OP_SUCCINCT_SERVER_URL"):
                assert first.environment[secret].removeprefix("0x") not in text
        first.kill()

        async def leads() -> bool:
            return _gauges((await get(ports[1], "/metrics")).text)["leading"] == 1

        await eventually("the standby leads", leads, alive=second)
        assert (await get(ports[1], "/readyz")).text == "leading\n"
    assert await second.terminate() == 0


async def test_a_port_that_is_taken_is_refused_before_anything_is_spent(start_devnet: StartDevnet, up: StartUp) -> None:
    devnet = await start_devnet()
    taken = devnet.prover_url.rpartition(":")[2]
    one = up(devnet, METRICS_PORT=taken)
    assert await one.ended() == 2
    assert f"METRICS_PORT: cannot listen on 127.0.0.1:{taken}" in one.output
    assert devnet.prover.log.events == []
