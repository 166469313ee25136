"""The rules of `automations.yaml` as Prefect automations of one proposer; applied again they change nothing."""

import contextlib
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import yaml
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import PrefectClient
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter

from deployments.environment import Environment
from deployments.webhooks import WEBHOOKS
from flows.alerts import resource_id
from proposer.alerts import ALERT
from proposer.reasons import Severity
from proposer.settings import ProposerSettings

AUTOMATIONS_YAML = Path(__file__).with_name("automations.yaml")
REASONS_OWN = "{{ event.payload.sentence }} {{ event.payload.remedy }}"
"""What an alert says: the words of the reason, as `status` and `explain` say them."""

PAGE = 200
"""The most automations that Prefect's API lists at once."""

Events = Annotated[list[str], Field(min_length=1)]


class Rule(BaseModel):
    """One row of `automations.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    severity: Severity
    summary: str
    event: str | None = None
    after: Events | None = None
    absent: Events | None = None
    within: Literal["alert_silent_after", "alert_no_settlement_after"] | None = None
    text: str = REASONS_OWN


@cache
def rules() -> tuple[Rule, ...]:
    """Read `automations.yaml`."""
    content = yaml.safe_load(AUTOMATIONS_YAML.read_text(encoding="utf-8"))
    return tuple(TypeAdapter(list[Rule]).validate_python(content["rules"]))


def automation_name(proposer: str, rule: str) -> str:
    """Return the name of a rule's automation; no other proposer's begins alike."""
    return f"op-succinct/{proposer}/{rule}"


def rendered(rule: Rule, name: str, settings: ProposerSettings, blocks: dict[str, UUID]) -> AutomationCore:
    """Write a rule as the automation of one proposer, which notifies through these blocks (by setting), or none."""
    about = {"match": {"prefect.resource.id": resource_id(name)}, "for_each": {"prefect.resource.id"}}
    if rule.absent is None:
        expect = {rule.event or f"{ALERT}{rule.name}"}
        trigger = EventTrigger.model_validate(about | {"expect": expect, "posture": Posture.Reactive})
    else:
        assert rule.within is not None  # a test holds that every rule with `absent` has it
        within = timedelta(seconds=getattr(settings, rule.within))
        absent = {"after": set(rule.after or ()), "expect": set(rule.absent), "within": within}
        trigger = EventTrigger.model_validate(about | absent | {"posture": Posture.Proactive})
    calls = [SendNotification(block_document_id=b, subject=_title(rule, name), body=rule.text) for b in blocks.values()]
    return AutomationCore(
        name=automation_name(name, rule.name),
        description=rule.summary,
        tags=["op-succinct", name, rule.severity.value],
        trigger=trigger,
        # without a webhook it still fires, and the event feed of the UI shows it
        actions=[*calls] or [DoNothing()],
    )


def _title(rule: Rule, name: str) -> str:
    return f"{name}: {rule.name}" if rule.severity is Severity.WAITING else f"[{rule.severity}] {name}: {rule.name}"


async def apply_automations(client: PrefectClient, environment: Environment) -> list[str]:
    """Make Prefect hold exactly these automations under this proposer's name; return what was set.

    One that a person has disabled stays so. What is right already is not touched: Prefect would forget what it counts.
    """
    blocks = await _blocks(environment)
    wanted = [rendered(rule, environment.name, environment.settings, blocks) for rule in rules()]
    there: dict[str, list[Automation]] = {}
    for automation in await _automations_of(environment.name, [core.name for core in wanted], client):
        there.setdefault(automation.name, []).append(automation)
    done: list[str] = []
    for core in wanted:
        found = there.pop(core.name, [])
        if not found:
            await client.create_automation(core)
        elif not _is_same(found[0], core):
            core.enabled = found[0].enabled
            await client.update_automation(found[0].id, core)
        there[f"{core.name} again"] = found[1:]
        done.append(f"automation {core.name}")
    for automation in (a for left in there.values() for a in left):
        await client.delete_automation(automation.id)
    return done


def _is_same(there: Automation, wanted: AutomationCore) -> bool:
    return _compared(there) == _compared(wanted)


def _compared(automation: AutomationCore) -> dict[str, Any]:
    """Return what a rule determines: not the ids that the server gives, nor whether a person has disabled it."""
    core = AutomationCore.model_validate(automation.model_dump())
    return core.model_dump(exclude={"enabled": True, "trigger": {"id"}})


async def _automations_of(proposer: str, names: list[str], client: PrefectClient) -> list[Automation]:
    """Read a proposer's automations: those of these names, and what else has its tags and its prefix.

    Only they are asked for: a server of a thousand rollups holds some thirty thousand.
    """
    its = {"operator": "or_", "name": {"any_": names}, "tags": {"all_": ["op-succinct", proposer]}}
    found: list[Automation] = []
    while True:
        body = {"automations": its, "sort": "NAME_ASC", "limit": PAGE, "offset": len(found)}
        page = (await client.request("POST", "/automations/filter", json=body)).json()
        found += [Automation.model_validate(automation) for automation in page]
        if len(page) < PAGE:
            break
    return [automation for automation in found if automation.name.startswith(automation_name(proposer, ""))]


async def _blocks(environment: Environment) -> dict[str, UUID]:
    """Save a block for each webhook that is set, delete those of the others; return the ids by setting.

    Prefect's block for Slack sends through Apprise, which knows other addresses too. Its other two blocks for webhooks
    are not used: one writes the address, which is a secret, into the server's log when it answers with an error; the
    other shares its connections, and loses messages that are sent at the same time.
    """
    saved: dict[str, UUID] = {}
    for setting in WEBHOOKS:
        name = f"{environment.name}-{setting.lower().replace('_', '-')}"
        url = environment.webhooks.get(setting)
        if url is not None:
            address = url if setting == "ALERT_SLACK_WEBHOOK" else _for_apprise(url)
            saved[setting] = await SlackWebhook(url=address).asave(name, overwrite=True)
        else:
            with contextlib.suppress(ValueError):  # there is none
                await SlackWebhook.adelete(name)
    return saved


def _for_apprise(url: SecretStr) -> SecretStr:
    """Write an address as Apprise's for JSON, which passes on the parameters that begin with a hyphen."""
    parts = urlsplit(url.get_secret_value())
    query = "&".join(f"-{parameter}" for parameter in parts.query.split("&") if parameter)
    return SecretStr(urlunsplit(parts._replace(scheme=parts.scheme.replace("http", "json"), query=query)))
