"""Every series and every label that rules, dashboard and autoscalers read is one that something exposes."""

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.gateway.metrics import Metrics
from tests.monitoring import shipped
from tests.monitoring.shipped import Selector

ROOT = Path(__file__).parents[2]
TARGET_LABELS = {"namespace", "release", "component", "pool", "pod", "container"}
"""What the PodMonitors and the operator give every series beside its own labels."""
CLUSTER_LABELS = {
    "up": TARGET_LABELS,
    "kube_pod_container_status_restarts_total": {"namespace", "pod", "container"},
    "kube_pod_init_container_status_restarts_total": {"namespace", "pod", "container"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_desired_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_condition": {
        "namespace",
        "horizontalpodautoscaler",
        "condition",
        "status",
    },
}
"""Of Prometheus itself and of kube-state-metrics 2.13 (docs/metrics)."""


def read_somewhere() -> set[Selector]:
    """Returns all that rules, dashboard and adapter read."""
    expressions = [
        *(rule["expr"] for rule in shipped.rules()),
        *(expression for _, expression in shipped.dashboard_expressions()),
        *(
            rule["seriesQuery"].replace("{__name__=", "").replace('"', " ")
            for rule in shipped.adapter_rules()
        ),
    ]
    return {selector for expression in expressions for selector in shipped.selectors(expression)}


def exposed(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Returns the families that a registry will show, with the labels of each, written or not."""
    return {
        family.name: set(getattr(family, "_labelnames", ()) or getattr(collector, "_labelnames", ()))
        for collector in registry._collector_to_names
        for family in collector.collect()
    }


def family_of(series: str, families: dict[str, set[str]]) -> str | None:
    """Returns the family that shows a series."""
    names = (series, re.sub(r"_(bucket|sum|count|total)$", "", series))
    return next((name for name in names if name in families), None)


def triton_backends() -> set[str]:
    """Returns what our own backends add to Triton's metrics; only Triton itself can import them."""
    text = (ROOT / "services/triton/backends/openvino_generation/gauges.py").read_text()
    return set(re.findall(r'"(conch_generation_\w+)"', text))


FAMILIES = exposed(Metrics().registry) | {
    "conch_jobs": {"kind", "state"},
    "conch_oldest_pending_job_seconds": {"kind"},
    "conch_scheduler_leader": {"kind"},
}
OURS = sorted({s for s in read_somewhere() if s.name.startswith("conch_")}, key=str)


@pytest.mark.parametrize("selector", OURS, ids=lambda s: f"{s.name}{sorted(s.labels)}")
def test_our_series_exist_with_the_labels_that_they_are_chosen_by(selector: Selector) -> None:
    if selector.name in triton_backends():
        return
    family = family_of(selector.name, FAMILIES)
    assert family, f"nothing exposes {selector.name}"
    assert selector.labels - TARGET_LABELS <= FAMILIES[family]


def test_recorded_series_that_are_read_are_recorded() -> None:
    read = {s.name for s in read_somewhere() if s.name.startswith("conch:")}
    assert read == set(shipped.recorded()), "recorded and never read, or read and never recorded"


def test_the_cluster_s_series_are_known_ones() -> None:
    for selector in read_somewhere():
        if not selector.name.startswith(("conch", "nv_")):
            assert selector.labels <= CLUSTER_LABELS[selector.name], selector
