"""Everything that can go wrong, split by what the reader must do.

ProposerError
├── TryAgainLater            nothing to do by hand: the next look tries again
│   ├── EndpointDown         nothing was sent, or a read failed: no attempt is charged
│   ├── RateLimited          as EndpointDown, with the seconds to wait
│   ├── OutcomeUnknown       a proof request or transaction was cut off before its answer: it may have been paid
│   ├── LedgerMoved          a row changed between the decision and the write: decide again
│   ├── ChainMoved           a pinned L1 block is no longer canonical: read again
│   └── NotLeader            another process holds the leadership: stand by
├── FixConfiguration         a person must change a setting
│   ├── InvalidSettings      every problem of the environment at once
│   ├── WrongLedger          the database belongs to another contract or chain
│   ├── WrongChain           an endpoint serves another chain than the ledger's
│   └── SignerRefuses        the remote signer does not sign for the proposer's account
└── CallAHuman               the outside contradicts itself
    ├── NameClash            another rollup has this one's account or contract
    ├── BadReply             an answer that does not have the documented shape; names the field
    ├── WrongSignature       the remote signer answered other bytes than the transaction it was asked to sign
    ├── RequestRefused       the prover server answered a request with an error
    ├── Reverted             a call or transaction reverts; carries the decoded name
    ├── IllegalTransition    a status change that the table does not allow
    └── UnknownRequest       no proof request has this number
"""

from collections.abc import Sequence


class ProposerError(Exception):
    """Something the proposer can name; the message says what to do."""


class TryAgainLater(ProposerError):
    """Nothing to do by hand: the next look tries again."""


class EndpointDown(TryAgainLater):
    """Nothing was sent, or a read failed: no attempt is charged."""


class RateLimited(EndpointDown):
    """The endpoint asked for a pause."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class OutcomeUnknown(TryAgainLater):
    """A request or transaction was cut off before its answer: it may have been paid."""


class ChainMoved(TryAgainLater):
    """A pinned L1 block is no longer canonical: read again."""


class LedgerMoved(TryAgainLater):
    """A row changed between the decision and the write: decide again."""


class NotLeader(TryAgainLater):
    """Another process holds the leadership: stand by."""


class FixConfiguration(ProposerError):
    """A person must change a setting."""


class InvalidSettings(FixConfiguration):
    """Every problem of the environment at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class WrongLedger(FixConfiguration):
    """The database belongs to another contract or chain."""


class WrongChain(FixConfiguration):
    """An endpoint serves another chain than the ledger's."""


class SignerRefuses(FixConfiguration):
    """The remote signer does not sign for the proposer's account."""


class CallAHuman(ProposerError):
    """The outside contradicts itself."""


class NameClash(CallAHuman):
    """Another rollup has this one's account or contract: the two would spend against each other."""


class BadReply(CallAHuman):
    """An answer that does not have the documented shape; names the field."""


class WrongSignature(CallAHuman):
    """The remote signer answered other bytes than the transaction it was asked to sign."""


class RequestRefused(CallAHuman):
    """The prover server answered a request with an error."""

    def __init__(self, message: str, status_code: int) -> None:
        super().__init__(message)
        self.status_code = status_code


class Reverted(CallAHuman):
    """A call or transaction reverts.

    `name` is the custom error's name, or the text of `Error(string)`, or `Panic(0x..)`, or the raw data in hex.
    """

    def __init__(self, name: str, data: bytes = b"") -> None:
        super().__init__(name)
        self.name = name
        self.data = data


class IllegalTransition(CallAHuman):
    """A status change that the table does not allow."""


class UnknownRequest(CallAHuman):
    """No proof request has this number."""
