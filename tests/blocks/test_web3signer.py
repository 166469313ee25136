"""The remote signer: what it signs is what was asked for, by the account, or nothing is given on."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from eth_account import Account
from eth_utils.crypto import keccak

from blocks.signer import LocalSigner
from blocks.web3signer import Web3Signer
from infra.devnet.anvil import account_key
from infra.devnet.signer import SignerStandIn
from proposer.errors import BadReply, EndpointDown, InvalidSettings, ProposerError, SignerRefuses, WrongSignature
from tests.blocks.loopback import KEY, Say, Server

CHAIN = 31337
ADDRESS, PRIVATE = account_key(4)
TX: dict[str, Any] = {
    "chainId": CHAIN,
    "nonce": 7,
    "to": "0x" + "22" * 20,
    "data": b"\x00\x01" * 300,
    "gas": 300_000,
    "maxFeePerGas": 30 * 10**9,
    "maxPriorityFeePerGas": 10**9,
}
ZEROS = TX | {"nonce": 0, "data": b"", "maxPriorityFeePerGas": 0, "value": 0}


@pytest_asyncio.fixture
async def stand_in() -> AsyncIterator[SignerStandIn]:
    """A running Web3Signer."""
    server = SignerStandIn(PRIVATE, CHAIN)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture
async def signer(stand_in: SignerStandIn) -> AsyncIterator[Web3Signer]:
    """A client of it."""
    async with Web3Signer(url=stand_in.http.url, address=ADDRESS.lower(), timeout_seconds=10) as made:
        yield made


@pytest.mark.parametrize("tx", [TX, ZEROS, TX | {"value": 5}], ids=["usual", "zeros", "value"])
async def test_it_signs_as_the_key_itself_does(signer: Web3Signer, tx: dict[str, Any]) -> None:
    """The same bytes and hash, and the address is EIP-55's."""
    await signer.check()
    hash_, raw = await signer.sign(tx)
    assert (hash_, raw) == await LocalSigner.model_validate({"private_key": PRIVATE}).sign(tx)
    assert signer.address == ADDRESS


async def test_what_goes_over_the_wire(stand_in: SignerStandIn, signer: Web3Signer) -> None:
    """Numbers are hex quantities without leading zeros, and every field is said."""
    await signer.sign(ZEROS)
    assert stand_in.signed == [
        {
            "from": ADDRESS,
            "type": "0x2",
            "value": "0x0",
            "chainId": "0x7a69",
            "nonce": "0x0",
            "to": "0x" + "22" * 20,
            "data": "0x",
            "gas": "0x493e0",
            "maxFeePerGas": "0x6fc23ac00",
            "maxPriorityFeePerGas": "0x0",
        }
    ]


@pytest.mark.parametrize(
    "field",
    ["nonce", "to", "value", "data", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "chainId", "accessList"],
)
async def test_another_value_of_any_field_is_refused(stand_in: SignerStandIn, signer: Web3Signer, field: str) -> None:
    """However well it is signed: it is another transaction, and the field is named."""
    stand_in.faults.wrong_field = field  # type: ignore[assignment]
    with pytest.raises(
        WrongSignature, match=rf"another transaction: its {field} is not what was asked for; nothing was"
    ):
        await signer.sign(TX)


async def test_a_signature_of_another_account_is_refused(stand_in: SignerStandIn, signer: Web3Signer) -> None:
    stand_in.faults.wrong_key = True
    with pytest.raises(WrongSignature, match=rf"a signature of 0x[0-9a-fA-F]{{40}}, not of {ADDRESS}"):
        await signer.sign(TX)


def signed(**changes: Any) -> bytes:
    """The transaction as the account signs it, with these changes."""
    return bytes(Account.from_key(PRIVATE).sign_transaction({"value": 0, "type": 2, **TX, **changes}).raw_transaction)


