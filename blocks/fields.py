"""Fields of JSON answers, checked. Each raises `BadReply` that names where the answer came from and the field."""

import re

from proposer.errors import BadReply

_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def bad(where: str, field: str, value: object, wanted: str) -> BadReply:
    """Say which field is not what it must be; only the beginning of the value is shown."""
    return BadReply(f"{where}: {field} is {str(value)[:60]!r}, not {wanted}")


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


def data(value: object, field: str, where: str, length: int | None = None) -> bytes:
    """Read 0x-prefixed hex bytes, `length` of them where given."""
    if not isinstance(value, str) or not _DATA.fullmatch(value):
        raise bad(where, field, value, "0x and hex bytes")
    read = bytes.fromhex(value[2:])
    if length is not None and len(read) != length:
        raise bad(where, field, value, f"{length} bytes")
    return read


def integer(value: object, field: str, where: str) -> int:
    """Read a plain JSON integer that is not negative."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad(where, field, value, "a number")
    return value


def boolean(value: object, field: str, where: str) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise bad(where, field, value, "true or false")
    return value
