"""Checks of Prefect's server. Settlement goes on without it, so what is missing there is a warning."""

import base64
from importlib.metadata import version

import httpx
import orjson

from blocks.http import Endpoint
from deployments.automations import PAGE, automation_name, rules
from deployments.checks.bench import Bench, Check, Found, NotChecked, error, ok, warning
from deployments.environment import Environment, client_environment

TIMEOUT_SECONDS = 5.0
FLOWS = ("propose-cycle", "prove")


def _headers(environment: Environment) -> dict[str, str]:
    secrets = environment.prefect_credentials
    if (basic := secrets.get("PREFECT_API_AUTH_STRING")) is not None:
        return {"Authorization": "Basic " + base64.b64encode(basic.get_secret_value().encode()).decode()}
    if (key := secrets.get("PREFECT_API_KEY")) is not None:
        return {"Authorization": "Bearer " + key.get_secret_value()}
    return {}


async def _ask(
    environment: Environment, path: str, *, body: dict[str, object] | None = None, anonymous: bool = False
) -> httpx.Response:
    """GET, or POST a body. Raises `NotChecked` where the server does not answer."""
    url = client_environment(environment)["PREFECT_API_URL"].rstrip("/")
    headers = {} if anonymous else _headers(environment)
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, headers=headers) as client:
        try:
            return await client.request("GET" if body is None else "POST", f"{url}{path}", json=body)
        except httpx.HTTPError as failed:
            where = Endpoint(url, "PREFECT_API_URL").name
            raise NotChecked(f"{where} does not answer ({type(failed).__name__})") from None


async def check_prefect_server(bench: Bench) -> Found:
    """Prefect's server answers, in the version of this process."""
    try:
        answer = await _ask(bench.environment, "/admin/version")
    except NotChecked as away:
        return warning(str(away), "Settlement goes on without it. Check PREFECT_API_URL, or that proposer up runs.")
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return warning(
            f"it refuses these credentials ({answer.status_code})",
            "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY to what the server expects.",
        )
    if not answer.is_success:
        return warning(f"it answers {answer.status_code}", "Check PREFECT_API_URL: it ends with /api. Look at its log.")
    try:
        theirs, ours = str(orjson.loads(answer.content)), version("prefect")
    except orjson.JSONDecodeError:
        return warning("it does not answer as Prefect's API does", "Check PREFECT_API_URL: it ends with /api.")
    if theirs != ours:
        return warning(f"it is version {theirs}, this process uses {ours}", f"Run a Prefect server of version {ours}.")
    return ok(f"version {theirs}")


async def check_prefect_is_not_open(bench: Bench) -> Found:
    """Prefect's server hands its secrets to nobody without authentication."""
    if bench.environment.prefect_is_local:
        return ok("it is on this machine, on loopback")
    answer = await _ask(bench.environment, "/admin/version", anonymous=True)
    if answer.is_success:
        return error(
            "it answers anybody, and its blocks hold the proposer's secrets",
            "Set PREFECT_SERVER_API_AUTH_STRING there and PREFECT_API_AUTH_STRING here.",
        )
    return ok("it asks for credentials")


async def check_deployments(bench: Bench) -> Found:
    """The deployments are applied and not paused."""
    name = bench.environment.name
    for flow in FLOWS:
        answer = await _ask(bench.environment, f"/deployments/name/{flow}/{name}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return warning(
                f"{flow}/{name} is not there", "Run proposer apply, or start proposer up, which does the same."
            )
        if not answer.is_success:
            raise NotChecked(f"Prefect's server answers {answer.status_code}")
        if orjson.loads(answer.content).get("paused"):
            return warning(
                f"{flow}/{name} is paused in Prefect, so its scheduled runs do not come",
                "prefect deployment schedule resume, or the switch in the UI. Cycles still run without it: to stop the "
                "proposer use proposer pause.",
            )
    return ok(", ".join(f"{flow}/{name}" for flow in FLOWS))


async def check_alerts(bench: Bench) -> Found:
    """The automations that tell of alerts are applied and enabled."""
    name = bench.environment.name
    wanted = {automation_name(name, rule.name): rule.name for rule in rules()}
    body: dict[str, object] = {"automations": {"name": {"any_": [*wanted]}}, "limit": PAGE}
    answer = await _ask(bench.environment, "/automations/filter", body=body)
    if not answer.is_success:
        raise NotChecked(f"Prefect's server answers {answer.status_code}")
    there = {automation["name"]: automation for automation in orjson.loads(answer.content)}
    if missing := [rule for full, rule in wanted.items() if full not in there]:
        return warning(
            f"{len(missing)} of {len(wanted)} are not there: {', '.join(missing)}",
            "Run proposer apply, or start proposer up, which does the same.",
        )
    if silenced := [rule for full, rule in wanted.items() if not there[full]["enabled"]]:
        return warning(
            f"{len(silenced)} of {len(wanted)} are disabled in Prefect: {', '.join(silenced)}",
            "Nobody is told of these. Enable them again under Automations in Prefect's UI.",
        )
    told = [one for one in there.values() if any(a["type"] == "send-notification" for a in one["actions"])]
    if len(told) == len(wanted):
        return ok(f"{len(wanted)} automations, each sent to a webhook")
    if bench.environment.webhooks:
        return warning(
            f"{len(wanted) - len(told)} of {len(wanted)} are not sent to the webhook that is set",
            "Run proposer apply, or restart proposer up, where it is set too.",
        )
    return ok(
        f"{len(wanted)} automations, seen in the event feed of Prefect's UI only: to be told, set ALERT_WEBHOOK or "
        "ALERT_SLACK_WEBHOOK"
    )


CHECKS: tuple[Check, ...] = (check_prefect_server, check_prefect_is_not_open, check_deployments, check_alerts)
