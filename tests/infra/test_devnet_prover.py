"""The op-succinct-server stand-in: shapes, codes, timing, faults, outages and the log."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.devnet import Devnet, Fault, FaultPlan, ProverTiming
from infra.devnet.log import read_log
from infra.devnet.rpc import calldata
from tests.devnets import StartDevnet

pytestmark = pytest.mark.asyncio
DROPPED = (httpx.ReadError, httpx.RemoteProtocolError)


async def ask(http: httpx.AsyncClient, devnet: Devnet, start: int, end: int) -> str:
    """Request a range proof and return its id as hex."""
    answer = await http.post(devnet.prover_url + "/request_span_proof", json={"start": start, "end": end})
    assert answer.status_code == 200, answer.text
    return bytes(answer.json()["proof_id"]).hex()


async def status(http: httpx.AsyncClient, devnet: Devnet, proof_id: str) -> tuple[int, int, bytes]:
    """Look at a proof once."""
    answer = await http.get(f"{devnet.prover_url}/status/{proof_id}")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["fulfillment_status"], body["execution_status"], bytes(body["proof"])


async def ended(http: httpx.AsyncClient, devnet: Devnet, proof_id: str) -> tuple[int, int, bytes]:
    """Look at a proof until it has ended."""
    async with asyncio.timeout(60):
        while (seen := await status(http, devnet, proof_id))[0] < 3:  # noqa: ASYNC110  (the state is behind HTTP)
            await asyncio.sleep(0.02)
    return seen


async def logged(devnet: Devnet, event: str, count: int) -> None:
    """Wait until the server has written so many events of a name."""
    async with asyncio.timeout(60):
        while len(devnet.prover.log.of(event)) < count:  # noqa: ASYNC110  (the log knows nothing of us)
            await asyncio.sleep(0.01)


def b64(*proofs: bytes) -> list[str]:
    """Encode sub-proofs as the client sends them."""
    return [base64.b64encode(proof).decode() for proof in proofs]


async def test_two_ranges_make_an_aggregation_the_contract_accepts(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """Range proofs, a checkpoint and an aggregation proof settle an output with the real verifier."""
    ids = [await ask(http, devnet, 1000, 1060), await ask(http, devnet, 1060, 1120)]
    proofs = [(await ended(http, devnet, proof_id))[2] for proof_id in ids]
    assert [len(proof) for proof in proofs] == [2048, 2048]
    number = await devnet.l1.block_number() - 1
    await devnet.send(devnet.proposer_address, "checkpointBlockHash(uint256)", number, mine=True)
    head = "0x" + (await devnet.read("historicBlockHashes(uint256)", number)).hex()
    answer = await http.post(devnet.prover_url + "/request_agg_proof", json={"subproofs": b64(*proofs), "head": head})
    fulfilment, execution, proof = await ended(http, devnet, bytes(answer.json()["proof_id"]).hex())
    assert (fulfilment, execution, len(proof)) == (3, 2, 36)
    call = calldata("proposeL2Output(bytes32,uint256,uint256,bytes)", devnet.l2.output_root(1120), 1120, number, proof)
    await devnet.l1.send(devnet.proposer_address, devnet.oracle_address, call, mine=True)
    assert await devnet.latest_block_number() == 1120


async def test_aggregation_refuses_what_the_program_refuses(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A gap between roots or an L1 head above the checkpoint is 500; garbage closes the connection."""
    first = (await ended(http, devnet, await ask(http, devnet, 1000, 1060)))[2]
    third = (await ended(http, devnet, await ask(http, devnet, 1070, 1120)))[2]
    new, old = await devnet.l1.block("latest") or {}, await devnet.l1.block(1) or {}
    url = devnet.prover_url + "/request_agg_proof"
    for body in (
        {"subproofs": b64(first, third), "head": new["hash"]},
        {"subproofs": b64(first), "head": old["hash"]},
        {"subproofs": b64(first), "head": "0x" + "ab" * 32},
    ):
        answer = await http.post(url, json=body)
        assert (answer.status_code, answer.text) == (500, "Failed to request proof: Program simulation failed")
    for body in (
        {"subproofs": b64(b"garbage"), "head": new["hash"]},
        {"subproofs": b64(first), "head": new["hash"][2:]},
    ):
        with pytest.raises(DROPPED):
            await http.post(url, json=body)
    mock = devnet.prover_url + "/request_mock_agg_proof"
    with pytest.raises(DROPPED):
        await http.post(mock, json={"subproofs": b64(first, third), "head": new["hash"]})


