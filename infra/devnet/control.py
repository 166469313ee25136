"""The control endpoint of a running devnet: what tests and people turn while a proposer runs against it.

Every answer is JSON; a bad body is 400, a refused L1 call 409 with the revert.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.devnet.checker import check
from infra.devnet.devnet import Devnet
from infra.devnet.faults import FaultPlan
from infra.devnet.rpc import RpcError
from infra.devnet.server import HttpServer

Action = Callable[[dict[str, Any]], Awaitable[Any]]


class Control:
    """Serve the devnet's knobs over HTTP on loopback."""

    def __init__(self, devnet: Devnet, port: int = 0) -> None:
        """Prepare the endpoint; ``start`` listens."""
        self._devnet = devnet
        posts: dict[str, Action] = {
            "/faults": self._faults,
            "/timing": self._timing,
            "/node/faults": self._node_faults,
            "/l1/faults": self._l1_faults,
            "/l2": self._l2,
            "/l1/reorg": self._reorg,
            "/l1/mine": self._mine,
            "/owner": self._owner,
            "/compete": self._compete,
            "/delete": self._delete,
        }
        for name, part in (("prover", devnet.prover), ("node", devnet.op_node), ("l1", devnet.anvil)):
            posts[f"/{name}/stop"] = _switch(part.stop)
            posts[f"/{name}/start"] = _switch(part.start)
        routes = [Route(path, _answering(action), methods=["POST"]) for path, action in posts.items()]
        gets: dict[str, Action] = {"/log": self._log, "/state": self._state, "/check": self._check}
        routes += [Route(path, _answering(action), methods=["GET"]) for path, action in gets.items()]
        self.http = HttpServer(Starlette(routes=routes), port)

    async def _faults(self, body: dict[str, Any]) -> Any:
        plan = FaultPlan.model_validate(body)
        self._devnet.prover.set_faults(plan)
        return plan.model_dump()

    async def _timing(self, body: dict[str, Any]) -> Any:
        return _set_fields(self._devnet.prover.timing, body)

    async def _node_faults(self, body: dict[str, Any]) -> Any:
        if "wrong_roots" in body:
            body["wrong_roots"] = set(body["wrong_roots"])
        return _set_fields(self._devnet.op_node.faults, body)

    async def _l1_faults(self, body: dict[str, Any]) -> Any:
        return _set_fields(self._devnet.l1_front.faults, body)

    async def _l2(self, body: dict[str, Any]) -> Any:
        l2 = self._devnet.l2
        if "limit" in body:
            l2.limit = body["limit"]
        if "blocks_per_second" in body:
            l2.set_speed(float(body["blocks_per_second"]))
        if "advance_to" in body:
            l2.advance_to(int(body["advance_to"]))
        if "pause" in body:
            (l2.pause if body["pause"] else l2.resume)()
        return {"finalized": l2.finalized, "safe": l2.safe, "unsafe": l2.unsafe}

    async def _reorg(self, body: dict[str, Any]) -> Any:
        await self._devnet.anvil.reorg(int(body["depth"]))
        return {"head": await self._devnet.l1.block_number()}

    async def _mine(self, body: dict[str, Any]) -> Any:
        await self._devnet.anvil.mine(int(body.get("blocks", 1)))
        return {"head": await self._devnet.l1.block_number()}

    async def _owner(self, body: dict[str, Any]) -> Any:
        return await self._devnet.owner_call(str(body["function"]), body["argument"])

    async def _compete(self, body: dict[str, Any]) -> Any:
        return await self._devnet.competing_proposal(int(body["end"]))

    async def _delete(self, body: dict[str, Any]) -> Any:
        return await self._devnet.delete_outputs(int(body["index"]))

    async def _log(self, _: dict[str, Any]) -> Any:
        return self._devnet.prover.log.events

    async def _state(self, _: dict[str, Any]) -> Any:
        devnet = self._devnet
        return {
            "l1_head": await devnet.l1.block_number(),
            "l2_finalized": devnet.l2.finalized,
            "contract_head": await devnet.latest_block_number(),
            "prover_running": devnet.prover.http.running,
            "node_running": devnet.op_node.http.running,
            "paid": len(devnet.prover.network.proofs),
            "l1_running": devnet.l1_front.http.running,
            "faults": devnet.prover.faults.plan.model_dump(),
            "applied": {
                "prover": devnet.prover.faults.applied,
                "node": devnet.op_node.applied,
                "l1": devnet.l1_front.applied,
            },
        }

    async def _check(self, query: dict[str, Any]) -> Any:
        devnet = self._devnet
        return await check(
            l1_rpc=devnet.l1.url,
            oracle=devnet.oracle_address,
            proposer=devnet.proposer_address,
            output_root=devnet.l2.output_root,
            log=devnet.prover.log.events,
            ledger_url=query.get("ledger_url"),
        )


def _switch(change: Callable[[], Awaitable[None]]) -> Action:
    async def action(_: dict[str, Any]) -> Any:
        await change()
        return {"ok": True}

    return action


def _set_fields(target: Any, values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if name not in vars(target):
            raise KeyError(name)
    vars(target).update(values)
    return dict(vars(target))


def _answering(action: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            body = (
                dict(request.query_params) if request.method == "GET" else orjson.loads(await request.body() or b"{}")
            )
            status, content = 200, await action(body)
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            status, content = 400, {"error": f"{type(error).__name__}: {error}"}
        except RpcError as error:
            status, content = 409, {"error": error.message, "data": error.data}
        return Response(orjson.dumps(content, default=_plain), status, media_type="application/json")

    return endpoint


def _plain(value: Any) -> Any:
    if isinstance(value, (set, tuple)):
        return sorted(value)
    raise TypeError(f"cannot send {type(value).__name__}")
