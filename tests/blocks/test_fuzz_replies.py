"""Every reply type of every block, mutated, over HTTP: a value of its domain or a named error, and nothing else."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from blocks.l1 import L1Chain, Sent
from blocks.op_node import OpNode, RollupConfig, SyncStatus
from blocks.output_oracle import SELECTORS, L2OutputOracle, Output
from blocks.prover import Accepted, MockProven, SuccinctServer
from blocks.rpc import RpcError
from blocks.web3signer import Web3Signer
from proposer.errors import (
    BadReply,
    EndpointDown,
    OutcomeUnknown,
    ProposerError,
    RequestRefused,
    Reverted,
    SignerRefuses,
    WrongChain,
    WrongSignature,
)
from proposer.l1_transactions import Receipt
from proposer.polling import Execution, Fulfillment, ProofStatus
from proposer.ranges import BlockRange
from proposer.snapshot import OracleView, ServerView
from proposer.units import L1Block, L1Ref
from tests.blocks.loopback import KEY, Say, Server, members
from tests.blocks.mutations import answer

ROUNDS = 100
"""Mutations per reply type; each kind of reply has its own dice, so that one can be run alone."""
RANGE = BlockRange(1000, 1300)

pytestmark = pytest.mark.usefixtures("usual_depth")
ID = bytes(range(32))
H = bytes([0x33]) * 32
TX = keccak(b"\2")
HASH = "0x" + H.hex()
ADDRESS = "0x" + "11" * 20
AT = L1Ref(L1Block(5), H, 1000)
WHOLE = re.compile(
    r"not JSON|JSON object|larger than|encoded more|id is|error is|result is missing|HTTP \d+, neither|no latest block"
    r"|answered \d+ bytes|answered what is no|is not known to the contract"
)
"""What is said of an answer that has no field to name."""


def hexed(raw: bytes) -> str:
    """0x and hex."""
    return "0x" + raw.hex()


def is_count(value: object) -> bool:
    """A number that the ledger can hold."""
    return type(value) is int and 0 <= value < 2**63


def is_bytes(value: object, length: int) -> bool:
    """So many bytes."""
    return type(value) is bytes and len(value) == length


@dataclass(frozen=True)
class Case:
    """A block's method: the documented replies it may get, how to ask, and what its value must be like."""

    make: Callable[[str, float], Any]
    """The block of a URL, with its timeout in seconds."""
    ask: Callable[[Any], Awaitable[object]]
    replies: tuple[Any, ...]
    fits: Callable[[Any], bool]
    fields: tuple[str, ...]
    method: str = ""
    """JSON-RPC method whose answer is mutated; empty for plain HTTP."""
    others: Mapping[str, Any] | None = None
    """Results of the other JSON-RPC methods."""
    rounds: int = ROUNDS


def server(mock: bool = False) -> Callable[[str, float], Any]:
    """A prover server's client."""
    return lambda url, seconds: SuccinctServer(url=url, mock=mock, timeout_seconds=seconds, max_reply_mib=1)


def status_fits(said: ProofStatus) -> bool:
    """A proof is there exactly where the status has one."""
    fulfilled = said.fulfillment is Fulfillment.FULFILLED
    enums = type(said.fulfillment) is Fulfillment and type(said.execution) is Execution
    return enums and (type(said.proof) is bytes if fulfilled else said.proof is None)


PROOF = {"fulfillment_status": 3, "execution_status": 2, "proof": [1, 0, 255] * 20}
MOCK = {"fulfillment_status": 3, "execution_status": 0, "proof": [1, 2]}
VALID = {"rollup_config_hash_valid": True, "agg_vkey_valid": False, "range_vkey_valid": True}
STATUS_FIELDS = ("fulfillment_status", "execution_status", "proof")
PROVER: dict[str, Case] = {
    "validate_config": Case(
        server(),
        lambda s: s.validate_config(ADDRESS),
        (VALID,),
        lambda v: (
            type(v) is ServerView
            and all(type(b) is bool for b in (v.config_hash_valid, v.agg_vkey_valid, v.range_vkey_valid))
        ),
        tuple(VALID),
    ),
    "request_range": Case(
        server(),
        lambda s: s.request_range(RANGE, 1),
        ({"proof_id": list(ID)}, {"proof_id": ID.hex()}),
        lambda v: type(v) is Accepted and bool(re.fullmatch("[0-9a-f]{64}", v.prover_id)),
        ("proof_id",),
    ),
    "request_aggregation": Case(
        server(),
        lambda s: s.request_aggregation(*members(b"a", b"bc"), H, 1),
        ({"proof_id": list(ID)},),
        lambda v: type(v) is Accepted and bool(re.fullmatch("[0-9a-f]{64}", v.prover_id)),
        ("proof_id",),
    ),
    "request_range (mock)": Case(
        server(mock=True),
        lambda s: s.request_range(RANGE, 1),
        (MOCK,),
        lambda v: type(v) is MockProven and type(v.proof) is bytes,
        STATUS_FIELDS,
    ),
    "request_aggregation (mock)": Case(
        server(mock=True),
        lambda s: s.request_aggregation(*members(b"a"), H, 1),
        (MOCK | {"proof": []},),
        lambda v: type(v) is MockProven and type(v.proof) is bytes,
        STATUS_FIELDS,
    ),
    "status": Case(
        server(),
        lambda s: s.status(ID.hex()),
        (PROOF, PROOF, {"fulfillment_status": 2, "execution_status": 2, "proof": []}, MOCK | {"fulfillment_status": 4}),
        status_fits,
        STATUS_FIELDS,
    ),
}


