"""What the chart ships for Prometheus, Grafana and the autoscalers, as tests read it.

Knows the files below charts/conch/files and how PromQL names series; knows nothing of values or templates.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILES = Path(__file__).parents[2] / "charts/conch/files"
RULE_FILES = sorted((FILES / "rules").glob("*.yaml"))
ADAPTER = FILES / "prometheus-adapter.yaml"
DASHBOARD = FILES / "dashboards/conch.json"

_SERIES = re.compile(r"\b((?:conch|nv|kube)[_:][a-z0-9_:]*[a-z0-9]|up)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")


@dataclass(frozen=True)
class Selector:
    """A series that an expression reads, and the labels that it is chosen by."""

    name: str
    labels: frozenset[str]


def selectors(expression: str) -> set[Selector]:
    """Returns what an expression reads: our series (conch), Triton's (nv_) and the cluster's (kube_, up)."""
    return {
        Selector(name, frozenset(_MATCHER.findall(re.sub(r'"[^"]*"', '""', matchers))))
        for name, matchers in _SERIES.findall(expression)
    }


def chosen(expression: str) -> set[tuple[str, str, str]]:
    """Returns (series, label, value) of every value that an expression chooses a series by or leaves out."""
    return {
        (name, label, value)
        for name, matchers in _SERIES.findall(expression)
        for label, values in re.findall(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', matchers)
        for value in values.split("|")
    }


def rules() -> list[dict[str, Any]]:
    """Returns every recording and alert rule."""
    groups = [group for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def recorded() -> dict[str, str]:
    """Returns the expression of each recorded series."""
    return {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def alerts() -> dict[str, dict[str, Any]]:
    """Returns the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    """Returns Grafana's dashboard."""
    return dict(json.loads(DASHBOARD.read_text()))


def dashboard_expressions() -> Iterator[tuple[str, str]]:
    """Yields each panel's title and an expression of it, with Grafana's variables filled in."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m").replace("$", "")


def adapter_rules() -> list[dict[str, Any]]:
    """Returns what prometheus-adapter is told of external metrics."""
    return list(yaml.safe_load(ADAPTER.read_text())["rules"]["external"])
