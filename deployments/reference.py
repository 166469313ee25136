"""`python -m deployments.reference`: write docs/configuration.md, the page of every setting, from the code."""

import sys
from dataclasses import dataclass
from pathlib import Path

from deployments.environment import IGNORED, SECRETS
from proposer.settings import ProposerSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"


@dataclass(frozen=True, slots=True)
class Name:
    """One environment name; `default` as a reader sees it."""

    name: str
    default: str
    meaning: str


GROUPS: dict[str, tuple[Name, ...]] = {
    "Where everything is": (
        Name("L1_RPC", "required", "L1 JSON-RPC addresses, separated by commas, in order of preference."),
        Name("L2_NODE_RPC", "required", "op-node JSON-RPC addresses, likewise."),
        Name("L2OO_ADDRESS", "required", "Address of the `L2OutputOracle` contract."),
        Name("OP_SUCCINCT_SERVER_URL", "`http://127.0.0.1:3000`", "Address of the op-succinct-server."),
        Name("DGF_ADDRESS", "not set", "op-succinct's dispute game factory: refused unless it is zero."),
    ),
    "Who signs": (
        Name("SIGNER_URL", "not set", "Address of the Web3Signer that holds the key; recommended for production."),
        Name(
            "SIGNER_ADDRESS",
            "not set",
            "The account that it signs for; set together with `SIGNER_URL`. In a dry run: the account to simulate as.",
        ),
        Name("PRIVATE_KEY", "not set", "Instead of these two, the private key itself: 64 hex digits."),
        Name(
            "DRY_RUN",
            "`false`",
            "`true`: decide and show, and do nothing. No signer is needed. Also `proposer up --dry-run`.",
        ),
    ),
    "What it keeps, and where": (
        Name("PROPOSER_NAME", "`proposer`", "The rollup's name in Prefect, also `--name`: a-z, 0-9 and dashes."),
        Name(
            "PROPOSER_HOME",
            "`~/.proposer`",
            "Folder of the embedded PostgreSQL and Prefect; `~/.proposer-NAME` under another name. The embedded "
            "ledger's address is in its `ledger.url`.",
        ),
        Name("DATABASE_URL", "embedded", "PostgreSQL of the ledger, `postgresql://user:password@host/database`."),
        Name("PREFECT_API_URL", "embedded", "API of an existing Prefect server."),
        Name("PREFECT_API_AUTH_STRING", "not set", "`user:password` of that server, where it asks for one."),
        Name("PREFECT_API_KEY", "not set", "Key for that server, likewise."),
        Name("PREFECT_SERVER_API_PORT", "`4200`", "Port of the embedded Prefect server."),
        Name("PREFECT_CLIENT_MAX_RETRIES", "`3`", "Prefect's own setting. Read from the environment only."),
        Name(
            "PREFECT_WORKER_QUERY_SECONDS",
            "`2`",
            "Seconds between two questions for runs that are due, as those started by hand are. Prefect's own setting. "
            "Read from the environment only.",
        ),
    ),
    "Who is told": (
        Name("ALERT_SLACK_WEBHOOK", "not set", "Slack's incoming webhook for [alerts](alerts.md)."),
        Name("ALERT_WEBHOOK", "not set", "Any other address that alerts are posted to as JSON."),
    ),
    "What it shows": (
        Name("LOG_LEVEL", "`INFO`", "`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."),
        Name("METRICS_PORT", "not set", "Port of [metrics and health](metrics.md); not served where not set."),
        Name("METRICS_ADDR", "`127.0.0.1`", "IP address that they are served on. There is no authentication."),
        Name(
            "METRICS_ENABLED",
            "not set",
            "op-succinct's switch: `true` serves on 7300 without `METRICS_PORT`, `false` does not serve.",
        ),
        Name(
            "READY_TIMEOUT",
            "`600`",
            "Seconds without a successful cycle after which `/readyz` answers 503; at least three `POLL_INTERVAL` "
            "where not set.",
        ),
    ),
}
"""Every name but the policy's, which are the fields of `ProposerSettings`."""

HEAD = """# Configuration

<!-- Written by `make docs` from deployments/reference.py and proposer/settings.py. Do not edit. -->

From the environment or from `--env-file`; the environment itself comes first. An empty value counts as not set.
Durations are seconds (`1200`) or Go durations (`20m`, `1h30m`). Everything wrong is named at once at start, with its
remedy, before anything is asked for or sent.

A *secret* may instead be given as `NAME_FILE`, the path of a file that holds the value. Secrets are in no log, error,
metric, artifact and run: a test marks every one and looks for it everywhere. A name is not a secret's place: keys
belong into an URL's user, password, path or query, never into its host.
"""

FOOT = """
`up` sets `PREFECT_HOME` to a folder under `PROPOSER_HOME`, so a Prefect profile of yours does not apply, and turns
telemetry off (`PREFECT_SERVER_ANALYTICS_ENABLED`, `DO_NOT_TRACK`). Prefect's other names for its client are read from
the environment only.

## Without effect

These op-succinct names may stay in an existing `.env`; `up` says once that they are ignored.

| name | why |
| --- | --- |
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    parts += [_table(title, names) for title, names in GROUPS.items()]
    parts.append(_table("How it plans, asks and sends", _policy()))
    ignored = "".join(f"| `{name}` | {why[0].upper()}{why[1:]}. |\n" for name, why in IGNORED.items())
    return "".join(parts) + FOOT + ignored


def _policy() -> tuple[Name, ...]:
    fields = ProposerSettings.model_fields.values()
    return tuple(Name(f.alias or "", _default(f.get_default()), f.description or "") for f in fields)


def _default(value: object) -> str:
    return "not set" if value is None else f"`{str(value).lower()}`"


def _table(title: str, names: tuple[Name, ...]) -> str:
    rows = "".join(f"| `{n.name}` | {n.default} | {_meaning(n)} |\n" for n in names)
    return f"\n## {title}\n\n| name | default | meaning |\n| --- | --- | --- |\n{rows}"


def _meaning(name: Name) -> str:
    return f"{name.meaning} *secret*" if name.name in SECRETS else name.meaning


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
