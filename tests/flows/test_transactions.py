"""L1 transactions against a real anvil: simulated, journaled, broadcast, tended, and what the chain says of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx
import orjson
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from blocks.output_oracle import encode_checkpoint, encode_propose
from blocks.signer import LocalSigner
from flows.context import Proposer
from flows.transactions import send, tend
from infra.devnet import Devnet
from infra.devnet.anvil import account_key
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


async def _tended(proposer: Proposer, status: TxStatus, seconds: float = 60) -> L1Transaction:
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
    """A way to L1 that loses a broadcast (the request, or only its answer), refuses it, or hides one transaction."""

    def __init__(self, target: Devnet) -> None:
        self._target = target
        self.lose: str | None = None
        self.refuse: str | None = None
        self.hide: bytes | None = None
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
        if sending and self.refuse is not None:
            error = {"code": -32000, "message": self.refuse}
            return Response(orjson.dumps({"jsonrpc": "2.0", "id": orjson.loads(body)["id"], "error": error}))
        if self.hide is not None and self.hide.hex().encode() in body:
            return Response("no answer about this one", 500)
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            answer = await client.post(self._target.l1_rpc, content=body, headers={"content-type": "application/json"})
        if sending and self.lose == "answer":
            return Dropped()
        return Response(answer.content, media_type="application/json")


@pytest_asyncio.fixture
async def wire_to() -> AsyncIterator[Callable[[Devnet], Awaitable[Wire]]]:
    """A function that makes a way to a devnet's L1."""
    async with AsyncExitStack() as stack:

        async def make(devnet: Devnet) -> Wire:
            wire = Wire(devnet)
            await wire.http.start()
            stack.push_async_callback(wire.http.stop)
            return wire

        yield make


@pytest_asyncio.fixture
async def wire(devnet: Devnet, wire_to: Callable[[Devnet], Awaitable[Wire]]) -> Wire:
    """A way to the L1 of the test's devnet."""
    return await wire_to(devnet)


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
    devnet = await start_devnet(l1_block_time_s=600.0)
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
    assert [reason.code for reason in proposer.record.incidents] == [Code.NONCE_DISPLACED]
    assert isinstance(await _checkpoint(proposer), bytes)
    assert [t.nonce for t in await _all(proposer)] == [0, 1]


