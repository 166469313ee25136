"""The environment, read once and validated as a whole: every problem is named at once, each with its remedy."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from blocks.http import Endpoint
from deployments import signing
from deployments.homes import problem_with_home, read_home, read_name
from deployments.signing import LocalKey, RemoteSigner, read_signer
from deployments.values import is_address, read_address, read_url, read_urls
from deployments.webhooks import WEBHOOKS, read_webhooks
from proposer.errors import InvalidSettings
from proposer.settings import ProposerSettings, parse_seconds

IGNORED = {
    "L1_BEACON_RPC": "only the prover server needs it",
    "L2_RPC": "only the prover server needs it",
    "ALLOW_NON_FINALIZED": "ranges always end at a finalized block",
    "WAIT_NODE_SYNC": "a node that is starting plans nothing and blocks nothing",
    "DB_PATH": "the ledger is PostgreSQL: see DATABASE_URL and PROPOSER_HOME",
    "USE_CACHED_DB": "the ledger is never deleted",
    "SLACK_TOKEN": "see ALERT_SLACK_WEBHOOK",
    "LOOP_INTERVAL": "see POLL_INTERVAL",
    "RANGE_PROOF_INTERVAL": "see MAX_BLOCK_RANGE_PER_SPAN_PROOF",
}
"""op-succinct names that have no effect here, and why; said once at start."""

_PREFECT_CREDENTIALS = ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY")
SECRETS = (
    *("L1_RPC", "L2_NODE_RPC", "OP_SUCCINCT_SERVER_URL", "DATABASE_URL"),
    *signing.SECRETS,
    *WEBHOOKS,
    *_PREFECT_CREDENTIALS,
)
"""Names that hold secrets: each may be given as NAME_FILE, and tests look for its value in everything shown."""
_TRUE, _FALSE = frozenset({"1", "t", "true"}), frozenset({"0", "f", "false"})


@dataclass(frozen=True, slots=True)
class Listen:
    """Where metrics and health are served, and after how many seconds without a successful cycle it is not ready."""

    address: str
    port: int
    ready_seconds: float


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What `proposer up` and `apply` act on; secrets are wrapped."""

    name: str
    """The rollup's: of its blocks, work pool and deployments."""
    home: Path
    settings: ProposerSettings
    l1_rpc: SecretStr
    node_rpc: SecretStr
    oracle_address: str
    dry_run: bool
    """Decide and show, and do nothing."""
    signer: LocalKey | RemoteSigner | None
    """None in a dry run only."""
    watched: str | None
    """In a dry run: the account that is looked at and simulated as, where one is named."""
    server_url: SecretStr
    database_url: SecretStr | None
    """None: the embedded PostgreSQL under `home`."""
    prefect_api_url: str | None
    """None: a Prefect server of our own under `home`."""
    prefect_is_local: bool
    """Whether that address is on this machine: what is missing there may be started."""
    prefect_credentials: Mapping[str, SecretStr]
    """PREFECT_API_AUTH_STRING or PREFECT_API_KEY, where set."""
    prefect_port: int
    metrics: Listen | None
    """Where metrics and health are served; None: nowhere."""
    webhooks: Mapping[str, SecretStr]
    """Where alerts go, by the name of the setting; those that are set."""
    ignored: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What of an environment with problems is right by itself, and so can be looked at; None where it is not."""

    l1_rpc: SecretStr | None
    node_rpc: SecretStr | None
    oracle_address: str
    signer: LocalKey | RemoteSigner | None
    server_url: SecretStr | None


class InvalidEnvironment(InvalidSettings):
    """Every problem of the environment that shows without asking anybody, and what can be asked about."""

    def __init__(self, problems: Sequence[str], parts: Parts) -> None:
        super().__init__(problems)
        self.parts = parts


def read_environment(values: Mapping[str, str]) -> Environment:
    """Read the environment. Raises `InvalidEnvironment` with every problem; no secret is in any message."""
    problems: list[str] = []
    names = _with_files(values, problems)
    settings = _settings(names, problems)
    name = read_name(names, problems)
    l1_rpc = read_urls(names, "L1_RPC", problems, "an L1 JSON-RPC address, such as https://host/key")
    node_rpc = read_urls(names, "L2_NODE_RPC", problems, "the op-node's JSON-RPC address")
    server = read_url(
        *(names, "OP_SUCCINCT_SERVER_URL", problems, "each knows only its own proofs"), default="http://127.0.0.1:3000"
    )
    address = read_address(names, "L2OO_ADDRESS", problems, "the rollup's L2OutputOracle")
    dry_run = _flag(names, "DRY_RUN", problems) or False
    signer, watched = _watched(names, problems) if dry_run else (_signer(names, problems), None)
    prefect_is_local = _prefect(names, problems)
    port = _port(names, problems)
    metrics = _metrics(names, settings, problems)
    webhooks = read_webhooks(names, problems)
    if names.get("DGF_ADDRESS") and int(_hex_or_zero(names["DGF_ADDRESS"]), 16):
        problems.append("DGF_ADDRESS: proposing through a dispute game factory is not supported: unset it")
    database_url = names.get("DATABASE_URL")
    if database_url and database_url.partition("://")[0] not in {"postgres", "postgresql", "postgresql+psycopg"}:
        problems.append("DATABASE_URL: must begin with postgresql://: the ledger runs on PostgreSQL only")
    home = read_home(names, name, problems)
    if settings is None or (signer is None and not dry_run) or problems:
        parts = Parts(
            l1_rpc=_secret(l1_rpc),
            node_rpc=_secret(node_rpc),
            oracle_address=address,
            signer=signer,
            server_url=_secret(server),
        )
        raise InvalidEnvironment(problems, parts)
    return Environment(
        name=name,
        home=home,
        settings=settings,
        l1_rpc=SecretStr(l1_rpc),
        node_rpc=SecretStr(node_rpc),
        oracle_address=address,
        dry_run=dry_run,
        signer=signer,
        watched=watched,
        server_url=SecretStr(server),
        database_url=SecretStr(database_url) if database_url else None,
        prefect_api_url=names.get("PREFECT_API_URL") or None,
        prefect_is_local=prefect_is_local,
        prefect_credentials={name: SecretStr(names[name]) for name in _PREFECT_CREDENTIALS if name in names},
        prefect_port=port,
        metrics=metrics,
        webhooks=webhooks,
        ignored={name: why for name, why in IGNORED.items() if names.get(name)},
    )


def read_settings(values: Mapping[str, str]) -> ProposerSettings:
    """Read the policy alone. Raises `InvalidSettings` with every problem."""
    problems: list[str] = []
    settings = _settings({name: value.strip() for name, value in values.items() if value.strip()}, problems)
    if settings is None:
        raise InvalidSettings(problems)
    return settings


def ledger_of(values: Mapping[str, str]) -> tuple[SecretStr, Path | None]:
    """Return the address of the ledger, and the home folder where it is the embedded one.

    Needs no other setting. Raises `InvalidSettings` where there is none.
    """
    problems: list[str] = []
    names = _with_files({name: value for name, value in values.items() if name.startswith("DATABASE_URL")}, problems)
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    name = read_name(given, problems)
    home = read_home(given, name, problems)
    file = home / "ledger.url"
    if not problems and "DATABASE_URL" not in names and (problem := problem_with_home(home, name)) is not None:
        problems.append(problem)
    if not problems and "DATABASE_URL" not in names:
        try:
            return SecretStr(file.read_text(encoding="utf-8").strip()), home
        except OSError:
            problems.append(
                f"DATABASE_URL: not set, and {file} does not exist; set DATABASE_URL or PROPOSER_HOME to the running "
                "proposer's, or start it: proposer up"
            )
    if problems:
        raise InvalidSettings(problems)
    return SecretStr(names["DATABASE_URL"]), None


def client_environment(environment: Environment) -> dict[str, str]:
    """Return the Prefect settings of this process: its API, its own folder, and no telemetry."""
    own = f"http://127.0.0.1:{environment.prefect_port}/api"
    return {
        "PREFECT_API_URL": environment.prefect_api_url or own,
        "PREFECT_HOME": str(environment.home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **{name: secret.get_secret_value() for name, secret in environment.prefect_credentials.items()},
        "PREFECT_CLIENT_MAX_RETRIES": os.environ.get("PREFECT_CLIENT_MAX_RETRIES", "3"),
        "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
    }


def _with_files(values: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Resolve `NAME_FILE` for names that hold secrets; an empty value counts as not set.

    No path is shown: it may be the secret itself, set under the wrong name.
    """
    names = {name: value.strip() for name, value in values.items() if value.strip()}
    for name in SECRETS:
        path = names.get(f"{name}_FILE")
        if path is None:
            continue
        if name in names:
            problems.append(f"{name}: set either {name} or {name}_FILE, not both")
            continue
        try:
            names[name] = Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            problems.append(f"{name}_FILE: cannot be read ({os.strerror(error.errno or 0)}): check the path")
        except ValueError:  # not UTF-8, or a path that cannot be one; the error quotes the content
            problems.append(f"{name}_FILE: not a text file: check the path")
        else:
            if not names[name]:
                problems.append(f"{name}_FILE: the file is empty: write the value into it, or unset {name}_FILE")
    return names


