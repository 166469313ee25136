"""What may be said of an error of Prefect's client."""

import httpx
from pydantic import ValidationError


def brief(error: Exception) -> str:
    """Describe an error without what was sent or answered: a server that refuses a block repeats the secrets in it."""
    if isinstance(error, httpx.HTTPStatusError):
        request = error.request
        return f"{type(error).__name__}: HTTP {error.response.status_code} for {request.method} {request.url.path}"
    if isinstance(error, ValidationError):
        return f"ValidationError: the answer is no {error.title}"
    return repr(error)[:500]
