"""An op-succinct-server stand-in: the six endpoints with the real shapes, timing and ways to fail."""

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from eth_utils.address import is_hex_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.devnet.faults import FaultPlan, Faults
from infra.devnet.l2 import SimulatedL2
from infra.devnet.log import RequestLog
from infra.devnet.post import Post
from infra.devnet.proofs import BadProofError, Commitments, RangeProof
from infra.devnet.proving import Network, PaidProof, ProverTiming, SimulationRefusedError, check_aggregation
from infra.devnet.rpc import Rpc, RpcError, calldata
from infra.devnet.server import Dropped, HttpServer, Telling, connected, hung_up
from infra.devnet.traps import Traps
from infra.devnet.wire import (
    RefusedError,
    base64_list,
    failed,
    garbage,
    json_answer,
    json_object,
    limited,
    text,
    u64,
)

_SIMULATION_FAILED = "Failed to request proof: Program simulation failed"


class Prover:
    """Serve proofs of one simulated L2; a POST is answered after its witness time, as the real one is.

    ``stop()`` is a real outage: the port refuses, requests in flight are cut and paid for nothing more, while proofs
    already paid go on being proven and are there after ``start()``.
    """

    def __init__(
        self,
        l2: SimulatedL2,
        l1: Rpc,
        commitments: Commitments,
        *,
        seed: int = 1,
        timing: ProverTiming | None = None,
        faults: FaultPlan | None = None,
        log: RequestLog | None = None,
        range_proof_size: int = 2048,
        range_l1_head_lag: int = 2,
        port: int = 0,
        traps: Traps | None = None,
    ) -> None:
        """Prove ``l2`` under ``commitments``; a range's L1 head is ``range_l1_head_lag`` blocks behind L1's newest."""
        self.timing = timing or ProverTiming()
        self.faults = Faults(faults)
        self.log = log or RequestLog()
        self.traps = traps or Traps()
        self.commitments = commitments
        self.network = Network(seed, self.timing, self.faults, self.log)
        self._l2, self._l1 = l2, l1
        self._proof_size, self._l1_head_lag = range_proof_size, range_l1_head_lag
        self._posts = itertools.count(1)
        routes = [
            Route("/validate_config", self._guard(self._validate_config), methods=["POST"]),
            Route("/request_span_proof", self._guard(self._span), methods=["POST"]),
            Route("/request_mock_span_proof", self._guard(self._mock_span), methods=["POST"]),
            Route("/request_agg_proof", self._guard(self._aggregation), methods=["POST"]),
            Route("/request_mock_agg_proof", self._guard(self._mock_aggregation), methods=["POST"]),
            Route("/status/{proof_id}", self._guard(self._status), methods=["GET"]),
        ]
        self.http = HttpServer(Starlette(routes=routes), port)

    @property
    def url(self) -> str:
        """The base URL."""
        return self.http.url

    def set_faults(self, plan: FaultPlan) -> None:
        """Follow another plan from now on."""
        self.faults.replace(plan)

    async def start(self) -> None:
        """Listen, on the same port as before."""
        await self.http.start()

    async def stop(self) -> None:
        """Begin an outage: refuse connections and cut those in flight."""
        await self.http.stop()

    def _guard(self, handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            if self.timing.latency_s:
                await asyncio.sleep(self.timing.latency_s)
            try:
                return await handler(request)
            except RefusedError as refused:
                return refused.response
            except (httpx.HTTPError, RpcError) as error:
                return failed(f"Failed to reach L1: {error}")

        return guarded

    async def _validate_config(self, request: Request) -> Response:
        address = text(await json_object(request), "address")
        if not is_hex_address(address):
            return Dropped()
        names = ("rollupConfigHash()", "aggregationVkey()", "rangeVkeyCommitment()")
        stored = await asyncio.gather(*(self._l1.eth_call(address, calldata(name)) for name in names))
        own = (self.commitments.rollup_config_hash, self.commitments.aggregation_vkey, self.commitments.range_vkey)
        keys = ("rollup_config_hash_valid", "agg_vkey_valid", "range_vkey_valid")
        answer = json_answer({key: theirs == ours for key, theirs, ours in zip(keys, stored, own, strict=True)})
        return Telling(answer, lambda: self.traps.reach("prover.config.answered"))

    async def _span(self, request: Request) -> Response:
        return await self._range(request, mock=False)

    async def _mock_span(self, request: Request) -> Response:
        return await self._range(request, mock=True)

    async def _range(self, request: Request, *, mock: bool) -> Response:
        post = Post(self.log, next(self._posts), "range", mock=mock)
        body = await json_object(request)
        start, end = u64(body, "start"), u64(body, "end")
        post.start, post.end = start, end
        post.note("post")
        await self.traps.reach("prover.range.arrived", **post.facts)
        if start >= end:
            return post.refuse("start >= end", failed("Failed to get span proof: start block must be below end block"))
        if end > self._l2.unsafe:
            return post.refuse("above the L2 head", Dropped())
        if end > self._l2.finalized:
            return post.refuse("above finalized", failed(f"Failed to generate witness: block {end} is not finalized"))
        if (response := await self._witness(post, start, end, request)) is not None:
            return response
        make = await self._range_maker(start, end)
        if mock:
            if self.faults.hit("unexecutable", "range", start, end):
                return post.refuse("unexecutable", Dropped())
            return self._answer_mock(post, make())
        return await self._pay(post, start, end, make, request)

    async def _range_maker(self, start: int, end: int) -> Callable[[], bytes]:
        number = max(0, await self._l1.block_number() - self._l1_head_lag)
        block = await self._l1.block(number)
        if block is None:
            raise RuntimeError(f"L1 has no block {number}")
        proof = RangeProof(
            start=start,
            end=end,
            pre_root="0x" + self._l2.output_root(start).hex(),
            post_root="0x" + self._l2.output_root(end).hex(),
            config_hash="0x" + self.commitments.rollup_config_hash.hex(),
            range_vkey="0x" + self.commitments.range_vkey.hex(),
            l1_head_number=number,
            l1_head_hash=block["hash"],
        )
        return lambda: proof.encode(self._proof_size)

    async def _aggregation(self, request: Request) -> Response:
        return await self._aggregate(request, mock=False)

    async def _mock_aggregation(self, request: Request) -> Response:
        return await self._aggregate(request, mock=True)

    async def _aggregate(self, request: Request, *, mock: bool) -> Response:
        post = Post(self.log, next(self._posts), "aggregation", mock=mock)
        body = await json_object(request)
        subproofs, post.head = base64_list(body, "subproofs"), text(body, "head")
        try:
            members = [RangeProof.decode(proof) for proof in subproofs]
        except BadProofError:
            members = []
        if not members or re.fullmatch(r"0x[0-9a-fA-F]{64}", post.head) is None:
            post.note("post")
            return post.refuse("bad sub-proof or head", Dropped())
        start, end = members[0].start, members[-1].end
        post.start, post.end = start, end
        post.note("post")
        await self.traps.reach("prover.aggregation.arrived", **post.facts)
        if (response := await self._witness(post, start, end, request)) is not None:
            return response
        refusal = "refuse_simulation" if self.faults.hit("refuse_simulation", "aggregation", start, end) else None
        try:
            aggregation = await check_aggregation(self._l1, subproofs, post.head, self.commitments)
        except SimulationRefusedError as error:
            refusal, aggregation = str(error), None
        if refusal is not None or aggregation is None:
            return post.refuse(refusal or "refused", Dropped() if mock else failed(_SIMULATION_FAILED))
        if mock:
            return self._answer_mock(post, b"")
        return await self._pay(post, start, end, aggregation.prove, request)

    async def _witness(self, post: Post, start: int, end: int, request: Request) -> Response | None:
        """Take the witness time; return a response if the request ends here (a fault, or the client hung up)."""
        if limit := self.faults.hit("post_429", post.kind, start, end):
            return post.refuse("post_429", limited(limit.seconds))
        hang = self.faults.hit("hang", post.kind, start, end)
        seconds: float | None = self.network.vary(self.timing.witness_s(post.kind))
        if hang is not None:
            seconds = hang.seconds or None
        gone = asyncio.ensure_future(hung_up(request))
        try:
            await asyncio.wait({gone}, timeout=seconds)
        except asyncio.CancelledError:
            post.note("hung_up", self._why_cut())
            raise
        finally:
            left = gone.done()
            gone.cancel()
        if left:
            post.note("hung_up", self._why_cut() or (hang and "hang"))
            return Dropped()
        if hang is not None:
            return post.refuse("hang", Dropped())
        if self.faults.hit("post_500", post.kind, start, end):
            return post.refuse("post_500", failed("Failed to generate witness: exit status 1"))
        if self.faults.hit("drop_before_paying", post.kind, start, end):
            return post.refuse("drop_before_paying", Dropped())
        return None

    def _why_cut(self) -> str | None:
        return None if self.http.running else "outage"

    async def _pay(self, post: Post, start: int, end: int, make: Callable[[], bytes], request: Request) -> Response:
        proof = self.network.submit(post.kind, start, end, post.number, make, head=post.head)
        post.proof_id = proof.proof_id
        try:
            await self.traps.reach(f"prover.{post.kind}.paid", **post.facts)
        except asyncio.CancelledError:
            post.note("hung_up", self._why_cut())
            raise
        if not connected(request.scope):
            post.note("hung_up", self._why_cut())
            return Dropped()
        if self.faults.hit("drop_after_paying", post.kind, start, end):
            return post.refuse("drop_after_paying", Dropped())
        return self._answer(post, {"proof_id": list(bytes.fromhex(proof.proof_id))})

    def _answer_mock(self, post: Post, proof: bytes) -> Response:
        if self.faults.hit("drop_after_paying", post.kind, post.start or 0, post.end or 0):
            return post.refuse("drop_after_paying", Dropped())
        return self._answer(post, {"fulfillment_status": 3, "execution_status": 0, "proof": list(proof)})

    def _answer(self, post: Post, content: Any) -> Response:
        post.note("answered")
        return Telling(json_answer(content), lambda: self.traps.reach(f"prover.{post.kind}.answered", **post.facts))

    async def _status(self, request: Request) -> Response:
        text_id = str(request.path_params["proof_id"])
        await self.traps.reach("prover.status.arrived", proof_id=text_id)
        try:
            raw_id = bytes.fromhex(text_id)
        except ValueError:
            return failed("Failed to decode proof id: Invalid character in hex string")
        if len(raw_id) != 32:
            return Dropped()
        proof = self.network.proofs.get(raw_id.hex())
        if proof is None or self.network.forget_once(proof):
            return failed("Failed to get proof status: NotFound: proof request not found")
        if (failure := await self._failed_look(proof, request)) is not None:
            return failure
        facts = {"proof_id": proof.proof_id, "kind": proof.kind, "start": proof.start, "end": proof.end}
        fulfillment, execution, content = self.network.look(proof)
        if content:
            await self.traps.reach("prover.proof.answering", **facts)

        async def answered() -> None:
            await self.traps.reach("prover.status.answered", **facts)
            if content:
                await self.traps.reach("prover.proof.answered", **facts)

        body = {"fulfillment_status": int(fulfillment), "execution_status": int(execution), "proof": list(content)}
        return Telling(json_answer(body), answered)

    async def _failed_look(self, proof: PaidProof, request: Request) -> Response | None:
        """Take the time a look takes; return a response if a fault answers it."""
        about = (proof.kind, proof.start, proof.end)
        if slow := self.faults.hit("slow_status", *about):
            await asyncio.sleep(slow.seconds)
        if self.faults.hit("hang_status", *about):
            await request.body()
            await hung_up(request)
            return Dropped()
        if limit := self.faults.hit("status_429", *about):
            return limited(limit.seconds)
        if self.faults.hit("status_500", *about):
            return failed("Failed to get proof status: transport error")
        if self.faults.hit("garbage", *about):
            return garbage(self.faults.applied["garbage"])
        return None
