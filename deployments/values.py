"""Single values of the environment, read and checked; what is wrong is said by the setting's name, with a remedy."""

import re
from collections.abc import Mapping

from blocks.http import endpoints
from proposer.errors import InvalidSettings

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def is_address(value: str) -> bool:
    """Whether it is 0x and 40 hex digits."""
    return bool(_ADDRESS.fullmatch(value))


def read_address(names: Mapping[str, str], name: str, problems: list[str], what: str) -> str:
    """Read an account's or a contract's address, EIP-55; empty where there is a problem."""
    from eth_utils.address import is_checksum_address, is_checksum_formatted_address, to_checksum_address

    value = names.get(name)
    remedy = f"set it to the address of {what}, 0x and 40 hex digits"
    if value is None:
        problems.append(f"{name}: not set; {remedy}")
    elif not is_address(value):
        problems.append(f"{name}: not an address; {remedy}")  # not shown: it may be the key, mixed up
    elif is_checksum_formatted_address(value) and not is_checksum_address(value):
        problems.append(f"{name}: {value} has a wrong checksum, a digit is mistyped; {remedy}")
    elif int(value, 16) == 0:
        problems.append(f"{name}: is the zero address; {remedy}")
    else:
        return to_checksum_address(value)
    return ""


def read_urls(
    names: Mapping[str, str], name: str, problems: list[str], what: str, *, default: str | None = None
) -> str:
    """Read one or several http(s) addresses; empty where there is a problem."""
    value = names.get(name, default)
    if value is None:
        problems.append(f"{name}: not set; set it to {what}")
        return ""
    try:
        endpoints(value, name)
    except InvalidSettings:
        problems.append(f"{name}: not an http(s) address; write it as https://host[:port][/path]")
        return ""
    return value


def read_url(names: Mapping[str, str], name: str, problems: list[str], why_one: str, *, default: str = "") -> str:
    """Read one http(s) address; empty where there is a problem."""
    if "," in names.get(name, default):
        problems.append(f"{name}: names several servers; set it to one, because {why_one}")
        return ""
    return read_urls(names, name, problems, "", default=default)