async def test_an_unmined_transaction_is_sent_again_for_more(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """After the resubmission timeout the same nonce is signed with at least a tenth more; one of the two is mined."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    proposer = await make_proposer(devnet, resubmission_timeout=0.3)
    await _checkpoint(proposer)
    await asyncio.sleep(0.3)
    (said,) = (await tend(proposer)).did
    assert "signed again" in said
    (bumped,) = await _all(proposer)
    first, second = bumped.signed
    assert second.fees.cap * 10 >= first.fees.cap * 11
    assert second.fees.tip * 10 >= first.fees.tip * 11
    await devnet.anvil.mine(2)
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert len(done.signed) == 2
    assert await proposer.l1.nonce(devnet.proposer_address) == 1


async def test_a_proposal_that_would_revert_now_is_cancelled_on_its_nonce(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """Another proposer was quicker: the nonce is used up by nothing, at least a tenth dearer, and nothing reverts."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    proposer = await make_proposer(devnet)
    calldata = await _proposal(devnet, 1100)
    sent = await send(proposer, Purpose.PROPOSE, calldata, request=None)
    assert isinstance(sent, bytes)
    assert await devnet.anvil.drop_transaction("0x" + sent.hex())
    await tend(proposer)
    assert len((await _all(proposer))[0].signed) == 1, "as long as it would pass it is only repeated"
    assert await devnet.anvil.drop_transaction("0x" + sent.hex())
    await devnet.competing_proposal(1100, mine=True)
    (said,) = (await tend(proposer)).did
    assert "would revert now" in said
    (tx,) = await _all(proposer)
    first, second = tx.signed
    assert (second.action.purpose, second.action.to, second.action.calldata) == (Purpose.CANCEL, tx.sender, b"")
    assert second.fees.cap * 10 >= first.fees.cap * 11
    assert (await tend(proposer)).did == [], "once is enough"
    await devnet.anvil.mine(2)
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert (done.mined, done.may_propose) == (second.hash, False)
    assert await proposer.l1.nonce(devnet.proposer_address) == 1
    assert isinstance(await _checkpoint(proposer), bytes), "the account is free again"


async def _proposal(devnet: Devnet, end: int) -> bytes:
    """A proposal that the contract accepts right now."""
    number = await devnet.l1.block_number() - 1
    await devnet.send(devnet.competitor, "checkpointBlockHash(uint256)", number, mine=True)
    head = await devnet.read("historicBlockHashes(uint256)", number)
    return encode_propose(devnet.l2.output_root(end), end, number, await devnet.make_proof(end, head))


async def test_a_checkpoint_that_leaves_its_window_is_replaced_on_its_nonce(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """Unmined for 192 blocks: the same nonce checkpoints a newer block, and that is what aggregations may use."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    proposer = await make_proposer(devnet)
    sent = await _checkpoint(proposer)
    assert isinstance(sent, bytes)
    assert await devnet.anvil.drop_transaction("0x" + sent.hex())
    await devnet.anvil.mine(200)
    (said,) = (await tend(proposer)).did
    assert "leaves the window" in said
    await devnet.anvil.mine(2)
    done = await _tended(proposer, TxStatus.CONFIRMED)
    old, newer = (form.action.subject for form in done.signed)
    assert newer is not None and old is not None and newer > old + 100
    assert await proposer.oracle.historic_hash(proposer.l1, newer) == (await proposer.l1.block(newer)).hash  # type: ignore[union-attr]
    assert await proposer.oracle.historic_hash(proposer.l1, old) is None


async def test_what_counted_as_settled_and_is_gone_is_pending_again(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """A reorg deeper than the confirmations: before its nonce is used again, the very same bytes are mined again."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    proposer = await make_proposer(devnet, num_confirmations=1)
    sent = await _checkpoint(proposer, back=4)
    await devnet.anvil.mine(1)
    await _tended(proposer, TxStatus.CONFIRMED)
    await devnet.anvil.reorg(1)
    why = await _checkpoint(proposer, back=3)
    assert isinstance(why, Reason)
    assert why.code is Code.L1_REORG
    (lost,) = await _all(proposer)
    assert (lost.status, lost.mined) == (TxStatus.PENDING, None)
    assert [reason.code for reason in proposer.record.incidents] == [Code.L1_REORG]
    await tend(proposer)
    await devnet.anvil.mine(1)
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert [form.hash for form in done.signed] == [sent]
    assert isinstance(await _checkpoint(proposer, back=3), bytes)
    assert [t.nonce for t in await _all(proposer)] == [0, 1]


@pytest.mark.parametrize("said", ["replacement transaction underpriced", "transaction underpriced", "FeeTooLow"])
async def test_one_too_cheap_for_the_node_is_raised_at_once(
    devnet: Devnet, make_proposer: MakeProposer, wire: Wire, said: str
) -> None:
    """Without waiting for the resubmission timeout, and never under another nonce."""
    proposer = await make_proposer(devnet, l1_rpc=wire.http.url)
    wire.refuse = said
    await _checkpoint(proposer)
    assert "too cheap" in (await tend(proposer)).did[0]
    wire.refuse = None
    done = await _tended(proposer, TxStatus.CONFIRMED)
    first, second = done.signed
    assert done.mined == second.hash
    assert second.fees.cap * 10 >= first.fees.cap * 11
    assert await proposer.l1.nonce(devnet.proposer_address) == 1


@pytest.mark.parametrize("said", ["already known", "nonce too low"])
async def test_a_node_that_has_it_already_changes_nothing(
    devnet: Devnet, make_proposer: MakeProposer, wire: Wire, said: str
) -> None:
    """Whatever it says, the chain decides: one form, one nonce, one transaction."""
    proposer = await make_proposer(devnet, l1_rpc=wire.http.url)
    wire.refuse = said
    sent = await _checkpoint(proposer)
    assert (await tend(proposer)).did == []
    wire.refuse = None
    done = await _tended(proposer, TxStatus.CONFIRMED)
    assert [form.hash for form in done.signed] == [sent]
    assert await proposer.l1.nonce(devnet.proposer_address) == 1


async def test_at_the_fee_limit_the_price_stands_and_a_person_is_told(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """Bumped until five times the suggestion; then the last form is only repeated, on the same nonce."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    proposer = await make_proposer(
        devnet, resubmission_timeout=0.001, fee_limit_threshold_gwei=1, fee_limit_multiplier=2
    )
    await _checkpoint(proposer)
    for _ in range(40):
        report = await tend(proposer)
        if report.reasons:
            break
    assert [reason.code for reason in report.reasons] == [Code.FEE_CAP]
    (capped,) = await _all(proposer)
    forms = len(capped.signed)
    await tend(proposer)
    (again,) = await _all(proposer)
    assert len(again.signed) == forms
    await devnet.anvil.mine(2)
    await _tended(proposer, TxStatus.CONFIRMED)
    assert await proposer.l1.nonce(devnet.proposer_address) == 1


async def test_an_account_that_cannot_pay_sends_nothing_until_it_can(
    devnet: Devnet, make_proposer: MakeProposer
) -> None:
    """It is told before anything is signed; with ether it goes on."""
    proposer = await make_proposer(devnet)
    await devnet.l1.call("anvil_setBalance", devnet.proposer_address, hex(10**12))
    why = await _checkpoint(proposer)
    assert isinstance(why, Reason)
    assert why.code is Code.CANNOT_PAY
    assert await _all(proposer) == []
    await devnet.l1.call("anvil_setBalance", devnet.proposer_address, hex(10**18))
    assert isinstance(await _checkpoint(proposer), bytes)


async def test_a_transaction_of_another_key_is_repeated_and_never_signed_anew(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """The key was changed: a form of the old account's nonce under the new key would be another transaction."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    old = await make_proposer(devnet, resubmission_timeout=0.001)
    sent = await _checkpoint(old)
    assert isinstance(sent, bytes)
    new = await make_proposer(devnet, resubmission_timeout=0.001)
    _, key = account_key(3)
    new.signer = LocalSigner(private_key=SecretStr(key))
    assert await devnet.anvil.drop_transaction("0x" + sent.hex())
    report = await tend(new)
    assert [reason.code for reason in report.reasons] == [Code.KEY_CHANGED]
    await devnet.anvil.mine(2)
    done = await _tended(new, TxStatus.CONFIRMED)
    assert [form.hash for form in done.signed] == [sent]
    assert isinstance(await _checkpoint(new), bytes), "the new account sends what comes next"
    assert [t.sender for t in await _all(new)] == [devnet.proposer_address, devnet.competitor]


async def test_one_that_cannot_be_looked_at_delays_no_other(
    start_devnet: StartDevnet, make_proposer: MakeProposer, wire_to: Callable[[Devnet], Awaitable[Wire]]
) -> None:
    """Its error is reported beside what was done about the other."""
    devnet = await start_devnet(l1_block_time_s=600.0)
    wire = await wire_to(devnet)
    proposer = await make_proposer(devnet, l1_rpc=wire.http.url, num_confirmations=50)
    first = await _checkpoint(proposer, back=4)
    await devnet.anvil.mine(1)
    await _tended(proposer, TxStatus.MINED)
    await _checkpoint(proposer, back=3)
    await devnet.anvil.mine(1)
    assert isinstance(first, bytes)
    wire.hide = first
    report = await tend(proposer)
    assert ["nonce 0" in error for error in report.errors] == [True]
    assert [t.status for t in await _all(proposer)] == [TxStatus.MINED, TxStatus.MINED]


async def test_a_receipt_lost_in_a_reorg_is_pending_again(
    start_devnet: StartDevnet, make_proposer: MakeProposer
) -> None:
    """What was mined is not mined any more: it is pending, repeated, and mined again under the same hash."""
    devnet = await start_devnet(l1_block_time_s=600.0)
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
    assert [reason.code for reason in proposer.record.incidents] == [Code.L1_REORG], "told once, though it came back"


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