def node(method: str, replies: Any, ask: Callable[[Any], Awaitable[object]], fits: Any, *fields: str) -> Case:
    """A method of the rollup node."""
    return Case(
        lambda url, seconds: OpNode(urls=url, timeout_seconds=seconds), ask, (replies, ERROR), fits, fields, method
    )


ERROR = {"error": {"code": -32000, "message": "not found: block 7", "data": {"data": "0x22aa3a98"}}}
L2 = {"number": 9, "hash": HASH, "timestamp": 1}
SYNC = {"current_l1": {"number": 3}, "unsafe_l2": L2, "safe_l2": L2, "finalized_l2": L2 | {"number": 4}}
OUTPUT = {"version": hexed(bytes(32)), "outputRoot": HASH, "blockRef": {"number": 7, "hash": HASH}, "stateRoot": HASH}
NODE = {
    "sync_status": node(
        "optimism_syncStatus",
        SYNC,
        lambda n: n.sync_status(),
        lambda v: type(v) is SyncStatus and is_count(v.finalized) and is_count(v.unsafe) and v.finalized <= v.unsafe,
        "finalized_l2",
        "unsafe_l2",
    ),
    "output_root": node(
        "optimism_outputAtBlock",
        OUTPUT,
        lambda n: n.output_root(7),
        lambda v: is_bytes(v, 32) and any(v),
        "version",
        "blockRef",
        "outputRoot",
    ),
    "rollup_config": node(
        "optimism_rollupConfig",
        {"l1_chain_id": 1, "l2_chain_id": 10, "block_time": 2},
        lambda n: n.rollup_config(),
        lambda v: (
            type(v) is RollupConfig and is_count(v.l2_chain_id) and (v.l1_chain_id is None or is_count(v.l1_chain_id))
        ),
        "l1_chain_id",
        "l2_chain_id",
    ),
}

HEADER = {"number": "0x5", "hash": HASH, "timestamp": "0x3e8", "baseFeePerGas": "0x7", "transactions": [HASH]}
RECEIPT = {"transactionHash": hexed(TX), "blockNumber": "0x6", "blockHash": HASH, "status": "0x1", "gasUsed": "0x5208"}
REVERT = {
    "error": {"code": 3, "message": "execution reverted: no", "data": "0x08c379a0" + encode(["string"], ["no"]).hex()}
}
OTHERS: dict[str, Any] = {
    "eth_chainId": "0x1",
    "eth_getBlockByNumber": HEADER,
    "eth_call": hexed(bytes(32)),
    "eth_maxPriorityFeePerGas": "0x1",
    "eth_getBalance": "0x5",
}


def chain(method: str, ask: Callable[[Any], Awaitable[object]], fits: Any, *replies: Any) -> Case:
    """A method of L1."""
    fields = ("result", "number", "hash", "timestamp", "baseFeePerGas", *RECEIPT)
    return Case(
        lambda url, seconds: L1Chain(urls=url, timeout_seconds=seconds),
        ask,
        (*replies, ERROR),
        fits,
        fields,
        method,
        OTHERS,
    )


def is_block(value: object) -> bool:
    """An L1 block that the ledger can hold."""
    return type(value) is L1Ref and is_count(value.number) and is_bytes(value.hash, 32) and is_count(value.timestamp)


def is_receipt(value: object) -> bool:
    """A receipt of the transaction asked for, or none."""
    return value is None or (
        type(value) is Receipt
        and value.hash == TX
        and is_count(value.block)
        and is_bytes(value.block_hash, 32)
        and type(value.succeeded) is bool
        and is_count(value.gas_used)
    )


