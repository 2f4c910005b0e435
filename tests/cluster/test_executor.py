"""What the executor writes into a cluster, and all that it asks of one."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from conch.v1 import conversion_pb2, job_pb2, training_pb2, worker_pb2
from services.cluster.executor import KubernetesExecutor, kubernetes_executor
from services.cluster.names import job_name, label_of, service_name
from services.errors import BackendUnavailable
from services.jobs.executor import Attempt
from services.jobs.kinds import Kind
from services.jobs.settings import JobSettings
from services.jobs.tables import Job
from tests.cluster import recorded
from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault
from tests.cluster.running import TEMPLATE

_WORKER = "tests.contract.jobs.scripted_worker"


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "default.yaml").write_text(TEMPLATE)
    return folder


@pytest.fixture
def settings(templates: Path, tmp_path: Path) -> JobSettings:
    return JobSettings(
        home=tmp_path, executor="kubernetes", job_templates=templates, namespace="default", flush_seconds=7
    )


@asynccontextmanager
async def executing(
    settings: JobSettings, kind: str = "training", report_to: str = "conch-trainer:50052"
) -> AsyncIterator[KubernetesExecutor]:
    executor = kubernetes_executor(settings, Kind(kind, _WORKER, lambda _: worker_pb2.WorkOrder()), report_to)
    try:
        yield executor
    finally:
        await executor.close()


@pytest.fixture
def address(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("CONCH_KUBERNETES_URL", api.url)
    return api.url


def training(job_id: str = "k", **spec: Any) -> tuple[Job, worker_pb2.WorkOrder]:
    """Returns a job as the scheduler claims it, and its order."""
    content = training_pb2.TrainingSpec(task="text-classification", **spec)
    job = Job(id=job_id, kind="training", spec=content.SerializeToString(), attempt=1, create_time=1)
    job.state = job_pb2.JobStatus.STATE_RUNNING
    order = worker_pb2.WorkOrder(job_id=job_id, attempt=1, training=content, token="secret")
    return job, order


def order_of(api: ApiServer, name: str) -> dict[str, Any]:
    data = api.objects.get("Secret", name)["data"]["order.json"]
    found: dict[str, Any] = json.loads(base64.b64decode(data))
    return found


def end(api: ApiServer, name: str, kind: str = "Complete") -> None:
    condition = {"type": kind, "status": "True", "message": "Job has reached the specified backoff limit"}
    api.objects.change("Job", name, lambda o: o.setdefault("status", {}).update(conditions=[condition]))


async def ended(attempt: Attempt) -> str:
    return (await asyncio.wait_for(attempt.ended(), 30)).death.message


@pytest.mark.usefixtures("address")
async def test_a_job_is_the_operators_template_with_its_gaps_filled(
    api: ApiServer, settings: JobSettings
) -> None:
    async with executing(settings) as executor:
        await executor.start(*training())
    job = api.objects.get("Job", "k-a1")
    pod = job["spec"]["template"]["spec"]
    assert job["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "conch",
        "app.kubernetes.io/instance": "conch",
        "conch/kind": "training",
        "conch/job": "k",
        "conch/attempt": "1",
        "team": "language",
    }
    assert (pod["priorityClassName"], pod["containers"][0]["image"]) == (
        "batch",
        "example.org/conch-trainer:1.0.0",
    )
    assert pod["containers"][0]["command"] == ["python", "-m", _WORKER, "/var/run/conch/order.json"]
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["podReplacementPolicy"] == "Failed"
    assert job["spec"]["podFailurePolicy"]["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
    assert job["spec"]["ttlSecondsAfterFinished"] == 3600


@pytest.mark.usefixtures("address")
async def test_the_order_lies_in_a_secret_that_goes_with_its_job(
    api: ApiServer, settings: JobSettings
) -> None:
    async with executing(settings) as executor:
        await executor.start(*training())
    job, secret = api.objects.get("Job", "k-a1"), api.objects.get("Secret", "k-a1")
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
    (volume,) = (v for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v)
    assert volume["secret"] == {"secretName": "k-a1", "defaultMode": 0o400}
    order = order_of(api, "k-a1")
    assert (order["token"], order["reportTo"], order["flushTimeout"]) == (
        "secret",
        "conch-trainer:50052",
        "7s",
    )
    assert order["workUri"].endswith("/artifacts/work/k")
    assert "secret" not in json.dumps(job["spec"]["template"]["spec"]["containers"])


@pytest.mark.usefixtures("address")
async def test_several_machines_are_an_indexed_job_that_torchrun_joins(
    api: ApiServer, settings: JobSettings, templates: Path
) -> None:
    gpus = TEMPLATE.replace("memory: 2Gi", 'memory: 2Gi, nvidia.com/gpu: "8"')
    (templates / "h100.yaml").write_text(gpus)
    async with executing(settings) as executor:
        await executor.start(*training("3-machines", profile="h100", num_nodes=3))
    job = api.objects.get("Job", "3-machines-a1")
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (3, 0)
    command = spec["template"]["spec"]["containers"][0]["command"]
    assert command[:3] == ["python", "-m", "torch.distributed.run"]
    assert {"--nnodes=3", "--nproc-per-node=8", "--node-rank=$(JOB_COMPLETION_INDEX)"} <= set(command)
    assert "--master-addr=3-machines-a1-0.n3-machines-a1" in command
    service = api.objects.get("Service", "n3-machines-a1")
    assert service["spec"]["clusterIP"] == "None"
    assert spec["template"]["spec"]["subdomain"] == "n3-machines-a1"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "3-machines-a1"}
    assert service["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]


@pytest.mark.usefixtures("address")
async def test_who_starts_an_attempt_again_gets_the_same_one_with_the_new_token(
    api: ApiServer, settings: JobSettings
) -> None:
    job, order = training()
    async with executing(settings) as one, executing(settings) as other:
        first = await one.start(job, order)
        order.token = "newer"
        second = await other.start(job, order)
    assert (first.name, first.mark) == (second.name, second.mark)
    assert order_of(api, "k-a1")["token"] == "newer"
    assert len(api.objects.all("Job")) == 1


@pytest.mark.usefixtures("address")
async def test_the_name_of_a_job_that_is_not_ours_is_refused_with_a_sentence(
    api: ApiServer, settings: JobSettings
) -> None:
    api.objects.create({"kind": "Job", "metadata": {"name": "k-a1"}, "spec": {}})
    async with executing(settings) as executor:
        with pytest.raises(OSError, match="Job k-a1 already, which is not Conch's"):
            await executor.start(*training())
        assert await executor.find(training()[0]) is None


@pytest.mark.usefixtures("address")
async def test_what_an_earlier_job_of_the_id_left_is_removed_first(
    api: ApiServer, settings: JobSettings
) -> None:
    job, order = training()
    async with executing(settings) as executor:
        first = await executor.start(job, order)
        job.create_time = 2
        with pytest.raises(BackendUnavailable, match="still being removed"):
            await executor.start(job, order)
        second = await executor.start(job, order)
    assert first.mark != second.mark


@pytest.mark.usefixtures("address")
async def test_what_cannot_be_started_is_refused_with_a_sentence_and_leaves_nothing(
    api: ApiServer, settings: JobSettings
) -> None:
    async with executing(settings) as executor:
        with pytest.raises(OSError, match="there is no profile 'tpu'; there are: default"):
            await executor.start(*training(profile="tpu"))
        with pytest.raises(OSError, match=r"must be 1 to 63 of \[a-z0-9-\]"):
            await executor.start(*training(profile="../../etc/passwd"))
        api.faults.add(Fault("create", "secrets", code=422, reason="Invalid", message="too large"))
        with pytest.raises(OSError, match="too large"):
            await executor.start(*training())
    assert api.objects.all("Job") == []


@pytest.mark.usefixtures("address")
async def test_what_a_start_left_that_was_given_up_goes_with_its_attempt(
    api: ApiServer, settings: JobSettings
) -> None:
    job, order = training()
    api.faults.add(Fault("create", "secrets", times=6))
    async with executing(settings) as executor:
        with pytest.raises(BackendUnavailable):
            await executor.start(job, order)
        assert await executor.find(job) is None
        await executor.release(job)
    assert api.objects.all("Job") == []


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("default.yaml", "kind: Pod", "is no batch/v1 Job"),
        ("default.yaml", "kind: Job", "has no containers"),
        ("default.yaml", TEMPLATE.replace("name: worker", "name: main"), "has no container named 'worker'"),
        ("default.yaml", "{", "cannot be read"),
        ("other.yaml", TEMPLATE, "there is no profile 'default'; there are: other"),
    ],
)
@pytest.mark.usefixtures("address")
def test_a_service_without_a_good_template_does_not_start(
    settings: JobSettings, templates: Path, name: str, text: str, problem: str
) -> None:
    (templates / "default.yaml").unlink()
    (templates / name).write_text(text)
    with pytest.raises(OSError, match=problem):
        kubernetes_executor(settings, Kind("training", _WORKER, lambda _: worker_pb2.WorkOrder()), "x:1")


def test_a_service_outside_of_a_cluster_says_so(settings: JobSettings) -> None:
    with pytest.raises(OSError, match="no service account of a Kubernetes cluster"):
        kubernetes_executor(settings, Kind("training", _WORKER, lambda _: worker_pb2.WorkOrder()), "x:1")


@pytest.mark.parametrize("job_id", ["k", "9", "a" * 63, "ends-with-", "-".join("x" * 32)[:62] + "-"])
def test_names_and_labels_are_what_kubernetes_takes(job_id: str) -> None:
    import re

    job, _ = training(job_id)
    job.attempt = 10
    # A pod of an Indexed Job is called after it and its index.
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job_name(job) + "-63")
    assert len(job_name(job) + "-63") <= 63
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", service_name(job_name(job)))
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label_of(job_id))


async def a_trainers_day(api: ApiServer, settings: JobSettings) -> None:
    """Does all that a trainer ever asks of a cluster."""
    job, order = training()
    async with executing(settings) as first:
        await first.start(job, order)
    async with executing(settings, report_to="conch-trainer:1") as executor:
        attempt = await executor.start(job, order)
        found = await executor.find(job)
        assert found is not None
        assert found.mark == attempt.mark
        await two_machines(api, executor)
        await executor.sweep([job])
        end(api, "k-a1", "Failed")
        assert "specified backoff limit" in await ended(found)
        job.state = job_pb2.JobStatus.STATE_FAILED
        await executor.release(job)
        await executor.forget(job)


async def two_machines(api: ApiServer, executor: KubernetesExecutor) -> None:
    attempt = await executor.start(*training("two", num_nodes=2))
    uid = {"batch.kubernetes.io/controller-uid": attempt.mark}
    status = {"phase": "Failed"}
    pod = {"kind": "Pod", "metadata": {"name": "p", "labels": uid}, "spec": {}, "status": status}
    api.objects.create(pod)
    attempt.stop(1)
    assert await ended(attempt) == "the Kubernetes Job two-a1 was stopped"


@pytest.mark.usefixtures("address")
async def test_the_trainer_asks_of_a_cluster_what_is_on_record(api: ApiServer, settings: JobSettings) -> None:
    await a_trainers_day(api, settings)
    recorded.check("trainer", api.calls_made())


@pytest.mark.usefixtures("address")
async def test_the_converter_asks_of_a_cluster_what_is_on_record(
    api: ApiServer, settings: JobSettings
) -> None:
    job, order = training()
    job.kind = "conversion"
    order.conversion.CopyFrom(conversion_pb2.ConversionSpec(model="m"))
    async with executing(settings, "conversion", "old:1") as first:
        await first.start(job, order)
    async with executing(settings, "conversion") as executor:
        await executor.start(job, order)
        order.report_to = ""
        found = await executor.find(job)
        assert found is not None
        await executor.sweep([job])
        uid = {"batch.kubernetes.io/controller-uid": found.mark}
        pod = {"kind": "Pod", "metadata": {"name": "p", "labels": uid}, "status": {"phase": "Failed"}}
        api.objects.create(pod)
        found.stop(1)
        await ended(found)
        await executor.forget(job)
    recorded.check("converter", api.calls_made())
