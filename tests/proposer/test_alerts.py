"""What a person is woken for: each reason once, when it has held for long enough, and what is over is told too."""

from dataclasses import replace
from datetime import timedelta

import pytest

from proposer.alerts import ALERT, BRIEFLY_SECONDS, CONDITIONS, INCIDENTS, OVER, PAUSED_SECONDS, QUIET_SECONDS, Watch
from proposer.alerts import patience as patience_of
from proposer.reasons import SEVERITY, Code, Reason, Severity
from proposer.settings import ProposerSettings
from tests.proposer.samples import NOW

SETTINGS = ProposerSettings(alert_outage_after=600)
OF = frozenset(CONDITIONS)


def reason(code: Code, **facts: int | str) -> Reason:
    return Reason(code, f"{code.value} holds.", "Do something.", facts)


def parked(number: int) -> Reason:
    return reason(Code.REQUEST_PARKED, request=number)


class Told:
    """A watch and the names of what it has told, with a clock."""

    def __init__(self) -> None:
        self.watch = Watch(SETTINGS)
        self.now = NOW

    def after(self, seconds: float, *reasons: Reason, complete: bool = True) -> list[str]:
        """Let time pass, look, and return what is emitted."""
        self.now += timedelta(seconds=seconds)
        self.watch.see(reasons, OF, self.now, complete=complete)
        return self.emit()

    def emit(self) -> list[str]:
        signals = self.watch.signals(self.now)
        for signal in signals:
            self.watch.learn(signal.event, signal.subjects, self.now)
        return [signal.event.removeprefix("op-succinct.") for signal in signals]


def test_whatever_needs_a_person_is_told() -> None:
    """All that is critical; that nobody leads can only be told by another, which the rule `silent` does."""
    critical = {code for code in Code if SEVERITY[code] is Severity.CRITICAL}
    assert critical - CONDITIONS - INCIDENTS == {Code.NO_LEADER}
    assert {SEVERITY[code] for code in CONDITIONS | INCIDENTS} == {Severity.WARNING, Severity.CRITICAL}


@pytest.mark.parametrize("code", sorted(CONDITIONS))
def test_a_condition_is_told_once_when_it_has_held_long_enough_and_then_that_it_is_over(code: Code) -> None:
    told, why = Told(), reason(code, request=12)
    wait = patience_of(why, SETTINGS)
    assert told.after(0, why) == ([] if wait else [f"alert.{code.value}"])
    if wait:
        assert told.after(wait - 1, why) == []
        assert told.after(1, why) == [f"alert.{code.value}"]
    assert [told.after(60, why) for _ in range(100)] == [[]] * 100
    assert told.after(60) == [f"over.{code.value}"]
    assert told.after(60) == []


def test_how_long_each_kind_must_hold() -> None:
    wait = {code: patience_of(reason(code), SETTINGS) for code in CONDITIONS}
    assert wait[Code.CONFIG_MISMATCH] == wait[Code.REQUEST_PARKED] == wait[Code.CYCLES_FAIL] == 0
    assert wait[Code.SERVER_DOWN] == wait[Code.L1_DOWN] == wait[Code.NODE_BEHIND] == 600
    assert wait[Code.NODE_DISAGREES] == wait[Code.PROPOSAL_REVERTS] == BRIEFLY_SECONDS
    assert wait[Code.PAUSED] == PAUSED_SECONDS
    assert patience_of(reason(Code.PAUSED, by="restore"), SETTINGS) == 0


def test_what_passes_in_time_is_never_told() -> None:
    told = Told()
    for _ in range(20):
        assert told.after(60, reason(Code.L1_DOWN)) == []
        assert told.after(500, reason(Code.L1_DOWN)) == []
        assert told.after(30) == []


def test_what_comes_and_goes_is_told_again_only_after_a_while() -> None:
    told, why = Told(), reason(Code.CONFIG_MISMATCH)
    assert told.after(0, why) == ["alert.config-mismatch"]
    assert told.after(60) == ["over.config-mismatch"]
    assert told.after(60, why) == told.after(60) == []
    assert told.after(60, why) == []
    assert told.after(QUIET_SECONDS, why) == ["alert.config-mismatch"]


