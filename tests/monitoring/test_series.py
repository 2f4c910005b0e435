"""Every series and every label that rules, dashboard and autoscalers read is one that something exposes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2
from prometheus_client import CollectorRegistry

from conch.v1 import job_pb2, models_pb2
from services.gateway.metrics import STAGES, Metrics
from services.jobs.database import Database
from services.jobs.metrics import JobSeries
from services.jobs.store import Store
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


def expressions() -> list[str]:
    """Returns all expressions of rules, dashboard and adapter."""
    return [
        *(rule["expr"] for rule in shipped.rules()),
        *(expression for _, expression in shipped.dashboard_expressions()),
        *(
            rule["seriesQuery"].replace("{__name__=", "").replace('"', " ")
            for rule in shipped.adapter_rules()
        ),
    ]


def read_somewhere() -> set[Selector]:
    """Returns all series that these read."""
    return {selector for expression in expressions() for selector in shipped.selectors(expression)}


def states(enum: Any) -> set[str]:
    """Returns the values of an enum of states as labels write them."""
    return {name.removeprefix("STATE_").lower() for name, _ in enum.items()}


VALUES = {
    ("conch_version_state", "state"): states(models_pb2.Version.State),
    ("conch_jobs", "state"): states(job_pb2.JobStatus.State),
    ("conch:jobs:max", "state"): states(job_pb2.JobStatus.State),
    ("conch_pool_servers", "state"): {"ready", "proving", "unreachable"},
    ("conch:pool_servers:max", "state"): {"ready", "proving", "unreachable"},
    ("conch_shadow_calls_total", "outcome"): {"answered", "failed", "dropped"},
    ("conch_stage_seconds", "stage"): set(STAGES),
    ("conch_stream_seconds", "stage"): {"queue", "first_piece", "total"},
    ("conch_rpcs_total", "code"): set(code_pb2.Code.keys()),
    ("conch_rpcs_total", "rpc"): {"InferenceService/.+"},
    ("up", "component"): {"gateway"},
}
"""What the labels that something is chosen by may be."""


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


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, set[str]]]:
    """The families of gateway, trainer and converter."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.db'}")
    database.migrate()
    jobs = JobSeries("training", Store(database), lambda: True).registry()
    yield exposed(Metrics().registry) | exposed(jobs)
    database.close()


OURS = sorted({s for s in read_somewhere() if s.name.startswith("conch_")}, key=str)


@pytest.mark.parametrize("selector", OURS, ids=lambda s: f"{s.name}{sorted(s.labels)}")
def test_our_series_exist_with_the_labels_that_they_are_chosen_by(
    selector: Selector, families: dict[str, set[str]]
) -> None:
    if selector.name in triton_backends():
        return
    family = family_of(selector.name, families)
    assert family, f"nothing exposes {selector.name}"
    assert selector.labels - TARGET_LABELS <= families[family]


def test_series_are_chosen_by_values_that_their_labels_have() -> None:
    for name, label, value in {found for one in expressions() for found in shipped.chosen(one)}:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        if label in TARGET_LABELS - {"component"} | {"model"} or name.startswith(("nv_", "kube_")):
            continue
        assert value in VALUES[family, label], (name, label, value)


def test_recorded_series_that_are_read_are_recorded() -> None:
    read = {s.name for s in read_somewhere() if s.name.startswith("conch:")}
    assert read == set(shipped.recorded()), "recorded and never read, or read and never recorded"


def test_the_cluster_s_series_are_known_ones() -> None:
    for selector in read_somewhere():
        if not selector.name.startswith(("conch", "nv_")):
            assert selector.labels <= CLUSTER_LABELS[selector.name], selector
