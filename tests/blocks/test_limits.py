"""Limits: pauses that endpoints ask for, calls under way at once, and lists of endpoints of which some misbehave."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from eth_utils.crypto import keccak

from blocks.http import MAX_PAUSE_SECONDS, endpoints
from blocks.l1 import L1Chain, Sent
from blocks.op_node import OpNode
from blocks.prover import Accepted, SuccinctServer
from blocks.rpc import ADMITTED_SECONDS, REST_SECONDS, Failover, RpcError
from proposer.errors import BadReply, EndpointDown, ProposerError, RateLimited, WrongChain
from proposer.ranges import BlockRange
from tests.blocks.loopback import KEY, Say, Server, members

ID = "ab" * 32
TX = "0x" + keccak(b"\2").hex()
RANGE = BlockRange(1000, 1300)
CONFIG = {"l1_chain_id": 1, "l2_chain_id": 10}
ADDRESS = "0x" + "11" * 20
PROVING = {"fulfillment_status": 2, "execution_status": 2, "proof": []}


@dataclass
class Clock:
    """The time that pauses go by, moved by hand."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The clock of pauses, of rests and of admissions."""
    made = Clock()
    monkeypatch.setattr("blocks.http.monotonic", made)
    monkeypatch.setattr("blocks.rpc._now", made)
    return made


def limit(seconds: object) -> Say:
    """A 429 with its Retry-After."""
    return Say("slow down", status=429, headers={"Retry-After": str(seconds)})


def counted(server: Server, method: str) -> int:
    """How often a JSON-RPC method was called."""
    return sum(json.loads(body)["method"] == method for _, _, body in server.seen)


async def limited(call: Awaitable[object]) -> float:
    """The pause a call is refused with."""
    with pytest.raises(RateLimited) as caught:
        await call
    assert KEY not in str(caught.value)
    return caught.value.retry_after_seconds


async def test_a_pause_holds_for_every_call_of_the_server(server: Server, clock: Clock) -> None:
    """A look's 429 keeps looks and requests off the wire until it is over: nothing was asked, so nothing is paid."""
    server.answer = lambda *_: limit(60)
    async with SuccinctServer(url=server.url) as prover:
        assert await limited(prover.status(ID)) == 60
        server.answer = lambda method, *_: Say({"proof_id": ID} if method == "POST" else PROVING)
        clock.now += 20
        assert await limited(prover.request_range(RANGE, 5)) == 40
        assert await limited(prover.request_aggregation(*members(b"x"), bytes(32), 5)) == 40
        assert await limited(prover.validate_config(ADDRESS)) == 40
        assert await limited(prover.status(ID)) == 40
        assert len(server.seen) == 1, "the wire was touched"
        clock.now += 41
        assert await prover.request_range(RANGE, 5) == Accepted(ID)
        assert (await prover.status(ID)).proof is None


async def test_a_request_that_is_limited_was_not_asked(server: Server, clock: Clock) -> None:
    """A POST's own 429 is no unknown outcome, and looks pause with it."""
    server.answer = lambda *_: limit(9)
    async with SuccinctServer(url=server.url) as prover:
        assert await limited(prover.request_range(RANGE, 5)) == 9
        assert await limited(prover.status(ID)) == 9
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-5", 0),
        ("86400", MAX_PAUSE_SECONDS),
        ("1e400", 1),
        ("nan", 1),
        ("soon", 1),
        ("", 1),
        ("Wed, 99 Oct 999999999999999999 07:28:00 GMT", 1),
        (format_datetime(datetime(2015, 10, 21, tzinfo=UTC)), 0),
        (format_datetime(datetime(2999, 10, 21, tzinfo=UTC)), MAX_PAUSE_SECONDS),
    ],
)
async def test_how_long_a_pause_lasts(server: Server, clock: Clock, said: str, seconds: float) -> None:
    """Seconds or a date, never longer than five minutes; one second where it does not say."""
    server.answer = lambda *_: limit(said)
    async with OpNode(urls=server.url) as node:
        assert await limited(node.rollup_config()) == seconds
        server.rpc(lambda *_: CONFIG)
        clock.now += seconds + 0.01
        assert (await node.rollup_config()).l2_chain_id == 10


async def test_a_longer_pause_is_not_cut_short(server: Server, clock: Clock) -> None:
    """Two calls under way at once, two pauses: the longer one counts."""
    pauses = iter((60, 1))
    server.answer = lambda *_: limit(next(pauses))
    async with SuccinctServer(url=server.url) as prover:
        await asyncio.gather(limited(prover.status(ID)), limited(prover.status(ID)))
        clock.now += 2
        assert await limited(prover.status(ID)) == 58