def _secret(value: str) -> SecretStr | None:
    return SecretStr(value) if value else None


def _settings(names: Mapping[str, str], problems: list[str]) -> ProposerSettings | None:
    aliases = {field.alias or name for name, field in ProposerSettings.model_fields.items()}
    try:
        return ProposerSettings.model_validate({name: names[name] for name in aliases if name in names})
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            message = problem["msg"].removeprefix("Value error, ")
            said = "" if name == "EXPLORER_URL" else f", not {problem['input']!r}"  # it may hold credentials
            problems.append(f"{name}: {message}{said}" if name else message)
        return None


def _signer(names: Mapping[str, str], problems: list[str]) -> LocalKey | RemoteSigner | None:
    before = len(problems)
    signer = read_signer(names, problems)
    if signer is None and len(problems) == before:
        problems.append(signing.NONE)
    return signer


def _watched(names: Mapping[str, str], problems: list[str]) -> tuple[None, str | None]:
    """Read whose account a dry run looks at: SIGNER_ADDRESS, or that of a key, which is not kept."""
    if "PRIVATE_KEY" not in names:
        named = "SIGNER_ADDRESS" in names
        return None, read_address(names, "SIGNER_ADDRESS", problems, "the proposer's account") if named else None
    signer = read_signer(names, problems)
    return None, signing.account_of(signer) if signer is not None else None


