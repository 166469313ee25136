"""The prover server: what may have been paid is told apart from what cannot have been."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks import prover as blocks_prover
from blocks.http import LARGE_AT_ONCE
from blocks.prover import Accepted, Execution, Fulfillment, MockProven, SuccinctServer, UnknownProof, _bytes, _prover_id
from proposer.errors import (
    BadReply,
    EndpointDown,
    LedgerMoved,
    OutcomeUnknown,
    ProposerError,
    RateLimited,
    RequestRefused,
)
from proposer.ranges import BlockRange
from proposer.snapshot import ServerView
from tests.blocks.loopback import KEY, Say, Server, members

ID = [18, 52, *[7] * 30]
HEX = bytes(ID).hex()
RANGE = BlockRange(1000, 1300)

pytestmark = pytest.mark.usefixtures("usual_depth")


async def ask(server: Server, say: Say, seconds: float = 2) -> object:
    """Request a range against one scripted answer."""
    server.answer = lambda *_: say
    async with SuccinctServer(url=server.url) as prover:
        return await prover.request_range(RANGE, seconds)


async def look(server: Server, say: Say) -> object:
    """Ask for a status against one scripted answer."""
    server.answer = lambda *_: say
    async with SuccinctServer(url=server.plain, timeout_seconds=2) as prover:
        return await prover.status(HEX)


async def test_a_range_is_asked_and_its_id_read(server: Server) -> None:
    """Appendix B."""
    server.answer = lambda *_: Say({"proof_id": ID})
    async with SuccinctServer(url=server.plain) as prover:
        assert await prover.request_range(RANGE, 2) == Accepted(HEX)
    assert server.seen == [("POST", "/request_span_proof", b'{"start":1000,"end":1300}')]


@pytest.mark.parametrize("proof_id", [b64encode(bytes(ID)).decode(), HEX, "0x" + HEX.upper()])
async def test_other_spellings_of_an_id_are_read(server: Server, proof_id: str) -> None:
    """Base64 and hex are harmless."""
    assert await ask(server, Say({"proof_id": proof_id})) == Accepted(HEX)


@pytest.mark.parametrize("lengths", [(1,), (2, 3), (0, 1_000_000, 7)])
async def test_an_aggregation_body_is_the_documented_json(server: Server, lengths: tuple[int, ...]) -> None:
    """Its length is announced right and the proofs arrive whole, in order."""
    server.answer = lambda *_: Say({"proof_id": ID})
    proofs = [bytes([i + 1]) * length for i, length in enumerate(lengths)]
    async with SuccinctServer(url=server.plain) as prover:
        await prover.request_aggregation(*members(*proofs), b"\xab" * 32, 5)
    method, path, body = server.seen[0]
    assert (method, path) == ("POST", "/request_agg_proof")
    assert json.loads(body) == {"subproofs": [b64encode(p).decode() for p in proofs], "head": "0x" + "ab" * 32}


async def test_an_aggregation_reads_a_proof_only_when_the_one_before_is_sent() -> None:
    """Of many proofs of a megabyte one is held at a time, whatever the server's pace."""
    read: list[int] = []
    size, many = 2**20, 16

    async def proofs() -> AsyncIterator[bytes]:
        for i in range(many):
            read.append(i)
            yield bytes(size)

    paused, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        paused.set()
        await go_on.wait()
        writer.close()
        closed.set()

    async with await asyncio.start_server(slowly, "127.0.0.1", 0) as slow:
        port = slow.sockets[0].getsockname()[1]
        async with SuccinctServer(url=f"http://127.0.0.1:{port}") as prover:
            asking = asyncio.create_task(prover.request_aggregation([size] * many, proofs(), b"\0" * 32, 10))
            await paused.wait()
            await asyncio.sleep(0.2)
            # what the kernel's buffers hold is sent already
            assert len(read) < many
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            go_on.set()
            await closed.wait()


