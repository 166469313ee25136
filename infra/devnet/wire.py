"""Read request bodies as the real server's axum extractors do, and answer as it does: errors are text/plain."""

import base64
import binascii
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_U64 = 2**64
# 200 with none of the documented shapes; taken in turn.
_GARBAGE = (
    b"<html><body>ok</body></html>",
    b'{"fulfillment_status":3,"execution_status":2,"proof":[1,2',
    b'{"fulfillment_status":3,"execution_status":2,"proof":"AQID"}',
    b'{"fulfillment_status":99,"execution_status":2,"proof":[]}',
    b'{"fulfillment_status":true,"execution_status":null,"proof":[256,-1]}',
    b'{"status":"fulfilled"}',
    b"[]",
)


class RefusedError(Exception):
    """The body is not what the endpoint takes; ``response`` is what axum answers."""

    def __init__(self, status: int, text: str) -> None:
        """Prepare a text/plain answer."""
        super().__init__(text)
        self.response: Response = PlainTextResponse(text, status)


async def json_object(request: Request) -> dict[str, Any]:
    """Return the body as an object; 415, 400 or 422 otherwise."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise RefusedError(415, "Expected request with `Content-Type: application/json`")
    try:
        body = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise RefusedError(400, f"Failed to parse the request body as JSON: {error}") from error
    if not isinstance(body, dict):
        raise _wrong_shape("invalid type, expected a map")
    return body


def _wrong_shape(why: str) -> RefusedError:
    return RefusedError(422, f"Failed to deserialize the JSON body into the target type: {why}")


def u64(body: dict[str, Any], name: str) -> int:
    """Return a field as an unsigned 64-bit integer; 422 otherwise."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _U64:
        raise _wrong_shape(f"{name}: expected u64")
    return value


def text(body: dict[str, Any], name: str) -> str:
    """Return a field as a string; 422 otherwise."""
    value = body.get(name)
    if not isinstance(value, str):
        raise _wrong_shape(f"{name}: expected a string")
    return value


def base64_list(body: dict[str, Any], name: str) -> list[bytes]:
    """Return a list of standard, padded base64 strings as bytes; 422 otherwise."""
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong_shape(f"{name}: expected a sequence of base64 strings")
    try:
        return [base64.b64decode(item, validate=True) for item in value]
    except binascii.Error as error:
        raise _wrong_shape(f"{name}: {error}") from error


def json_answer(content: Any) -> Response:
    """Answer 200 with JSON."""
    return Response(orjson.dumps(content), media_type="application/json")


def failed(message: str) -> Response:
    """Answer 500 with an error of the handler."""
    return PlainTextResponse(message, 500)


def limited(seconds: float) -> Response:
    """Answer 429 with the seconds to wait."""
    return PlainTextResponse("Too Many Requests", 429, {"retry-after": f"{seconds:g}"})


def garbage(number: int) -> Response:
    """Answer a look with the ``number``-th wrong shape."""
    return Response(_GARBAGE[number % len(_GARBAGE)], media_type="application/json")
