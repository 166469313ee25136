"""Which rollup of a Prefect server has which account and contract: two with one would clash.

Held by Prefect variables, one per account and contract, whose names its database keeps unique, so that of two that come
at the same instant one is refused. What is not on this Prefect server is not seen: see docs/operations.md.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from blocks.ledger import Ledger
from flows.mirror import PREFECT_AWAY
from flows.prove import rollup_tag
from proposer.errors import InvalidSettings, NameClash

log = logging.getLogger("proposer.registry")

TAKE_SECONDS = 10.0
_PREFIX = "op-succinct-"


@dataclass(frozen=True, kw_only=True)
class Holding:
    """What a rollup must have for itself."""

    name: str
    l1_chain_id: int
    contract: str
    account: str | None
    """The signer's; None where there is none."""
    setting: str
    """The setting that names the account."""

    def variables(self) -> Mapping[str, tuple[str, str]]:
        """Return by variable: what it says, and what to do where it is another's."""
        contract = f"L2OO_ADDRESS: contract {self.contract} on chain {self.l1_chain_id} is proposed to by"
        found = {_variable("contract", self.l1_chain_id, self.contract): (contract, "correct L2OO_ADDRESS or the name")}
        if self.account is not None:
            account = f"{self.setting}: account {self.account} on chain {self.l1_chain_id} signs for"
            remedy = "the two would use each other's nonces, so give this one an account of its own"
            found[_variable("signer", self.l1_chain_id, self.account)] = (account, remedy)
        return found


def _variable(kind: str, chain_id: int, address: str) -> str:
    return f"{_PREFIX}{kind}-{chain_id}-{address.lower()}"


async def take(holding: Holding) -> None:
    """Take it before anything is spent. Raises `InvalidSettings` where another rollup has it.

    While Prefect is away nothing is known: `hold` looks when it is back.
    """
    try:
        async with asyncio.timeout(TAKE_SECONDS), get_client() as client:
            problems = await register(client, holding)
    except PREFECT_AWAY as error:
        log.info("Prefect is away: who else has this account or contract is looked at later: %s", type(error).__name__)
        return
    if problems:
        raise InvalidSettings(problems)


async def hold(holding: Holding, ledger: Ledger) -> None:
    """Have it as the leader, and give back what the rollup does not use any more. Raises `NameClash`."""
    async with get_client() as client:
        if problems := await register(client, holding):
            raise NameClash("; ".join(problems))
        # what an account has signed and is not mined yet is still its own
        unsettled = {tx.sender for tx in await ledger.transactions(unsettled=True)}
        for variable in await release(client, holding, unsettled):
            log.info("%s is given back: this rollup does not use it any more", variable)


async def register(client: PrefectClient, holding: Holding) -> list[str]:
    """Take what the rollup must have for itself; return what another has, and then nothing is taken."""
    problems: list[str] = []
    taken: list[str] = []
    for variable, (what, remedy) in holding.variables().items():
        owner, is_new = await _owner(client, variable, holding.name)
        if owner != holding.name:
            problems.append(
                f"{what} rollup {owner!r} of this Prefect server already, and this is {holding.name!r}; {remedy}. If "
                f"{owner!r} is given up: prefect variable unset {variable}"
            )
        elif is_new:
            taken.append(variable)
    if problems:
        for variable in taken:
            await _give_back(client, variable)
    return problems


async def _owner(client: PrefectClient, variable: str, name: str) -> tuple[str, bool]:
    """Return the rollup that has it, this one where nobody had, and whether it has it from now on."""
    new = VariableCreate(name=variable, value=name, tags=["op-succinct", rollup_tag(name)])
    while True:
        try:
            await client.create_variable(new)
        except ObjectAlreadyExists:
            found = await client.read_variable_by_name(variable)
            if found is not None:
                return str(found.value), False
        else:
            return name, True


async def release(client: PrefectClient, holding: Holding, accounts: Collection[str]) -> list[str]:
    """Give back what the rollup does not have any more, but keep these accounts too; return the variables."""
    kept = {*holding.variables(), *(_variable("signer", holding.l1_chain_id, account) for account in accounts)}
    tagged = {"variables": {"tags": {"all_": [rollup_tag(holding.name)]}}}
    answer = await client.request("POST", "/variables/filter", json=tagged)
    ours = [v["name"] for v in answer.json() if v["value"] == holding.name and v["name"].startswith(_PREFIX)]
    gone = [name for name in ours if name not in kept]
    for variable in gone:
        await _give_back(client, variable)
    return gone


async def _give_back(client: PrefectClient, variable: str) -> None:
    with suppress(ObjectNotFound):  # a person was faster
        await client.delete_variable_by_name(variable)