async def test_an_aggregation_whose_proofs_cannot_be_read_is_not_asked(server: Server) -> None:
    """The ledger is away half-way: its own error is told, and the server has no whole request that it could answer."""

    async def proofs() -> AsyncIterator[bytes]:
        yield b"one"
        raise EndpointDown("the ledger is away")

    async with SuccinctServer(url=server.plain) as prover:
        with pytest.raises(EndpointDown, match="the ledger is away"):
            await prover.request_aggregation([3, 3], proofs(), b"\0" * 32, 5)
    await asyncio.sleep(0.05)
    assert server.connections == 1
    assert server.seen == []


@pytest.mark.parametrize("proofs", [(b"one", b"longer"), (b"one",), (b"one", b"two", b"three")])
async def test_an_aggregation_whose_proofs_changed_meanwhile_is_not_asked(
    server: Server, proofs: tuple[bytes, ...]
) -> None:
    """What is announced is what is sent: a proof replaced in between would arrive as a broken request."""
    async with SuccinctServer(url=server.plain) as prover:
        with pytest.raises(LedgerMoved):
            await prover.request_aggregation([3, 3], members(*proofs)[1], b"\0" * 32, 5)
    assert server.seen == []


async def test_many_large_proofs_are_read_a_few_at_a_time(server: Server) -> None:
    """All arrive, small answers do not wait for large ones, and the wait for a turn is not the server's delay."""
    proof, at_once, most = bytes(range(256)) * 2000, 0, 0
    all_turns_taken, small_is_read = asyncio.Event(), asyncio.Event()
    decode = blocks_prover.decode

    async def slow_decode(body: bytes, where: str) -> object:
        nonlocal at_once, most
        if len(body) < 1000:
            return await decode(body, where)
        at_once += 1
        most = max(most, at_once)
        if at_once == LARGE_AT_ONCE:
            all_turns_taken.set()
        await asyncio.wait_for(small_is_read.wait(), 30)
        await asyncio.sleep(0.6)
        at_once -= 1
        return await decode(body, where)

    large = Say(json.dumps({"fulfillment_status": 3, "execution_status": 2, "proof": list(proof)}).encode())
    small = Say({"fulfillment_status": 2, "execution_status": 2, "proof": []})
    server.answer = lambda _, path, __: large if path.endswith("0") else small
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_prover, "decode", slow_decode)
        async with SuccinctServer(url=server.plain, timeout_seconds=2) as prover:
            began = asyncio.get_running_loop().time()
            larges = [asyncio.create_task(prover.status(f"{i:063x}0")) for i in range(4 * LARGE_AT_ONCE)]
            await asyncio.wait_for(all_turns_taken.wait(), 30)
            assert (await prover.status("1" * 64)).proof is None
            assert not any(look.done() for look in larges)
            small_is_read.set()
            assert {status.proof for status in await asyncio.gather(*larges)} == {proof}
    assert most == LARGE_AT_ONCE
    assert asyncio.get_running_loop().time() - began > 2, "the last ones waited longer than a read may take"


