"""The names, states and tags of a request's run, and the reasons of a cycle."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prefect.client.schemas.objects import StateType

from flows.prove import is_of_a_request, rollup_tag, run_name, run_state, run_tags
from flows.report import CycleReport, StageReport
from proposer.ranges import BlockRange
from proposer.reasons import Code, Reason
from proposer.requests import Commitments, Failure, Kind, ProofRequest, Status

REQUEST = ProofRequest(
    id=12,
    kind=Kind.RANGE,
    range=BlockRange(1000, 1050),
    status=Status.UNREQ,
    attempt=3,
    since=datetime(2026, 1, 1, tzinfo=UTC),
    commitments=Commitments(b"r" * 32, b"a" * 32, b"c" * 32),
)

SHOWN = {
    Status.UNREQ: (StateType.PENDING, "Unrequested"),
    Status.WITNESSGEN: (StateType.RUNNING, "WitnessGen"),
    Status.PROVING: (StateType.RUNNING, "Proving"),
    Status.COMPLETE: (StateType.COMPLETED, "Complete"),
    Status.RELAYED: (StateType.COMPLETED, "Complete"),
    Status.FAILED: (StateType.FAILED, "Unfulfillable"),
    Status.PARKED: (StateType.FAILED, "Parked"),
    Status.CANCELLED: (StateType.CANCELLED, "Superseded"),
}


@pytest.mark.parametrize("status", list(Status))
def test_every_status_has_its_state(status: Status) -> None:
    """The table is complete."""
    state = run_state(status, Failure.UNFULFILLABLE, "why")
    assert (state.type, state.name, state.message) == (*SHOWN[status], "why")


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failed_run_is_named_by_its_class(failure: Failure) -> None:
    """Automations match on the name."""
    state = run_state(Status.FAILED, failure, "")
    assert (state.type, state.name) == (StateType.FAILED, failure.value)


def test_a_request_that_a_person_cancelled_is_shown_as_cancelled() -> None:
    """Parked by the operator is not a failure."""
    state = run_state(Status.PARKED, Failure.CANCELLED_BY_OPERATOR, "")
    assert (state.type, state.name) == (StateType.CANCELLED, "CancelledByOperator")


def test_names_and_tags() -> None:
    """The list of runs reads as a story."""
    assert run_name(REQUEST) == "range 1000→1050 · attempt 3"
    assert run_name(replace(REQUEST, kind=Kind.AGG)) == "aggregation 1000→1050 · attempt 3"
    assert run_tags(REQUEST, "base") == ["range", "request-12", "rollup-base"]
    assert is_of_a_request(run_tags(REQUEST, "base"))
    assert not is_of_a_request(["op-succinct", rollup_tag("request-a"), "woken"])


def test_a_reason_that_two_stages_give_is_told_once() -> None:
    """One request, one reason; two requests, two."""

    def parked(request: int, words: str) -> Reason:
        return Reason(Code.REQUEST_PARKED, words, "Repair it.", {"request": request})

    finality = Reason(Code.WAITING_FOR_FINALITY, "Finalized up to 1000.", "Nothing to do.")
    report = CycleReport(
        stages={
            "one": StageReport(reasons=(parked(1, "first words"), finality)),
            "two": StageReport(did=["did"], reasons=(parked(1, "other words"), parked(2, "first words"), finality)),
        }
    )
    assert report.reasons == [parked(1, "first words"), finality, parked(2, "first words")]
    assert report.did == ["did"]
