"""What the production set-up in infra says, read for its tests."""

import ast
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices
from pydantic_settings import BaseSettings

from proposer.settings import ProposerSettings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra" / "docker"
KUBERNETES = ROOT / "infra" / "kubernetes"

Yaml = dict[str, Any]


def documents(path: Path) -> list[Yaml]:
    """Return every document of a YAML file."""
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found is not None]


def compose() -> Yaml:
    """Return the compose file, with its anchors merged."""
    (found,) = documents(DOCKER / "compose.yaml")
    return found


def helm_values() -> Yaml:
    """Return the values for Prefect's chart."""
    (found,) = documents(KUBERNETES / "prefect-server.values.yaml")
    return found


def of_kind(kind: str) -> Yaml:
    """Return the one Kubernetes object of a kind."""
    (found,) = [d for d in documents(KUBERNETES / "proposer.yaml") if d["kind"] == kind]
    return found


def pod() -> Yaml:
    """Return the proposer's pod."""
    spec: Yaml = of_kind("Deployment")["spec"]["template"]["spec"]
    return spec


def container() -> Yaml:
    """Return the proposer's container."""
    (found,) = pod()["containers"]
    return found


def kubernetes_environment() -> dict[str, str]:
    """Return what the proposer's pod is given: its settings file and the paths of its secrets."""
    lines = (KUBERNETES / "settings.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines) | {e["name"]: e["value"] for e in container()["env"]}


def prefect_environments() -> dict[str, dict[str, str]]:
    """Return what each set-up gives Prefect's server, where it is no reference to a secret."""
    values = {e["name"]: e["value"] for e in helm_values()["server"]["env"] if "value" in e}
    return {"compose": compose()["services"]["prefect"]["environment"], "kubernetes": values}


def names_of_the_proposer() -> set[str]:
    """Return every environment name that the proposer reads; a secret also as NAME_FILE."""
    names = {field.alias for field in ProposerSettings.model_fields.values() if field.alias}
    for module in (ROOT / "deployments").rglob("*.py"):
        strings = (n.value for n in ast.walk(ast.parse(module.read_text("utf-8"))) if isinstance(n, ast.Constant))
        names |= {s for s in strings if isinstance(s, str) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", s)}
    return names


def names_of_prefect(model: type[BaseSettings]) -> set[str]:
    """Return every environment name of Prefect's settings."""
    names: set[str] = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            names |= names_of_prefect(field.annotation)
            continue
        names.add(f"{model.model_config.get('env_prefix', '')}{name}".upper())
        if isinstance(field.validation_alias, AliasChoices):
            names |= {choice.upper() for choice in field.validation_alias.choices if isinstance(choice, str)}
    return names


def seconds(duration: str) -> int:
    """Read a compose duration such as 21m or 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def with_path(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a script."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **environment}
