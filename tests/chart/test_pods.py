"""What holds for every pod that the chart makes, Conch's own, Triton's and workers'."""

import re

import pytest

from tests.chart import charts
from tests.chart.charts import FILES, Object

TALKERS = {
    "Deployment/conch-gateway": "gateway",
    "Deployment/conch-trainer": "trainer",
    "Deployment/conch-converter": "converter",
}
"""Pods that speak with the Kubernetes API in all of their containers."""


@pytest.mark.parametrize("name", FILES)
def test_containers_can_do_no_more_than_they_must(name: str) -> None:
    for where, spec in charts.templates(charts.objects(name=name)):
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, where
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in charts.containers(spec):
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, (where, container["name"])
            assert own["allowPrivilegeEscalation"] is False, (where, container["name"])
            assert own["capabilities"] == {"drop": ["ALL"]}, (where, container["name"])
            assert own.get("runAsUser", pod.get("runAsUser", 0)) > 0, (where, container["name"])


@pytest.mark.parametrize("name", FILES)
def test_every_container_says_what_it_asks_for_and_can_write_to_tmp_if_it_writes(name: str) -> None:
    for where, spec in charts.templates(charts.objects(name=name)):
        for container in charts.containers(spec):
            assert "resources" in container, (where, container["name"])
            named = {volume["name"] for volume in spec.get("volumes", ())} | {
                "data"
            }  # claimed by a StatefulSet
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= named, where


def test_no_pod_has_a_token_that_needs_none() -> None:
    for name in FILES:
        found = charts.objects(name=name)
        for where, spec in charts.templates(found):
            if spec["automountServiceAccountToken"]:
                assert any(where.endswith(f"-{talker}") for talker in TALKERS.values()), (name, where)
        accounts = [one for one in found if one["kind"] == "ServiceAccount"]
        assert not any(one["automountServiceAccountToken"] for one in accounts), name


def test_of_tritons_pods_the_staging_container_alone_has_a_token() -> None:
    spec = _deployment("conch-triton-cpu")["spec"]["template"]["spec"]
    holders = [
        container["name"]
        for container in charts.containers(spec)
        if any(mount["name"] == "api-token" for mount in container["volumeMounts"])
    ]
    assert holders == ["stage"]


def test_every_service_account_that_is_used_is_made_and_every_role_is_bound() -> None:
    for name in FILES:
        found = charts.objects(name=name)
        made = {one["metadata"]["name"] for one in found if one["kind"] == "ServiceAccount"}
        used = {
            spec["serviceAccountName"] for _, spec in charts.templates(found) if "serviceAccountName" in spec
        }
        assert used == made, name
        roles = {one["metadata"]["name"] for one in found if one["kind"] == "Role"}
        bindings = [one for one in found if one["kind"] == "RoleBinding"]
        assert {one["roleRef"]["name"] for one in bindings} == roles, name
        assert {subject["name"] for one in bindings for subject in one["subjects"]} <= made, name


