"""What an endpoint shows of its URL: where it leads. Nothing secret, not when its server repeats it either."""

from base64 import b64encode

import pytest

from blocks.fields import bad
from blocks.http import Endpoint

URL = "https://some-user:pass%2Fword@host.example/v3/path-key?apikey=query-key"


def test_a_path_goes_before_the_query() -> None:
    """A key in the query stays one; an URL without a query is not changed."""
    assert Endpoint(URL, "L1_RPC").under("/status") == URL.replace("?", "/status?")
    assert Endpoint("http://host:1/base/", "L1_RPC").under("/status") == "http://host:1/base/status"
    assert Endpoint("http://host:1/base/?key=1", "L1_RPC").under("") == "http://host:1/base?key=1"


@pytest.mark.parametrize(
    "secret",
    [
        *("some-user", "pass%2Fword", "pass/word", "path-key", "query-key", "apikey=query-key"),
        b64encode(b"some-user:pass/word").decode(),
    ],
)
def test_a_secret_is_cut_out_of_what_a_server_says(secret: str) -> None:
    """As text of its own, and as the value of a field that is not what it must be."""
    endpoint = Endpoint(URL, "L1_RPC")
    assert secret not in endpoint.name
    assert endpoint.scrub(f"Cannot POST {secret} here") == "Cannot POST *** here"
    assert secret not in str(bad("eth_chainId", "result", f"for {secret}", "a hex quantity"))
    # cut off in the middle it would be half a secret
    assert secret[:8] not in str(bad("eth_chainId", "result", "x" * 55 + secret, "a hex quantity"))
