"""A wrong environment: every problem at once, each with its remedy, before anything is spent; no secret is printed."""

import pytest

from infra.devnet import Anvil, Devnet
from infra.devnet.anvil import account_key
from tests.acceptance.conftest import StartUp
from tests.acceptance.helpers import Ledger, Up, settled
from tests.devnets import StartDevnet

KEY = "0x" + "ab" * 31 + "cd"
SECRETS = ("abababab", "path-token", "query-token", "word-of-pass")


def with_secrets(url: str) -> str:
    return url + "/?key=query-token"


async def _nothing_spent(devnet: Devnet) -> None:
    assert devnet.prover.log.events == []
    assert int(await devnet.l1.call("eth_getTransactionCount", devnet.proposer_address, "pending"), 16) == 0


async def _refused(up: Up) -> str:
    assert await up.ended() == 2, up.output
    assert not [secret for secret in SECRETS if secret in up.output], "a secret was printed"
    assert "Traceback" not in up.output
    return up.output


async def test_what_can_be_seen_without_a_network_is_listed_at_once(start_devnet: StartDevnet, up: StartUp) -> None:
    """A missing name, a malformed address, a zero interval, a wrong key: one list."""
    devnet = await start_devnet()
    one = up(
        devnet,
        L1_RPC=None,
        L2_NODE_RPC="ftp://node/path-token",
        L2OO_ADDRESS="0x1234",
        POLL_INTERVAL="0s",
        PRIVATE_KEY=KEY[:-1],
        DATABASE_URL="mysql://user:word-of-pass@host/db",
    )
    output = await _refused(one)
    assert "proposer: 6 problems" in output
    for name in ("L1_RPC: not set; set it", "L2_NODE_RPC: ", "L2OO_ADDRESS: ", "POLL_INTERVAL: ", "PRIVATE_KEY: "):
        assert f"  - {name}" in output
    assert "  - DATABASE_URL: must begin with postgresql://" in output
    await _nothing_spent(devnet)


async def test_what_the_network_says_is_listed_at_once(start_devnet: StartDevnet, up: StartUp) -> None:
    """An account that is no proposer and a server that is away at the first start, with secrets in every address."""
    devnet = await start_devnet()
    await devnet.prover.stop()
    _, key = account_key(5)
    output = await _refused(
        up(
            devnet,
            PRIVATE_KEY=key,
            L1_RPC=with_secrets(devnet.l1_rpc),
            L2_NODE_RPC=with_secrets(devnet.node_rpc),
            OP_SUCCINCT_SERVER_URL=with_secrets(devnet.prover_url),
        )
    )
    assert "proposer: 2 problems" in output
    assert "is not an approved proposer" in output
    assert "OP_SUCCINCT_SERVER_URL: " in output
    assert key[2:] not in output
    await _nothing_spent(devnet)


async def test_a_wrong_chain_and_an_address_without_code_are_listed(start_devnet: StartDevnet, up: StartUp) -> None:
    """L1 is another chain than the one the rollup settles on, and the contract is not there."""
    devnet = await start_devnet()
    async with Anvil(block_time_s=None, extra=("--chain-id", "5")) as other:
        output = await _refused(up(devnet, L1_RPC=with_secrets(other.url)))
    assert "proposer: 2 problems" in output
    assert "L2OO_ADDRESS: " in output
    assert "has no code on chain 5" in output
    assert "L1_RPC: serves chain 5, but the rollup of L2_NODE_RPC settles on chain 31337" in output
    await _nothing_spent(devnet)


@pytest.mark.parametrize("name", ["L1_RPC", "L2_NODE_RPC", "DATABASE_URL"])
async def test_an_endpoint_that_is_away_at_the_first_start_is_named(
    start_devnet: StartDevnet, up: StartUp, name: str
) -> None:
    """Nothing is known of this rollup yet, so nothing can go on."""
    devnet = await start_devnet()
    nowhere = {"DATABASE_URL": "postgresql://user:word-of-pass@127.0.0.1:1/ledger"}
    output = await _refused(
        up(devnet, **{name: nowhere.get(name, "http://user:word-of-pass@127.0.0.1:1/v3/path-token?key=query-token")})
    )
    assert f"  - {name}: " in output
    await _nothing_spent(devnet)


async def test_a_ledger_of_another_contract_is_refused_in_one_line(
    start_devnet: StartDevnet, up: StartUp, rows: Ledger
) -> None:
    """The database belongs to one contract for ever."""
    devnet = await start_devnet()
    rows.query(
        "INSERT INTO identity (id, l1_chain_id, l2_chain_id, contract) VALUES (1, 31337, 901, %s) RETURNING id",
        "0x" + "77" * 20,
    )
    output = await _refused(up(devnet))
    assert "L2OO_ADDRESS: this ledger belongs to 0x7777" in output
    await _nothing_spent(devnet)


async def test_an_outage_at_a_later_start_is_a_reason_only(
    start_devnet: StartDevnet, up: StartUp, rows: Ledger
) -> None:
    """With L1, node and server away a known rollup's proposer starts, waits, and settles when they are back."""
    devnet = await start_devnet()
    one = up(devnet)
    await rows.having("status = 'WITNESSGEN'", alive=one)
    assert await one.terminate() == 0
    for part in (devnet.anvil, devnet.op_node, devnet.prover):
        await part.stop()
    one.start()
    await one.says("leading with epoch 2")
    await one.says("cannot be reached")
    for part in (devnet.anvil, devnet.op_node, devnet.prover):
        await part.start()
    await settled(devnet, 1100, one)
    assert len(devnet.prover.log.of("paid")) == 3, "nothing was asked twice"
