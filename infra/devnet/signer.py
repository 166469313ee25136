"""A stand-in for Web3Signer: signs for one account over JSON-RPC, and does it wrong when told to."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from eth_account import Account
from eth_account.signers.local import LocalAccount
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from infra.devnet.edge import EdgeFaults, fail
from infra.devnet.server import HttpServer

Wrong = Literal["nonce", "to", "value", "data", "gas", "maxFeePerGas", "maxPriorityFeePerGas", "chainId", "accessList"]
_ANOTHER: Mapping[str, Callable[[Any], Any]] = {
    "to": lambda _: "0x" + "66" * 20,
    "data": lambda data: data + "00",
    "accessList": lambda _: [{"address": "0x" + "66" * 20, "storageKeys": []}],
}
_NO_ACCOUNT = {"code": -32000, "message": "No unlocked account matches the Sender"}
_INVALID_PARAMS = {"code": -32602, "message": "Invalid params"}
_NO_METHOD = {"code": -32601, "message": "Method not found"}


@dataclass(kw_only=True)
class SignerFaults(EdgeFaults):
    """What the signer does wrong now; change the fields at run time."""

    # Sign with another value of this field than was asked for.
    wrong_field: Wrong | None = None
    # Sign with another key, though it says that it has the account's.
    wrong_key: bool = False
    # Sign a transaction of before EIP-1559.
    legacy: bool = False
    # Answer with this instead of the signed bytes.
    result: Any = None
    # Know no account at all.
    locked: bool = False
    # Answer this HTTP status with a text.
    status: int | None = None


class SignerStandIn:
    """Web3Signer in eth1 mode: the chain id is its own, a nonce must be given, what it does not know is ignored."""

    def __init__(self, key: str, chain_id: int, *, port: int = 0) -> None:
        """Sign with this private key for this chain."""
        self.faults = SignerFaults()
        self.applied: Counter[str] = Counter()
        self.signed: list[dict[str, Any]] = []
        self._account: LocalAccount = Account.from_key(key)
        self._other: LocalAccount = Account.from_key("0x" + "77" * 32)
        self._chain_id = chain_id
        self.http = HttpServer(Starlette(routes=[Route("/", self._serve, methods=["POST"])]), port)

    @property
    def address(self) -> str:
        """The account that it signs for."""
        return self._account.address

    def env(self) -> dict[str, str]:
        """Return the environment of a proposer that signs here."""
        return {"SIGNER_URL": self.http.url, "SIGNER_ADDRESS": self.address}

    async def start(self) -> None:
        """Listen; do nothing if running."""
        await self.http.start()

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        await self.http.stop()

    async def _serve(self, request: Request) -> Response:
        call = orjson.loads(await request.body())
        if (failure := await fail(self.faults, request, self.applied)) is not None:
            return failure
        if self.faults.status is not None:
            return PlainTextResponse("this machine is not let in", self.faults.status)
        answer = self._answer(call["method"], call.get("params") or [])
        return JSONResponse({"jsonrpc": "2.0", "id": call["id"], **answer})

    def _answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        match method:
            case "eth_accounts":
                return {"result": [] if self.faults.locked else [self.address.lower()]}
            case "eth_signTransaction":
                if len(params) != 1 or "nonce" not in params[0]:
                    return {"error": _INVALID_PARAMS}
                return self._sign(params[0])
            case _:
                return {"error": _NO_METHOD}

    def _sign(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.faults.locked or asked["from"].lower() != self.address.lower():
            return {"error": _NO_ACCOUNT}
        if self.faults.result is not None:
            return {"result": self.faults.result}
        tx = {name: asked[name] for name in ("nonce", "to", "value", "data", "gas")} | {"chainId": self._chain_id}
        if self.faults.legacy:
            tx |= {"gasPrice": asked["maxFeePerGas"]}
        else:
            tx |= {name: asked[name] for name in ("maxFeePerGas", "maxPriorityFeePerGas")} | {"type": 2}
        if (wrong := self.faults.wrong_field) is not None:
            number: Callable[[Any], Any] = lambda value: (value if isinstance(value, int) else int(value, 16)) + 1  # noqa: E731
            tx[wrong] = _ANOTHER.get(wrong, number)(tx.get(wrong))
        account = self._other if self.faults.wrong_key else self._account
        self.signed.append(asked)
        return {"result": "0x" + bytes(account.sign_transaction(tx).raw_transaction).hex()}
