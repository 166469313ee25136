"""What stands between the proposer and a devnet's part: it asks for the secrets of the URL, and can tell them to all.

A real gateway quotes the path in its 404, echoes a header in its 401, or answers with what it was asked.
"""

import asyncio
import json
from base64 import b64decode
from typing import Literal

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from infra.devnet.server import HttpServer

Mood = Literal["pass", "unauthorized", "text", "error-object", "wrong-fields"]


class Gate:
    """Serves `/v3/<key>` of a target; in any other mood it answers with everything it was sent."""

    def __init__(self, target: str) -> None:
        self.mood: Mood = "pass"
        self.seen: set[str] = set()
        """Everything that a caller said beside the body: to prove that the secrets do arrive."""
        self._target = target
        self._client = httpx.AsyncClient(timeout=30, trust_env=False)
        methods = ["GET", "POST"]
        self.http = HttpServer(Starlette(routes=[Route("/{rest:path}", self._answer, methods=methods)]))

    async def start(self) -> None:
        """Listen."""
        await self.http.start()

    async def stop(self) -> None:
        """Stop listening, and forget the target."""
        await self.http.stop()
        await self._client.aclose()

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        authorization = request.headers.get("authorization", "")
        decoded = b64decode(authorization.removeprefix("Basic ")).decode() if authorization else ""
        told = f"{request.url.path}?{request.url.query} {authorization} {decoded}"
        self.seen.add(told)
        path = "/" + "/".join(request.path_params["rest"].split("/")[2:])
        match self.mood:
            case "pass":
                url = self._target + path.rstrip("/")
                answer = await self._client.request(request.method, url, content=body, headers=_plain(request))
                return Response(answer.content, answer.status_code, media_type="application/json")
            case "unauthorized":
                return PlainTextResponse(f"Cannot {request.method} {told}", 401)
            case "text":
                return PlainTextResponse(f"it is broken: {told}", 500)
            case "error-object":
                error = {"code": -32000, "message": f"denied to {told}", "data": told}
                return JSONResponse({"jsonrpc": "2.0", "id": _id(body), "error": error})
            case "wrong-fields":
                odd = dict.fromkeys(("result", "proof_id", "range_vkey_valid", "agg_vkey_valid"), told)
                odd |= {"rollup_config_hash_valid": told, "fulfillment_status": told, "execution_status": told}
                return JSONResponse({"jsonrpc": "2.0", "id": _id(body), **odd})


def _plain(request: Request) -> dict[str, str]:
    return {"content-type": request.headers.get("content-type", "application/json")}


def _id(body: bytes) -> object:
    try:
        return json.loads(body)["id"]
    except (ValueError, KeyError, TypeError):
        return None


class StrictPostgres:
    """A PostgreSQL that refuses every password, in the words of the real one."""

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._refuse, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Stop listening."""
        self._server.close()

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def message() -> bytes:
            return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)

        try:
            while (first := await message())[:2] == b"\x04\xd2":  # asks for TLS or GSSAPI
                writer.write(b"N")
            writer.write(b"R\0\0\0\x08\0\0\0\x03")  # wants the password in clear
            await reader.readexactly(1)
            password = (await message()).rstrip(b"\0").decode()
            user = first.split(b"\0")[1:2]
            words = f'password authentication failed for user "{user}"'.encode()
            fields = b"SFATAL\0VFATAL\0C28P01\0M" + words + b"\0\0"
            writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
            self.heard = password
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