async def test_mock_endpoints_answer_with_the_proof_itself(start_devnet: StartDevnet, http: httpx.AsyncClient) -> None:
    """A mock span returns bytes at once, a mock aggregation an empty proof."""
    devnet = await start_devnet(mock=True)
    span = await http.post(devnet.prover_url + "/request_mock_span_proof", json={"start": 1000, "end": 1100})
    body = span.json()
    assert (body["fulfillment_status"], body["execution_status"]) == (3, 0)
    head = (await devnet.l1.block("latest") or {})["hash"]
    agg = await http.post(
        devnet.prover_url + "/request_mock_agg_proof", json={"subproofs": b64(bytes(body["proof"])), "head": head}
    )
    assert agg.json() == {"fulfillment_status": 3, "execution_status": 0, "proof": []}
    assert devnet.prover.log.of("paid") == []


async def test_validate_config_compares_with_the_contract(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """All true at first; a changed vkey turns only its own answer false."""
    url, body = devnet.prover_url + "/validate_config", {"address": devnet.oracle_address}
    keys = ("rollup_config_hash_valid", "agg_vkey_valid", "range_vkey_valid")
    assert (await http.post(url, json=body)).json() == dict.fromkeys(keys, True)
    await devnet.owner_call("updateAggregationVkey", devnet.foreign_hash(), mine=True)
    assert (await http.post(url, json=body)).json() == dict.fromkeys(keys, True) | {"agg_vkey_valid": False}
    with pytest.raises(DROPPED):
        await http.post(url, json={"address": "0x12"})


async def test_errors_have_axums_codes_and_plain_text(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """415, 400, 422, 404, 405 for the extractor; 500 or a closed connection for the handler."""
    url = devnet.prover_url + "/request_span_proof"
    head = "0x" + "00" * 32
    cases: list[tuple[int, httpx.Response]] = [
        (415, await http.post(url, content=b"{}", headers={"content-type": "text/plain"})),
        (400, await http.post(url, content=b"{", headers={"content-type": "application/json"})),
        (422, await http.post(url, json={"start": "1", "end": 2})),
        (422, await http.post(url, json={"start": 1})),
        (422, await http.post(devnet.prover_url + "/request_agg_proof", json={"subproofs": ["%"], "head": head})),
        (404, await http.get(devnet.prover_url + "/status/")),
        (404, await http.get(devnet.prover_url + "/nothing")),
        (405, await http.get(url)),
        (500, await http.post(url, json={"start": 1100, "end": 1100})),
        (500, await http.post(url, json={"start": 1000, "end": devnet.l2.finalized + 1})),
        (500, await http.get(devnet.prover_url + "/status/zz")),
        (500, await http.get(devnet.prover_url + "/status/" + "ab" * 32)),
    ]
    for code, answer in cases:
        assert answer.status_code == code, (code, answer.request.url)
        assert answer.headers["content-type"].startswith("text/plain")
    for request in (
        http.post(url, json={"start": 1000, "end": devnet.l2.unsafe + 1}),
        http.get(devnet.prover_url + "/status/abcd"),
    ):
        with pytest.raises(DROPPED):
            await request
    assert devnet.prover.log.of("paid") == []


async def test_status_passes_through_requested_and_assigned(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A proof is requested, then assigned, then fulfilled, and past the deadline (4, 2) with its bytes thrown away."""
    devnet.prover.timing.range_proving_s = 5.0  # of which a fifth until it is assigned
    proof_id = await ask(http, devnet, 1000, 1010)
    seen = [(await status(http, devnet, proof_id))[:2]]
    await asyncio.sleep(1.2)
    seen += [(await status(http, devnet, proof_id))[:2], (await ended(http, devnet, proof_id))[:2]]
    assert seen == [(1, 1), (2, 2), (3, 2)]
    devnet.prover.timing.deadline_s = 0.0
    assert await status(http, devnet, proof_id) == (4, 2, b"")
    assert len(devnet.prover.log.of("expired")) == 1


async def test_unexecutable_ranges_are_those_with_the_culprit(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A range is (4, 3) when it proves the culprit and is too long; start itself is not proven by a range."""
    devnet.prover.set_faults(FaultPlan.too_big(20, block=1050))
    assert (await ended(http, devnet, await ask(http, devnet, 1000, 1100)))[:2] == (4, 3)
    assert (await ended(http, devnet, await ask(http, devnet, 1050, 1100)))[:2] == (3, 2)
    assert (await ended(http, devnet, await ask(http, devnet, 1040, 1060)))[:2] == (3, 2)
    devnet.prover.set_faults(FaultPlan.culprit(1050))
    assert (await ended(http, devnet, await ask(http, devnet, 1049, 1050)))[:2] == (4, 3)
    assert [event["end"] for event in devnet.prover.log.of("unexecutable")] == [1100, 1050]


async def test_unfulfillable_late_and_empty_proofs(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """`first` limits a fault to the first requests; a late proof comes late; an empty one has no bytes."""
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="unfulfillable", block=1005, first=1),)))
    assert (await ended(http, devnet, await ask(http, devnet, 1000, 1010)))[:2] == (4, 2)
    assert (await ended(http, devnet, await ask(http, devnet, 1000, 1010)))[:2] == (3, 2)
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="empty_proof"),)))
    assert await ended(http, devnet, await ask(http, devnet, 1000, 1010)) == (3, 2, b"")
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="late", seconds=3.0),)))
    proof_id = await ask(http, devnet, 1000, 1010)
    await asyncio.sleep(0.8)  # assigned after a fifth
    assert (await status(http, devnet, proof_id))[0] == 2
    assert (await ended(http, devnet, proof_id))[0] == 3


