"""Whether new proofs may be asked for and outputs proposed (stage 0). Unreachable is unknown, not false."""

from dataclasses import dataclass

from proposer.orders import Order
from proposer.reasons import Code, Reason
from proposer.snapshot import OracleView, Outside
from proposer.units import ETHER, Wei


@dataclass(frozen=True, slots=True)
class Permission:
    """What stage 0 allows, and why not the rest. Polling is always allowed."""

    may_request: bool
    may_submit: bool
    reasons: tuple[Reason, ...] = ()


def permission(outside: Outside, min_balance: Wei, paused: Order | None = None) -> Permission:
    """Weigh the contract's state, the server's `validate_config`, the node's root at the contract head, and a pause."""
    pausing: list[Reason] = [_paused(paused)] if paused is not None else []
    warnings: list[Reason] = list(_unreachable(outside))
    may_submit = outside.oracle is not None and paused is None
    if outside.oracle is not None:
        pausing += _contract_refuses(outside.oracle)
        pausing += _node_disagrees(outside, outside.oracle)
        may_submit = not pausing
        balance = outside.oracle.balance
        if balance is not None and balance < min_balance:
            warnings.append(_low_balance(balance, min_balance))
    if outside.server is not None and outside.server.mismatches:
        pausing.append(_config_mismatch(outside.server.mismatches))
    return Permission(not pausing, may_submit, (*pausing, *warnings))


def _paused(order: Order) -> Reason:
    return Reason(
        Code.PAUSED,
        f"Paused by {order.who}: {order.why}",
        "No proof is asked for and no new transaction sent; what is under way is looked after. To go on: "
        "proposer resume.",
        {"order": order.id, "by": order.who, "since": order.at.isoformat(timespec="seconds")},
    )


def _contract_refuses(oracle: OracleView) -> list[Reason]:
    reasons: list[Reason] = []
    if oracle.optimistic:
        reasons.append(
            Reason(
                Code.OPTIMISTIC_MODE,
                "The contract is in optimistic mode and refuses validity proofs.",
                "Nothing to do here: requests and proposals resume when its owner calls disableOptimisticMode.",
            )
        )
    if not oracle.approved:
        reasons.append(
            Reason(
                Code.NOT_APPROVED,
                "The proposer's account is not an approved proposer of the contract.",
                "Have the contract's owner call addProposer with it, or set the key of an approved account.",
            )
        )
    return reasons


def _node_disagrees(outside: Outside, oracle: OracleView) -> list[Reason]:
    node = outside.node
    if node is None or node.root_at_head is None or oracle.latest_root in (None, node.root_at_head):
        return []
    assert oracle.latest_root is not None  # narrowed above; for the type checker
    return [
        Reason(
            Code.NODE_DISAGREES,
            f"The L2 node's output root at block {oracle.latest_block} is not the one stored in the contract.",
            "Check that L2_NODE_RPC and L2OO_ADDRESS belong to the same rollup, and that the node is not on a fork.",
            {"node": node.root_at_head.hex(), "contract": oracle.latest_root.hex(), "block": oracle.latest_block},
        )
    ]


def _config_mismatch(names: tuple[str, ...]) -> Reason:
    return Reason(
        Code.CONFIG_MISMATCH,
        f"The prover server's program does not match the contract: {', '.join(names)} differ.",
        "Deploy the server version that the contract expects, or have the owner update the contract. "
        "Nothing new is requested meanwhile; what is under way is still collected, and work resumes by itself.",
        {"differs": ", ".join(names)},
    )


def _low_balance(balance: Wei, least: Wei) -> Reason:
    return Reason(
        Code.LOW_BALANCE,
        f"The proposer's account holds {balance / ETHER:.4f} ETH, less than {least / ETHER:g}.",
        "Send ether to it: without any, checkpoints and proposals stop.",
        {"balance_wei": balance},
    )


def _unreachable(outside: Outside) -> list[Reason]:
    named = {
        "l1": (Code.L1_DOWN, "L1 cannot be read", "Planning and settlement wait; proving goes on. Check L1_RPC"),
        "node": (Code.NODE_DOWN, "The L2 node cannot be read", "No new ranges are planned. Check L2_NODE_RPC"),
        "server": (
            Code.SERVER_DOWN,
            "The prover server cannot be reached",
            "Requests wait without being charged an attempt. Check OP_SUCCINCT_SERVER_URL",
        ),
    }
    return [
        Reason(code, f"{sentence}: {outside.errors[name]}.", f"{remedy}; it is tried again by itself.")
        for name, (code, sentence, remedy) in named.items()
        if name in outside.errors
    ]
