"""Ways in which an answer can be wrong: one seeded mutation of a documented JSON answer, or of the HTTP around it."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

from tests.blocks.loopback import Say

HASH = "0x" + "ab" * 32
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, 2, 3, 4, 5, -1, 255, 256, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400,
    1.0, -0.0, 0.5, 1e308, float("nan"), float("inf"),
    "", "0", "1", "true", "null", "0x", "0x0", "0x1", "0x00", "0xg0", "0X1", " 0x1", "0x-1", "0x" + "f" * 16,
    "0x" + "f" * 64, "0x" + "f" * 65, "0x" + "00" * 32, HASH, HASH[:-2], HASH + "00", HASH[2:], "A" * 44,
    "\0", "a\0b", "\ud800", "\u202e", "１", "é" * 400, "x" * 3000, "block " * 400, "<html>",
    [], [[]], [None], [0] * 31, [0] * 32, [7] * 33, [256] * 32, [-1] * 32, [True] * 32, [1.0] * 32, ["1"] * 32,
    {}, {"": None}, {"code": 3}, {"error": {}}, {"number": 1, "hash": HASH},
)  # fmt: skip
_DEEP = re.compile(rb'"@deep (\d+)@"')
"""Stands for a list in a list in a list, deeper than the standard library writes them."""
CODES = (100, 101, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 408, 413, 418, 422, 451, 499, 500, 501, 502,
         503, 504, 508, 520, 524, 599, 600, 799, 999)  # fmt: skip
PAUSES = ("", "1 s", "0", "1", "-3", "7", "1e9", "1e400", "nan", "inf", "0x10", "soon", "Wed, 21 Oct 2015 07:28:00 GMT",
          "Wed, 21 Oct 2999 07:28:00 GMT", "Wed, 99 Oct 999999999999999999 07:28:00 GMT", "1, 2", "\xe9")  # fmt: skip


def answer(value: object, dice: Random) -> Say:
    """Answer with `value`, changed in one way, or two."""
    if dice.random() < 0.25:
        return _wrong_http(dumped(value), dice)
    value = _mutated(deepcopy(value), dice)
    if dice.random() < 0.3:
        value = _mutated(value, dice)
    raw = dumped(value)
    return Say(_wrong_text(raw, dice) if dice.random() < 0.2 else raw)


def dumped(value: object) -> bytes:
    """Write JSON, or what the standard library takes for it: NaN, numbers of any length, lone surrogates."""
    return _DEEP.sub(lambda found: b"[" * int(found[1]) + b"]" * int(found[1]), json.dumps(value).encode())


def _places(value: object, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [here]
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value[:40])
    else:
        return found
    for key, inner in items:
        found += _places(inner, (*here, key))
    return found


def _mutated(value: Any, dice: Random) -> Any:
    place = dice.choice(_places(value))
    if not place:
        return dice.choice([[value], [value, value], {"result": value}, dice.choice(ODD), [], value, value])
    *way, last = place
    parent = value
    for key in way:
        parent = parent[key]
    kind = dice.randrange(6)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, dict):
        parent[dice.choice(["Result", f"{last} ", str(last).upper(), "", "error"])] = parent.pop(last)
    elif kind == 2:
        parent[last] = _near(parent[last], dice)
    elif kind == 3 and isinstance(parent, list):
        parent.insert(last, dice.choice(ODD))
    elif kind == 4 and dice.random() < 0.1:
        parent[last] = dice.choice(["@deep 50@", "@deep 1015@", "@deep 5000@"])
    else:
        parent[last] = dice.choice(ODD)
    return value


def _near(value: Any, dice: Random) -> Any:
    """Something that looks like the value."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return dice.choice([value + 1, value - 1, -value, value + 2**62, float(value), str(value), hex(value)])
    if isinstance(value, str) and value:
        at = dice.randrange(len(value))
        other = value[:at] + dice.choice("0fgZ\0é ") + value[at + 1 :]
        return dice.choice(
            [value[:at], value + value[at:], value.upper(), other, value.removeprefix("0x"), list(value.encode())]
        )
    if isinstance(value, list):
        return dice.choice([value[:-1], [*value, 0], value[::-1], {str(i): one for i, one in enumerate(value)}])
    return [value]


def _wrong_text(raw: bytes, dice: Random) -> bytes:
    """A body that is not the documented JSON text."""
    at = dice.randrange(len(raw) + 1)
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: raw[:at],
        lambda: raw[:at] + bytes([dice.randrange(256)]) + raw[at:],
        lambda: raw[:at] + raw[at + 1 :],
        lambda: raw + raw,
        lambda: b"\xef\xbb\xbf" + raw,
        lambda: raw.decode().encode("utf-16"),
        lambda: b" " * 300_000 + raw,
        lambda: b"<html><body>It works!</body></html>",
        lambda: b"",
        lambda: b"[" * 100_000,
        lambda: b'{"a":' * 20_000 + raw,
        lambda: raw.replace(b'": ', b'": ' + dumped(dice.choice(ODD)) + b', "id": ', 1),
        lambda: raw.replace(b", ", b', "proof_id": [1], "result": null, "number": -1, ', 1),
        lambda: raw.replace(b"0", b"00"),
    )
    return dice.choice(ways)()


def _wrong_http(raw: bytes, dice: Random) -> Say:
    """An answer whose HTTP is not that of a plain 200."""
    kind = dice.randrange(12)
    if kind < 4:
        text = dice.choice(
            [raw, b"", b"proof not found", b"rate \0limit", b"<!doctype html>", b"\xff" * 50, b"x" * 5000]
        )
        return Say(text, status=dice.choice(CODES))
    if kind == 4:
        return Say(raw, status=429, headers={"Retry-After": dice.choice(PAUSES)})
    if kind == 5:
        return Say(raw, headers={"Content-Type": dice.choice(["text/html", "", "application/json; charset=utf-16"])})
    if kind == 6:
        return Say(raw, headers={"Content-Encoding": dice.choice(["gzip", "br", "gzip, gzip", "zip", "identity"])})
    if kind == 7:
        return Say(
            b"", status=302, headers={"Location": dice.choice(["http://[", "//", "http://127.0.0.1:1/x", "\xe9"])}
        )
    length = str(len(raw)).encode()
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: " + length + b"\r\n\r\n" + raw
    return dice.choice([
        Say(drop=True),
        Say(raw=whole[: dice.randrange(len(whole))]),
        Say(raw=b"\0" * 100),
        Say(raw=b"HTTP/1.1 200\r\nContent-Length: " + length + b"\r\nContent-Length: 3\r\n\r\n" + raw),
        Say(raw=b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + raw),
        Say(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + raw),
        Say(raw=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n" + raw),
        Say(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + whole),
        Say(raw=b"HTTP/1.0 200 OK\r\n\r\n" + raw),
        Say(raw=b"SSH-2.0-OpenSSH_9.6\r\n"),
    ])  # fmt: skip
