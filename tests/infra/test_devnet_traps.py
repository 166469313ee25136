"""The places of the devnet's servers: reached in order, with their facts, and held as long as an observer wants."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from infra.devnet import Devnet, Fault, FaultPlan, Traps
from tests.infra.places import eventually, names, record

pytestmark = pytest.mark.asyncio


async def test_a_trap_springs_once_after_its_skips_at_its_place() -> None:
    """Other places and the skipped arrivals pass; afterwards it is gone; a disarmed one never springs."""
    traps, sprung = Traps(), []

    async def note(facts: Mapping[str, Any]) -> None:
        sprung.append(dict(facts))

    trap, gone = traps.arm("a.b", note, skip=1), traps.arm("a.b", note)
    gone.disarm()
    for place, number in (("a.bc", 1), ("a.b", 2), ("a.b", 3), ("a.b", 4)):
        await traps.reach(place, number=number)
    assert sprung == [{"place": "a.b", "number": 3}]
    assert (trap.sprung, gone.sprung) == (True, False)
    assert traps.counts == {"a.bc": 1, "a.b": 3}


async def test_a_star_takes_every_place_below_and_a_declined_arrival_leaves_it_armed() -> None:
    """The action says which arrival it wants; the first trap that takes one keeps it from the next."""
    traps, first, second = Traps(), [], []

    async def choose(facts: Mapping[str, Any]) -> bool:
        first.append(facts["place"])
        return facts["place"] == "a.c"

    async def rest(facts: Mapping[str, Any]) -> None:
        second.append(facts["place"])

    trap = traps.arm("a.*", choose)
    traps.arm("a.*", rest)
    for place in ("b.b", "a.b", "a.c", "a.d"):
        await traps.reach(place)
    assert (first, second, trap.sprung) == (["a.b", "a.c"], ["a.d"], True)


async def test_who_reaches_a_place_waits_for_the_action_and_others_pass_meanwhile() -> None:
    """An exchange stands still while the action runs; a second arrival at the same place does not."""
    traps, hold = Traps(), asyncio.Event()

    async def wait(_: Mapping[str, Any]) -> None:
        await hold.wait()

    traps.arm("a", wait)
    held = asyncio.create_task(traps.reach("a"))
    await asyncio.sleep(0)
    await asyncio.wait_for(traps.reach("a"), 1)
    assert not held.done()
    hold.set()
    await asyncio.wait_for(held, 1)


async def test_an_action_that_fails_fails_its_exchange_and_is_spent() -> None:
    """A bug of the observer is not hidden, and hits one exchange."""
    traps = Traps()

    async def broken(_: Mapping[str, Any]) -> None:
        raise LookupError("no such process")

    trap = traps.arm("a", broken)
    with pytest.raises(LookupError):
        await traps.reach("a")
    await traps.reach("a")
    assert trap.sprung


async def test_a_range_proof_reaches_its_places_in_order(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """Asked, paid and answered with its range and id; a look with a proof is answered in two more places."""
    devnet.prover.timing.range_proving_s = 2.0
    seen = record(devnet.traps, "prover.*")
    answer = await http.post(devnet.prover_url + "/request_span_proof", json={"start": 1000, "end": 1010})
    proof_id = bytes(answer.json()["proof_id"]).hex()
    blocks = {"start": 1000, "end": 1010}
    assert [dict(facts) for facts in seen[:2]] == [
        {"place": "prover.range.arrived", **blocks},
        {"place": "prover.range.paid", **blocks, "proof_id": proof_id},
    ]
    look = f"{devnet.prover_url}/status/{proof_id}"
    assert (await http.get(look)).json()["proof"] == []
    await asyncio.sleep(2.1)
    assert (await http.get(look)).json()["proof"] != []
    await eventually(9, seen)
    assert names(seen)[2:] == [
        "prover.range.answered",
        "prover.status.arrived",
        "prover.status.answered",
        "prover.status.arrived",
        "prover.proof.answering",
        "prover.status.answered",
        "prover.proof.answered",
    ]
    assert {facts["proof_id"] for facts in seen[1:]} == {proof_id}
    assert (seen[-1]["kind"], seen[-1]["end"]) == ("range", 1010)


async def test_an_aggregation_and_the_configuration_have_places(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """An aggregation is arrived, paid and answered; the configuration answered."""
    post = devnet.prover_url + "/request_span_proof"
    span = (await http.post(post, json={"start": 1000, "end": 1100})).json()
    await asyncio.sleep(0.1)
    proof = devnet.prover.network.proofs[bytes(span["proof_id"]).hex()].proof
    head = (await devnet.l1.block("latest") or {})["hash"]
    body = {"subproofs": [base64.b64encode(proof).decode()], "head": head}
    seen = record(devnet.traps, "prover.*")
    await http.post(devnet.prover_url + "/request_agg_proof", json=body)
    await http.post(devnet.prover_url + "/validate_config", json={"address": devnet.oracle_address})
    await eventually(4, seen)
    places = [f"prover.aggregation.{place}" for place in ("arrived", "paid", "answered")]
    assert names(seen) == [*places, "prover.config.answered"]
    assert (seen[1]["start"], seen[1]["end"], len(seen[1]["proof_id"])) == (1000, 1100, 64)


@pytest.mark.parametrize(
    ("place", "events"),
    [
        ("prover.range.arrived", ["post", "hung_up"]),
        ("prover.range.paid", ["post", "paid", "hung_up", "fulfilled"]),
        ("prover.range.answered", ["post", "paid", "answered", "fulfilled"]),
    ],
)
async def test_a_client_that_dies_at_a_place(
    devnet: Devnet, http: httpx.AsyncClient, place: str, events: list[str]
) -> None:
    """Before paying nothing is paid; after it the log says that nobody was there to be answered."""
    devnet.prover.timing.range_witness_s = devnet.prover.timing.range_proving_s = 0.2
    url, body = devnet.prover_url + "/request_span_proof", {"start": 1000, "end": 1010}
    client = asyncio.create_task(http.post(url, json=body))

    async def die(_: Mapping[str, Any]) -> None:
        client.cancel()

    trap = devnet.traps.arm(place, die)
    await asyncio.wait({client})
    await asyncio.sleep(0.6)
    assert trap.sprung
    assert [event["event"] for event in devnet.prover.log.events] == events
    assert devnet.traps.counts["prover.range.answered"] == ("answered" in events)
    assert [event["paid"] for event in devnet.prover.log.of("hung_up")] == ["paid" in events] * ("hung_up" in events)


async def test_a_refused_request_reaches_no_answer(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A 500 ends an exchange after its arrival."""
    devnet.prover.set_faults(FaultPlan(rules=(Fault(kind="post_500"),)))
    seen = record(devnet.traps)
    await http.post(devnet.prover_url + "/request_span_proof", json={"start": 1000, "end": 1010})
    assert names(seen) == ["prover.range.arrived"]


