"""What the chart renders of autoscaling and monitoring, one test for each choice that values have."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.charts import RefusedError, find, objects, text
from tests.monitoring import rendered, shipped
from tests.monitoring.prometheus import promtool

Object = dict[str, Any]
CUSTOM = {"HorizontalPodAutoscaler", "ScaledObject", "PodMonitor", "PrometheusRule"}
ALL = ("monitoring.scrape.enabled=true", "monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true")


def names(kind: str, found: list[Object]) -> set[str]:
    return {one["metadata"]["name"] for one in found if one["kind"] == kind}


def hpa(name: str, *sets: str) -> Object:
    return find(objects('autoscaling.kind="hpa"', *sets), "HorizontalPodAutoscaler", name)


def scaled(name: str, *sets: str) -> Object:
    return find(objects('autoscaling.kind="keda"', *sets), "ScaledObject", name)


def test_nothing_that_needs_an_operator_is_rendered_unless_it_is_asked_for() -> None:
    found = objects()
    assert not CUSTOM & {one["kind"] for one in found}
    assert "conch-dashboard" not in names("ConfigMap", found)


@pytest.mark.parametrize(("kind", "other"), [("hpa", "ScaledObject"), ("keda", "HorizontalPodAutoscaler")])
def test_every_pool_and_the_gateway_have_one_autoscaler(kind: str, other: str) -> None:
    found = objects(f'autoscaling.kind="{kind}"', 'pools=[{"name": "a"}, {"name": "b"}]')
    ours = (CUSTOM & {"HorizontalPodAutoscaler", "ScaledObject"}) - {other}
    assert names(ours.pop(), found) == {"conch-gateway", "conch-triton-a", "conch-triton-b"}
    assert not names(other, found)


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_a_pool_of_fixed_replicas_has_no_autoscaler(kind: str) -> None:
    pools = 'pools=[{"name": "a"}, {"name": "b", "fixedReplicas": true}]'
    found = objects(f'autoscaling.kind="{kind}"', pools)
    scalers = names("HorizontalPodAutoscaler", found) | names("ScaledObject", found)
    assert scalers == {"conch-gateway", "conch-triton-a"}


def test_pools_never_scale_on_cpu_and_the_gateway_never_on_cpu_alone() -> None:
    assert {m["type"] for m in hpa("conch-triton-cpu")["spec"]["metrics"]} == {"External"}
    assert {t["type"] for t in scaled("conch-triton-cpu")["spec"]["triggers"]} == {"prometheus"}
    assert {m["type"] for m in hpa("conch-gateway")["spec"]["metrics"]} == {"External", "Resource"}
    assert {t["type"] for t in scaled("conch-gateway")["spec"]["triggers"]} == {"prometheus", "cpu"}


def test_pools_that_write_streams_scale_on_them_too() -> None:
    pools = 'pools=[{"name": "a"}, {"name": "b", "runtime": "openvino_genai"}]'
    metrics = {name: hpa(f"conch-triton-{name}", pools)["spec"]["metrics"] for name in "ab"}
    assert [m["external"]["metric"]["name"] for m in metrics["b"][len(metrics["a"]) :]] == [
        "conch_pool_streams_avg"
    ]
    triggers = {name: scaled(f"conch-triton-{name}", pools)["spec"]["triggers"] for name in "ab"}
    assert {t["name"] for t in triggers["b"]} - {t["name"] for t in triggers["a"]} == {"streams"}


def test_a_pool_says_what_it_wants_otherwise_and_keeps_the_rest() -> None:
    own = {
        "minReplicas": 2,
        "queueShare": 0.1,
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 900}},
    }
    pools = f"pools={json.dumps([{'name': 'a', 'autoscaling': own}, {'name': 'b'}])}"
    one, other = hpa("conch-triton-a", pools)["spec"], hpa("conch-triton-b", pools)["spec"]
    assert (one["minReplicas"], other["minReplicas"]) == (2, 1)
    assert one["maxReplicas"] == other["maxReplicas"]
    assert [s["metrics"][0]["external"]["target"]["value"] for s in (one, other)] == ["100m", "200m"]
    assert one["behavior"]["scaleUp"] == other["behavior"]["scaleUp"]
    assert one["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 900
    assert one["behavior"]["scaleDown"]["policies"] == other["behavior"]["scaleDown"]["policies"]


def test_both_kinds_ask_for_the_same() -> None:
    by_hpa, by_keda = hpa("conch-triton-cpu")["spec"], scaled("conch-triton-cpu")["spec"]
    config = by_keda["advanced"]["horizontalPodAutoscalerConfig"]
    assert config["behavior"] == by_hpa["behavior"]
    assert (by_keda["minReplicaCount"], by_keda["maxReplicaCount"]) == (
        by_hpa["minReplicas"],
        by_hpa["maxReplicas"],
    )
    triggers = {t["name"]: t["metadata"]["threshold"] for t in by_keda["triggers"]}
    share, tokens = (m["external"]["target"] for m in by_hpa["metrics"])
    assert float(triggers["queue-share"]) == int(share["value"].removesuffix("m")) / 1000
    assert triggers["tokens"] == tokens["averageValue"]


@pytest.mark.parametrize(
    "least",
    ["autoscaling.pools.minReplicas=0", 'pools=[{"name": "cpu", "autoscaling": {"minReplicas": 0}}]'],
)
def test_a_pool_of_at_least_0_sleeps_by_keda(least: str) -> None:
    spec = scaled("conch-triton-cpu", least, "autoscaling.pools.idleSeconds=60")["spec"]
    assert (spec["idleReplicaCount"], spec["minReplicaCount"], spec["cooldownPeriod"]) == (0, 1, 60)
    assert all(t["metadata"]["activationThreshold"] == "0" for t in spec["triggers"])


def test_a_pool_of_at_least_1_never_sleeps() -> None:
    assert "idleReplicaCount" not in scaled("conch-triton-cpu")["spec"]


def test_an_hpa_of_at_least_0_is_refused_with_a_sentence() -> None:
    with pytest.raises(RefusedError, match=r'pools "cpu": minReplicas 0 needs autoscaling\.kind keda'):
        text('autoscaling.kind="hpa"', "autoscaling.pools.minReplicas=0")


@pytest.mark.parametrize("kind", ["hpa", "keda"])
def test_a_maximum_below_the_minimum_is_refused_with_a_sentence(kind: str) -> None:
    with pytest.raises(RefusedError, match='pools "cpu": maxReplicas 4 is less than minReplicas 5'):
        text(
            f'autoscaling.kind="{kind}"', "autoscaling.pools.minReplicas=5", "autoscaling.pools.maxReplicas=4"
        )
    with pytest.raises(RefusedError, match="gateway: maxReplicas 4 is less than minReplicas 5"):
        text(
            f'autoscaling.kind="{kind}"',
            "autoscaling.gateway.minReplicas=5",
            "autoscaling.gateway.maxReplicas=4",
        )


@pytest.mark.parametrize("name", ["conch-triton-cpu", "conch-gateway"])
def test_a_prometheus_that_wants_credentials_gets_them(name: str) -> None:
    triggers = scaled(name, 'autoscaling.keda.authenticationRef="prometheus"')["spec"]["triggers"]
    asked = [t for t in triggers if t["type"] == "prometheus"]
    assert all(t["authenticationRef"] == {"name": "prometheus"} for t in asked)
    assert not any("authenticationRef" in t for t in scaled(name)["spec"]["triggers"])


def test_autoscalers_of_either_kind_have_the_names_that_the_alerts_look_for() -> None:
    (pattern,) = {
        match
        for alert in shipped.alerts().values()
        for match in re.findall(r'horizontalpodautoscaler=~"([^"]+)"', alert["expr"])
    }
    for name in ("conch-triton-cpu", "conch-gateway"):
        made = scaled(name)["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["name"]
        assert made == hpa(name)["metadata"]["name"]
        assert re.fullmatch(pattern, made)


def test_every_component_that_runs_is_scraped() -> None:
    every = {"conch-gateway", "conch-trainer", "conch-converter", "conch-triton"}
    assert names("PodMonitor", objects(*ALL)) == every
    without = objects(
        *ALL, "trainer.enabled=false", "converter.enabled=false", "database.embedded.enabled=false"
    )
    assert names("PodMonitor", without) == {"conch-gateway", "conch-triton"}


def test_pod_monitors_find_the_pods_and_their_port() -> None:
    found = objects(*ALL, 'monitoring.scrape.labels={"team": "search"}', 'monitoring.scrape.interval="5s"')
    for name in names("PodMonitor", found):
        monitor = find(found, "PodMonitor", name)
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        pods = [o["spec"]["template"] for o in found if o["kind"] == "Deployment"]
        chosen = [pod for pod in pods if wanted <= pod["metadata"]["labels"].items()]
        ports = {p["name"] for pod in chosen for c in pod["spec"]["containers"] for p in c.get("ports", ())}
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert len(chosen) == 1
        assert endpoint["port"] in ports
        assert endpoint["interval"] == "5s"
        assert monitor["metadata"]["labels"]["team"] == "search"


def test_the_rules_of_a_release_conch_in_a_namespace_conch_are_the_files_as_they_lie_there() -> None:
    found = objects(*ALL)
    for file in shipped.RULE_FILES:
        spec = find(found, "PrometheusRule", f"conch-{file.stem}")["spec"]
        as_shipped = file.read_text().replace('namespace="conch"', f'namespace="{rendered.NAMESPACE}"')
        assert spec == yaml.safe_load(as_shipped)


def test_the_rules_of_another_release_read_its_own_series_and_pods(tmp_path: Path) -> None:
    found = objects(
        *ALL,
        'fullnameOverride="nlp"',
        "monitoring.rules.objective=0.99",
        'monitoring.rules.runbooks="https://wiki/alerts"',
        'monitoring.rules.labels={"role": "alerts"}',
    )
    rules = [one for one in found if one["kind"] == "PrometheusRule"]
    said = yaml.safe_dump(rules)
    assert '=~"conch-' not in said
    assert '=~"nlp-triton-' in said
    assert "(1 - 0.99)" in said
    assert "(1 - 0.999)" not in said
    assert "runbook_url: https://wiki/alerts#conchqueuesharehigh" in said
    assert all(one["metadata"]["labels"]["role"] == "alerts" for one in rules)
    for one in rules:
        file = tmp_path / f"{one['metadata']['name']}.yaml"
        file.write_text(yaml.safe_dump(one["spec"]))
        promtool("check", "rules", file)


def test_grafana_s_sidecar_finds_the_dashboard_as_it_is_shipped() -> None:
    made = find(
        objects(*ALL, 'monitoring.dashboard.annotations={"grafana_folder": "NLP"}'),
        "ConfigMap",
        "conch-dashboard",
    )
    assert json.loads(made["data"]["conch.json"]) == shipped.dashboard()
    assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert made["metadata"]["annotations"] == {"grafana_folder": "NLP"}
    assert "annotations" not in find(objects(*ALL), "ConfigMap", "conch-dashboard")["metadata"]


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ('monitoring.scrape.interval="30s"', "monitoring.scrape.interval"),
        ("monitoring.rules.objective=1", "monitoring.rules.objective"),
        ("autoscaling.pools.queueShare=0", "autoscaling.pools.queueShare"),
        ("autoscaling.gateway.minReplicas=0", "autoscaling.gateway.minReplicas"),
        ('autoscaling.kind="vpa"', "autoscaling.kind"),
        ('pools=[{"name": "cpu", "autoscaling": {"cpu": 1}}]', "pools.0.autoscaling"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_name(wrong: str, path: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(path)):
        text(wrong)