def test_a_cycle_with_an_error_says_that_nothing_is_over() -> None:
    """The stage that failed may be the one that gives the reason."""
    told, why = Told(), reason(Code.FEE_CAP)
    told.after(0, why)
    assert told.after(60, complete=False) == []
    assert told.after(60, reason(Code.CYCLES_FAIL), complete=False) == ["alert.cycles-fail"]
    assert sorted(told.after(60)) == ["over.cycles-fail", "over.fee-cap"]


def test_requests_parked_together_are_told_together_and_each_once() -> None:
    told = Told()
    told.watch.see([parked(n) for n in range(3)], OF, told.now, complete=True)
    (signal,) = told.watch.signals(told.now)
    assert signal.subjects == ("0", "1", "2")
    assert signal.payload["sentence"] == "request-parked holds. And 2 more: 1, 2."
    assert told.emit() == ["alert.request-parked"]
    assert told.after(1, parked(0), parked(1), parked(2)) == []
    assert told.after(1, parked(0), parked(3)) == ["alert.request-parked"], "another one"
    assert told.after(QUIET_SECONDS, parked(0), parked(1), parked(3)) == ["alert.request-parked"], "parked once more"
    assert told.after(1) == ["over.request-parked"]


def test_what_a_process_before_has_told_is_not_told_again() -> None:
    """Nor is it told to be over before a cycle has said so."""
    told = Told()
    told.watch.learn(f"{ALERT}fee-cap", [""], NOW - timedelta(hours=5))
    told.watch.learn(f"{ALERT}request-parked", ["7"], NOW - timedelta(hours=5))
    told.watch.learn(f"{ALERT}low-balance", [""], NOW - timedelta(hours=4))
    told.watch.learn(f"{OVER}low-balance", [], NOW - timedelta(hours=3))
    told.watch.learn("op-succinct.alert.of-a-later-release", [""], NOW)
    assert told.emit() == []
    assert told.after(0, reason(Code.FEE_CAP), complete=False) == []
    fee_cap, balance = reason(Code.FEE_CAP), reason(Code.LOW_BALANCE)
    assert told.after(60, fee_cap, parked(7), balance) == ["alert.low-balance"]
    assert sorted(told.after(60)) == ["over.fee-cap", "over.low-balance", "over.request-parked"]


def test_what_happens_is_told_once_and_is_never_over() -> None:
    """Several at once are one message, and for a while there is no second."""
    told = Told()
    for nonce in (4, 5):
        told.watch.happened(reason(Code.L1_REORG, nonce=nonce), told.now)
    told.watch.happened(reason(Code.NONCE_DISPLACED), told.now)
    first = told.watch.signals(told.now)
    assert [s.payload["sentence"] for s in first] == ["l1-reorg holds. And 1 more.", "nonce-displaced holds."]
    assert told.emit() == ["alert.l1-reorg", "alert.nonce-displaced"]
    told.watch.happened(reason(Code.L1_REORG), told.now)
    assert told.after(60) == []
    told.now += timedelta(seconds=QUIET_SECONDS)
    assert told.emit() == [], "what came within the while is dropped"
    told.watch.happened(reason(Code.L1_REORG), told.now)
    assert told.emit() == ["alert.l1-reorg"]


def test_an_alert_has_the_words_of_its_reason() -> None:
    told = Told()
    why = replace(reason(Code.CANNOT_PAY, price_wei=5), sentence="The account is empty.", remedy="Send ether.")
    told.watch.see([why], OF, NOW, complete=True)
    (signal,) = told.watch.signals(NOW)
    assert (signal.event, signal.since) == ("op-succinct.alert.cannot-pay", NOW)
    assert signal.payload == {
        "code": "cannot-pay",
        "severity": "critical",
        "sentence": "The account is empty.",
        "remedy": "Send ether.",
        "facts": {"price_wei": 5},
    }