@pytest.mark.parametrize("code", [-32005, -32007, -32029, 429])
async def test_limits_in_json_rpc_errors_pause_too(server: Server, clock: Clock, code: int) -> None:
    """Under HTTP 200, with the header's seconds where there is one."""
    error = {"id": 1, "error": {"code": code, "message": "50/second request limit reached"}}
    server.answer = lambda *_: Say(error, headers={"Retry-After": "3"})
    async with OpNode(urls=server.url) as node:
        assert await limited(node.rollup_config()) == 3
        assert await limited(node.sync_status()) == 3
    assert len(server.seen) == 1


async def test_reads_and_sends_pause_together(server: Server, clock: Clock) -> None:
    """A read's limit keeps a transaction off the wire, and the other way round."""
    server.rpc(lambda method, _: "0x1" if method == "eth_chainId" else limit(60))
    async with L1Chain(urls=server.url, expected_chain_id=1) as l1:
        assert await limited(l1.balance(ADDRESS)) == 60
        assert await limited(l1.send_raw(b"\2")) == 60
        assert counted(server, "eth_sendRawTransaction") == 0
        clock.now += 61
        assert await limited(l1.send_raw(b"\2")) == 60
        assert await limited(l1.balance(ADDRESS)) == 60
    assert counted(server, "eth_sendRawTransaction") == 1
    assert counted(server, "eth_getBalance") == 1


async def test_what_one_url_refuses_in_unknown_words_the_next_may_take(server: Server, second: Server) -> None:
    """A node without a pool, or with a full one, keeps no transaction from L1; when none takes it, it says why."""
    full = {"error": {"code": -32000, "message": "txpool is full"}}
    server.rpc(lambda method, _: "0x1" if method == "eth_chainId" else full)
    second.rpc(lambda method, _: "0x1" if method == "eth_chainId" else TX)
    async with L1Chain(urls=f"{server.url},{second.url}", expected_chain_id=1) as l1:
        assert await l1.send_raw(b"\2") is Sent.ACCEPTED
        second.rpc(lambda method, _: "0x1" if method == "eth_chainId" else full)
        with pytest.raises(RpcError, match="txpool is full"):
            await l1.send_raw(b"\2")


async def test_the_next_url_serves_during_a_pause(server: Server, second: Server, clock: Clock) -> None:
    """At once, reads and sends; the first one serves again as soon as its pause is over."""
    server.rpc(lambda method, _: "0x1" if method == "eth_chainId" else limit(60))
    second.rpc(lambda method, _: "0x1" if method == "eth_chainId" else TX)
    async with L1Chain(urls=f"{server.url},{second.url}", expected_chain_id=1) as l1:
        for _ in range(3):
            assert await l1.balance(ADDRESS) == int(TX, 16)
        assert counted(server, "eth_getBalance") == 1
        assert await l1.send_raw(b"\2") is Sent.ACCEPTED
        assert counted(second, "eth_sendRawTransaction") == 1
        server.rpc(lambda *_: "0x1")
        clock.now += 61
        assert await l1.balance(ADDRESS) == 1
    assert counted(server, "eth_sendRawTransaction") == 0


async def test_a_list_that_pauses_says_until_when(server: Server, second: Server, clock: Clock) -> None:
    """All limited: the shortest wait, and no call on the wire until then."""
    server.answer = lambda *_: limit(60)
    second.answer = lambda *_: limit(20)
    async with OpNode(urls=f"{server.url},{second.url}") as node:
        assert await limited(node.rollup_config()) == 20
        clock.now += 5
        assert await limited(node.rollup_config()) == 15
        assert (len(server.seen), len(second.seen)) == (1, 1)
        second.rpc(lambda *_: CONFIG)
        clock.now += 16
        assert (await node.rollup_config()).l2_chain_id == 10
    assert len(server.seen) == 1


async def storm(node: OpNode, calls: int) -> list[object]:
    """So many reads at once; values and errors."""
    return list(await asyncio.gather(*(node.rollup_config() for _ in range(calls)), return_exceptions=True))