CALL = {"from": ADDRESS, "to": ADDRESS, "data": b"\1"}
L1 = {
    "chain_id": chain("eth_chainId", lambda c: c.chain_id(), is_count, "0x1"),
    "head": chain("eth_getBlockByNumber", lambda c: c.head(), is_block, HEADER),
    "block 5": chain(
        "eth_getBlockByNumber",
        lambda c: c.block(5),
        lambda v: v is None or (is_block(v) and v.number == 5),
        HEADER,
        HEADER | {"number": "0x6"},
        None,
    ),
    "block safe": chain("eth_getBlockByNumber", lambda c: c.block("safe"), lambda v: v is None or is_block(v), HEADER),
    "call": chain("eth_call", lambda c: c.call(ADDRESS, b"", AT), lambda v: type(v) is bytes, HASH, REVERT),
    "code": chain("eth_getCode", lambda c: c.code(ADDRESS), lambda v: type(v) is bytes, "0x6001", REVERT),
    "storage": chain("eth_getStorageAt", lambda c: c.storage(ADDRESS, H), lambda v: is_bytes(v, 32), HASH, "0x05"),
    "balance": chain(
        "eth_getBalance",
        lambda c: c.balance(ADDRESS, AT),
        lambda v: type(v) is int and 0 <= v < 2**256,
        "0x" + "f" * 20,
    ),
    "nonce": chain("eth_getTransactionCount", lambda c: c.nonce(ADDRESS, "pending"), is_count, "0x7"),
    "receipt": chain("eth_getTransactionReceipt", lambda c: c.receipt(TX), is_receipt, RECEIPT, RECEIPT, None),
    "knows": chain(
        "eth_getTransactionByHash", lambda c: c.knows(TX), lambda v: type(v) is bool, {"hash": hexed(TX)}, None
    ),
    "estimate_gas": chain("eth_estimateGas", lambda c: c.estimate_gas(CALL), is_count, "0x5208", REVERT),
    "fee_suggestion (header)": chain(
        "eth_getBlockByNumber", lambda c: c.fee_suggestion(), lambda v: all(map(is_count, v)), HEADER
    ),
    "fee_suggestion (tip)": chain(
        "eth_maxPriorityFeePerGas", lambda c: c.fee_suggestion(), lambda v: all(map(is_count, v)), "0x3b9aca00"
    ),
    "send_raw": chain(
        "eth_sendRawTransaction",
        lambda c: c.send_raw(b"\2"),
        lambda v: type(v) is Sent,
        hexed(TX),
        HASH,
        {"error": {"code": -32000, "message": "nonce too low"}},
    ),
}


def view_fits(view: OracleView) -> bool:
    """All numbers that the ledger gets can be held by it."""
    return (
        is_count(view.latest_block)
        and (view.safe is None or is_count(view.safe))
        and (view.latest_root is None or is_bytes(view.latest_root, 32))
        and type(view.submission_interval) is int
        and type(view.finalization_period) is int
        and (view.balance is None or 0 <= view.balance < 2**256)
        and type(view.optimistic) is bool
        and type(view.approved) is bool
        and all(is_bytes(one, 32) for one in (view.commitments.range_vkey, view.commitments.config_hash))
        and all(one is None or is_bytes(one, 32) for one in (view.anchors[5].stored, view.anchors[5].canonical))
    )


WORD = hexed((1).to_bytes(32))
STORED = hexed(H + (1700000000).to_bytes(32) + (100).to_bytes(32))
ORACLE = L2OutputOracle(address=ADDRESS)


def contract(ask: Callable[[Any], Awaitable[object]], fits: Any, *replies: Any) -> Case:
    """A read of the contract."""
    made = chain("eth_call", ask, fits, *replies, REVERT)
    getters = tuple(signature.partition("(")[0] for signature in SELECTORS)
    return replace(made, fields=(*made.fields, *getters))


