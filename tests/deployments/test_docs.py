"""The documents say what the code says: settings, statuses, reasons, faults, links; and no file names a registry."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from deployments.automations import rules
from deployments.checks import CHECKS
from deployments.cli import app
from deployments.environment import SECRETS
from deployments.metrics.catalogue import CATALOGUE
from deployments.reference import page
from proposer.alerts import ALERT, ALIVE, DUE, ORDER, OVER, SETTLED
from proposer.l1_transactions import TxStatus
from proposer.reasons import SEVERITY, Code
from proposer.requests import TRANSITIONS, Failure, Status
from proposer.settings import ProposerSettings

ROOT = Path(__file__).resolve().parents[2]

# built from pieces, so that this file does not name them itself
HOSTS = [
    re.compile(re.escape(".".join(parts)), re.IGNORECASE)
    for parts in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("python" + "hosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("npmmirror", "com"),
        ("crates", "io"),
    )
]
INDEX_OPTION = re.compile("--" + r"(?:extra-)?index-" + "url|--find-" + "links", re.IGNORECASE)


@cache
def _files() -> list[Path]:
    """Every file that git tracks, or would with `git add`."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def _documents() -> list[Path]:
    return [path for path in _files() if path.suffix == ".md"]


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _table(text: str) -> dict[str, str]:
    """Map the name in a row's first cell to its second cell, without backticks."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", text, re.MULTILINE)
    return {name: cell.strip("`") for name, cell in rows}


def test_the_page_of_settings_is_what_the_code_says() -> None:
    assert _read("docs/configuration.md") == page(), "run: make docs"


@pytest.mark.parametrize("field", ProposerSettings.model_fields.values(), ids=lambda field: str(field.alias))
def test_every_setting_is_listed_with_its_default_and_meaning(field: FieldInfo) -> None:
    default = field.get_default()
    expected = "not set" if default is None else str(default).lower()
    assert field.alias is not None
    assert field.description, "its docstring is what a reader of the page sees"
    assert _table(_read("docs/configuration.md")).get(field.alias) == expected


def test_no_setting_is_listed_that_the_code_does_not_read() -> None:
    names = {name for name in _table(_read("docs/configuration.md")) if name.isupper()}
    aliases = {field.alias for field in ProposerSettings.model_fields.values()}
    assert names - aliases <= _names_in(*ENVIRONMENT)


def test_everything_that_the_environment_is_asked_for_is_listed() -> None:
    named = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", _read("docs/configuration.md")))
    assert _names_in(*ENVIRONMENT) <= named


def test_every_secret_is_marked_as_one() -> None:
    marked = set(re.findall(r"^\| `(\w+)` \|.*\*secret\* \|$", _read("docs/configuration.md"), re.MULTILINE))
    assert marked == set(SECRETS)


ENVIRONMENT = tuple(
    ROOT / "deployments" / f"{name}.py" for name in ("environment", "homes", "signing", "webhooks", "console")
)
"""The modules that read it."""


def _names_in(*modules: Path) -> set[str]:
    """Return the strings of modules that are environment names."""
    trees = [ast.parse(module.read_text()) for module in modules]
    strings = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {s for s in strings if isinstance(s, str) and re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", s)}


@pytest.mark.parametrize("document", _documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [t for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", t)]
    assert [target for target in targets if not _leads_somewhere(document, target)] == []


def _leads_somewhere(document: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    return path.exists() and (not anchor or anchor in set(_anchors(path)))


def _anchors(path: Path) -> Iterator[str]:
    for heading in re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("member", [*Status, *Failure, *TxStatus], ids=str)
def test_the_lifecycle_explains_every_status_and_failure(member: Status | Failure | TxStatus) -> None:
    assert re.search(rf"^\| `{member.value}` \|", _read("docs/lifecycle.md"), re.MULTILINE)


def test_the_lifecycle_draws_exactly_the_allowed_transitions() -> None:
    text = _read("docs/lifecycle.md")
    allowed = {(frm.value, to.value) for frm, tos in TRANSITIONS.items() for to in tos}
    diagram = text.split("```mermaid")[1].split("```")[0]
    assert set(re.findall(r"^ *(\w+) --> (\w+)", diagram, re.MULTILINE)) == allowed
    rows = re.findall(r"^\| `(\w+)` \|.*\| (?:yes|no) \| (.*) \|$", text, re.MULTILINE)
    assert {(frm, to) for frm, cell in rows for to in re.findall(r"`(\w+)`", cell)} == allowed


def test_every_alert_has_its_row_with_its_severity_and_when_it_is_told() -> None:
    """And what to do; no other row is there."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|$", _read("docs/alerts.md"), re.MULTILINE)
    assert [row[:3] for row in rows] == [(rule.name, rule.severity.value, rule.summary) for rule in rules()]
    assert all(what.strip() for *_, what in rows)