def with_signature(raw: bytes, **changes: int) -> bytes:
    """Exchange parts of a signature."""
    import rlp

    *fields, v, r, s = rlp.decode(raw[1:])
    parts = {"v": v, "r": r, "s": s} | {n: i.to_bytes((i.bit_length() + 7) // 8, "big") for n, i in changes.items()}
    return b"\2" + rlp.encode([*fields, *parts.values()])


N = 2**256 - 0x14551231950B75FC4402DA1732FC9BEBF


def mirrored(raw: bytes) -> bytes:
    """The same signature with the other s, which is as valid and gives another hash."""
    import rlp

    *_, v, _, s = rlp.decode(raw[1:])
    return with_signature(raw, v=1 - int.from_bytes(v, "big"), s=N - int.from_bytes(s, "big"))


def zero_before_s(raw: bytes) -> bytes:
    """An s with a leading zero."""
    import rlp

    *fields, s = rlp.decode(raw[1:])
    return b"\2" + rlp.encode([*fields, b"\0" + s])


def deep() -> bytes:
    """Lists in lists, as deep as an answer is long."""
    raw = b""
    for _ in range(3000):
        raw = bytes([0xC0 + len(raw)]) + raw if len(raw) < 56 else b"\xf9" + len(raw).to_bytes(2, "big") + raw
    return b"\2" + raw


WRONG: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no signed EIP-1559 transaction"),
    "the type alone": (b"\2", "no signed EIP-1559 transaction"),
    "no list": (b"\2\x81\xff", "no signed EIP-1559 transaction"),
    "an empty list": (b"\2\xc0", "no signed EIP-1559 transaction"),
    "cut off": (signed()[:-1], "no signed EIP-1559 transaction"),
    "a byte more": (signed() + b"\0", "no signed EIP-1559 transaction"),
    "another type": (b"\1" + signed()[1:], "no signed EIP-1559 transaction"),
    "deep": (deep(), "no signed EIP-1559 transaction"),
    "mirrored": (mirrored(signed()), "a signature that L1 does not take"),
    "v of 27": (with_signature(signed(), v=27), "a signature that L1 does not take"),
    "r of zero": (with_signature(signed(), r=0), "a signature that L1 does not take"),
    "r of the order": (with_signature(signed(), r=N), "a signature that L1 does not take"),
    "s of zero": (with_signature(signed(), s=0), "a signature that L1 does not take"),
    "r of no point": (with_signature(signed(), r=5), "a signature"),
    "a zero before s": (zero_before_s(signed()), "no signed EIP-1559 transaction in its one right encoding"),
}


@pytest.mark.parametrize(("raw", "what"), WRONG.values(), ids=WRONG.keys())
async def test_bytes_that_are_no_signature_of_it_are_refused(
    stand_in: SignerStandIn, signer: Web3Signer, raw: bytes, what: str
) -> None:
    stand_in.faults.result = "0x" + raw.hex()
    with pytest.raises(WrongSignature, match=what):
        await signer.sign(TX)


@pytest.mark.parametrize("result", [{}, [], 5, "signed", "0xabc", {"raw": "0x02"}], ids=str)
async def test_a_result_that_is_no_hex_is_a_bad_reply(
    stand_in: SignerStandIn, signer: Web3Signer, result: object
) -> None:
    stand_in.faults.result = result
    with pytest.raises(BadReply, match=r"eth_signTransaction of http://127.0.0.1:\d+: result"):
        await signer.sign(TX)


async def test_a_transaction_of_before_eip_1559_is_refused(stand_in: SignerStandIn, signer: Web3Signer) -> None:
    stand_in.faults.legacy = True
    with pytest.raises(WrongSignature, match="no signed EIP-1559 transaction"):
        await signer.sign(TX)


async def test_an_account_that_it_does_not_have_is_named(stand_in: SignerStandIn, signer: Web3Signer) -> None:
    stand_in.faults.locked = True
    with pytest.raises(SignerRefuses, match=f"holds 0 keys, and none is that of {ADDRESS}; load its key there"):
        await signer.check()
    with pytest.raises(SignerRefuses, match=f"No unlocked account matches the Sender; check that .* {ADDRESS}"):
        await signer.sign(TX)


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_signer_that_does_not_let_us_in_is_for_a_person(
    stand_in: SignerStandIn, signer: Web3Signer, status: int
) -> None:
    stand_in.faults.status = status
    with pytest.raises(SignerRefuses, match=rf"HTTP {status}: .*; check path, user and password in SIGNER_URL"):
        await signer.sign(TX)


@pytest.mark.parametrize("fault", ["text_500", "drop", "hang", "retry_after_s", "stopped"])
async def test_a_signer_that_is_down_or_slow_costs_nothing(stand_in: SignerStandIn, fault: str) -> None:
    """It is down, whatever became of the request: a signature that nobody has is nothing."""
    if fault == "stopped":
        await stand_in.stop()
    else:
        setattr(stand_in.faults, fault, 1)
    patience = 0.5 if fault == "hang" else 10
    async with Web3Signer(url=stand_in.http.url, address=ADDRESS, timeout_seconds=patience) as signer:
        for ask in (signer.check, lambda: signer.sign(TX)):
            with pytest.raises(EndpointDown):
                await ask()


async def test_its_password_is_nowhere(server: Server) -> None:
    """Neither in the block, nor in an error that quotes what the signer said of the address."""
    server.answer = lambda method, path, body: Say(f"cannot POST {path}", status=404)
    async with Web3Signer(url=server.url, address=ADDRESS) as made:
        assert KEY not in repr(made) + made.model_dump_json()
        with pytest.raises(ProposerError) as caught:
            await made.sign(TX)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("address", ["", "0x1234", PRIVATE, ADDRESS[2:] + "zz"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    """Without showing it: it may be the key."""
    with pytest.raises(InvalidSettings, match="SIGNER_ADDRESS is not an address") as caught:
        Web3Signer(url="http://signer", address=address)
    assert not address or address not in str(caught.value)


async def test_the_hash_is_that_of_the_bytes(signer: Web3Signer) -> None:
    hash_, raw = await signer.sign(TX)
    assert hash_ == keccak(raw)
    assert Account.recover_transaction(raw) == ADDRESS