CONTRACT = {
    "view": contract(lambda c: ORACLE.view(c, AT, ADDRESS, [5]), view_fits, WORD, hexed(bytes(32)), STORED),
    "historic_hash": contract(
        lambda c: ORACLE.historic_hash(c, 5, AT), lambda v: v is None or (is_bytes(v, 32) and any(v)), HASH
    ),
    "output_at": contract(
        lambda c: ORACLE.output_at(c, 5, AT),
        lambda v: type(v) is Output and is_bytes(v.root, 32) and is_count(v.block) and is_count(v.timestamp),
        STORED,
    ),
    "l2_block_time": contract(lambda c: ORACLE.l2_block_time(c, AT), is_count, WORD),
    "speaks_v1": chain(
        "eth_getCode", lambda c: ORACLE.speaks_v1(c), lambda v: v in {True, False, None}, "0x639ad84880", "0x634599c788"
    ),
}
CONTRACT["view"] = replace(CONTRACT["view"], rounds=ROUNDS // 4)  # each round is a dozen reads
# a proxy: two codes are read
CONTRACT["speaks_v1"] = replace(CONTRACT["speaks_v1"], others=OTHERS | {"eth_getStorageAt": HASH})


ACCOUNT = Account.from_key("11" * 32)
UNSIGNED: dict[str, Any] = {
    "chainId": 1,
    "nonce": 3,
    "to": ADDRESS,
    "data": b"\1\2",
    "gas": 30_000,
    "maxFeePerGas": 2,
    "maxPriorityFeePerGas": 1,
}
RAW = bytes(ACCOUNT.sign_transaction({"value": 0, "type": 2, **UNSIGNED}).raw_transaction)


def remote(method: str, ask: Callable[[Any], Awaitable[object]], fits: Any, *replies: Any) -> Case:
    """A method of the remote signer."""
    return Case(
        lambda url, seconds: Web3Signer(url=url, address=ACCOUNT.address, timeout_seconds=seconds),
        *(ask, (*replies, ERROR), fits, ("result",), method),
    )


SIGNER = {
    "check": remote("eth_accounts", lambda s: s.check(), lambda v: v is None, [ADDRESS, ACCOUNT.address.lower()]),
    "sign": remote("eth_signTransaction", lambda s: s.sign(UNSIGNED), lambda v: v == (keccak(RAW), RAW), hexed(RAW)),
}


def scripted(server: Server, case: Case, dice: Random) -> None:
    """Answer the case's own reply mutated, all others as documented."""
    if not case.method:
        server.answer = lambda *_: answer(dice.choice(case.replies), dice)
        return

    def rpc(_: str, __: str, body: bytes) -> Say:
        call = json.loads(body)
        envelope = {"jsonrpc": "2.0", "id": call["id"]}
        if call["method"] != case.method:
            assert case.others is not None
            return Say(envelope | {"result": case.others[call["method"]]})
        said = dice.choice(case.replies)
        is_error = isinstance(said, dict) and set(said) == {"error"}
        envelope |= said if is_error else {"result": said}
        # some answers of many stay right, so that the others are read at all
        return Say(envelope) if dice.random() < 0.15 else answer(envelope, dice)

    server.answer = rpc


def check_named(error: ProposerError, case: Case, server: Server) -> None:
    """The error says who and what, in one screen of plain text, without a secret."""
    text = str(error)
    assert KEY not in text
    assert "\0" not in text
    assert 0 < len(text) < 1500, text
    if isinstance(error, Reverted | RequestRefused):  # the contract's name, the server's own words
        return
    if isinstance(error, SignerRefuses | WrongSignature):
        assert f"127.0.0.1:{server.port}" in text, text
        return
    own = "()" in text or "no longer canonical" in text or "no latest block" in text
    assert f"127.0.0.1:{server.port}" in text or own, text
    if type(error) is BadReply:
        assert WHOLE.search(text) or any(re.search(rf"\b{re.escape(f)}\b", text) for f in case.fields), text
    else:
        assert isinstance(error, EndpointDown | OutcomeUnknown | RpcError | WrongChain) or own, repr(error)


async def fuzz(name: str, case: Case, server: Server) -> tuple[int, int]:
    """Ask against mutated answers; return how many were read and how many refused."""
    read = refused = 0
    for number in range(case.rounds):
        scripted(server, case, Random(f"{name} {number}"))
        # a new one each time: neither a pause nor a rest after the last answer is this test's matter
        async with case.make(server.url, 0.5) as block:
            try:
                async with asyncio.timeout(30):
                    value = await case.ask(block)
            except ProposerError as error:
                check_named(error, case, server)
                refused += 1
            except Exception as error:
                error.add_note(f"{name}, round {number}")
                raise
            else:
                assert case.fits(value), f"{name}, round {number}: {value!r}"
                read += 1
    return read, refused


CASES = {
    f"{room}.{name}": case
    for room, cases in {"server": PROVER, "node": NODE, "l1": L1, "oracle": CONTRACT, "signer": SIGNER}.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("name", CASES)
async def test_mutated_replies(server: Server, name: str) -> None:
    """A value of its domain or an error that names endpoint and field; no other exception, and no hang."""
    began = time.monotonic()
    read, refused = await fuzz(name, CASES[name], server)
    assert read + refused == CASES[name].rounds
    assert refused > CASES[name].rounds / 4, "the mutations reach the checks"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("name", CASES)
async def test_documented_replies_are_read(server: Server, name: str) -> None:
    """The replies that the mutations start from are the documented ones: unchanged, they are values."""
    case = CASES[name]
    said = case.replies[0]
    server.answer = lambda *_: Say(said)
    if case.method:
        results = {**(case.others or {}), case.method: said}
        server.rpc(lambda method, _: results[method])
        if name == "oracle.view":
            stored = hexed(SELECTORS["getL2Output(uint256)"])
            server.rpc(lambda m, p: STORED if m == "eth_call" and p[0]["data"].startswith(stored) else results[m])
    async with case.make(server.url, 10) as block:
        assert case.fits(await case.ask(block))
