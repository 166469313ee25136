"""An op-node stand-in: the four ``optimism_`` methods with the real wire formats, and ways to fail."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.devnet.edge import EdgeFaults, answer_to, calls_of, fail
from infra.devnet.l2 import SimulatedL2
from infra.devnet.rpc import Rpc
from infra.devnet.server import HttpServer, Telling
from infra.devnet.traps import Traps

_ZERO = "0x" + "00" * 32
_ZERO_L1 = {"hash": _ZERO, "number": 0, "parentHash": _ZERO, "timestamp": 0}
_ZERO_L2 = {**_ZERO_L1, "l1origin": {"hash": _ZERO, "number": 0}, "sequenceNumber": 0}
_L2_HEADS = ("unsafe_l2", "safe_l2", "finalized_l2", "pending_safe_l2", "cross_unsafe_l2", "local_safe_l2")
_L1_HEADS = ("current_l1", "current_l1_finalized", "head_l1", "safe_l1", "finalized_l1")


@dataclass(kw_only=True)
class NodeFaults(EdgeFaults):
    """What the node does wrong now; change the fields at run time."""

    # A node that has just started answers zero heads.
    starting: bool = False
    # Report the finalized head so many blocks too low.
    finalized_lag: int = 0
    wrong_roots: set[int] = field(default_factory=set)


class MethodError(Exception):
    """A JSON-RPC error to answer with."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the JSON-RPC code and message."""
        super().__init__(message)
        self.code, self.message = code, message


