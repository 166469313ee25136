"""JSON-RPC over HTTP: one endpoint, and a list of them with fail-over.

A client of our own: web3's providers retry by themselves, sends included, and put the URL into their errors.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import orjson

from blocks.http import Endpoint, Http, decode, rate_limited
from proposer.errors import BadReply, CallAHuman, EndpointDown, OutcomeUnknown, RateLimited

_OK = 200
_SERVER_ERRORS = 500
_LIMIT = re.compile(r"rate|too many request|request count|capacity|compute units|throttl", re.IGNORECASE)
_LIMIT_CODES = {-32005, 429}
REST_SECONDS = 30.0


class RpcError(CallAHuman):
    """The endpoint answered a JSON-RPC error object; `data` is its `data` member, whatever its shape."""

    def __init__(self, where: str, code: int, rpc_message: str, data: object = None) -> None:
        super().__init__(f"{where}: error {code}: {rpc_message[:300]}")
        self.code = code
        self.rpc_message = rpc_message
        self.data = data


class JsonRpc:
    """One JSON-RPC endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.name = endpoint.name
        self._reads = Http(endpoint)
        self._sends = Http(endpoint, fresh=True)
        self._ids = count(1)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._reads.aclose()
        await self._sends.aclose()

    async def call(self, method: str, params: Sequence[object], seconds: float, *, sends: bool = False) -> object:
        """Call a method once and return its result, within `seconds`.

        Raises `EndpointDown`, `RateLimited`, `RpcError` for an error object (also under an HTTP error status),
        `BadReply` for an answer that is neither. With `sends`, a call that was cut off before its answer, or that met
        a failing gateway, raises `OutcomeUnknown` instead of `EndpointDown`.
        """
        id_ = next(self._ids)
        where = f"{method} of {self.name}"
        body = orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": list(params)})
        try:
            reply = await (self._sends if sends else self._reads).exchange("POST", "", body, seconds)
        except OutcomeUnknown as error:
            if sends:
                raise
            raise EndpointDown(f"{error} ({method})") from None
        if limited := rate_limited(self.endpoint, reply):
            raise limited
        try:
            answer = await decode(reply.body, where)
        except BadReply:
            if reply.status == _OK:
                raise
            answer = None
        # an error under an HTTP error status may have no id: the node did not get as far as reading it
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            if answer.get("id") is not None and answer.get("id") != id_:
                raise BadReply(f"{where}: id is not the request's")
            raise self._error(where, answer["error"])
        if reply.status != _OK:
            text = self.endpoint.scrub(reply.text(200))
            unclear = sends and reply.status >= _SERVER_ERRORS
            raise (OutcomeUnknown if unclear else EndpointDown)(f"{where}: HTTP {reply.status}: {text}")
        if not isinstance(answer, dict):
            raise BadReply(f"{where}: the answer is not a JSON object")
        if answer.get("id") != id_ or isinstance(answer.get("id"), bool):
            raise BadReply(f"{where}: id is not the request's")
        if "result" not in answer:
            raise BadReply(f"{where}: result is missing")
        return answer["result"]

    def _error(self, where: str, error: dict[str, object]) -> RpcError | RateLimited:
        code, message = error.get("code"), self.endpoint.scrub(str(error.get("message", "")))
        if not isinstance(code, int):
            code = 0
        if code in _LIMIT_CODES and (code > 0 or _LIMIT.search(message)):
            return RateLimited(f"{where} asks for a pause: {message[:200]}", 1.0)
        return RpcError(where, code, message, error.get("data"))


class Failover:
    """Endpoints in order of preference. Reads go to the next where one is down; one that was down rests for 30 s.

    Only `EndpointDown` leads on: an answer, a malformed one too, is the caller's to see, because going on silently
    would hide a broken endpoint behind a good one.
    """

    def __init__(
        self,
        among: Sequence[Endpoint],
        timeout_seconds: float,
        admit: Callable[[JsonRpc], Awaitable[None]] | None = None,
    ) -> None:
        self.clients = [JsonRpc(endpoint) for endpoint in among]
        self._timeout = timeout_seconds
        self._admit = admit
        self._rests_until = [0.0] * len(self.clients)

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self.clients:
            await client.aclose()

    async def call(self, method: str, *params: object) -> object:
        """Read from the first endpoint that is up; raises its errors, or `EndpointDown` naming all of them."""
        return (await self.call_with(method, *params))[0]

    async def call_with(self, method: str, *params: object) -> tuple[object, JsonRpc]:
        """As `call`, with the endpoint that answered."""
        now = asyncio.get_running_loop().time()
        order = sorted(range(len(self.clients)), key=lambda i: (self._rests_until[i] > now, i))
        failures: list[EndpointDown] = []
        for i in order:
            client = self.clients[i]
            try:
                if self._admit is not None:
                    await self._admit(client)
                result = await client.call(method, params, self._timeout)
            except EndpointDown as error:
                failures.append(error)
                self._rests_until[i] = asyncio.get_running_loop().time() + REST_SECONDS
            else:
                self._rests_until[i] = 0.0
                return result, client
        raise all_down(failures)


def all_down(failures: Sequence[EndpointDown]) -> EndpointDown:
    """Make one error of one per endpoint."""
    if len(failures) == 1:
        return failures[0]
    text = "; ".join(map(str, failures))
    waits = [error.retry_after_seconds for error in failures if isinstance(error, RateLimited)]
    return RateLimited(text, min(waits)) if len(waits) == len(failures) else EndpointDown(text)