async def test_posts_fail_before_and_after_paying(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A 500 and an early drop cost nothing; a late drop has paid and lost its id; the log tells them apart."""
    rules = (
        Fault(kind="post_500", first=1),
        Fault(kind="drop_before_paying", first=1),
        Fault(kind="drop_after_paying", first=1),
    )
    devnet.prover.set_faults(FaultPlan(rules=rules))
    url, body = devnet.prover_url + "/request_span_proof", {"start": 1000, "end": 1010}
    assert (await http.post(url, json=body)).status_code == 500
    for paid in (0, 1):
        with pytest.raises(DROPPED):
            await http.post(url, json=body)
        assert len(devnet.prover.log.of("paid")) == paid
    assert [(event["fault"], event["paid"]) for event in devnet.prover.log.of("refused")] == [
        ("post_500", False),
        ("drop_before_paying", False),
        ("drop_after_paying", True),
    ]
    assert (await http.post(url, json=body)).status_code == 200


async def test_status_faults(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A look may be 500, slow, or about an id nobody knows, each so many times."""
    proof_id = await ask(http, devnet, 1000, 1010)
    url = f"{devnet.prover_url}/status/{proof_id}"
    rules = (
        Fault(kind="unknown_id", first=1),
        Fault(kind="status_500", first=1),
        Fault(kind="slow_status", seconds=0.3),
    )
    devnet.prover.set_faults(FaultPlan(rules=rules))
    assert (await http.get(url)).status_code == 500
    assert len(devnet.prover.log.of("unknown_id")) == 1
    assert (await http.get(url)).status_code == 500
    with pytest.raises(httpx.ReadTimeout):
        await http.get(url, timeout=0.1)
    assert (await http.get(url)).status_code == 200


async def test_rate_limits_cost_nothing_and_say_how_long(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A limited POST is answered before any witness, a limited look without a look; both carry Retry-After."""
    proof_id = await ask(http, devnet, 1000, 1010)
    rules = (Fault(kind="post_429", seconds=3, first=1), Fault(kind="status_429", seconds=2, first=1))
    devnet.prover.set_faults(FaultPlan(rules=rules))
    devnet.prover.timing.range_witness_s = 30.0
    url, body = devnet.prover_url + "/request_span_proof", {"start": 1010, "end": 1020}
    answer = await http.post(url, json=body)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert [event["paid"] for event in devnet.prover.log.of("refused")] == [False]
    answer = await http.get(f"{devnet.prover_url}/status/{proof_id}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert (await ended(http, devnet, proof_id))[0] == 3
    assert devnet.prover.faults.applied == {"post_429": 1, "status_429": 1}


async def test_a_look_may_hang_or_bring_garbage(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A hanging look ends with its client; garbage is 200 with another wrong shape each time, never the real one."""
    proof_id = await ask(http, devnet, 1000, 1010)
    url = f"{devnet.prover_url}/status/{proof_id}"
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="hang_status", first=1), Fault(kind="garbage", first=7))))
    with pytest.raises(httpx.ReadTimeout):
        await http.get(url, timeout=2)
    bodies = [await http.get(url) for _ in range(7)]
    assert {body.status_code for body in bodies} == {200}
    assert len({body.content for body in bodies}) == 7
    assert (await ended(http, devnet, proof_id))[0] == 3
    assert devnet.prover.faults.applied == {"hang_status": 1, "garbage": 7}