def test_no_role_reaches_beyond_its_namespace_or_asks_for_everything() -> None:
    for one in charts.objects(name="prod"):
        assert one["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        for rule in one.get("rules", ()) if one["kind"] == "Role" else ():
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


@pytest.mark.parametrize("name", FILES)
def test_grace_is_longer_than_the_longest_deadline(name: str) -> None:
    found = charts.objects(name=name)
    spec = next(s for where, s in charts.templates(found) if re.search("^Deployment/.*-gateway$", where))
    env = {variable["name"]: variable.get("value") for variable in spec["containers"][0]["env"]}
    longest = max(float(env[f"CONCH_{kind}_SECONDS"]) for kind in ("DEFAULT_DEADLINE", "STREAM_DEADLINE"))
    assert float(env["CONCH_DRAIN_SECONDS"]) >= longest
    drained = float(env["CONCH_DRAIN_DELAY_SECONDS"]) + float(env["CONCH_DRAIN_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] > drained
    for where, pod in charts.templates(found):
        if "-triton-" in where:
            sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["terminationGracePeriodSeconds"] > sleep + longest


def test_replicas_are_absent_where_an_autoscaler_owns_them() -> None:
    for name in ("scaled-by-hpa", "scaled-from-zero"):
        found = charts.objects(name=name)
        kinds = ("HorizontalPodAutoscaler", "ScaledObject")
        scaled = {one["spec"]["scaleTargetRef"]["name"] for one in found if one["kind"] in kinds}
        assert scaled == {
            one["metadata"]["name"]
            for one in found
            if one["kind"] == "Deployment" and "replicas" not in one["spec"]
        }
        assert scaled >= {"conch-gateway", "conch-triton-cpu"}
        assert "conch-triton-fixed" not in scaled


def test_pods_wait_long_to_start_and_are_ready_when_triton_says_so() -> None:
    triton = _deployment("conch-triton-cpu")["spec"]["template"]["spec"]["containers"][0]
    startup = triton["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
    assert triton["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    # Not ready is no reason to begin anew: a version that does not load would make a crash loop.
    assert triton["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    for name, port in (("gateway", 50051), ("trainer", 50052), ("converter", 50053)):
        container = _deployment(f"conch-{name}")["spec"]["template"]["spec"]["containers"][0]
        assert container["readinessProbe"]["grpc"]["port"] == port
        assert container["livenessProbe"]["tcpSocket"]["port"] == "grpc"


@pytest.mark.parametrize(
    ("pool", "flag"),
    [("a", None), ("b", "openvino"), ("c", "openvino"), ("d", "vllm"), ("e", "tensorrt")],
)
def test_triton_reads_the_configuration_of_its_runtime(pool: str, flag: str | None) -> None:
    triton = _deployment(f"conch-triton-{pool}", "every-runtime")["spec"]["template"]["spec"]["containers"][0]
    given = [arg for arg in triton["args"] if arg.startswith("--model-config-name")]
    assert given == ([f"--model-config-name={flag}"] if flag else [])
    assert "--model-control-mode=none" in triton["args"]


def test_gpus_are_asked_for_by_triton_and_by_what_looks_which_they_are() -> None:
    spec = _deployment("conch-triton-e", "every-runtime")["spec"]["template"]["spec"]
    asking = {
        container["name"]: container["resources"]["limits"]["nvidia.com/mig-1g.10gb"]
        for container in charts.containers(spec)
        if "nvidia.com/mig-1g.10gb" in container["resources"].get("limits", {})
    }
    assert asking == {"stage": "1", "triton": "1"}
    assert spec["containers"][0]["args"][-2:] == [
        "--log-verbose=1",
        "--backend-config=tensorrt,version-compatible=true",
    ]


def test_headless_services_show_every_pod() -> None:
    for name in ("conch-triton-cpu", "conch-gateway-headless"):
        assert charts.find(charts.objects(), "Service", name)["spec"]["clusterIP"] == "None"
    ports = charts.find(charts.objects(), "Service", "conch-gateway")["spec"]["ports"]
    assert [port["appProtocol"] for port in ports] == ["grpc"]


def test_network_policies_let_triton_be_called_by_gateways_alone() -> None:
    policy = charts.find(charts.objects(), "NetworkPolicy", "conch-triton")
    (calls,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"port": 8001}]]
    (peer,) = calls["from"]
    assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"


def test_every_pod_is_held_by_a_network_policy() -> None:
    for name in FILES:
        if name == "gateway-alone":
            continue
        found = charts.objects(name=name)
        held = {
            one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for one in found
            if one["kind"] == "NetworkPolicy"
        }
        assert {_component(one) for one in found if "template" in (one.get("spec") or {})} <= held, name


def test_a_queue_a_priority_and_gpus_of_a_profile_reach_its_jobs() -> None:
    found = charts.objects(name="queued-jobs")
    trainer = charts.jobs_of(charts.find(found, "ConfigMap", "conch-text-trainer-jobs"))
    assert set(trainer) == {"default", "small", "gpus"}
    job = trainer["gpus"]
    pod = job["spec"]["template"]["spec"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("batch", {"gpu": "h100"})
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "4"
    converter = charts.jobs_of(charts.find(found, "ConfigMap", "conch-text-converter-jobs"))
    assert set(converter) == {"default", "small", "plans"}
    image = converter["plans"]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "conch.local/conch/converter-tensorrt:0.1.0"


def test_a_digest_is_taken_over_a_tag() -> None:
    found = charts.objects(name="other-names")
    images = {
        container["name"]: container["image"]
        for where, spec in charts.templates(found)
        for container in charts.containers(spec)
        if where.startswith("Deployment/")
    }
    assert images["gateway"].startswith("registry.example.com:5000/team-a/conch/gateway@sha256:")
    assert images["trainer"] == "registry.example.com:5000/team-a/conch/trainer:0.1.0-rc1"


def _deployment(name: str, values: str = "default") -> Object:
    return charts.find(charts.objects(name=values), "Deployment", name)


def _component(one: Object) -> str:
    return str(one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"])
