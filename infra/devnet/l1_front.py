"""An HTTP server in front of anvil: what happens to an L1 call on its way there and back."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.devnet.edge import EdgeFaults, answer_to, calls_of, fail
from infra.devnet.server import Dropped, HttpServer, Telling
from infra.devnet.traps import Traps

_SEND = "eth_sendRawTransaction"


@dataclass(kw_only=True)
class L1Faults(EdgeFaults):
    """What goes wrong on the way to L1 now; change the fields at run time."""

    # Close the connection of a send before anvil has it ("request"), or after ("answer").
    lose_sends: Literal["request", "answer"] | None = None


class L1Front:
    """Forward JSON-RPC over HTTP, single and batch, to the node at ``target``.

    ``stop()`` is a real outage: the port refuses and connections are cut, while the chain goes on; ``start()`` listens
    on the same port again. A client that goes away does not stop what it has sent: it is forwarded all the same.
    """

    def __init__(self, target: str, *, port: int = 0, traps: Traps | None = None) -> None:
        """Serve on ``port`` (0: a free one, kept); nothing is sent yet."""
        self.faults = L1Faults()
        self.applied: Counter[str] = Counter()
        self.traps = traps or Traps()
        self._target = target
        self.http = HttpServer(Starlette(routes=[Route("/", self._serve, methods=["POST"])]), port)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(timeout=None, trust_env=False, limits=limits)  # noqa: S113  (the caller's own)

    @property
    def url(self) -> str:
        """The URL of L1 for everyone but the devnet."""
        return self.http.url

    async def start(self) -> None:
        """Listen; do nothing if running."""
        await self.http.start()

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        await self.http.stop()

    async def aclose(self) -> None:
        """Stop for good."""
        await self.stop()
        await self._client.aclose()

    async def _serve(self, request: Request) -> Response:
        body = await request.body()
        calls = calls_of(_parsed(body))
        for call in calls:
            await self.traps.reach(f"l1.{call.method}.arrived", params=call.params)
        if (failure := await fail(self.faults, request, self.applied)) is not None:
            return failure
        loses = self.faults.lose_sends if any(call.method == _SEND for call in calls) else None
        if loses == "request":
            self.applied["lost_request"] += 1
            return Dropped()
        try:
            answer = await self._client.post(
                self._target,
                content=body,
                headers={"content-type": "application/json", "accept-encoding": "identity"},
            )
        except httpx.TransportError:
            return Dropped()
        answers = _parsed(answer.content)

        async def reach(place: str) -> None:
            for call in calls:
                facts = {"params": call.params, "answer": answer_to(call, answers)}
                await self.traps.reach(f"l1.{call.method}.{place}", **facts)

        await reach("forwarded")
        if loses == "answer":
            self.applied["lost_answer"] += 1
            return Dropped()
        response = Response(answer.content, answer.status_code, media_type="application/json")
        return Telling(response, lambda: reach("answered"))


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
