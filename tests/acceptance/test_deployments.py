"""`prefect.yaml` is the only description of the deployments: `proposer apply` and `prefect deploy` give the same."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.acceptance.helpers import ROOT, Prefect, plain_environment
from tests.acceptance.prefect_servers import SessionServer

SAME = (
    "name", "description", "entrypoint", "tags", "parameters", "enforce_parameter_schema", "work_pool_name",
    "pull_steps", "job_variables", "paused",
)  # fmt: skip


async def _deployments(prefect: Prefect) -> dict[str, dict[str, Any]]:
    flows = {flow["id"]: flow["name"] for flow in await prefect.all("/flows/filter")}
    return {
        flows[d["flow_id"]]: {name: d[name] for name in SAME}
        | {"form": {name: d["parameter_openapi_schema"].get(name) for name in ("type", "properties", "required")}}
        | {"schedules": [(s["schedule"]["interval"], s["active"], s["slug"]) for s in d["schedules"]]}
        for d in await prefect.all("/deployments/filter")
    }


def assert_same(found: dict[str, dict[str, Any]], applied: dict[str, dict[str, Any]]) -> None:
    """Compare field by field, so that a difference is named."""
    different = {
        (flow, name): (value, found.get(flow, {}).get(name))
        for flow, fields in applied.items()
        for name, value in fields.items()
        if found.get(flow, {}).get(name) != value
    }
    assert not different, "\n".join(f"{key}: {value}" for key, value in different.items())
    assert set(found) == set(applied)


async def test_apply_and_prefect_deploy_give_the_same_deployments(
    prefect: Prefect,
    prefect_server: SessionServer,
    prefect_cli: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    """Applying twice changes nothing; `prefect --no-prompt deploy --all` over it changes nothing either."""
    key = "0x" + "11" * 32
    environment = plain_environment(tmp_path) | {
        "PREFECT_API_URL": prefect_server.api_url,
        "PROPOSER_HOME": str(tmp_path / "home"),
        "DATABASE_URL": "postgresql://nobody:word-of-pass@127.0.0.1:1/none",
        "L1_RPC": "http://127.0.0.1:1/path-token",
        "L2_NODE_RPC": "http://127.0.0.1:1",
        "L2OO_ADDRESS": "0x" + "22" * 20,
        "PRIVATE_KEY": key,
    }

    def apply() -> str:
        command = [sys.executable, "-m", "deployments.cli", "apply"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert not any(secret in done.stdout + done.stderr for secret in (key[2:], "word-of-pass", "path-token"))
        return done.stdout

    first = await asyncio.to_thread(apply)
    applied = await _deployments(prefect)
    assert set(applied) == {"propose-cycle", "prove"}
    assert applied["propose-cycle"]["schedules"] == [(60.0, True, "every-cycle")]
    forms = [applied[flow]["form"]["properties"] for flow in applied]
    assert all(parameter["description"] for form in forms for parameter in form.values())
    again = await asyncio.to_thread(apply)
    assert again == first
    assert_same(await _deployments(prefect), applied)
    deployed = await asyncio.to_thread(prefect_cli, "--no-prompt", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert_same(await _deployments(prefect), applied)
