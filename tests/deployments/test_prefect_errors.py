"""What is said of an error of Prefect's client holds nothing of what was sent or answered."""

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from pydantic import BaseModel, ValidationError

from deployments.prefect_errors import brief

SECRET = "postgresql://user:s3cret@db/ledger"


class Answer(BaseModel):
    """What a server should have answered."""

    id: int


def test_a_refusal_that_repeats_the_request_is_told_by_its_status() -> None:
    request = httpx.Request("POST", "http://prefect.example.com/api/block_documents/", json={"url": SECRET})
    answer = httpx.Response(422, json={"request_body": {"url": SECRET}}, request=request)
    plain = httpx.HTTPStatusError("Client error '422'", request=request, response=answer)
    said = brief(PrefectHTTPStatusError.from_httpx_error(plain))
    assert said == "PrefectHTTPStatusError: HTTP 422 for POST /api/block_documents/"
    wrapped = ObjectNotFound(http_exc=PrefectHTTPStatusError.from_httpx_error(plain))
    assert SECRET not in brief(wrapped)


def test_an_answer_of_another_shape_is_told_by_the_shape() -> None:
    with pytest.raises(ValidationError) as caught:
        Answer.model_validate({"id": SECRET})
    assert brief(caught.value) == "ValidationError: the answer is no Answer"


def test_others_are_told_as_they_are() -> None:
    assert brief(OSError("no route to host")) == "OSError('no route to host')"
