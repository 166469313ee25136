"""The webhooks that alerts go to, read from the environment."""

import re
from collections.abc import Mapping

from pydantic import SecretStr

from deployments.values import read_urls

WEBHOOKS = ("ALERT_SLACK_WEBHOOK", "ALERT_WEBHOOK")
_SLACK = re.compile(r"https://hooks\.slack(-gov)?\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+/?")


def read_webhooks(names: Mapping[str, str], problems: list[str]) -> dict[str, SecretStr]:
    """Read those that are set; each address is a secret."""
    return {name: SecretStr(_read(names, name, problems)) for name in WEBHOOKS if name in names}


def _read(names: Mapping[str, str], name: str, problems: list[str]) -> str:
    if "," in names[name]:
        problems.append(f"{name}: names several addresses; set it to one")
    elif name == "ALERT_SLACK_WEBHOOK" and not _SLACK.fullmatch(names[name]):
        problems.append(
            f"{name}: not a Slack webhook, https://hooks.slack.com/services/T.../B.../...; set it to one's "
            "address, and ALERT_WEBHOOK to that of anything else"
        )
    else:
        return read_urls(names, name, problems, "")
    return ""
