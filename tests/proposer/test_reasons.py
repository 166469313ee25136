"""Every cause has one severity and reads as sentences."""

import pytest

from proposer.reasons import SEVERITY, Code, Reason, Severity


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_severity(code: Code) -> None:
    assert Reason(code, "It waits.", "").severity in Severity


def test_no_severity_is_left_over() -> None:
    assert set(SEVERITY) == set(Code)


@pytest.mark.parametrize("code", Code)
def test_codes_are_stable_words_for_alerts(code: Code) -> None:
    assert code.value == code.name.lower().replace("_", "-")


def test_a_reason_reads_as_sentences() -> None:
    assert str(Reason(Code.L1_DOWN, "L1 is away.", "Check L1_RPC.")) == "L1 is away. Check L1_RPC."
    assert str(Reason(Code.L1_DOWN, "L1 is away.", "")) == "L1 is away."
