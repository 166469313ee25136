"""Checks of Prefect's server. Settlement goes on without it, so what is missing there is a warning."""

import base64
from importlib.metadata import version

import httpx
import orjson

from blocks.http import Endpoint
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


async def _get(environment: Environment, path: str, *, anonymous: bool = False) -> httpx.Response:
    """Ask the server. Raises `NotChecked` where it does not answer."""
    url = client_environment(environment)["PREFECT_API_URL"].rstrip("/")
    headers = {} if anonymous else _headers(environment)
    async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False, headers=headers) as client:
        try:
            return await client.get(f"{url}{path}")
        except httpx.HTTPError as failed:
            where = Endpoint(url, "PREFECT_API_URL").name
            raise NotChecked(f"{where} does not answer ({type(failed).__name__})") from None


async def check_prefect_server(bench: Bench) -> Found:
    """Prefect's server answers, in the version of this process."""
    try:
        answer = await _get(bench.environment, "/admin/version")
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
    answer = await _get(bench.environment, "/admin/version", anonymous=True)
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
        answer = await _get(bench.environment, f"/deployments/name/{flow}/{name}")
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


CHECKS: tuple[Check, ...] = (check_prefect_server, check_prefect_is_not_open, check_deployments)