async def test_mock_endpoints(server: Server) -> None:
    """A mock range proof comes at once; a mock aggregation is empty."""
    replies = {"/request_mock_span_proof": [1, 2], "/request_mock_agg_proof": []}
    server.answer = lambda _, path, __: Say({"fulfillment_status": 3, "execution_status": 0, "proof": replies[path]})
    async with SuccinctServer(url=server.plain, mock=True) as prover:
        assert await prover.request_range(RANGE, 2) == MockProven(b"\1\2")
        assert await prover.request_aggregation(*members(b"x"), b"\0" * 32, 2) == MockProven(b"")


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (Say(status=502), OutcomeUnknown),
        (Say("starting", status=503), EndpointDown),
        (Say(status=429, headers={"Retry-After": "7"}), RateLimited),
        (Say(status=504), OutcomeUnknown),
        (Say(drop=True), OutcomeUnknown),
        (Say(hang=True), OutcomeUnknown),
        (Say("Program simulation failed", status=500), RequestRefused),
        (Say("bad shape", status=422), RequestRefused),
        (Say("not json"), BadReply),
        (Say({"proof_id": ID[:31]}), BadReply),
        (Say({"proof_id": [*ID[:31], 256]}), BadReply),
        (Say({"proof_id": [*ID[:31], True]}), BadReply),
        (Say({"proof": []}), BadReply),
        (Say([]), BadReply),
        (Say("<html>It works!</html>", headers={"Content-Type": "text/html"}), BadReply),
        (Say({"proof_id": ID}, status=202), BadReply),
        (Say(status=204), BadReply),
        (Say({"proof_id": ID}, status=999), OutcomeUnknown),
        (Say(b"[" * 2000 + b"]" * 2000), BadReply),
        (Say(b'{"proof_id": ' + b"[" * 1000 + b"]" * 1000 + b"}"), BadReply),
        (Say(b'{"proof_id": NaN}'), BadReply),
        (Say(b'{"proof_id": "' + b"a" * 2**21 + b'"}'), BadReply),
        (Say({"proof_id": ID}, headers={"Content-Encoding": "gzip, gzip"}), BadReply),
        (Say("origin timed out", status=524), OutcomeUnknown),
        (Say("elsewhere", status=302), RequestRefused),
    ],
)
async def test_errors_of_a_request(server: Server, say: Say, error: type[ProposerError]) -> None:
    """Each answer has its one class, and none shows the key."""
    with pytest.raises(ProposerError) as caught:
        await ask(server, say, 0.3)
    assert type(caught.value) is error
    assert KEY not in repr(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_the_pause_and_the_text_are_kept(server: Server) -> None:
    """Callers wait as asked, and store the server's own words without our key."""
    with pytest.raises(RateLimited) as limited:
        await ask(server, Say(status=429, headers={"Retry-After": "7"}))
    assert limited.value.retry_after_seconds == 7
    with pytest.raises(RequestRefused) as refused:
        await ask(server, Say(f"Cannot POST /v2/{KEY}: " + "x" * 900, status=404))
    assert refused.value.status_code == 404
    assert str(refused.value).startswith("Cannot POST ***")
    assert len(str(refused.value)) <= 500


async def test_nobody_listening_asks_nothing(closed_port: int) -> None:
    """Connection refused is EndpointDown: no attempt is charged."""
    async with SuccinctServer(url=f"http://127.0.0.1:{closed_port}/{KEY}") as prover:
        with pytest.raises(EndpointDown) as caught:
            await prover.request_range(RANGE, 1)
    assert KEY not in str(caught.value)


async def test_each_request_has_its_own_connection(server: Server) -> None:
    """A kept connection that is closed meanwhile would look like an unknown outcome."""
    server.answer = lambda *_: Say({"proof_id": ID})
    async with SuccinctServer(url=server.plain) as prover:
        for _ in range(3):
            await prover.request_range(RANGE, 2)
    assert server.connections == 3


async def test_a_large_proof_is_read(server: Server) -> None:
    """1.25 MB of proof is 4.5 MB of JSON."""
    proof = bytes(range(256)) * 5000
    status = await look(server, Say({"fulfillment_status": 3, "execution_status": 2, "proof": list(proof)}))
    assert status.proof == proof  # type: ignore[attr-defined]


async def test_status_words(server: Server) -> None:
    """A proof that is fulfilled and empty is told as such; others have none."""
    said = await look(server, Say({"fulfillment_status": 3, "execution_status": 2, "proof": []}))
    assert said.proof == b""  # type: ignore[attr-defined]
    said = await look(server, Say({"fulfillment_status": 4, "execution_status": 3, "proof": []}))
    assert (said.fulfillment, said.execution, said.proof) == (  # type: ignore[attr-defined]
        Fulfillment.UNFULFILLABLE,
        Execution.UNEXECUTABLE,
        None,
    )
    assert server.seen[-1][1] == f"/status/{HEX}"


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (Say("Failed to get proof status: status: NotFound, message: no proof", status=500), UnknownProof),
        (Say("unknown proof id", status=404), UnknownProof),
        (Say("<html>404 request not found</html>", status=404), RequestRefused),
        (Say("Failed to get proof status: dns error: name not found", status=500), RequestRefused),
        (Say({"fulfillment_status": 0, "execution_status": 0, "proof": []}, status=500), RequestRefused),
        (Say("bad gateway", status=502), EndpointDown),
        (Say(hang=True), EndpointDown),
        (Say(drop=True), EndpointDown),
        (Say({"fulfillment_status": 9, "execution_status": 2, "proof": []}), BadReply),
        (Say({"fulfillment_status": 3, "execution_status": 2, "proof": [256]}), BadReply),
        (Say({"fulfillment_status": 3, "execution_status": 2, "proof": [True, 1]}), BadReply),
        (Say({"fulfillment_status": 3, "execution_status": 2, "proof": [1.0]}), BadReply),
        (Say({"fulfillment_status": True, "execution_status": 2, "proof": []}), BadReply),
        (Say({"fulfillment_status": 4, "execution_status": 2, "proof": [1]}), BadReply),
        (Say({"fulfillment_status": 2, "execution_status": 2, "proof": [1]}), BadReply),
        (Say("proof not found", status=502), EndpointDown),
        (Say("proof not found", status=204), BadReply),
        (Say("origin down", status=521), EndpointDown),
    ],
)
async def test_errors_of_a_status(server: Server, say: Say, error: type[ProposerError]) -> None:
    """A misrouted URL or a network behind the server is never an unknown proof, which would be paid again."""
    with pytest.raises(ProposerError) as caught:
        await look(server, say)
    assert type(caught.value) is error


