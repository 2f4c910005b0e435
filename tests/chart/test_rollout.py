"""What an upgrade changes: routes always, pods of a pool only when another set of versions is to be held."""

import json

from google.protobuf import json_format

from conch.v1 import models_pb2
from services.routes import parse
from tests.chart import charts
from tests.chart.charts import Object

_POOLS = 'pools=[{"name":"cpu"},{"name":"other"}]'


def test_weights_do_not_move_pods() -> None:
    before, after = _models([3, 90], [4, 10]), _models([3, 0], [4, 100])
    assert _pod(before, "cpu") == _pod(after, "cpu")
    assert _routes(before) != _routes(after)


def test_the_order_of_versions_does_not_move_pods() -> None:
    assert _pod(_models([3, 90], [4, 10]), "cpu") == _pod(_models([4, 10], [3, 90]), "cpu")


def test_another_version_moves_the_pods_of_its_pool_alone() -> None:
    before, after = _models([3, 90]), _models([3, 90], [4, 10])
    assert _pod(before, "cpu") != _pod(after, "cpu")
    assert _pod(before, "other") == _pod(after, "other")


def test_a_shadow_moves_pods_once_and_not_when_it_is_promoted() -> None:
    plain, shadowed = _models([3, 1]), _models([3, 1], shadow=4)
    assert _pod(plain, "cpu") != _pod(shadowed, "cpu")
    assert _pod(shadowed, "cpu") == _pod(_models([3, 1], [4, 1]), "cpu")


def test_a_new_chart_moves_no_pods_of_triton() -> None:
    """Its version is a label of the objects, not of the pods."""
    for one in charts.objects():
        if one["kind"] in ("Deployment", "StatefulSet"):
            assert "helm.sh/chart" in one["metadata"]["labels"]
            assert "helm.sh/chart" not in one["spec"]["template"]["metadata"]["labels"]


def test_who_and_why_are_annotations_of_the_routes() -> None:
    assert _annotations([]) == {"conch/actor": "helm", "conch/reason": "helm revision 1"}
    named = _annotations(['rollout.actor="ada"', 'rollout.reason="better"'])
    assert named == {"conch/actor": "ada", "conch/reason": "better"}


def test_routes_are_what_the_gateway_reads_large_numbers_too() -> None:
    routes = parse(_routes(charts.objects(name="many-shares")))
    sentiment = next(route for route in routes.routes if route.model == "sentiment")
    assert [(v.version, v.weight) for v in sentiment.versions] == [(9, 0), (10, 1_000_000), (12_345_678, 1)]
    assert (sentiment.shadow, sentiment.pool) == (11, "cpu")


def test_a_pools_config_map_holds_its_models_alone() -> None:
    found = charts.objects(name="every-runtime")
    held = {
        pool: json_format.Parse(
            charts.find(found, "ConfigMap", f"conch-triton-{pool}-versions")["data"]["routes.json"],
            models_pb2.Routes(),
        )
        for pool in "abcde"
    }
    assert {pool: [route.model for route in routes.routes] for pool, routes in held.items()} == {
        "a": ["sentiment"],
        "b": [],
        "c": [],
        "d": [],
        "e": ["topics"],
    }


def test_preflight_reads_what_the_upgrade_brings_before_anything_else_changes() -> None:
    found = charts.objects(name="prod")
    ours = [
        one
        for one in found
        if one["metadata"]["name"] == "conch-preflight" and one["kind"] != "NetworkPolicy"
    ]
    assert {one["kind"] for one in ours} == {"Job", "ConfigMap", "ServiceAccount"}
    weights = {one["kind"]: int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in ours}
    assert weights["Job"] > max(weights["ConfigMap"], weights["ServiceAccount"])
    assert {one["metadata"]["annotations"]["helm.sh/hook"] for one in ours} == {"pre-install,pre-upgrade"}
    config_map = charts.find(ours, "ConfigMap", "conch-preflight")
    assert config_map["data"]["routes.json"] == _routes(found)


def test_preflight_waits_for_no_claim_that_comes_after_it() -> None:
    found = charts.objects(name="embedded-everything")
    job = charts.find(found, "Job", "conch-preflight")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"


def test_hooks_use_nothing_that_the_release_makes_later() -> None:
    for name in charts.FILES:
        found = charts.objects(name=name)
        for job in [one for one in found if one["kind"] == "Job"]:
            spec = job["spec"]["template"]["spec"]
            claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
            hooks = job["metadata"]["annotations"]["helm.sh/hook"]
            made = {one["metadata"]["name"] for one in found if one["kind"] == "PersistentVolumeClaim"}
            assert hooks == "pre-upgrade" or not made & {claim["claimName"] for claim in claims}, name


def _models(*versions: list[int], shadow: int = 0) -> list[Object]:
    listed = [{"version": number, "weight": weight} for number, weight in versions]
    model = {"versions": listed, "shadow": shadow, "pool": "cpu"}
    return charts.objects(_POOLS, f"models.sentiment={json.dumps(model)}")


def _pod(found: list[Object], pool: str) -> Object:
    template: Object = charts.find(found, "Deployment", f"conch-triton-{pool}")["spec"]["template"]
    return template


def _routes(found: list[Object]) -> str:
    return str(charts.find(found, "ConfigMap", "conch-routes")["data"]["routes.json"])


def _annotations(sets: list[str]) -> dict[str, str]:
    annotations: dict[str, str] = charts.find(charts.objects(*sets), "ConfigMap", "conch-routes")["metadata"][
        "annotations"
    ]
    return annotations
