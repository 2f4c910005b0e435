"""A trainer whose jobs run in a cluster that fails in every way: none is lost, none runs twice."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.v1 import job_pb2
from tests.cluster import recorded
from tests.cluster.faults import Fault, conflict, throttled
from tests.cluster.running import Cluster, ClusterTrainer, cluster
from tests.contract.jobs.running import sequences, states, warnings

_S = job_pb2.JobStatus
_JOBS = "batch/jobs"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("templates")) as running:
        yield running
    made = set(running.api.calls_made())
    allowed = json.loads(recorded.GOLDEN.read_text())["trainer"]
    assert made <= set(allowed), "the chart's RBAC would refuse calls that are made here"


@pytest.fixture(scope="module")
def service(place: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterTrainer]:
    service = ClusterTrainer(place, tmp_path_factory.mktemp("home"))
    yield service
    service.end()


@pytest.fixture
def trainer(service: ClusterTrainer, place: Cluster) -> Iterator[ClusterTrainer]:
    """A trainer that serves, before a cluster without faults."""
    if service.process.poll() is not None:
        service.start()
    yield service
    place.api.faults.clear()


def whole(trainer: ClusterTrainer, job_id: str, *, attempts: int = 1) -> list[job_pb2.JobEvent]:
    """Returns the events of a job that succeeded, each once and in order, with no two workers at a time."""
    events = list(trainer.watch(job_id))
    job = trainer.job(job_id)
    assert (job.status.state, job.status.attempt) == (_S.STATE_SUCCEEDED, attempts), job.status
    assert sequences(events) == list(range(1, len(events) + 1))
    assert not trainer.cluster.kubelet.overlapped(job_id)
    return events


def wait_for_warnings(trainer: ClusterTrainer, job_id: str, count: int) -> None:
    """Returns once the job's workers reported so many warnings."""
    seen = 0
    for event in trainer.watch(job_id):
        seen += event.warning.reason == "SCRIPTED"
        if seen == count:
            return


@pytest.mark.parametrize(
    ("job_id", "faults"),
    [
        ("conflict", [conflict(verb="create")]),
        ("taken-but-absent", [conflict(verb="create", resource=_JOBS, reason="AlreadyExists")]),
        ("throttled", [throttled(1, verb="create", resource=_JOBS), throttled(0, verb="create")]),
        ("broken", [Fault("create", _JOBS, times=3), Fault("create", "secrets", code=503, times=2)]),
        ("away-for-long", [Fault("create", _JOBS, code=503, times=8)]),
        ("job-made-answer-500", [Fault("create", _JOBS, how="after")]),
        ("job-made-answer-lost", [Fault("create", _JOBS, how="drop")]),
        ("order-made-answer-lost", [Fault("create", "secrets", how="drop")]),
        ("made-then-away", [Fault("create", _JOBS, how="drop"), Fault("get", _JOBS, times=8)]),
        ("end-unread", [Fault("list", "pods", times=8), Fault("get", times=3)]),
        ("watch-refused", [Fault("watch", code=500, times=2), Fault("list", _JOBS, code=429, times=2)]),
        ("quota", [Fault("create", _JOBS, code=403, reason="Forbidden", message="exceeded quota: gpus")]),
    ],
)
def test_a_job_runs_once_whatever_the_api_server_answers(
    trainer: ClusterTrainer, job_id: str, faults: list[Fault]
) -> None:
    trainer.cluster.api.faults.add(*faults)
    if job_id == "watch-refused":
        trainer.cluster.api.cut_watches()
    trainer.train([{"warn": 3}], job_id=job_id)
    assert warnings(whole(trainer, job_id)) == ["1", "2", "3"]
    assert len(trainer.cluster.kubelet.pods(job_id)) == 1


@pytest.mark.parametrize("fault", ["cut", "gone", "compacted", "away"])
def test_the_end_of_a_job_is_seen_however_the_watch_breaks(trainer: ClusterTrainer, fault: str) -> None:
    api, job_id, go = trainer.cluster.api, f"watch-{fault}", trainer.home / f"go-{fault}"
    trainer.train([{"warn": 1}, {"wait": str(go)}], job_id=job_id)
    trainer.wait_for(job_id, '"1"')
    if fault == "compacted":
        api.objects.compact()
    elif fault == "gone":
        api.faults.add(Fault("watch", how="gone", times=2))
    elif fault == "away":
        api.faults.add(Fault("watch", code=503, times=3), Fault("watch", how="cut"))
    api.cut_watches()
    go.touch()
    whole(trainer, job_id)


