"""How an attempt's Job ended, as a sentence: from what Kubernetes says of the Job and of its pods."""

import signal
from collections.abc import Iterable, Sequence
from typing import Any

from services.cluster.objects import Object
from services.cluster.templates import CONTAINER
from services.jobs.processes import describe_exit

_PULLING = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIGURED = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_FINAL = frozenset({"Succeeded", "Failed"})


def finished(job: Object) -> bool:
    """Says whether a Job is Complete or Failed."""
    return any(_condition(job, kind) is not None for kind in ("Complete", "Failed"))


def completed(job: Object | None) -> bool:
    """Says whether a Job's workers all ended with exit code 0."""
    return job is not None and _condition(job, "Complete") is not None


def runs(pod: Object) -> bool:
    """Says whether something of a pod may run still."""
    return pod.get("status", {}).get("phase") not in _FINAL


def telling(pods: Iterable[Object]) -> Object | None:
    """Returns the pod that says most of an attempt's end: the first that failed for good, else the last."""
    oldest_first = sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", ""))
    failed = [pod for pod in oldest_first if _phase(pod) == "Failed" and not disrupted(pod)]
    return next(iter(failed or oldest_first[-1:]), None)


def describe(job: Object | None, pods: Sequence[Object], *, stopped: bool, name: str) -> str:
    """Returns how an attempt ended; `job` is None if it is gone, `stopped` says that we ended it."""
    if job is None:
        return f"the Kubernetes Job {name} was {'stopped' if stopped else 'deleted'}"
    if (pod := telling(pods)) is not None and (sentence := _pod_sentence(pod)):
        return sentence
    failed = _condition(job, "Failed")
    if failed is None:
        return describe_exit(0)
    why = failed.get("message") or failed.get("reason") or "no reason given"
    return f"the Kubernetes Job {name} failed: {why}"


def disrupted(pod: Object) -> bool:
    """Says whether the cluster took a pod away (preemption, drain): that is no failure of its own."""
    return _condition(pod, "DisruptionTarget") is not None


def obstacle(pod: Object) -> tuple[str, str] | None:
    """Returns why a pod cannot start, as reason in UPPER_SNAKE and sentence; None if nothing hinders it."""
    for status in _statuses(pod):
        waiting = (status.get("state") or {}).get("waiting") or {}
        told = waiting.get("message") or waiting.get("reason")
        if waiting.get("reason") in _PULLING:
            return "IMAGE_NOT_PULLED", f"the image {status.get('image')} cannot be pulled: {told}"
        if waiting.get("reason") in _CONFIGURED:
            return "POD_NOT_STARTED", f"the pod {pod['metadata']['name']} cannot start: {told}"
    scheduled = _condition(pod, "PodScheduled", status="False")
    if scheduled is not None and scheduled.get("reason") == "Unschedulable":
        return "UNSCHEDULABLE", f"no machine of the cluster can take the worker: {scheduled.get('message')}"
    return None


def _pod_sentence(pod: Object) -> str:
    status = pod.get("status", {})
    ended = _ended(pod)
    if ended is not None and ended.get("reason") == "OOMKilled":
        return f"the worker was killed for memory (OOMKilled){_limit(pod)}"
    if status.get("reason") == "Evicted":
        return f"the worker's pod was evicted: {status.get('message') or 'no reason given'}"
    if disrupted(pod):
        condition = _condition(pod, "DisruptionTarget") or {}
        return f"the worker's pod was taken away: {condition.get('message') or condition.get('reason')}"
    if ended is None:
        return ""
    if (hindered := obstacle(pod)) is not None:
        return hindered[1]
    return describe_exit(_code(ended))


def _code(ended: Object) -> int:
    # Shells and container runtimes say 128 + n for signal n.
    code = int(ended.get("exitCode", 0))
    return 128 - code if code - 128 in set(signal.Signals) and code != 128 + signal.SIGTERM else code


def _limit(pod: Object) -> str:
    for container in pod["spec"].get("containers", []):
        memory = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        if container["name"] == CONTAINER and memory:
            return f": its limit is {memory}"
    return ""


def _ended(pod: Object) -> dict[str, Any] | None:
    for status in _statuses(pod):
        state = status.get("state") or {}
        if status.get("name") == CONTAINER and state.get("terminated"):
            ended: dict[str, Any] = state["terminated"]
            return ended
    return None


def _statuses(pod: Object) -> list[dict[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _phase(pod: Object) -> str:
    return str(pod.get("status", {}).get("phase", ""))


def _condition(obj: Object, kind: str, *, status: str = "True") -> dict[str, Any] | None:
    for condition in obj.get("status", {}).get("conditions") or ():
        if condition.get("type") == kind and condition.get("status") == status:
            found: dict[str, Any] = condition
            return found
    return None
