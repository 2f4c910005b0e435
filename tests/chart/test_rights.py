"""Rights of the chart's roles are those that the code was recorded to use, and not one more."""

import json
from pathlib import Path

import pytest

from tests.chart import charts

CALLS = json.loads((Path(__file__).parents[1] / "golden" / "cluster_calls.json").read_text(encoding="utf-8"))
ASKED_BY = {"gateway": "gateway", "trainer": "trainer", "converter": "converter", "triton": "stage"}
"""Which part of the code runs with which component's role."""


@pytest.mark.parametrize("component", ASKED_BY)
def test_a_role_grants_what_was_asked_and_nothing_else(component: str) -> None:
    role = charts.find(charts.objects(), "Role", f"conch-{component}")
    granted = {
        f"{verb} {group}/{resource}" if group else f"{verb} {resource}"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == set(CALLS[ASKED_BY[component]])


def test_every_part_that_asks_has_a_role() -> None:
    assert set(CALLS) == set(ASKED_BY.values())


def test_the_gateway_reads_and_changes_its_own_config_maps_alone() -> None:
    rules = charts.find(charts.objects(), "Role", "conch-gateway")["rules"]
    named = {name for rule in rules for name in rule.get("resourceNames", ())}
    assert named == {"conch-routes", "conch-ledger"}
    assert [rule["verbs"] for rule in rules if "resourceNames" not in rule] == [["create"]]
