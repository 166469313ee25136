"""JSON-RPC over HTTP: one endpoint, and a list of them with fail-over.

A client of our own: web3's providers retry by themselves, sends included, and put the URL into their errors.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import ClassVar

import orjson

from blocks.fields import bad
from blocks.http import Endpoint, Http, Reply, decode
from proposer.errors import BadReply, CallAHuman, EndpointDown, OutcomeUnknown, ProposerError, RateLimited, WrongChain

log = logging.getLogger("proposer.rpc")

_OK = 200
_SERVER_ERRORS = 500
_TEXT_CHARACTERS = 2000
_LIMIT = re.compile(
    r"rate|too many request|request (?:count|limit)|capacity|compute units?|throttl|quota|per second", re.IGNORECASE
)
# -32005 also means that a query would return too much: the text decides
_LIMIT_CODES = {-32005, -32007, -32029, 429}
REST_SECONDS = 30.0
ADMITTED_SECONDS = 300.0
"""How long an endpoint serves before it is admitted anew: what is behind a URL may change while we run."""


class RpcError(CallAHuman):
    """The endpoint answered a JSON-RPC error object; `data` is its `data` member, whatever its shape."""

    def __init__(self, where: str, code: int, rpc_message: str, data: object = None) -> None:
        super().__init__(f"{where}: error {code}: {rpc_message[:300]}")
        self.code = code
        self.rpc_message = rpc_message
        self.data = data


class HttpStatus(EndpointDown):
    """The endpoint answered an HTTP error status, and no JSON-RPC."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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
        try:
            answer = await decode(reply.body, where)
        except BadReply:
            if reply.status == _OK:
                raise
            answer = None
        # an error under an HTTP error status may have no id: the node did not get as far as reading it
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            if answer.get("id") is not None and not _is(answer.get("id"), id_):
                raise bad(where, "id", answer.get("id"), f"the request's, {id_}")
            raise self._error(where, answer["error"], reply)
        if reply.status != _OK:
            text = f"{where}: HTTP {reply.status}: {self.endpoint.scrub(reply.text(200))}"
            if sends and reply.status >= _SERVER_ERRORS:
                raise OutcomeUnknown(text)
            raise HttpStatus(text, reply.status)
        return _result(answer, id_, where)

    def _error(self, where: str, error: dict[str, object], reply: Reply) -> RpcError | RateLimited:
        # regular expressions run over it: an answer's length is the server's choice
        code, message = error.get("code"), self.endpoint.scrub(str(error.get("message", ""))[:_TEXT_CHARACTERS])
        if not isinstance(code, int) or isinstance(code, bool):
            code = 0
        if code in _LIMIT_CODES and (code > 0 or _LIMIT.search(message)):
            return self.endpoint.pause(reply.retry_after(), f"{where}: {message[:200]}")
        return RpcError(where, code, message, error.get("data"))


def _is(found: object, id_: int) -> bool:
    return type(found) is int and found == id_


def _result(answer: object, id_: int, where: str) -> object:
    if not isinstance(answer, dict):
        raise BadReply(f"{where}: the answer is not a JSON object")
    if not _is(answer.get("id"), id_):
        raise bad(where, "id", answer.get("id"), f"the request's, {id_}")
    if answer.get("error") is not None:
        raise bad(where, "error", answer["error"], "an error object")
    if "result" not in answer:
        raise BadReply(f"{where}: result is missing")
    return answer["result"]