@pytest.mark.parametrize("spelled", ["AQID", "0x010203", HEX, ""])
async def test_a_text_is_no_proof(server: Server, spelled: str) -> None:
    """Not even one that could be read as bytes: it would be stored in place of the proof that was paid for."""
    with pytest.raises(BadReply, match="list of integers"):
        await look(server, Say({"fulfillment_status": 3, "execution_status": 2, "proof": spelled}))


async def test_a_servers_text_is_plain(server: Server) -> None:
    """PostgreSQL's text holds no NUL, and a log line no escape sequences."""
    with pytest.raises(RequestRefused) as refused:
        await ask(server, Say(b"no \0 \x1b[2J proof", status=500))
    assert str(refused.value).isprintable()


async def test_an_unknown_status_is_named(server: Server) -> None:
    """The field and the value are in the message."""
    with pytest.raises(BadReply, match="fulfillment_status is '9'"):
        await look(server, Say({"fulfillment_status": 9, "execution_status": 2, "proof": []}))


async def test_bodies_are_bounded(server: Server) -> None:
    """A body above the limit is refused, not held."""
    server.answer = lambda *_: Say(b"[" + b"0," * 600_000 + b"0]")
    async with SuccinctServer(url=server.plain, max_reply_mib=1) as prover:
        with pytest.raises(BadReply, match="larger"):
            await prover.status(HEX)


async def test_validate_config(server: Server) -> None:
    """Three booleans, in the server's names."""
    valid = {"rollup_config_hash_valid": True, "agg_vkey_valid": False, "range_vkey_valid": True}
    server.answer = lambda *_: Say(valid)
    async with SuccinctServer(url=server.plain) as prover:
        assert await prover.validate_config("0x" + "Ab" * 20) == ServerView(True, False, True)
        server.answer = lambda *_: Say(valid | {"agg_vkey_valid": 1})
        with pytest.raises(BadReply, match="agg_vkey_valid"):
            await prover.validate_config("0x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON | st.lists(st.integers(-1, 257), min_size=31, max_size=33))
def test_any_id_is_read_or_refused(value: object) -> None:
    """No other error gets out."""
    try:
        assert len(_prover_id(value, "test")) == 64
    except BadReply as error:
        assert "proof_id" in str(error)  # noqa: PT017


@given(JSON)
def test_any_proof_is_read_or_refused(value: object) -> None:
    """No other error gets out."""
    coroutine = _bytes(value, "proof", "test")
    try:
        coroutine.send(None)
    except StopIteration as stop:
        assert isinstance(stop.value, bytes)  # noqa: PT017
    except BadReply:
        pass