async def test_a_storm_of_reads_is_bounded(server: Server) -> None:
    """500 at once: all are answered, never more than 32 under way."""
    server.rpc(lambda *_: CONFIG)
    plain, all_turns_taken = server.answer, asyncio.Event()

    def answer(*asked: Any) -> Say:
        if server.under_way == Failover.IN_FLIGHT:
            all_turns_taken.set()
        return Say(plain(*asked).body, after_s=0.01, after=all_turns_taken)

    server.answer = answer
    async with OpNode(urls=server.url, timeout_seconds=30) as node:
        answers = await storm(node, 500)
    assert [a for a in answers if isinstance(a, Exception)] == []
    assert len(server.seen) == 500
    assert server.most_under_way == Failover.IN_FLIGHT


async def test_admission_needs_no_turn_of_its_own(server: Server) -> None:
    """500 reads of a chain that is not admitted yet: the chain id is read within each one's turn."""
    server.rpc(lambda *_: "0x1")
    plain = server.answer
    server.answer = lambda *asked: Say(plain(*asked).body, after_s=0.01)
    async with L1Chain(urls=server.url, timeout_seconds=10) as l1:
        assert await asyncio.gather(*(l1.balance(ADDRESS) for _ in range(500))) == [1] * 500
    assert server.most_under_way <= Failover.IN_FLIGHT
    assert counted(server, "eth_chainId") <= Failover.IN_FLIGHT


async def test_a_hanging_url_starves_no_other(server: Server, second: Server) -> None:
    """500 reads, the first URL hangs: after one timeout all are answered by the second."""
    server.answer = lambda *_: Say(hang=True)
    second.rpc(lambda *_: CONFIG)
    async with OpNode(urls=f"{server.url},{second.url}", timeout_seconds=3) as node:
        began = time.monotonic()
        answers = await storm(node, 500)
        assert time.monotonic() - began < 20
    assert [a for a in answers if isinstance(a, Exception)] == []
    assert server.most_under_way == Failover.IN_FLIGHT // 2
    assert server.most_under_way + second.most_under_way <= Failover.IN_FLIGHT


async def test_waiting_for_a_turn_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL that hangs alone: each read ends after the wait for its turn and the time of its call, and says why."""
    monkeypatch.setattr(Failover, "WAIT_SECONDS", 2.7)
    server.answer = lambda *_: Say(hang=True)
    async with OpNode(urls=server.url, timeout_seconds=2) as node:
        began = time.monotonic()
        answers = await storm(node, 500)
        assert time.monotonic() - began < 20
    assert {type(a) for a in answers} == {EndpointDown}
    waited = [a for a in answers if "no turn came within 2.7 s: nothing was sent" in str(a)]
    assert len(waited) > 250
    assert server.most_under_way == Failover.IN_FLIGHT


async def test_the_call_has_its_whole_time_after_its_turn(server: Server) -> None:
    """A read that waited for its turn is not cut off for it: 64 calls of 3 s, 32 at once, within 5.5 s each."""
    server.rpc(lambda *_: CONFIG)
    plain = server.answer
    server.answer = lambda *asked: Say(plain(*asked).body, after_s=3)
    async with OpNode(urls=server.url, timeout_seconds=5.5) as node:
        answers = await storm(node, 2 * Failover.IN_FLIGHT)
    assert [a for a in answers if isinstance(a, Exception)] == []


async def test_sends_do_not_queue_behind_reads(server: Server) -> None:
    """All turns are taken by reads that hang; a transaction is sent all the same."""

    def answer(method: str, path: str, body: bytes) -> Say:
        call = json.loads(body)
        result = {"eth_chainId": "0x1", "eth_sendRawTransaction": TX}.get(call["method"])
        return Say({"id": call["id"], "result": result}, hang=result is None)

    server.answer = answer
    async with L1Chain(urls=server.url, timeout_seconds=30) as l1:
        reads = [asyncio.ensure_future(l1.balance(ADDRESS)) for _ in range(100)]
        async with asyncio.timeout(20):
            while counted(server, "eth_getBalance") < Failover.IN_FLIGHT:  # noqa: ASYNC110 -- the server sets no event
                await asyncio.sleep(0.01)
            assert await l1.send_raw(b"\2") is Sent.ACCEPTED
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def test_cancelled_reads_give_their_turns_back(server: Server) -> None:
    """A cycle's deadline cancels reads, under way and waiting: the next ones find all turns free."""
    server.answer = lambda *_: Say(hang=True)
    async with OpNode(urls=server.url, timeout_seconds=5) as node:
        for _ in range(3):
            reads = [asyncio.ensure_future(node.rollup_config()) for _ in range(100)]
            await asyncio.sleep(0.1)
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
        server.rpc(lambda *_: CONFIG)
        assert len(await asyncio.gather(*(node.rollup_config() for _ in range(100)))) == 100