def _flag(names: Mapping[str, str], name: str, problems: list[str]) -> bool | None:
    """Read a switch; None where it is not set, or set to what is no switch."""
    value = names.get(name, "").lower()
    if value not in {"", *_TRUE, *_FALSE}:
        problems.append(f"{name}: {value!r} is neither true nor false; set it to one of them")
    return True if value in _TRUE else False if value in _FALSE else None


def _port(names: Mapping[str, str], problems: list[str]) -> int:
    named = names.get("PREFECT_API_URL", "").removesuffix("/").removesuffix("/api").rpartition(":")[2]
    value = names.get("PREFECT_SERVER_API_PORT") or (named if named.isdecimal() else "4200")
    return _number_of_port("PREFECT_SERVER_API_PORT", value, problems)


def _number_of_port(name: str, value: str, problems: list[str]) -> int:
    if value.isdecimal() and len(value) <= 5 and 0 < int(value) < 65536:
        return int(value)
    problems.append(f"{name}: {value!r} is not a port; set it to a number from 1 to 65535")
    return 0


def _metrics(names: Mapping[str, str], settings: ProposerSettings | None, problems: list[str]) -> Listen | None:
    """Read where metrics are served: as in op-succinct, 7300 where only METRICS_ENABLED is set."""
    enabled = _flag(names, "METRICS_ENABLED", problems)
    port = _number_of_port("METRICS_PORT", names.get("METRICS_PORT", "7300"), problems)
    address = names.get("METRICS_ADDR", "127.0.0.1")
    try:
        ip_address(address)
    except ValueError:
        problems.append(f"METRICS_ADDR: {address!r} is not an IP address; set it to the one to listen on")
    least = 3 * settings.poll_interval if settings else 0.0
    ready = names.get("READY_TIMEOUT", str(max(600.0, least)))
    try:
        seconds = float(str(parse_seconds(ready)))
    except ValueError:
        seconds = math.nan
    if not seconds > 0 or math.isinf(seconds):
        problems.append(f"READY_TIMEOUT: {ready!r} is no time; set it to seconds, or a duration such as 10m")
    elif settings is not None and seconds < 2 * settings.poll_interval:
        problems.append(
            f"READY_TIMEOUT ({seconds:g} s) is below two of POLL_INTERVAL ({settings.poll_interval:g} s), within which "
            "no cycle may have to run: raise the first or lower the second"
        )
    if enabled is False or ("METRICS_PORT" not in names and not enabled):
        return None
    return Listen(address, port, seconds)


def _prefect(names: Mapping[str, str], problems: list[str]) -> bool:
    """Say whether PREFECT_API_URL is on this machine; elsewhere it needs authentication.

    Prefect's API hands the secrets of its blocks to whoever reaches it.
    """
    url = names.get("PREFECT_API_URL")
    if url is None:
        return True
    try:
        here = Endpoint(url, "PREFECT_API_URL").is_local
        host = urlsplit(url).hostname
    except InvalidSettings:
        problems.append("PREFECT_API_URL: not an http(s) address; write it as http://host:port/api")
        return False
    if not here and not any(name in names for name in _PREFECT_CREDENTIALS):
        problems.append(
            f"PREFECT_API_URL: {host} is not this machine and is used without authentication, so anyone who reaches it "
            "can read the proposer's secrets; set PREFECT_API_AUTH_STRING here and PREFECT_SERVER_API_AUTH_STRING there"
        )
    return here


def _hex_or_zero(value: str) -> str:
    return value if is_address(value) else "0x1"
