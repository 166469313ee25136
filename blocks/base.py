"""What every block of this room shares."""

from typing import ClassVar, Self

from pydantic import ConfigDict, HttpUrl

CONFIG = ConfigDict(hide_input_in_errors=True)
"""Pydantic quotes the input of a failed validation otherwise, and ours are secrets."""


class Outside:
    """A connection to something outside: closed once, by whoever made it. Serves one event loop."""

    # no logo: Prefect takes only http(s) URLs, and a picture of ours is not worth a request to the world outside
    _documentation_url: ClassVar[HttpUrl | None] = "https://succinctlabs.github.io/op-succinct/"  # pyright: ignore[reportAssignmentType]

    async def aclose(self) -> None:
        """Close the connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
