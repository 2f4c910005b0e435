"""Everything that the chart renders is what Kubernetes and the operators beside it take."""

import json
from collections.abc import Iterable

import pytest

from tests.chart import schemas
from tests.chart.charts import CHART, CORNERS, FILES, Object, helm, jobs_of, objects, parse

CUSTOM = {"keda.sh", "monitoring.coreos.com", "gateway.networking.k8s.io"}


def test_there_are_ten_corner_values() -> None:
    assert len(CORNERS) == 10


@pytest.mark.parametrize("name", FILES)
def test_helm_lint_finds_nothing(name: str) -> None:
    file = FILES[name]
    helm("lint", "--strict", str(CHART), *(["--values", str(file)] if file else []))


def test_the_oldest_version_that_is_checked_is_the_oldest_that_the_chart_allows() -> None:
    (metadata,) = parse((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert metadata["kubeVersion"] == f">={schemas.VERSIONS[0]}.0-0"


def test_every_object_passes_the_strict_schemas_of_kubernetes() -> None:
    found = [(named, one) for named, one in _everything() if not _is_custom(one)]
    assert {one["kind"] for _, one in found} >= {
        "Deployment",
        "StatefulSet",
        "Job",
        "HorizontalPodAutoscaler",
    }
    assert schemas.kubernetes(found) == ""


def test_every_custom_resource_passes_the_schemas_of_its_operator() -> None:
    found = [(named, one) for named, one in _everything() if _is_custom(one)]
    assert {one["kind"] for _, one in found} == {"ScaledObject", "PodMonitor", "PrometheusRule", "GRPCRoute"}
    assert schemas.custom(found) == ""


def test_the_validators_refuse_what_is_wrong() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "a", "comand": ["b"]}]}}
    scaled = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "spec": {"triggers": 1}}
    assert "comand" in schemas.kubernetes([("pod", pod)])
    assert "spec" in schemas.custom([("scaled", scaled)])


def test_no_image_is_latest_and_none_is_without_version() -> None:
    for named, one in _everything():
        for image in _images(one):
            assert "@sha256:" in image or ":" in image.rpartition("/")[2], (named, image)
            assert not image.endswith(":latest"), (named, image)


def _everything() -> Iterable[tuple[str, Object]]:
    """Yields name and object of all renderings; of objects that are alike the first."""
    seen = set()
    for named, one in _all():
        if (content := json.dumps(one, sort_keys=True)) not in seen:
            seen.add(content)
            yield named, one


def _all() -> Iterable[tuple[str, Object]]:
    for name in FILES:
        for one in objects(name=name):
            named = f"{name}: {one['kind']}/{one['metadata']['name']}"
            yield named, one
            if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-jobs"):
                # The executor gives it its name, its command and the rules that say when it failed.
                yield from ((f"{named}/{profile}", job) for profile, job in jobs_of(one).items())


def _images(part: object) -> Iterable[str]:
    if isinstance(part, dict):
        yield from (v for k, v in part.items() if k == "image" and isinstance(v, str))
        yield from (image for value in part.values() for image in _images(value))
    elif isinstance(part, list):
        yield from (image for value in part for image in _images(value))


def _is_custom(one: Object) -> bool:
    return one["apiVersion"].partition("/")[0] in CUSTOM