HTML = Say("<html>It works!</html>", headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    "said",
    [HTML, Say('{"id": 1, "resu'), Say([{"id": 1, "result": "0x1"}]), Say({"id": 99, "result": "0x1"}), Say({"id": 1})],
)
async def test_a_url_that_speaks_no_json_rpc_is_passed_over(
    server: Server, second: Server, said: Say, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway's page under 200 stops nothing while another URL answers; the log says so once, and shows no key."""
    caplog.set_level(logging.WARNING)
    server.answer = lambda *_: said
    second.rpc(lambda *_: CONFIG)
    async with OpNode(urls=f"{server.url},{second.url}") as node:
        for _ in range(3):
            assert (await node.rollup_config()).l2_chain_id == 10
    assert len(server.seen) == 1
    assert caplog.text.count("other URLs come first") == 1
    assert KEY not in caplog.text


async def test_an_answer_leads_nowhere_else(server: Server, second: Server) -> None:
    """A field that is wrong is the caller's to see: going on would hide a broken node behind a good one."""
    server.rpc(lambda *_: {"l2_chain_id": "ten"})
    second.rpc(lambda *_: CONFIG)
    async with OpNode(urls=f"{server.url},{second.url}") as node:
        with pytest.raises(BadReply, match="l2_chain_id"):
            await node.rollup_config()
    assert second.seen == []


async def test_a_url_of_another_chain_is_passed_over(
    server: Server, second: Server, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never read and does not stop the others; where no other is up, the error says what to correct."""
    server.rpc(lambda *_: "0x5")
    second.rpc(lambda *_: "0x1")
    async with L1Chain(urls=f"{server.url},{second.url}", expected_chain_id=1) as l1:
        assert await l1.balance(ADDRESS) == 1
        assert "serves chain 5, not 1" in caplog.text
        second.answer = lambda *_: Say(status=503)
        with pytest.raises(WrongChain, match="serves chain 5, not 1: correct or remove it"):
            await l1.balance(ADDRESS)
    assert counted(server, "eth_getBalance") == 0


def turned(server: Server, chain_id: str, balance: str) -> None:
    """Let an endpoint serve this chain from now on."""
    server.rpc(lambda method, _: chain_id if method == "eth_chainId" else balance)


@pytest.mark.parametrize("how", ["after a failure", "after its time"])
async def test_admission_is_asked_anew(server: Server, second: Server, clock: Clock, how: str) -> None:
    """What is behind a URL may become another chain while we run: it is noticed after an outage, or after 300 s."""
    turned(server, "0x1", "0xa")
    turned(second, "0x1", "0xb")
    checks: list[str] = []

    async def admit(client: Any) -> None:
        checks.append(client.name)
        found = await client.call("eth_chainId", [], 1)
        if found != "0x1":
            raise WrongChain(f"{client.name} serves chain {found}")

    among = Failover(endpoints(f"{server.plain},{second.plain}", "L1_RPC"), 1, admit)
    try:
        for _ in range(3):
            assert await among.call("eth_getBalance") == "0xa"
        assert checks == [server.plain]
        turned(server, "0x5", "0xc")
        if how == "after a failure":
            plain, server.answer = server.answer, lambda *_: Say(status=503)
            assert await among.call("eth_getBalance") == "0xb"
            server.answer = plain
            clock.now += REST_SECONDS + 1
        else:
            clock.now += ADMITTED_SECONDS + 1
        assert await among.call("eth_getBalance") == "0xb"
        assert await among.call("eth_getBalance") == "0xb"
    finally:
        await among.aclose()


async def test_an_error_answer_ends_a_rest(server: Server, second: Server, clock: Clock) -> None:
    """An endpoint that answers, be it with an error, is up: it comes before one that rests."""
    server.answer = lambda *_: Say(status=503)
    second.answer = lambda *_: Say(status=503)
    async with OpNode(urls=f"{server.url},{second.url}") as node:
        with pytest.raises(EndpointDown):
            await node.rollup_config()
        second.rpc(lambda *_: {"error": {"code": -32000, "message": "no such block"}})
        for _ in range(2):
            with pytest.raises(ProposerError, match="no such block"):
                await node.rollup_config()
    assert (len(server.seen), len(second.seen)) == (2, 3)
