"""Transactions of a remote signer: what is wrong is neither journaled nor sent, and one that is away costs nothing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from blocks.output_oracle import encode_checkpoint
from blocks.web3signer import Web3Signer
from flows import desk
from flows.context import Proposer
from flows.transactions import send, tend
from infra.devnet import Devnet
from infra.devnet.signer import SignerStandIn
from proposer.l1_transactions import L1Transaction, Purpose, TxStatus
from proposer.reasons import Code, Reason, Severity
from proposer.requests import Kind
from tests.devnets import StartDevnet
from tests.flows.conftest import MakeProposer, cycle, every_request, until

CHAIN = 31337


@pytest_asyncio.fixture
async def devnet(start_devnet: StartDevnet) -> Devnet:
    """A devnet whose blocks come when they are asked for."""
    return await start_devnet(l1_block_time_s=600.0)


@pytest_asyncio.fixture
async def stand_in(devnet: Devnet) -> AsyncIterator[SignerStandIn]:
    """A Web3Signer that holds the proposer's key."""
    server = SignerStandIn(devnet.proposer_key, CHAIN)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def proposer(devnet: Devnet, make_proposer: MakeProposer, stand_in: SignerStandIn) -> AsyncIterator[Proposer]:
    """A proposer that signs there."""
    made = await make_proposer(devnet, resubmission_timeout=0.001)
    async with Web3Signer(url=stand_in.http.url, address=stand_in.address, timeout_seconds=10) as signer:
        made.signer = signer
        yield made


async def _checkpoint(proposer: Proposer) -> bytes | Reason:
    number = (await proposer.l1.head()).number - 1
    return await send(proposer, Purpose.CHECKPOINT, encode_checkpoint(number), request=None, subject=number)


async def _journal(proposer: Proposer) -> list[L1Transaction]:
    return list(await proposer.ledger.transactions(unsettled=False))


async def _in_pool(devnet: Devnet) -> int:
    return int(await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "pending"), 16)


FAULTS: dict[str, tuple[dict[str, Any], Code]] = {
    "another nonce": ({"wrong_field": "nonce"}, Code.SIGNER_REFUSES),
    "another key": ({"wrong_key": True}, Code.SIGNER_REFUSES),
    "no bytes": ({"result": "0x"}, Code.SIGNER_REFUSES),
    "no hex": ({"result": "yes"}, Code.SIGNER_REFUSES),
    "no account": ({"locked": True}, Code.SIGNER_REFUSES),
    "not let in": ({"status": 403}, Code.SIGNER_REFUSES),
    "failing": ({"text_500": True}, Code.SIGNER_DOWN),
    "cut off": ({"drop": True}, Code.SIGNER_DOWN),
    "silent": ({"hang": True}, Code.SIGNER_DOWN),
}


@pytest.mark.parametrize(("faults", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_what_is_not_signed_right_is_neither_journaled_nor_sent(
    devnet: Devnet, proposer: Proposer, stand_in: SignerStandIn, faults: dict[str, Any], code: Code
) -> None:
    """It is a reason with a remedy; once the signer does its work, so does the proposer, with the same nonce."""
    for name, value in faults.items():
        setattr(stand_in.faults, name, value)
    patience = 0.5 if "hang" in faults else 10
    async with Web3Signer(url=stand_in.http.url, address=stand_in.address, timeout_seconds=patience) as signer:
        why = await _checkpoint(replace(proposer, signer=signer))
    assert isinstance(why, Reason)
    assert why.code is code
    assert why.severity is (Severity.WARNING if code is Code.SIGNER_DOWN else Severity.CRITICAL)
    assert "Nothing was sent" in why.remedy
    assert (await _journal(proposer), await _in_pool(devnet)) == ([], 0)
    stand_in.faults = type(stand_in.faults)()
    assert isinstance(await _checkpoint(proposer), bytes)
    (tx,) = await _journal(proposer)
    assert (tx.nonce, tx.sender, await _in_pool(devnet)) == (0, devnet.proposer_address, 1)


async def test_what_was_sent_is_looked_after_without_the_signer(
    devnet: Devnet, proposer: Proposer, stand_in: SignerStandIn
) -> None:
    """Its fee cannot be raised, and the bytes that there are go on: lost by the node, they are broadcast again."""
    sent = await _checkpoint(proposer)
    assert isinstance(sent, bytes)
    await stand_in.stop()
    assert await devnet.anvil.drop_transaction("0x" + sent.hex())
    report = await tend(proposer)
    assert ([reason.code for reason in report.reasons], report.errors) == ([Code.SIGNER_DOWN], [])
    assert await proposer.l1.knows(sent)
    await devnet.anvil.mine(2)
    await tend(proposer)
    (tx,) = await _journal(proposer)
    assert (tx.status, [form.hash for form in tx.signed]) == (TxStatus.CONFIRMED, [sent])


async def test_the_fee_is_raised_with_its_signature(
    devnet: Devnet, proposer: Proposer, stand_in: SignerStandIn
) -> None:
    assert isinstance(await _checkpoint(proposer), bytes)
    await tend(proposer)
    (tx,) = await _journal(proposer)
    assert [form.hash for form in tx.signed] == list(dict.fromkeys(form.hash for form in tx.signed))
    assert len(tx.signed) == len(stand_in.signed) == 2
    assert await proposer.l1.knows(tx.newest.hash)


async def test_it_is_explained_why_nothing_is_settled(start_devnet: StartDevnet, make_proposer: MakeProposer) -> None:
    """What an operator asks leads to the signer; with the signer back the output is settled."""
    devnet = await start_devnet()
    stand_in = SignerStandIn(devnet.proposer_key, CHAIN)
    proposer = await make_proposer(devnet)
    async with Web3Signer(url=stand_in.http.url, address=stand_in.address) as signer:
        proposer.signer = signer

        async def waits() -> bool:
            return any(r.kind is Kind.AGG for r in await every_request(proposer))

        await until(proposer, waits)
        report = await cycle(proposer)
        assert Code.SIGNER_DOWN in {reason.code for reason in report.reasons}
        assert report.failed == {}
        explained = await desk.explain(proposer, await desk.look(proposer))
        assert explained.cause.code is Code.SIGNER_DOWN
        await stand_in.start()

        async def settled() -> bool:
            return await devnet.latest_block_number() == 1100

        await until(proposer, settled)
    await stand_in.stop()