def test_every_event_is_documented() -> None:
    named = {name.partition(".<")[0] for name in _table(_read("docs/alerts.md")) if name.startswith("op-succinct.")}
    assert named == {name.rstrip(".") for name in (ALERT, OVER, ORDER, ALIVE, DUE, SETTLED)}


def test_every_reason_that_is_given_is_explained_with_its_severity() -> None:
    rooms = [*(ROOT / "proposer").rglob("*.py"), *(ROOT / "flows").rglob("*.py"), *(ROOT / "deployments").rglob("*.py")]
    sources = [path.read_text(encoding="utf-8") for path in rooms if path.name != "reasons.py"]
    given = {Code[name] for source in sources for name in re.findall(r"\bCode\.([A-Z0-9_]+)", source)}
    explained = _table(_read("docs/troubleshooting.md"))
    assert {code.value: SEVERITY[code].value for code in given} == {
        name: cell for name, cell in explained.items() if cell in set(SEVERITY.values())
    }


FAULTS = [f"S{number:02}" for number in range(1, 39)] + [f"F{number:02}" for number in range(1, 36)]


@cache
def _faults() -> list[tuple[str, str, str]]:
    """Read the rows of the fault tables: id, tests, and why it cannot happen."""
    rows = re.findall(r"^\| ([A-Z]\d+) \|[^|]+\|[^|]+\|([^|]*)\|([^|]*)\|$", _read("docs/faults.md"), re.MULTILINE)
    return [(name, tests.strip(), why.strip()) for name, tests, why in rows]


@cache
def _tests_of(module: str) -> frozenset[str]:
    """Return the names of a module's tests, those in classes and hypothesis' test cases included."""
    path = ROOT / module
    if not path.is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(name for name in names if name.startswith(("test_", "Test")))


def test_every_known_fault_has_its_row() -> None:
    """The 38 defects of the original and the 35 faults, in order and once each."""
    assert [name for name, _, _ in _faults()] == FAULTS


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_tests_that_exist_or_says_why_it_cannot_happen(fault: str) -> None:
    """Its cell holds names of tests and nothing else."""
    (tests, why) = next((tests, why) for name, tests, why in _faults() if name == fault)
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", tests)
    assert tests == ", ".join(f"`{module}::{test}`" for module, test in named)
    assert [f"{module}::{test}" for module, test in named if test not in _tests_of(module)] == []
    assert named or why


def test_every_metric_is_documented_as_it_is_exported() -> None:
    """With its type, its labels and its meaning, and no other one is."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.*) \|$", _read("docs/metrics.md"), re.MULTILINE)
    documented = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in rows]
    assert documented == [(m.name, m.type, m.labels, m.help) for m in CATALOGUE.values()]


def test_the_doctors_checks_are_listed_with_what_should_be_true() -> None:
    checks = {
        check.__name__.removeprefix("check_").replace("_", "-"): (check.__doc__ or "").strip() for check in CHECKS
    }
    listed = _table(_read("docs/operator.md"))
    assert {name: line for name, line in listed.items() if name in checks} == checks


def test_every_field_of_the_status_is_explained() -> None:
    fields = set(re.findall(r'^        "(\w+)":', _read("deployments/commands/status.py"), re.MULTILINE))
    section = _read("docs/operator.md").split("## `status --json`")[1].split("## `doctor`")[0]
    assert "leader" in fields
    assert fields <= set(re.findall(r"`(\w+)`", section))


def test_the_readme_names_every_command() -> None:
    commands = {c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands}
    assert {"status", "explain", "doctor", "retry", "cancel", "pause", "resume", "up"} <= commands
    assert {name for name in commands if not re.search(rf"(proposer|make) {name}", _read("README.md"))} == set()


def test_no_file_names_the_host_of_a_package_registry() -> None:
    """What is installed is told by hashes; where it comes from is the user's choice."""
    named = []
    for path in _files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        named += [f"{path.relative_to(ROOT)}: {host.pattern}" for host in HOSTS if host.search(text)]
    assert named == []


def test_the_lock_has_hashes_and_no_addresses() -> None:
    lock = _read("requirements.lock")
    assert "--hash=sha256:" in lock
    assert "://" not in lock
    assert not INDEX_OPTION.search(lock)