def test_a_job_that_ends_while_no_watch_stands_is_seen_in_the_next_list(trainer: ClusterTrainer) -> None:
    api, go = trainer.cluster.api, trainer.home / "go-unwatched"
    trainer.train([{"warn": 1}, {"wait": str(go)}], job_id="unwatched")
    trainer.wait_for("unwatched", '"1"')
    api.faults.add(Fault("watch", code=410, reason="Expired", times=1), Fault("list", _JOBS, times=4))
    api.cut_watches()
    go.touch()
    whole(trainer, "unwatched")


def test_a_job_deleted_by_hand_is_followed_by_another_attempt_once_its_worker_has_ended(
    trainer: ClusterTrainer,
) -> None:
    script = [{"warn": 2}, {"attempt": 1, "ignore_cancel": 1}]
    trainer.train(script, job_id="deleted")
    trainer.wait_for("deleted", '"2"')
    trainer.cluster.api.objects.delete("Job", "deleted-a1")
    events = whole(trainer, "deleted", attempts=2)
    assert warnings(events) == ["1", "2", "1", "2"]
    assert "attempt 1 of 3: the Kubernetes Job deleted-a1 was deleted" in warnings(events, "WORKER_DIED")[0]


def test_a_preempted_worker_is_replaced_within_its_attempt_and_its_events_go_on(
    trainer: ClusterTrainer,
) -> None:
    go, kubelet = trainer.home / "go-preempted", trainer.cluster.kubelet
    trainer.train([{"warn": 2}, {"wait": str(go)}], job_id="preempted")
    trainer.wait_for("preempted", '"2"')
    kubelet.preempt(kubelet.wait_for_pods("preempted"))
    kubelet.wait_for_pods("preempted", 2)
    go.touch()
    events = whole(trainer, "preempted")
    assert warnings(events) == ["1", "2", "1", "2"]
    assert warnings(events, "WORKER_DIED") == []


def test_a_worker_that_winds_down_as_it_is_preempted_has_not_said_the_last_word(
    trainer: ClusterTrainer,
) -> None:
    kubelet = trainer.cluster.kubelet
    trainer.train([{"warn": 1}, {"until_cancelled": 1}], job_id="wound-down")
    trainer.wait_for("wound-down", '"1"')
    kubelet.preempt(kubelet.wait_for_pods("wound-down"))
    kubelet.wait_for_pods("wound-down", 2)
    wait_for_warnings(trainer, "wound-down", 2)
    trainer.cancel("wound-down")
    events = list(trainer.watch("wound-down"))
    assert trainer.job("wound-down").status.state == _S.STATE_CANCELLED
    assert warnings(events) == ["1", "1"]
    assert warnings(events, "WORKER_DIED") == []


def test_a_killed_service_adopts_the_job_that_runs(trainer: ClusterTrainer) -> None:
    go = trainer.home / "go-adopted"
    trainer.train([{"warn": 1}, {"wait": str(go)}, {"warn": 1}], job_id="adopted")
    trainer.wait_for("adopted", '"1"')
    trainer.kill()
    go.touch()
    trainer.start()
    assert warnings(whole(trainer, "adopted")) == ["1", "2"]
    assert len(trainer.cluster.kubelet.pods("adopted")) == 1


def test_a_service_killed_between_a_job_and_its_order_begins_it_once(trainer: ClusterTrainer) -> None:
    trainer.cluster.api.faults.add(Fault("create", "secrets", times=1000))
    trainer.train([{"warn": 1}], job_id="halfway")
    trainer.cluster.api.objects.wait_for(lambda: trainer.cluster.kubelet.pods("halfway") != [])
    trainer.kill()
    trainer.cluster.api.faults.clear()
    trainer.start()
    assert warnings(whole(trainer, "halfway")) == ["1"]
    assert len(trainer.cluster.kubelet.pods("halfway")) == 1


def test_a_service_killed_before_it_noted_the_job_finds_it(trainer: ClusterTrainer) -> None:
    trainer.cluster.api.faults.add(Fault("create", _JOBS, how="drop"), Fault("get", _JOBS, times=1000))
    trainer.train([{"warn": 1}], job_id="unnoted")
    trainer.cluster.api.objects.wait_for(lambda: trainer.cluster.kubelet.pods("unnoted") != [])
    trainer.kill()
    trainer.cluster.api.faults.clear()
    trainer.start()
    assert warnings(whole(trainer, "unnoted")) == ["1"]
    assert len(trainer.cluster.kubelet.pods("unnoted")) == 1


