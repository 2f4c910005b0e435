"""What the chart calls CONCH_* is what the services read, and what they read can be set through the chart."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from services.cli.settings import CliSettings
from services.converter.settings import ConverterSettings
from services.gateway.pod_proof import ProofSettings
from services.gateway.settings import GatewaySettings
from services.repository.settings import PreflightSettings, StageSettings
from services.settings import SharedSettings
from services.trainer.settings import TrainerSettings
from tests.chart import charts
from tests.chart.charts import FILES, Object

READERS: dict[str, type[BaseSettings]] = {
    "gateway": GatewaySettings,
    "trainer": TrainerSettings,
    "converter": ConverterSettings,
    "stage": StageSettings,
    "preflight": PreflightSettings,
    "proof": ProofSettings,
    # A worker's module reads what all share, beside its order.
    "worker": SharedSettings,
}
"""Which settings a container of this name reads; containers of `helm test` are the command line."""

NEVER_SET = {
    "TRITON_ADDRESS": "each pool has an address of its own",
    "RUNTIME": "each pool has a runtime of its own",
    "LEDGER_FILE": "the ledger is a ConfigMap",
    "STAGED": "pods stage, the gateway does not",
    "TRAINER_WORKER_MODULE": "for tests: another worker",
    "CONVERTER_WORKER_MODULE": "for tests: another worker",
    "DATABASE_URL": "the gateway has no database",
    "ARTIFACTS_URI": "the gateway reads no checkpoints",
    "POOL": "stage is told by its argument",
    "STORE_PATIENCE_SECONDS": "its default is what Kubernetes' own restarts are counted on",
    "TERMINATION_LOG": "Kubernetes' own default path",
    "KUBERNETES_URL": "pods know their API server",
}
"""Fields that a cluster leaves alone, and why."""

_SCHEMA = json.loads((charts.CHART / "values.schema.json").read_text(encoding="utf-8"))["properties"]


@pytest.mark.parametrize("name", FILES)
def test_every_name_is_a_field_of_what_the_container_reads(name: str) -> None:
    for where, container in _ours(charts.objects(name=name)):
        known = _fields(_reader(container["name"]))
        assert _names(container) <= known, (name, where, container["name"])


@pytest.mark.parametrize("component", ["gateway", "trainer", "converter"])
def test_every_field_is_set_by_the_chart_or_may_be_set_by_its_values_and_never_by_both(
    component: str,
) -> None:
    container = _container(charts.objects(name="default"), component)
    free = set(_SCHEMA[component]["properties"]["env"]["propertyNames"]["anyOf"][0]["enum"])
    assert not free & _names(container)
    assert free | _names(container) | _never() >= _fields(READERS[component])
    assert free <= _fields(READERS[component])


@pytest.mark.parametrize(("container", "name"), [("stage", "every-runtime"), ("preflight", "gpu")])
def test_every_field_of_what_runs_beside_is_set_by_the_chart(container: str, name: str) -> None:
    rendered = charts.objects(_MODEL, name=name) if name == "gpu" else charts.objects(name=name)
    named = {n for where, one in _ours(rendered) if one["name"] == container for n in _names(one)}
    assert named | _never() >= _fields(READERS[container])


def test_what_a_cluster_never_sets_is_a_field_somewhere() -> None:
    fields = {field for reader in (*READERS.values(), _cluster()) for field in _fields(reader)}
    assert _never() <= fields


def test_the_gateway_reads_the_environment_that_the_chart_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    container = _container(charts.objects(name="every-runtime"), "gateway")
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "team-a"))
    settings = GatewaySettings()
    assert {name: pool.runtime for name, pool in settings.pools.items()} == {
        "a": "onnxruntime",
        "b": "openvino",
        "c": "openvino",
        "d": "vllm",
        "e": "tensorrt",
    }
    assert settings.pools["a"].address == "conch-triton-a.team-a.svc.cluster.local.:8001"
    assert (settings.staged_by, settings.routes_configmap) == ("pool", "conch-routes")
    assert settings.routes_file == Path("/etc/conch/routes/routes.json")


def test_preflight_reads_the_environment_that_the_chart_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = charts.objects(_MODEL, name="gpu")
    job = charts.find(rendered, "Job", "conch-preflight")
    for variable in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    pool = PreflightSettings().pools["gpu"]  # type: ignore[call-arg]  # from the environment
    assert (pool.runtime, pool.compute_capability, pool.tensorrt_version) == ("tensorrt", "9.0", "10.14.1.48")


@pytest.mark.parametrize("service", ["trainer", "converter"])
def test_job_services_read_the_environment_that_the_chart_gives_them(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = _container(charts.objects(name="default"), service)
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "team-a"))
    settings = TrainerSettings() if service == "trainer" else ConverterSettings()
    assert settings.executor == "kubernetes"
    assert settings.report_to.startswith(f"conch-{service}.team-a.svc.cluster.local:")


_MODEL = 'models.sentiment={"versions":[{"version":1,"weight":1}],"pool":"gpu"}'


def _ours(found: list[Object]) -> Iterator[tuple[str, Object]]:
    for where, spec in charts.templates(found):
        yield from ((where, one) for one in charts.containers(spec) if _names(one))


def _container(found: list[Object], name: str) -> Object:
    (one,) = [one for where, one in _ours(found) if one["name"] == name and where.startswith("Deployment/")]
    return one


def _reader(container: str) -> type[BaseSettings]:
    return READERS.get(container, CliSettings)


def _names(container: Object) -> set[str]:
    names = {variable["name"] for variable in container.get("env", ())}
    return {name for name in names if re.match("CONCH_", name)}


def _fields(reader: type[BaseSettings]) -> set[str]:
    return {f"CONCH_{field.upper()}" for field in reader.model_fields}


def _never() -> set[str]:
    return {f"CONCH_{field}" for field in NEVER_SET}


def _cluster() -> type[BaseSettings]:
    from services.cluster.settings import ClusterSettings

    return ClusterSettings
