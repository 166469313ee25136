"""Fields of JSON answers, checked. Each raises `BadReply` that names where the answer came from and the field."""

import re

from blocks.http import scrub_known
from proposer.errors import BadReply

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
MOST = 2**63 - 1
"""What the ledger can hold: no block, time or gas comes near it."""
_QUOTED = 2000
"""Letters that are looked through for secrets before the first of them are quoted: a part of one is one too."""
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def bad(where: str, field: str, value: object, wanted: str) -> BadReply:
    """Say which field is not what it must be; only the beginning of the value is shown."""
    # text of an array or object may be as long as the answer, and as deep as no recursion is
    shown = f"an {'array' if isinstance(value, list) else 'object'}" if isinstance(value, list | dict) else None
    return BadReply(f"{where}: {field} is {shown or repr(scrub_known(str(value)[:_QUOTED])[:60])}, not {wanted}")


def member(value: object, field: str, where: str) -> object:
    """Take a member of a JSON object, `a.b` for a member of a member."""
    for key in field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise BadReply(f"{where}: {field} is missing")
        value = value[key]  # pyright: ignore[reportUnknownVariableType]
    return value  # pyright: ignore[reportUnknownVariableType]


def quantity(value: object, field: str, where: str) -> int:
    """Read a hex quantity such as `0x1a`."""
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise bad(where, field, value, "a hex quantity")
    return int(value, 16)


def number(value: object, field: str, where: str) -> int:
    """Read a hex quantity that counts blocks, seconds, gas or the like: one that the ledger can hold."""
    read = quantity(value, field, where)
    if read > MOST:
        raise bad(where, field, value, "a hex quantity below 2^63")
    return read


def data(value: object, field: str, where: str, length: int | None = None) -> bytes:
    """Read 0x-prefixed hex bytes, `length` of them where given."""
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise bad(where, field, value, "0x and hex bytes")
    read = bytes.fromhex(value[2:])
    if length is not None and len(read) != length:
        raise bad(where, field, value, f"{length} bytes")
    return read


def integer(value: object, field: str, where: str) -> int:
    """Read a plain JSON integer from 0 to 2^63 - 1, which is what the ledger can hold."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
        raise bad(where, field, value, "a whole number from 0 to 2^63 - 1")
    return value


def boolean(value: object, field: str, where: str) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise bad(where, field, value, "true or false")
    return value