def test_a_job_deleted_while_no_service_ran_is_followed_by_another_attempt(trainer: ClusterTrainer) -> None:
    trainer.train([{"warn": 1}, {"attempt": 1, "wait": "/never"}], job_id="gone")
    trainer.wait_for("gone", '"1"')
    trainer.kill()
    trainer.cluster.api.objects.delete("Job", "gone-a1")
    trainer.start()
    events = whole(trainer, "gone", attempts=2)
    assert "the Kubernetes Job gone-a1 was deleted" in warnings(events, "WORKER_DIED")[0]


def test_what_runs_for_nobody_is_ended_by_the_next_leader_and_what_is_not_conchs_left_alone(
    trainer: ClusterTrainer,
) -> None:
    objects = trainer.cluster.api.objects
    labels = {"app.kubernetes.io/managed-by": "conch", "conch/kind": "training"}
    ours = {**labels, "app.kubernetes.io/instance": "conch"}
    trainer.kill()
    for name, bears in (("orphan", ours), ("another-release", labels), ("stranger", {})):
        spec = {"suspend": True, "template": {"metadata": {}, "spec": {"containers": []}}}
        objects.create({"kind": "Job", "metadata": {"name": name, "labels": bears}, "spec": spec})
    trainer.start()
    objects.wait_for(lambda: "orphan" not in {job["metadata"]["name"] for job in objects.all("Job")})
    assert {"another-release", "stranger"} <= {job["metadata"]["name"] for job in objects.all("Job")}


@pytest.mark.parametrize(
    ("job_id", "reason", "sentence"),
    [
        ("oom", "OOMKilled", "the worker was killed for memory (OOMKilled): its limit is 2Gi"),
        ("evicted", "Evicted", "the worker's pod was evicted: The node was low on resource"),
    ],
)
def test_a_death_says_what_the_cluster_knows_of_it(
    trainer: ClusterTrainer, job_id: str, reason: str, sentence: str
) -> None:
    trainer.train([{"warn": 1}, {"attempt": 1, "wait": "/never"}], job_id=job_id)
    trainer.wait_for(job_id, '"1"')
    trainer.cluster.kubelet.kill(trainer.cluster.kubelet.wait_for_pods(job_id), reason=reason)
    assert sentence in warnings(whole(trainer, job_id, attempts=2), "WORKER_DIED")[0]


def test_a_crash_says_its_exit_code_and_the_end_of_its_log(trainer: ClusterTrainer) -> None:
    trainer.train([{"end": "crash"}], job_id="crashed", max_attempts=1)
    job = trainer.finish("crashed")
    assert states(list(trainer.watch("crashed")))[-1] == _S.STATE_FAILED
    assert "the worker ended with exit code 1" in job.status.error.message
    assert "ZeroDivisionError: scripted crash" in job.status.error.message


def test_a_signal_is_named(trainer: ClusterTrainer) -> None:
    trainer.train([{"warn": 1}, {"attempt": 1, "wait": "/never"}], job_id="killed")
    trainer.wait_for("killed", '"1"')
    kubelet = trainer.cluster.kubelet
    os.kill(kubelet.pid(kubelet.wait_for_pods("killed")), signal.SIGSEGV)
    assert "killed by SIGSEGV" in warnings(whole(trainer, "killed", attempts=2), "WORKER_DIED")[0]


def test_a_job_that_waits_for_a_machine_is_cancelled_at_once(trainer: ClusterTrainer) -> None:
    trainer.cluster.kubelet.schedulable = False
    try:
        trainer.train([{"warn": 1}], job_id="unschedulable")
        trainer.cluster.api.objects.wait_for(lambda: trainer.cluster.kubelet.pods("unschedulable") != [])
        trainer.cancel("unschedulable")
        assert trainer.finish("unschedulable").status.state == _S.STATE_CANCELLED
    finally:
        trainer.cluster.kubelet.schedulable = True
    assert trainer.cluster.api.objects.all("Pod", labels="conch/job=unschedulable") == []


def test_a_deleted_job_leaves_nothing_and_its_id_may_be_used_again(
    trainer: ClusterTrainer, tmp_path: Path
) -> None:
    objects = trainer.cluster.api.objects
    trainer.train([{"warn": 1}], job_id="again")
    whole(trainer, "again")
    trainer.delete("again")
    assert (
        objects.all("Job", labels="conch/job=again") == objects.all("Secret", labels="conch/job=again") == []
    )
    trainer.train([{"warn": 2}], job_id="again")
    assert warnings(whole(trainer, "again")) == ["1", "2"]
