"""L1 transactions against a real anvil: simulated, journaled, broadcast, tended, and what the chain says of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import orjson
import pytest
import pytest_asyncio
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blocks.output_oracle import encode_checkpoint, encode_propose
from flows.context import Proposer
from flows.transactions import send, tend
from infra.devnet import Devnet
from infra.devnet.server import Dropped, HttpServer
from proposer.errors import NotLeader, Reverted
from proposer.l1_transactions import L1Transaction, Purpose, TxStatus
from proposer.reasons import Code, Reason
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer


async def _checkpoint(proposer: Proposer, back: int = 1) -> bytes | Reason:
    number = (await proposer.l1.head()).number - back
    return await send(proposer, Purpose.CHECKPOINT, encode_checkpoint(number), request=None, subject=number)


async def _all(proposer: Proposer) -> list[L1Transaction]:
    return list(await proposer.ledger.transactions(unsettled=False))


async def _tended(proposer: Proposer, status: TxStatus, seconds: float = 10) -> L1Transaction:
    deadline = time.monotonic() + seconds
    while True:
        await tend(proposer)
        newest = (await _all(proposer))[-1]
        if newest.status is status:
            return newest
        assert time.monotonic() < deadline, newest
        await asyncio.sleep(0.05)


async def test_a_call_that_reverts_is_not_sent(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """The simulation's revert is decoded to its name; nothing is journaled and no gas spent."""
    proposer = await make_proposer(devnet)
    with pytest.raises(Reverted) as reverted:
        await send(proposer, Purpose.PROPOSE, encode_propose(b"\1" * 32, 1100, 1, b""), request=None)
    assert not reverted.value.name.startswith("0x"), "decoded"
    assert reverted.value.name
    assert await _all(proposer) == []
    assert await proposer.l1.nonce(devnet.proposer_address) == 0


async def test_a_transaction_is_sent_once_and_confirmed(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """While it is unmined nothing else is sent; mined, it is recorded with its block and gas."""
    proposer = await make_proposer(devnet, num_confirmations=2)
    await devnet.anvil.set_automine(on=False)
    sent = await _checkpoint(proposer)
    busy = await _checkpoint(proposer, back=2)
    assert isinstance(sent, bytes)
    assert isinstance(busy, Reason)
    assert busy.code is Code.SIGNER_BUSY
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert [signed.hash for signed in done.signed] == [sent]
    assert done.block and done.block_hash and done.gas_used
    assert len(await _all(proposer)) == 1


class Wire:
    """A way to L1 that loses what it is told to: the request to broadcast, or only its answer."""

    def __init__(self, target: Devnet) -> None:
        self._target = target
        self.lose: str | None = None
        self.journaled_first: list[bool] = []
        self.on_send: Callable[[], Awaitable[bool]] | None = None
        self.http = HttpServer(Starlette(routes=[Route("/", self._forward, methods=["POST"])]), 0)

    async def _forward(self, request: Request) -> Response:
        body = await request.body()
        sending = orjson.loads(body).get("method") == "eth_sendRawTransaction"
        if sending and self.on_send is not None:
            self.journaled_first.append(await self.on_send())
        if sending and self.lose == "request":
            return Dropped()
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.post(self._target.l1_rpc, content=body, headers={"content-type": "application/json"})
        if sending and self.lose == "answer":
            return Dropped()
        return Response(answer.content, media_type="application/json")


@pytest_asyncio.fixture
async def wire(devnet: Devnet) -> AsyncIterator[Wire]:
    """A way to L1 that can lose a broadcast."""
    wire = Wire(devnet)
    await wire.http.start()
    yield wire
    await wire.http.stop()


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_broadcast_cut_off_is_in_the_journal_and_recognised(
    devnet: Devnet, make_proposer: MakeProposer, wire: Wire, lost: str
) -> None:
    """Whether the node got it or not: the same bytes are in the journal, and one transaction is mined."""
    proposer = await make_proposer(devnet, l1_rpc=wire.http.url)

    async def is_journaled() -> bool:
        return len(await _all(proposer)) == 1

    wire.on_send, wire.lose = is_journaled, lost
    sent = await _checkpoint(proposer)
    assert wire.journaled_first
    assert all(wire.journaled_first)
    wire.lose = None
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert [signed.hash for signed in done.signed] == [sent]
    assert await proposer.l1.nonce(devnet.proposer_address) == 1


async def test_a_nonce_used_by_another_is_displaced(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """Somebody else used the key: our transaction can never be mined, and the next one takes the next nonce."""
    devnet = await start_devnet(l1_block_time_s=30.0)
    proposer = await make_proposer(devnet)
    sent = await _checkpoint(proposer)
    assert isinstance(sent, bytes)
    assert await devnet.anvil.drop_transaction("0x" + sent.hex())
    other = {"from": devnet.proposer_address, "to": devnet.owner, "value": "0x1", "nonce": "0x0"}
    await devnet.l1.call("eth_sendTransaction", other)
    await devnet.anvil.mine(1)
    await tend(proposer)
    assert (await _all(proposer))[0].status is TxStatus.PENDING, "one block may still be reorganised away"
    await devnet.anvil.mine(1)
    await tend(proposer)
    (displaced,) = await _all(proposer)
    assert displaced.status is TxStatus.DISPLACED
    assert isinstance(await _checkpoint(proposer), bytes)
    assert [t.nonce for t in await _all(proposer)] == [0, 1]


async def test_an_unmined_transaction_is_sent_again_for_more(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """After the resubmission timeout the same nonce is signed with at least a tenth more; one of the two is mined."""
    devnet = await start_devnet(l1_block_time_s=30.0)
    proposer = await make_proposer(devnet, resubmission_timeout=0.3)
    await _checkpoint(proposer)
    await asyncio.sleep(0.3)
    (said,) = (await tend(proposer)).did
    assert "sent again" in said
    (bumped,) = await _all(proposer)
    first, second = bumped.signed
    assert second.fees.cap * 10 >= first.fees.cap * 11
    assert second.fees.tip * 10 >= first.fees.tip * 11
    await devnet.anvil.mine(2)
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert len(done.signed) == 2
    assert await proposer.l1.nonce(devnet.proposer_address) == 1


async def test_a_receipt_lost_in_a_reorg_is_pending_again(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """What was mined is not mined any more: it is pending, repeated, and mined again under the same hash."""
    devnet = await start_devnet(l1_block_time_s=30.0)
    proposer = await make_proposer(devnet, num_confirmations=5)
    sent = await _checkpoint(proposer, back=3)
    await devnet.anvil.mine(1)
    await _tended(proposer, TxStatus.MINED)
    await devnet.anvil.reorg(1)
    await _tended(proposer, TxStatus.PENDING)
    await tend(proposer)
    await devnet.anvil.mine(6)
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert sent in [signed.hash for signed in done.signed]


async def test_who_does_not_lead_sends_nothing(devnet: Devnet, make_proposer: MakeProposer) -> None:
    """Neither by its own clock nor by the ledger's: nothing is journaled and nothing broadcast."""
    proposer = await make_proposer(devnet)
    proposer.still_leads = lambda: False
    with pytest.raises(NotLeader):
        await _checkpoint(proposer)
    proposer.still_leads = lambda: True
    async with proposer.ledger.connect() as connection:
        await connection.execute(text("UPDATE leadership SET epoch = epoch + 1"))
        await connection.commit()
    with pytest.raises(NotLeader):
        await _checkpoint(proposer)
    assert await _all(proposer) == []
    assert int(await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "pending"), 16) == 0
