"""`prove`: the flow of one proof request, and the names that its run carries.

The runs of all requests are mirrored from the ledger (`flows.mirror`). Run by hand, the flow takes one request up,
a parked one included, and follows it to its end.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed, Pending, Running
from pydantic import Field

from flows.context import current
from proposer.requests import COVERAGE, Failure, Kind, ProofRequest, Status

FOLLOW_SECONDS = 1.0
_REQUEST = "request-"

RequestId = Annotated[int, Field(ge=1)]


def run_name(request: ProofRequest) -> str:
    """Name a request's run, such as `range 1000→1300 · attempt 1`."""
    kind = "range" if request.kind is Kind.RANGE else "aggregation"
    return f"{kind} {request.range} · attempt {request.attempt}"


def run_tags(request: ProofRequest, rollup: str) -> list[str]:
    """Tag a request's run with its kind, its number and its rollup."""
    return [request.kind.value.lower(), f"{_REQUEST}{request.id}", rollup_tag(rollup)]


def is_of_a_request(tags: Sequence[str]) -> bool:
    """Whether these are a request's tags, whatever the rollup is called."""
    return any(tag.startswith(_REQUEST) for tag in tags)


def rollup_tag(rollup: str) -> str:
    """Tag everything in Prefect that is a rollup's."""
    return f"rollup-{rollup}"


def run_state(status: Status, failure: Failure | None, message: str) -> State[Any]:
    """Return the state that a request's run shows: the ledger's status, a failure by its class."""
    match status:
        case Status.UNREQ:
            return Pending(name="Unrequested", message=message)
        case Status.WITNESSGEN:
            return Running(name="WitnessGen", message=message)
        case Status.PROVING:
            return Running(name="Proving", message=message)
        case Status.COMPLETE | Status.RELAYED:
            return Completed(name="Complete", message=message)
        case Status.FAILED:
            return Failed(name=failure.value if failure else "Failed", message=message)
        case Status.PARKED if failure is Failure.CANCELLED_BY_OPERATOR:
            return Cancelled(name="CancelledByOperator", message=message)
        case Status.PARKED:
            return Failed(name="Parked", message=message)
        case Status.CANCELLED:
            return Cancelled(name="Superseded", message=message)


@flow(name="prove", flow_run_name="request {request_id} · taken up by hand", validate_parameters=True)
async def prove(request_id: RequestId) -> State[Any]:
    """Take one proof request up by hand, a parked one included, and follow it to its end.

    Args:
        request_id: Number of the proof request, as in its run's tags.

    """
    proposer = current()
    logger = get_run_logger()
    request = await proposer.ledger.request(request_id)
    async with proposer.write() as writer:
        taken = await writer.take_up(request_id, "taken up by hand in Prefect", proposer.settings.witness_gen_timeout)
    logger.info("%s is %s%s", request, request.status.value, ": due now" if taken else "")
    proposer.changed.set()
    last = 0
    while True:
        for event in await proposer.ledger.events(request_id, after=last):
            logger.info("%s %s: %s", event.at.isoformat(timespec="seconds"), event.to.value, event.why)
            last = event.id
        request = await proposer.ledger.request(request_id)
        if request.status in COVERAGE | {Status.FAILED, Status.PARKED, Status.CANCELLED}:
            return run_state(request.status, request.failure, f"request {request_id} is {request.status.value}")
        await asyncio.sleep(FOLLOW_SECONDS)
