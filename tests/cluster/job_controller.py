"""The Job controller of an emulated cluster: makes pods for Jobs, counts how they end, says how Jobs end.

    with ApiServer() as api, JobController(api): ...

Follows kubernetes.io/docs/concepts/workloads/controllers/job as far as Conch relies on it: Indexed Jobs,
backoffLimit and backoffLimitPerIndex with maxFailedIndexes, podFailurePolicy's Ignore, podReplacementPolicy
Failed, suspension, TTL. `JobController.kubelet` runs the pods.
"""

import queue
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from tests.cluster.api_server import ApiServer
from tests.cluster.kubelet import Kubelet
from tests.cluster.objects import ApiError, Change, Object, timestamp


@dataclass
class _Count:
    """How the pods of one Job ended so far."""

    counted: set[str] = field(default_factory=set)
    succeeded: set[str] = field(default_factory=set)
    failed: Counter[str] = field(default_factory=Counter)


class JobController:
    """Runs the Jobs of a cluster's API server, from entering to leaving."""

    def __init__(self, api: ApiServer) -> None:
        self.kubelet = Kubelet(api)
        self._objects = api.objects
        self._counts: dict[str, _Count] = {}
        self._changes: queue.Queue[Change | None] = queue.Queue()
        self._unlisten: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="job-controller", daemon=True)

    def __enter__(self) -> Self:
        self._unlisten = self._objects.listen(self._changes.put)
        self.kubelet.start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unlisten()
        self._changes.put(None)
        self._thread.join(30)
        self.kubelet.stop()

    def _run(self) -> None:
        while (change := self._changes.get()) is not None:
            newest = change.after or change.before
            assert newest is not None
            if change.key.plural == "jobs" and change.after is not None:
                self._reconcile(change.key.name)
            elif change.key.plural == "pods" and (job := _job_of(newest)) is not None:
                self._count(newest)
                self._reconcile(job)

    def _count(self, pod: Object) -> None:
        phase = pod.get("status", {}).get("phase")
        owner, name = pod["metadata"]["labels"]["batch.kubernetes.io/controller-uid"], pod["metadata"]["name"]
        count = self._counts.setdefault(owner, _Count())
        if phase not in ("Succeeded", "Failed") or name in count.counted:
            return
        count.counted.add(name)
        if phase == "Succeeded":
            count.succeeded.add(_index(pod))
        elif not _disrupted(pod):
            count.failed[_index(pod)] += 1

    def _reconcile(self, name: str) -> None:
        with self._objects.lock:
            try:
                job = self._objects.get("Job", name)
            except ApiError:
                return
            if job["metadata"].get("deletionTimestamp") or _finished(job):
                return
            self._advance(job)

    def _advance(self, job: Object) -> None:
        spec, count = job["spec"], self._counts.setdefault(job["metadata"]["uid"], _Count())
        pods = [pod for pod in self._objects.all("Pod") if _job_of(pod) == job["metadata"]["name"]]
        active = [pod for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        reason = _failure(spec, count)
        indexes = [str(i) for i in range(spec.get("completions", 1))]
        if reason is not None:
            return self._end(job, active, "Failed", reason)
        if (reason := _success(spec, count)) is not None:
            return self._end(job, active, "Complete", reason)
        self._set_status(job, active=len(active), failed=count.failed.total(), succeeded=len(count.succeeded))
        if spec.get("suspend"):
            return None
        for index in indexes:
            if index not in count.succeeded and not any(_index(pod) == index for pod in active):
                self._objects.create(_pod(job, index))
        return None

    def _end(self, job: Object, active: list[Object], kind: str, reason: str) -> None:
        for pod in active:
            if not pod["metadata"].get("deletionTimestamp"):
                self._objects.delete("Pod", pod["metadata"]["name"])
        # Since Kubernetes 1.31 a Job is over only once its pods have ended.
        if not active:
            self._finish(job, kind, reason)

    def _finish(self, job: Object, kind: str, reason: str) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": f"Job: {reason}"}

        def finish(obj: Object) -> None:
            obj.setdefault("status", {}).update(active=0, conditions=[condition], completionTime=timestamp())

        self._objects.change("Job", job["metadata"]["name"], finish)
        if (seconds := job["spec"].get("ttlSecondsAfterFinished")) is not None:
            timer = threading.Timer(seconds, self._expire, (job,))
            timer.daemon = True
            timer.start()

    def _expire(self, job: Object) -> None:
        with self._objects.lock:
            present = [j["metadata"]["uid"] for j in self._objects.all("Job")]
            if job["metadata"]["uid"] in present:
                self._objects.delete("Job", job["metadata"]["name"])

    def _set_status(self, job: Object, **status: int) -> None:
        if any(job.get("status", {}).get(name) != value for name, value in status.items()):
            self._objects.change(
                "Job", job["metadata"]["name"], lambda obj: obj.setdefault("status", {}).update(status)
            )


def _failure(spec: Object, count: _Count) -> str | None:
    limit = spec.get("backoffLimitPerIndex")
    if limit is None:
        return "BackoffLimitExceeded" if count.failed.total() > spec.get("backoffLimit", 6) else None
    failed = [index for index, times in count.failed.items() if times > limit]
    return "MaxFailedIndexesExceeded" if len(failed) > spec.get("maxFailedIndexes", 10**5) else None


def _success(spec: Object, count: _Count) -> str | None:
    if count.succeeded.issuperset(str(i) for i in range(spec.get("completions", 1))):
        return "CompletionsReached"
    rules = spec.get("successPolicy", {}).get("rules", [])
    return "SuccessPolicy" if any(rule["succeededIndexes"] in count.succeeded for rule in rules) else None


def _pod(job: Object, index: str) -> Object:
    name, indexed = job["metadata"]["name"], job["spec"].get("completionMode") == "Indexed"
    template = job["spec"]["template"]
    labels = {
        **template["metadata"].get("labels", {}),
        "batch.kubernetes.io/job-name": name,
        "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
        **({"batch.kubernetes.io/job-completion-index": index} if indexed else {}),
    }
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    spec = {**template["spec"], "hostname": f"{name}-{index}"}
    if indexed:
        spec["containers"] = [_indexed(container, index) for container in spec["containers"]]
    full = f"{name}-{index}-{uuid.uuid4().hex[:5]}" if indexed else f"{name}-{uuid.uuid4().hex[:5]}"
    metadata = {"name": full, "labels": labels, "ownerReferences": [owner | {"controller": True}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Pending"},
    }


def _indexed(container: dict[str, Any], index: str) -> dict[str, Any]:
    return {**container, "env": [*container.get("env", []), {"name": "JOB_COMPLETION_INDEX", "value": index}]}


def _job_of(pod: Object) -> str | None:
    name: str | None = pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name")
    return name


def _index(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index", "0"))


def _disrupted(pod: Object) -> bool:
    return any(c["type"] == "DisruptionTarget" for c in pod.get("status", {}).get("conditions", []))


def _finished(job: Object) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in job.get("status", {}).get("conditions", []))