async def test_a_client_that_hangs_up_pays_nothing(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """The handler is dropped with its connection during witness generation, in a hang too."""
    devnet.prover.timing.range_witness_s = 2.0
    url, body = devnet.prover_url + "/request_span_proof", {"start": 1000, "end": 1010}
    for number, plan in ((1, FaultPlan()), (2, FaultPlan(rules=(Fault(kind="hang"),)))):
        devnet.prover.set_faults(plan)
        client = asyncio.create_task(http.post(url, json=body))
        await logged(devnet, "post", number)
        client.cancel()
        await logged(devnet, "hung_up", number)
    await asyncio.sleep(2.2)
    assert [event["event"] for event in devnet.prover.log.events] == ["post", "hung_up", "post", "hung_up"]


async def test_an_outage_cuts_posts_and_keeps_paid_proofs(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A stopped server refuses, its POSTs in flight are cut unpaid, and paid proofs are ready after it is back."""
    kept = await ask(http, devnet, 1000, 1010)
    devnet.prover.timing.range_witness_s = 5.0
    url = devnet.prover_url
    cut = asyncio.create_task(http.post(url + "/request_span_proof", json={"start": 1010, "end": 1020}))
    await logged(devnet, "post", 2)
    await devnet.prover.stop()
    with pytest.raises(DROPPED):
        await cut
    with pytest.raises(httpx.ConnectError):
        await http.get(f"{url}/status/{kept}")
    await asyncio.sleep(0.1)
    await devnet.prover.start()
    assert devnet.prover_url == url
    assert (await status(http, devnet, kept))[0] == 3
    assert [(event["start"], event["fault"]) for event in devnet.prover.log.of("hung_up")] == [(1010, "outage")]


async def test_the_log_is_a_file_of_json_lines(
    start_devnet: StartDevnet, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Everything in memory is in the file, with the fields a checker needs."""
    devnet = await start_devnet(folder=tmp_path)
    await ended(http, devnet, await ask(http, devnet, 1000, 1010))
    events = read_log(tmp_path / "server.jsonl")
    assert events == json.loads(json.dumps(devnet.prover.log.events))
    assert [event["event"] for event in events] == ["post", "paid", "answered", "fulfilled"]
    assert {"time", "event", "kind", "start", "end", "proof_id", "paid", "fault"} <= set(events[0])


async def test_random_faults_repeat_with_their_seed(start_devnet: StartDevnet, http: httpx.AsyncClient) -> None:
    """A rate fails a seeded share of requests, the same ones every time; a plan survives JSON."""
    plan = FaultPlan(seed=5, rules=(Fault(kind="post_500", rate=0.5),))
    assert FaultPlan.model_validate_json(plan.model_dump_json()) == plan

    async def codes() -> list[int]:
        devnet = await start_devnet(faults=plan, timing=ProverTiming(0, 0, 0, 0))
        url = devnet.prover_url + "/request_span_proof"
        return [(await http.post(url, json={"start": 1000 + n, "end": 1001 + n})).status_code for n in range(12)]

    first: Any = await codes()
    assert set(first) == {200, 500}
    assert await codes() == first
