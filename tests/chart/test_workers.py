"""The Jobs of the chart's profiles, filled by the executor as it fills them, are what Kubernetes takes."""

from pathlib import Path

import pytest

from conch.v1 import worker_pb2
from services.cluster import manifests, names
from services.cluster.templates import Templates
from services.jobs.tables import Job
from tests.chart import charts, schemas
from tests.chart.charts import Object

CASES = [
    ("trainer", "small", 1),
    ("trainer", "gpus", 8),
    ("converter", "small", 1),
    ("converter", "plans", 1),
]


@pytest.mark.parametrize(("service", "profile", "nodes"), CASES)
def test_a_filled_job_passes_the_schemas(service: str, profile: str, nodes: int, tmp_path: Path) -> None:
    filling = _filling(service, nodes)
    job = manifests.job_of(_templates(service, tmp_path).find(profile), filling)
    made = {**job, "metadata": {**job["metadata"], "uid": "11111111-1111-1111-1111-111111111111"}}
    objects = [job, manifests.secret_of(filling, made), manifests.service_of(filling, made)]
    assert schemas.kubernetes([(one["kind"], one) for one in objects]) == ""


def test_a_worker_has_room_where_the_executor_puts_its_folder(tmp_path: Path) -> None:
    job = manifests.job_of(_templates("trainer", tmp_path).find("small"), _filling("trainer", 1))
    spec = job["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    sizes = {volume["name"]: volume.get("emptyDir", {}).get("sizeLimit") for volume in spec["volumes"]}
    assert sizes[mounts[manifests.WORK_FOLDER]] == "20Gi"
    assert len(sizes) == len(spec["volumes"])


def test_the_default_profile_is_there_and_jobs_are_this_releases(tmp_path: Path) -> None:
    templates = _templates("trainer", tmp_path)
    templates.check()
    assert templates.instance() == {"app.kubernetes.io/instance": "conch"}


def test_several_machines_have_no_limit_that_counts_them_together(tmp_path: Path) -> None:
    job = manifests.job_of(_templates("trainer", tmp_path).find("gpus"), _filling("trainer", 8))
    assert "backoffLimit" not in job["spec"]
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 8)


def _templates(service: str, folder: Path) -> Templates:
    config_map: Object = charts.find(
        charts.objects(name="queued-jobs"), "ConfigMap", f"conch-text-{service}-jobs"
    )
    for name, text in config_map["data"].items():
        (folder / name).write_text(text, encoding="utf-8")
    return Templates(folder, "small")


def _filling(service: str, nodes: int) -> manifests.Filling:
    kind = {"trainer": "training", "converter": "conversion"}[service]
    job = Job(id="sentiment", kind=kind, attempt=1, spec=b"", create_time=1)
    order = worker_pb2.WorkOrder(job_id=job.id, attempt=1, token="secret")
    if service == "trainer":
        order.training.num_nodes = nodes
    else:
        order.conversion.SetInParent()
    return manifests.Filling(job, order, f"services.{service}.run", 120.0, names.labels(job))
