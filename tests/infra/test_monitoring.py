"""The dashboard and the alert rules name only what is exported, and every alert says what to do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deployments.metrics.catalogue import CATALOGUE, Metric
from deployments.metrics.families import process_text

MONITORING = Path(__file__).parents[2] / "infra" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
GROUPS: list[dict[str, Any]] = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"]
RULES: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]

KEYWORDS = {"and", "or", "unless", "bool", "offset", "on", "ignoring", "group_left", "group_right", "inf", "nan"}
TARGET_LABELS = {"job", "instance"}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def _expressions() -> list[Any]:
    targets = [(panel, target) for panel in _panels() for target in panel["targets"]]
    of_panels = [pytest.param(t["expr"], id=f"panel {p['title']} {t['refId']}") for p, t in targets]
    return of_panels + [pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES]


def _exported() -> dict[str, Metric]:
    """The series there are, with the metric each belongs to."""
    found: dict[str, Metric] = {}
    for metric in CATALOGUE.values():
        suffixes = ("_bucket", "_sum", "_count") if metric.type == "histogram" else ("",)
        found |= {metric.name + suffix: metric for suffix in suffixes}
    for family in text_string_to_metric_families(process_text().decode()):
        found |= {sample.name: Metric(sample.name, family.type, "") for sample in family.samples}
    return found


EXPORTED = _exported()


def _series(expression: str) -> list[tuple[str, str]]:
    """The series of an expression, each with what is in its braces."""
    without_strings = re.sub(r'"[^"]*"', lambda quoted: '"' + "." * (len(quoted[0]) - 2) + '"', expression)
    plain = re.sub(
        r"\b(by|without|on|ignoring|group_left|group_right) *\([^)]*\)", lambda m: " " * len(m[0]), without_strings
    )
    plain = re.sub(r"\[[^\]]*\]", lambda m: " " * len(m[0]), plain)
    found: list[tuple[str, str]] = []
    inside = [(m.start(), m.end()) for m in re.finditer(r"\{[^}]*\}", plain)]
    for match in re.finditer(NAME, plain):
        follows = plain[match.end() :].lstrip()
        if any(start < match.start() < end for start, end in inside) or follows.startswith("("):
            continue
        if match[0] in KEYWORDS or plain[match.start() - 1 : match.start()].isdigit():
            continue
        braces = next((expression[start + 1 : end - 1] for start, end in inside if start == match.end()), "")
        found.append((match[0], braces))
    return found


def test_series_are_found_in_an_expression() -> None:
    """The parser these tests rest on: not functions, labels, strings or durations; it would see a wrong name."""
    expression = (
        'sum by (le, kind) (rate(a_bucket{kind="x y", le=~"b"}[5m])) > 2e3 and on (job) time() - c_seconds >= bool d'
    )
    assert _series(expression) == [("a_bucket", 'kind="x y", le=~"b"'), ("c_seconds", ""), ("d", "")]


@pytest.mark.parametrize("expression", _expressions())
def test_every_expression_names_exported_metrics_with_their_labels_and_values(expression: str) -> None:
    series = _series(expression)
    assert series
    for name, braces in series:
        assert name in EXPORTED
        metric = EXPORTED[name]
        for label, operator, wanted in re.findall(rf'({NAME}) *(=~|!~|!=|=) *"([^"]*)"', braces):
            assert label in {*metric.labels, *TARGET_LABELS, *({"le"} if metric.type == "histogram" else ())}
            if label in metric.labels:
                values = {labels[metric.labels.index(label)] for labels in metric.domain}
                named = wanted.split("|") if operator in {"=~", "!~"} else [wanted]
                assert set(named) <= values


@pytest.mark.parametrize("expression", _expressions())
def test_every_expression_groups_by_labels_that_its_metrics_have(expression: str) -> None:
    for clause in re.findall(r"\bby *\(([^)]*)\)", expression):
        grouped = {label.strip() for label in clause.split(",")}
        has = {label for name, _ in _series(expression) for label in EXPORTED[name].labels}
        assert grouped <= has | TARGET_LABELS | {"le"}


def test_the_dashboard_can_be_provisioned() -> None:
    """It has an id of its own, asks for its data source, and no panel overlaps another."""
    assert DASHBOARD["uid"]
    assert "__inputs" not in DASHBOARD
    assert {variable["name"] for variable in DASHBOARD["templating"]["list"]} == {"datasource", "job"}
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in _panels())
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        own = {(grid["x"] + x, grid["y"] + y) for x in range(grid["w"]) for y in range(grid["h"])}
        assert not own & cells, panel["title"]
        cells |= own


def test_every_panel_says_what_it_shows() -> None:
    assert [panel["title"] for panel in _panels() if not panel["description"].endswith(".")] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_rule_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "remedy"}
    assert all(text.endswith(".") and len(text) > 20 for text in rule["annotations"].values())
    assert re.fullmatch(r"(\d+[smhd])?", rule.get("for", ""))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_label_in_an_annotation_is_one_of_the_result(rule: dict[str, Any]) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    outermost = re.search(r"\bby *\(([^)]*)\)", rule["expr"])
    assert named <= {label.strip() for label in (outermost[1].split(",") if outermost else ())}


def test_rules_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))


def test_what_an_operator_must_know_has_a_rule() -> None:
    expressions = " ".join(rule["expr"] for rule in RULES)
    for what in (
        "last_settlement_timestamp_seconds",
        "cycle_last_success_timestamp_seconds",
        'status="PARKED"',
        "balance_ether",
        "config-mismatch",
        "fee-cap",
        "l1-reorg",
        "absent(op_succinct_proposer_info)",
    ):
        assert what in expressions
