"""Loopback ports for the devnet's servers."""

import socket


def bind_loopback(port: int = 0) -> socket.socket:
    """Return a socket bound (not yet listening) to 127.0.0.1; port 0 takes a free one."""
    # asyncio turns Nagle's delay (40 ms per answer here) off only where the protocol is named
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def free_port() -> int:
    """Return a loopback port nobody listens on now."""
    with bind_loopback() as bound:
        return int(bound.getsockname()[1])