async def test_an_outage_made_at_a_place_cuts_that_exchange(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """A server may be stopped by an action that runs inside of it."""
    url, body = devnet.prover_url + "/request_span_proof", {"start": 1000, "end": 1010}

    async def stop(_: Mapping[str, Any]) -> None:
        await devnet.prover.stop()

    devnet.traps.arm("prover.range.paid", stop)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await http.post(url, json=body)
    await asyncio.sleep(0.2)
    await devnet.prover.start()
    assert [(e["paid"], e["fault"]) for e in devnet.prover.log.of("hung_up")] == [(True, "outage")]
    assert (await http.post(url, json=body)).status_code == 200


async def test_the_node_and_l1_have_places_by_method(devnet: Devnet, http: httpx.AsyncClient) -> None:
    """The parameters are there from the start, the answer once there is one."""
    seen = record(devnet.traps)
    call = {"jsonrpc": "2.0", "id": 3, "method": "optimism_outputAtBlock", "params": ["0x3e8"]}
    root = (await http.post(devnet.node_rpc, json=call)).json()["result"]["outputRoot"]
    await http.post(devnet.l1_rpc, json={"jsonrpc": "2.0", "id": 4, "method": "eth_chainId", "params": []})
    await eventually(5, seen)
    node, l1 = "node.optimism_outputAtBlock", "l1.eth_chainId"
    assert names(seen) == [f"{node}.arrived", f"{node}.answered", f"{l1}.arrived", f"{l1}.forwarded", f"{l1}.answered"]
    assert seen[0]["params"] == ["0x3e8"]
    assert seen[1]["answer"]["result"]["outputRoot"] == root
    assert seen[3]["answer"]["result"] == "0x7a69"
