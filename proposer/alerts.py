"""What a person is woken for: which reasons, once they have held for how long, and each only once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from proposer.reasons import Code, Reason
from proposer.settings import ProposerSettings

ALERT, OVER, ORDER = "op-succinct.alert.", "op-succinct.over.", "op-succinct.order."
"""How the events begin that say that a reason holds, that it no longer does, and that an operator gave an order."""
ALIVE, DUE, SETTLED = "op-succinct.alive", "op-succinct.due", "op-succinct.settled"
"""A process leads and runs cycles; an output is due; the contract's head has moved on."""

BRIEFLY_SECONDS = 300.0
"""How long a reason must hold that another cycle often clears up."""
PAUSED_SECONDS = 3600.0
"""How long an operator may pause before the others hear of it."""
QUIET_SECONDS = 600.0
"""How long the same thing is not told again after it was told, however often it comes and goes."""
RESTORED_BY = "restore"
"""Who pauses a ledger that was restored from a backup."""

INCIDENTS = frozenset({Code.L1_REORG, Code.NONCE_DISPLACED, Code.TRANSACTION_REVERTED})
"""They happen, and are not over later."""
_AT_ONCE = frozenset(
    {
        Code.CONFIG_MISMATCH,
        Code.OPTIMISTIC_MODE,
        Code.NOT_APPROVED,
        Code.LOW_BALANCE,
        Code.CANNOT_PAY,
        Code.REQUEST_PARKED,
        Code.FEE_CAP,
        Code.KEY_CHANGED,
        Code.SIGNER_REFUSES,
        Code.CYCLES_FAIL,
    }
)
_BRIEFLY = frozenset(
    {Code.NODE_DISAGREES, Code.ROOT_CHANGED, Code.PROPOSAL_REVERTS, Code.CHECKPOINT_REVERTS, Code.AGGREGATION_REFUSED}
)
_OUTAGES = frozenset(
    {
        *(Code.L1_DOWN, Code.L1_BEHIND, Code.NODE_DOWN, Code.NODE_BEHIND, Code.NODE_STARTING),
        *(Code.SERVER_DOWN, Code.SIGNER_DOWN),
    }
)
CONDITIONS = _AT_ONCE | _BRIEFLY | _OUTAGES | {Code.PAUSED}


def patience(reason: Reason, settings: ProposerSettings) -> float:
    """Return how many seconds a condition must hold before it is told."""
    if reason.code in _OUTAGES:
        return settings.alert_outage_after
    if reason.code in _BRIEFLY:
        return BRIEFLY_SECONDS
    if reason.code is Code.PAUSED and reason.facts.get("by") != RESTORED_BY:
        return PAUSED_SECONDS
    return 0.0


@dataclass(frozen=True, slots=True)
class Signal:
    """An event to emit; `since` and `subjects` are what makes it another one than the last of its name."""

    event: str
    code: Code
    since: datetime
    subjects: tuple[str, ...]
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class _Held:
    since: datetime
    reason: Reason


class Watch:
    """What holds, what was told of it, and so what is to be told now."""

    def __init__(self, settings: ProposerSettings) -> None:
        self._settings = settings
        self._held: dict[Code, dict[str, _Held]] = {}
        self._told: dict[Code, set[str]] = {}
        self._told_at: dict[tuple[Code, str], datetime] = {}
        self._known: set[Code] = set()
        self._incidents: dict[Code, list[_Held]] = {}

    def see(self, reasons: Iterable[Reason], of: frozenset[Code], now: datetime, *, complete: bool) -> None:
        """Take in a look at the conditions `of`; only a complete one says that those it lacks hold no longer."""
        found: dict[Code, dict[str, _Held]] = {}
        for reason in reasons:
            if reason.code in of & CONDITIONS:
                subject = _subject(reason)
                before = self._held.get(reason.code, {}).get(subject)
                found.setdefault(reason.code, {})[subject] = _Held(before.since if before else now, reason)
        for code in of & CONDITIONS:
            held = found.get(code, {})
            if not complete:
                held = {**self._held.get(code, {}), **held}
            else:
                self._known.add(code)
                if held and (told := self._told.get(code)) is not None:
                    told &= set(held)  # a request that is parked once more is told once more
            if held:
                self._held[code] = held
            else:
                self._held.pop(code, None)

    def happened(self, reason: Reason, now: datetime) -> None:
        """Take in something that happened."""
        self._incidents.setdefault(reason.code, []).append(_Held(now, reason))

    def learn(self, event: str, subjects: Iterable[str], at: datetime) -> None:
        """Take in an event that was emitted, by this process or by one before it; oldest first."""
        prefix = next((p for p in (ALERT, OVER) if event.startswith(p)), None)
        if prefix is None or event.removeprefix(prefix) not in set(Code):
            return
        code = Code(event.removeprefix(prefix))
        if prefix == OVER:
            self._told.pop(code, None)
            return
        for subject in subjects:
            self._told_at[code, subject] = at
        if code in INCIDENTS:
            self._incidents.pop(code, None)
        else:
            self._told.setdefault(code, set()).update(subjects)

    def signals(self, now: datetime) -> list[Signal]:
        """Return what is to be told now; what was emitted of it is given to `learn`."""
        for code in [c for c in self._incidents if self._is_quiet(c, "", now)]:
            del self._incidents[code]  # the ledger has it, and the run of the request
        begun = [self._begun(code, now) for code in self._held]
        incidents = [_alert(code, {"": held[0]}, len(held) - 1) for code, held in self._incidents.items()]
        over = [_over(code, now) for code in self._told if code in self._known and code not in self._held]
        return [*(signal for signal in begun if signal is not None), *incidents, *over]

    def _begun(self, code: Code, now: datetime) -> Signal | None:
        told = self._told.get(code, set())
        fresh = {
            subject: held
            for subject, held in self._held[code].items()
            if subject not in told
            and now - held.since >= timedelta(seconds=patience(held.reason, self._settings))
            and not self._is_quiet(code, subject, now)
        }
        return _alert(code, fresh, len(fresh) - 1) if fresh else None

    def _is_quiet(self, code: Code, subject: str, now: datetime) -> bool:
        at = self._told_at.get((code, subject))
        return at is not None and now - at < timedelta(seconds=QUIET_SECONDS)


def _subject(reason: Reason) -> str:
    """Return what is told one by one: each parked request, and else the reason as such."""
    return str(reason.facts.get("request", "")) if reason.code is Code.REQUEST_PARKED else ""


def _alert(code: Code, held: Mapping[str, _Held], more: int) -> Signal:
    first = next(iter(held.values()))
    others = ", ".join(list(held)[1:21]) if len(held) > 1 else ""
    also = f" And {more} more{f': {others}' if others else ''}." if more else ""
    payload = {
        "code": code.value,
        "severity": first.reason.severity.value,
        "sentence": f"{first.reason.sentence}{also}",
        "remedy": first.reason.remedy,
        "facts": dict(first.reason.facts),
    }
    return Signal(f"{ALERT}{code.value}", code, first.since, tuple(held), payload)


def _over(code: Code, now: datetime) -> Signal:
    sentence = f"{code.value} is over: it no longer holds."
    return Signal(f"{OVER}{code.value}", code, now, (), {"code": code.value, "sentence": sentence, "remedy": ""})
