"""What a dry run would have asked and sent, in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proposer.l1_transactions import Purpose
from proposer.reasons import Reason
from proposer.units import ETHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """A request for a proof as it would go to the prover server."""

    request: str
    url: str
    """Without what may be secret in it."""
    body: Mapping[str, object]
    """As sent, but each range proof's bytes by length and SHA-256."""

    def __str__(self) -> str:
        return f"POST {self.url} {dict(self.body)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A transaction as it would be signed and broadcast, and what its simulation says."""

    purpose: Purpose
    request: str
    to: str
    sender: str | None
    """None where no account is known."""
    calldata: bytes
    simulation: str
    """`passes`, or what it reverts with, or why there is none."""
    gas: int | None = None
    """Estimated gas; None where the simulation does not pass."""
    gas_limit: int | None = None
    most_wei: int | None = None
    """The most it may cost: gas limit times fee cap."""
    stopped: Reason | None = None
    """Why it would not be sent now although everything else is decided."""

    def __str__(self) -> str:
        price = f", at most {self.most_wei / ETHER:.6f} ETH" if self.most_wei is not None else ""
        gas = f", gas estimate {self.gas} (limit {self.gas_limit}{price})" if self.gas is not None else ""
        stopped = f"; not sent now: {self.stopped}" if self.stopped is not None else ""
        return (
            f"{self.purpose.value} transaction from {self.sender or 'an account that is not known'} to {self.to}{gas}, "
            f"simulation: {self.simulation}{stopped}, calldata 0x{self.calldata.hex()}"
        )


Would = Post | Call


def shown(would: Sequence[Would]) -> list[dict[str, object]]:
    """Return them as JSON, calldata in hex, wei as an integer."""
    return [_post(one) if isinstance(one, Post) else _call(one) for one in would]


def _post(post: Post) -> dict[str, object]:
    return {"kind": "post", "request": post.request, "url": post.url, "body": dict(post.body)}


def _call(call: Call) -> dict[str, object]:
    return {
        "kind": "transaction",
        "request": call.request,
        "purpose": call.purpose.value,
        "from": call.sender,
        "to": call.to,
        "calldata": "0x" + call.calldata.hex(),
        "gas": call.gas,
        "gas_limit": call.gas_limit,
        "most_wei": call.most_wei,
        "simulation": call.simulation,
        "stopped": str(call.stopped) if call.stopped is not None else None,
    }
