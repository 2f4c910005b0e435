"""Rules as promtool sees them: accepted, unit-tested each, and explained to whoever is woken."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring import shipped
from tests.monitoring.prometheus import promtool

HERE = Path(__file__).parent
UNIT_TESTS = sorted(HERE.glob("*.test.yaml"))
RUNBOOKS = HERE.parents[1] / "docs/alerts.md"


def expectations() -> list[dict[str, Any]]:
    """Returns everything that the unit tests expect of an expression at a time."""
    files = [yaml.safe_load(file.read_text()) for file in UNIT_TESTS]
    return [expected for file in files for test in file["tests"] for expected in test["promql_expr_test"]]


def expected_of_alert(name: str) -> list[list[Any]]:
    """Returns what each test that asks for this very alert expects to fire."""
    asked = f'alertname="{name}"'
    return [expected["exp_samples"] for expected in expectations() if asked in expected["expr"]] + [
        [sample]
        for expected in expectations()
        if asked not in expected["expr"]
        for sample in expected["exp_samples"]
        if asked in sample["labels"]
    ]


def test_promtool_accepts_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", *shipped.RULE_FILES)


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.name)
def test_rules_do_what_their_unit_tests_say(file: Path) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("name", shipped.recorded())
def test_every_recorded_series_has_a_test_that_expects_a_number(name: str) -> None:
    word = re.compile(rf"\b{re.escape(name)}\b")
    assert any(word.search(e["expr"]) and e["exp_samples"] for e in expectations())


@pytest.mark.parametrize("name", shipped.alerts())
def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    expected = expected_of_alert(name)
    assert any(expected), "no test in which it fires"
    assert not all(expected), "no test in which it is silent"


@pytest.mark.parametrize(("name", "alert"), shipped.alerts().items())
def test_every_alert_says_what_happened_and_where_to_read_on(name: str, alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"].endswith(".")
    assert alert["annotations"]["runbook_url"] == f"docs/alerts.md#{name.lower()}"


def test_the_runbook_explains_every_alert_and_no_other() -> None:
    explained = re.findall(r"^### (Conch\w+)$", RUNBOOKS.read_text(), flags=re.MULTILINE)
    assert sorted(explained) == sorted(shipped.alerts())


@pytest.mark.parametrize("rule", shipped.rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_every_series_is_chosen_by_what_the_chart_replaces(rule: dict[str, Any]) -> None:
    """Two releases in one cluster must not read each other's series, nor record them twice."""
    for selector in shipped.selectors(rule["expr"]):
        own = {"pod", "horizontalpodautoscaler"} if selector.name.startswith("kube_") else {"release"}
        assert "namespace" in selector.labels, selector
        assert own & selector.labels, selector