class Failover:
    """Endpoints in order of preference. Reads go to the next where one is down; one that was down rests for 30 s.

    What leads on: an endpoint that is down or asks for a pause, serves another chain, or answers what is no JSON-RPC.
    So does an error object that is no answer (`is_answer`, such as a revert is one), for it may be this node's alone:
    state that it has pruned, a method that it does not have. Where no endpoint knows better, the first one's is raised.

    `admit` is asked before an endpoint serves: at first, after it was down, and every 300 s. Sends go to the
    `clients` themselves: they are one at a time, and must not queue behind reads.
    """

    IN_FLIGHT: ClassVar[int] = 32
    """Reads under way at once, divided among the endpoints: one that hangs cannot hold the turns of another."""
    WAIT_SECONDS: ClassVar[float] = 15.0
    """Longest wait for a turn at one endpoint. One that hangs is noticed sooner, by the calls that have theirs."""

    def __init__(
        self,
        among: Sequence[Endpoint],
        timeout_seconds: float,
        admit: Callable[[JsonRpc], Awaitable[None]] | None = None,
        is_answer: Callable[[RpcError], bool] = lambda _: False,
    ) -> None:
        self.clients = [JsonRpc(endpoint) for endpoint in among]
        self._timeout = timeout_seconds
        self._admit = admit
        self._is_answer = is_answer
        self._rests_until = [0.0] * len(self.clients)
        self._admitted_until = [0.0] * len(self.clients)
        self._share = max(1, self.IN_FLIGHT // len(self.clients))
        self._turns = [asyncio.Semaphore(self._share) for _ in self.clients]

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self.clients:
            await client.aclose()

    async def call(self, method: str, *params: object) -> object:
        """Read from the first endpoint that is up; raises its errors, or one error of those of all of them."""
        return (await self.call_with(method, *params))[0]

    async def call_with(self, method: str, *params: object) -> tuple[object, JsonRpc]:
        """As `call`, with the endpoint that answered.

        The timeout of the call begins with its turn.
        """
        failures: list[ProposerError] = []
        refusals: list[RpcError] = []
        untried = set(range(len(self.clients)))
        while untried:
            i = min(untried, key=lambda one: (self._rests(one), one))
            rested = self._rests(i)
            try:
                async with self._turn(i):
                    if self._rests(i) and not rested and len(untried) > 1:
                        continue  # it went down while this call waited: another first
                    untried.remove(i)
                    return await self._ask(i, method, params), self.clients[i]
            except (EndpointDown, WrongChain, BadReply) as error:
                untried.discard(i)
                failures.append(error)
            except RpcError as error:
                refusals.append(error)
                if self._is_answer(error) or all(map(self._rests, untried)):
                    break
        raise refusals[0] if refusals else _worst(failures)

    async def admit(self, client: JsonRpc) -> None:
        """Let an endpoint serve; raises what `admit` raises."""
        i = self.clients.index(client)
        if self._admit is not None and self._admitted_until[i] <= _now():
            await self._admit(client)
            self._admitted_until[i] = _now() + ADMITTED_SECONDS

    async def _ask(self, i: int, method: str, params: Sequence[object]) -> object:
        client = self.clients[i]
        try:
            await self.admit(client)
            result = await client.call(method, params, self._timeout)
        except (EndpointDown, WrongChain, BadReply) as error:
            if not isinstance(error, EndpointDown) and not self._rests(i):
                log.warning("%s; its other URLs come first for %g s", error, REST_SECONDS)
            pause = error.retry_after_seconds if isinstance(error, RateLimited) else REST_SECONDS
            self._rests_until[i] = max(self._rests_until[i], _now() + pause)
            if not isinstance(error, RateLimited):
                self._admitted_until[i] = 0.0
            raise
        except RpcError:
            self._rests_until[i] = 0.0
            raise
        self._rests_until[i] = 0.0
        return result

    def _rests(self, i: int) -> bool:
        return self._rests_until[i] > _now()

    @asynccontextmanager
    async def _turn(self, i: int) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.WAIT_SECONDS):
                await self._turns[i].acquire()
        except TimeoutError:
            name = self.clients[i].name
            raise EndpointDown(
                f"{name}: {self._share} calls are under way and no turn came within {self.WAIT_SECONDS:g} s: "
                "nothing was sent"
            ) from None
        try:
            yield
        finally:
            self._turns[i].release()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _worst(failures: Sequence[ProposerError]) -> ProposerError:
    """Make one error of one per endpoint: what a person must look at comes first."""
    for kind in (WrongChain, BadReply):
        for failure in failures:
            if isinstance(failure, kind):
                return failure
    return all_down([failure for failure in failures if isinstance(failure, EndpointDown)])


def all_down(failures: Sequence[EndpointDown]) -> EndpointDown:
    """Make one error of one per endpoint."""
    if len(failures) == 1:
        return failures[0]
    text = "; ".join(map(str, failures))
    waits = [error.retry_after_seconds for error in failures if isinstance(error, RateLimited)]
    return RateLimited(text, min(waits)) if len(waits) == len(failures) else EndpointDown(text)