class OpNode:
    """Answer for one simulated L2 over one L1."""

    def __init__(
        self,
        l2: SimulatedL2,
        l1: Rpc,
        *,
        l2_chain_id: int,
        l1_blocks_per_l2_block: float,
        starting_block: int,
        port: int,
        traps: Traps | None = None,
    ) -> None:
        """Serve ``l2``; L1 heads are read from ``l1``. An L2 block's origin advances by the given ratio."""
        self.faults = NodeFaults()
        self.applied: Counter[str] = Counter()
        self.traps = traps or Traps()
        self._l2, self._l1, self._chain_id = l2, l1, l2_chain_id
        self._ratio, self._starting_block = l1_blocks_per_l2_block, starting_block
        self.http = HttpServer(Starlette(routes=[Route("/", self._serve, methods=["POST"])]), port)
        self._methods = {
            "optimism_syncStatus": self._sync_status,
            "optimism_outputAtBlock": self._output_at_block,
            "optimism_rollupConfig": self._rollup_config,
            "optimism_safeHeadAtL1Block": self._safe_head_at_l1_block,
        }

    async def start(self) -> None:
        """Listen."""
        await self.http.start()

    async def stop(self) -> None:
        """Refuse connections and cut those that are open."""
        await self.http.stop()

    async def _serve(self, request: Request) -> Response:
        body = await request.body()
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            return await fail(self.faults, request, self.applied) or _error(-32700, "parse error")
        calls = calls_of(parsed)
        for call in calls:
            await self.traps.reach(f"node.{call.method}.arrived", params=call.params)
        if (failure := await fail(self.faults, request, self.applied)) is not None:
            return failure
        if parsed == []:
            return _error(-32600, "empty batch")
        items = parsed if isinstance(parsed, list) else [parsed]
        answers = await asyncio.gather(*(self._answer(item) for item in items))

        async def answered() -> None:
            for call in calls:
                answer = answer_to(call, answers)
                await self.traps.reach(f"node.{call.method}.answered", params=call.params, answer=answer)

        return Telling(_json(answers if isinstance(parsed, list) else answers[0]), answered)

    async def _answer(self, call: Any) -> dict[str, Any]:
        if not isinstance(call, dict) or not isinstance(call.get("method"), str):
            return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "invalid request"}}
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call.get("id")}
        method = self._methods.get(call["method"])
        try:
            if method is None:
                raise MethodError(-32601, f"the method {call['method']} does not exist/is not available")
            answer["result"] = await method(call.get("params") or [])
        except MethodError as error:
            answer["error"] = {"code": error.code, "message": error.message}
        return answer

    async def _l1_ref(self, tag: str | int) -> dict[str, Any]:
        block = await self._l1.block(tag)
        if block is None:
            return dict(_ZERO_L1)
        return {
            "hash": block["hash"],
            "number": int(block["number"], 16),
            "parentHash": block["parentHash"],
            "timestamp": int(block["timestamp"], 16),
        }

    async def _l2_ref(self, number: int, finalized_l1: int) -> dict[str, Any]:
        origin = min(max(0, int((number - self._starting_block) * self._ratio)), finalized_l1)
        reference = await self._l1_ref(origin)
        return {
            "hash": "0x" + self._l2.block_hash(number).hex(),
            "number": number,
            "parentHash": "0x" + self._l2.parent_hash(number).hex(),
            "timestamp": self._l2.timestamp(number),
            "l1origin": {"hash": reference["hash"], "number": reference["number"]},
            "sequenceNumber": 0,
        }

    async def _sync_status(self, _: list[Any]) -> dict[str, Any]:
        head, safe, finalized = await asyncio.gather(*(self._l1_ref(tag) for tag in ("latest", "safe", "finalized")))
        if self.faults.starting:
            zeros: dict[str, Any] = {name: dict(_ZERO_L1) for name in _L1_HEADS}
            return zeros | {"head_l1": head} | {name: dict(_ZERO_L2) for name in _L2_HEADS}
        top = finalized["number"]
        finalized_l2 = max(0, self._l2.finalized - self.faults.finalized_lag)
        unsafe_l2, safe_l2, final_l2 = await asyncio.gather(
            self._l2_ref(self._l2.unsafe, top), self._l2_ref(self._l2.safe, top), self._l2_ref(finalized_l2, top)
        )
        return {
            "current_l1": head,
            "current_l1_finalized": finalized,
            "head_l1": head,
            "safe_l1": safe,
            "finalized_l1": finalized,
            "unsafe_l2": unsafe_l2,
            "safe_l2": safe_l2,
            "finalized_l2": final_l2,
            "pending_safe_l2": safe_l2,
            "cross_unsafe_l2": unsafe_l2,
            "local_safe_l2": safe_l2,
        }

    async def _output_at_block(self, params: list[Any]) -> dict[str, Any]:
        number = _quantity(params)
        if number > self._l2.unsafe:
            raise MethodError(
                -32000,
                "failed to get L2 block ref with sync status: "
                f"failed to determine L2BlockRef of height {number}, could not get payload: not found",
            )
        status = await self._sync_status([])
        root = self._l2.output_root(number)
        if number in self.faults.wrong_roots:
            root = bytes(byte ^ 0xFF for byte in root)
        return {
            "version": _ZERO,
            "outputRoot": "0x" + root.hex(),
            "blockRef": await self._l2_ref(number, status["finalized_l1"]["number"]),
            "withdrawalStorageRoot": "0x" + self._l2.withdrawal_storage_root(number).hex(),
            "stateRoot": "0x" + self._l2.state_root(number).hex(),
            "syncStatus": status,
        }

    async def _rollup_config(self, _: list[Any]) -> dict[str, Any]:
        chain_id = int(await self._l1.call("eth_chainId"), 16)
        l1_genesis = await self._l1_ref(0)
        return {
            "genesis": {
                "l1": {"hash": l1_genesis["hash"], "number": 0},
                "l2": {"hash": "0x" + self._l2.block_hash(0).hex(), "number": 0},
                "l2_time": self._l2.genesis_timestamp,
            },
            "block_time": self._l2.block_time,
            "max_sequencer_drift": 600,
            "seq_window_size": 3600,
            "channel_timeout": 300,
            "l1_chain_id": chain_id,
            "l2_chain_id": self._chain_id,
        }

    async def _safe_head_at_l1_block(self, params: list[Any]) -> dict[str, Any]:
        number = _quantity(params)
        if number > await self._l1.block_number():
            raise MethodError(-32000, "not found")
        block = await self._l1_ref(number)
        safe = min(
            self._l2.safe, self._starting_block + int((number + 1) / self._ratio) if self._ratio else self._l2.safe
        )
        return {
            "l1Block": {"hash": block["hash"], "number": number},
            "safeHead": {"hash": "0x" + self._l2.block_hash(safe).hex(), "number": safe},
        }


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _error(code: int, message: str) -> Response:
    return _json({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}})


def _quantity(params: list[Any]) -> int:
    if not params:
        raise MethodError(-32602, "missing value for required argument 0")
    value = params[0]
    if not isinstance(value, str) or not value.startswith("0x"):
        raise MethodError(
            -32602, "invalid argument 0: json: cannot unmarshal non-string or hex string without 0x prefix"
        )
    try:
        return int(value, 16)
    except ValueError as error:
        raise MethodError(-32602, "invalid argument 0: invalid hex string") from error
