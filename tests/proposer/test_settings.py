"""Settings: environment names, Go durations, and every illegal combination in a sentence."""

from typing import Any

import pytest
from pydantic import ValidationError

from proposer.settings import ProposerSettings, parse_seconds
from proposer.units import GWEI

DURATIONS = {
    "20s": 20,
    "2m": 120,
    "1h30m": 5400,
    "1.5h": 5400,
    "500ms": 0.5,
    "1m0.5s": 60.5,
    " 12s ": 12,
    "20": 20,
    "20.5": 20.5,
    20: 20,
}


@pytest.mark.parametrize(("written", "seconds"), DURATIONS.items())
def test_durations(written: str | int, seconds: float) -> None:
    """Go's syntax, or plain seconds."""
    assert ProposerSettings.model_validate({"POLL_INTERVAL": written}).poll_interval == seconds


@pytest.mark.parametrize("written", ["soon", "20 s", "1d", "-5s", "-5", "0", "", "s", "inf", "nan"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(ValidationError, match="POLL_INTERVAL"):
        ProposerSettings.model_validate({"POLL_INTERVAL": written})


def test_what_is_no_text_is_passed_on() -> None:
    assert parse_seconds(None) is None
    assert parse_seconds("20 apples") == "20 apples"


def test_defaults_are_op_succincts() -> None:
    made = ProposerSettings()
    assert (made.max_block_range, made.max_witness_gen, made.max_proof_requests) == (300, 5, 20)
    assert (made.witness_gen_timeout, made.max_proof_time, made.num_confirmations) == (1200, 14400, 10)
    assert made.drain_seconds == 1200
    assert ProposerSettings(drain_timeout=7).drain_seconds == 7


def test_every_field_has_an_environment_name() -> None:
    """And may be given by either."""
    for name, field in ProposerSettings.model_fields.items():
        assert field.alias is not None
        assert field.alias.isupper()
        assert field.description, name
    assert ProposerSettings.model_validate({"MAX_ATTEMPTS": 3}) == ProposerSettings(max_attempts=3)


COMBINATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "more witnesses than requests": (
        {"MAX_CONCURRENT_WITNESS_GEN": 21},
        r"MAX_CONCURRENT_WITNESS_GEN \(21\) is above MAX_CONCURRENT_PROOF_REQUESTS \(20\)",
    ),
    "first delay above the longest": (
        {"RETRY_DELAY": "2h"},
        r"RETRY_DELAY \(7200 s\) is above MAX_RETRY_DELAY \(1800 s\)",
    ),
}


@pytest.mark.parametrize(("given", "sentence"), COMBINATIONS.values(), ids=COMBINATIONS)
def test_illegal_combinations_are_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ProposerSettings.model_validate(given)


def test_all_illegal_combinations_are_said_at_once() -> None:
    with pytest.raises(ValidationError, match=r"MAX_CONCURRENT_WITNESS_GEN.*RETRY_DELAY"):
        ProposerSettings(max_witness_gen=50, retry_delay=9999)


OUT_OF_BOUNDS = {
    "MAX_BLOCK_RANGE_PER_SPAN_PROOF": 0,
    "MAX_CONCURRENT_WITNESS_GEN": 0,
    "MAX_CONCURRENT_PROOF_REQUESTS": 0,
    "MAX_CONCURRENT_AGGREGATIONS": 0,
    "WITNESS_GEN_TIMEOUT": 0,
    "MAX_PROOF_TIME": 0,
    "SUBMISSION_INTERVAL": 0,
    "MAX_TAIL_WAIT": -1,
    "NUM_CONFIRMATIONS": 0,
    "POLL_INTERVAL": 0,
    "MAX_ATTEMPTS": 0,
    "MAX_AGGREGATION_MEMBERS": 0,
    "RESUBMISSION_TIMEOUT": 0,
    "MIN_BALANCE": -0.1,
}


@pytest.mark.parametrize(("name", "value"), OUT_OF_BOUNDS.items())
def test_out_of_bounds_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        ProposerSettings.model_validate({name: value})


@pytest.mark.parametrize("url", ["https://etherscan.io/", "http://localhost:4000/l1/"])
def test_an_explorer_is_an_address_to_put_a_path_behind(url: str) -> None:
    assert ProposerSettings.model_validate({"EXPLORER_URL": url}).explorer_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["etherscan.io", "https://user:pass@host", "https://host/?key=1", "https://h/)[x](y", "javascript:x", "https://"],
)
def test_what_is_no_explorer_is_refused(url: str) -> None:
    """Nor is an address that could end a link, or that holds credentials: it is shown."""
    with pytest.raises(ValidationError, match=r"EXPLORER_URL\n.*must be an http\(s\) address"):
        ProposerSettings.model_validate({"EXPLORER_URL": url})


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValidationError, match="max_blok_range"):
        ProposerSettings.model_validate({"max_blok_range": 5})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ProposerSettings().mock = True  # type: ignore[misc]


def test_policies_follow_the_settings() -> None:
    made = ProposerSettings(max_attempts=3, retry_delay=10, max_retry_delay=20, min_tip_gwei=2, min_base_fee_gwei=3)
    assert (made.retry_policy.max_attempts, made.retry_policy.base, made.retry_policy.cap) == (3, 10, 20)
    assert (made.fee_policy.min_tip, made.fee_policy.min_base_fee) == (2 * GWEI, 3 * GWEI)
    assert made.fee_policy.limit_threshold == 100 * GWEI
