"""Why a transaction to L1 is not sent or not mined, and what happened to one that was: the sentences and remedies."""

from typing import assert_never

from proposer.errors import EndpointDown, ProposerError
from proposer.l1_transactions import L1Transaction, TxStatus
from proposer.reasons import Code, Reason
from proposer.units import ETHER


def incident(tx: L1Transaction, status: TxStatus) -> Reason | None:
    """Say what happened to a transaction, where a person has to hear of it."""
    match status:
        case TxStatus.PENDING:
            return reorganised(tx)
        case TxStatus.DISPLACED:
            return Reason(
                Code.NONCE_DISPLACED,
                f"Nonce {tx.nonce} of the proposer's account was used by a transaction that is not in its ledger.",
                "Unless the ledger was restored from a backup, somebody else has the key: give each proposer an "
                "account of its own. If nobody should have it, rotate the key (docs/operations.md).",
                {"nonce": tx.nonce, "sender": tx.sender},
            )
        case TxStatus.REVERTED:
            return Reason(
                Code.TRANSACTION_REVERTED,
                f"The {tx} reverted on L1, although its simulation passed.",
                "Nothing, once: it is planned anew. If it repeats, look for what else changes the contract, such as a "
                "second proposer.",
                {"nonce": tx.nonce},
            )
        case TxStatus.MINED | TxStatus.CONFIRMED:
            return None
        case _:
            assert_never(status)


def without_key() -> Reason:
    """Say that there is nobody to sign."""
    return Reason(
        Code.NOT_APPROVED,
        "There is no signer, so no transaction can be sent.",
        "Set SIGNER_URL and SIGNER_ADDRESS, or PRIVATE_KEY, to those of an approved proposer, and DRY_RUN to false.",
    )


def cannot_sign(error: ProposerError) -> Reason:
    """Say that the remote signer is down, or does not sign what it is asked to."""
    if isinstance(error, EndpointDown):
        return Reason(
            Code.SIGNER_DOWN,
            f"No transaction can be signed: {error}.",
            "Check SIGNER_URL, and that the signer runs. Nothing was sent; it is asked again by itself.",
        )
    return Reason(
        Code.SIGNER_REFUSES,
        f"No transaction can be signed: {error}.",
        "Nothing was sent; it is asked again by itself. The check `signer` of proposer doctor asks at once.",
    )


def cannot_pay(what: str, price: int, balance: int | None = None) -> Reason:
    """Say that the account cannot pay for a transaction."""
    holds = f", which holds {balance / ETHER:.6f} ETH" if balance is not None else ""
    return Reason(
        Code.CANNOT_PAY,
        f"{what} may cost up to {price / ETHER:.6f} ETH: more than the proposer's account can pay{holds}.",
        "Send ether to it. Proving goes on meanwhile, and the transaction is sent by itself afterwards.",
        {"price_wei": price},
    )


def at_fee_cap(tx: L1Transaction) -> Reason:
    """Say that a transaction is not mined at the highest price it may have."""
    return Reason(
        Code.FEE_CAP,
        f"The {tx} is not mined at {tx.newest.fees.cap} wei per gas, and a higher fee would pass the limit.",
        "The old price stands. Wait for L1's fees to fall, or raise TXMGR_FEE_LIMIT_MULTIPLIER.",
        {"nonce": tx.nonce, "fee_cap_wei": tx.newest.fees.cap},
    )


def key_changed(tx: L1Transaction) -> Reason:
    """Say that a nonce of another account cannot be signed for with the key that is set."""
    return Reason(
        Code.KEY_CHANGED,
        f"The {tx} of account {tx.sender} is not mined, and the key set now is another account's.",
        "It is repeated as it is. Where it stays unmined, start once with the old key, until it is mined or cancelled.",
        {"nonce": tx.nonce, "sender": tx.sender},
    )


def busy(tx: L1Transaction) -> Reason:
    """Say that another transaction of the account comes first."""
    return Reason(
        Code.SIGNER_BUSY,
        f"The {tx} is not mined yet; there is one at a time.",
        "Nothing to do: its fee is raised by itself.",
        {"nonce": tx.nonce},
    )


def reorganised(tx: L1Transaction) -> Reason:
    """Say that a reorg took a mined transaction away."""
    return Reason(
        Code.L1_REORG,
        f"L1 was reorganised: the {tx}, which was mined, is not on the chain any more.",
        "Nothing to do: the same bytes are broadcast again, or its nonce is used up where it would revert now.",
        {"nonce": tx.nonce},
    )
