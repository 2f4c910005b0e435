"""The kubelet of an emulated cluster: runs the `worker` container of each pod as a process of this machine.

Secrets are mounted as files in a folder of the test's own and kept up to date; paths of mounts are
translated in commands, environments and mounted files, names of a Job's pods to 127.0.0.1. Deletion is
SIGTERM, grace, SIGKILL.
"""

import itertools
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import ApiError, Change, Object
from tests.cluster.pods import OOM, RunningPod


class Kubelet:
    """Runs every pod of the cluster; tests may hinder pods, and take them away."""

    def __init__(self, api: ApiServer) -> None:
        self.schedulable = True
        """False: new pods stay Pending, Unschedulable."""
        self._objects = api.objects
        self._folder = Path(tempfile.mkdtemp(prefix="kubelet-"))
        self._pods: dict[str, RunningPod] = {}
        self._unlisten: Callable[[], None] = lambda: None
        api.read_log = self._log

    def start(self) -> None:
        """Runs what comes from now on."""
        self._unlisten = self._objects.listen(self._changed)

    def stop(self) -> None:
        """Kills every process and forgets all."""
        self._unlisten()
        for pod in self._pods.values():
            pod.kill()
        for pod in self._pods.values():
            if pod.thread.is_alive():
                pod.thread.join(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def pods(self, job: str) -> list[str]:
        """Returns the names of the pods that were ever made for a job of Conch's, oldest first."""
        return [name for name, pod in self._pods.items() if pod.obj["metadata"]["labels"]["conch/job"] == job]

    def logs(self, job: str) -> str:
        """Returns what all pods of a job printed."""
        return "\n".join(f"--- {name}\n{self._log(name)}" for name in self.pods(job))

    def wait_for_pods(self, job: str, count: int = 1) -> str:
        """Returns the name of the newest pod once so many were made and it has its process."""
        self._objects.wait_for(lambda: len(self.pods(job)) >= count and self._running(self.pods(job)[-1]))
        return self.pods(job)[-1]

    def pid(self, name: str) -> int:
        """Returns the process of a pod."""
        process = self._pods[name].process
        assert process is not None
        return process.pid

    def overlapped(self, job: str) -> bool:
        """Says whether two pods of a job ever ran at a time."""
        spans = sorted(pod.span for name, pod in self._pods.items() if name in self.pods(job) and pod.process)
        return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))

    def preempt(self, name: str) -> None:
        """Takes a pod away for a more important one."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        self._objects.change(
            "Pod", name, lambda o: o["status"].setdefault("conditions", []).append(condition)
        )
        with suppress(ApiError):  # ended meanwhile
            self._objects.delete("Pod", name)

    def kill(self, name: str, *, reason: str = OOM) -> None:
        """Kills a pod's process, as the kernel does for want of memory, or the kubelet as it evicts."""
        self._pods[name].reason = reason
        self._pods[name].kill()

    def _running(self, name: str) -> bool:
        return self._pods[name].process is not None

    def _log(self, name: str) -> str:
        return (
            self._pods[name].log.read_text() if name in self._pods and self._pods[name].log.exists() else ""
        )

    def _changed(self, change: Change) -> None:
        name = change.key.name
        if change.key.plural == "secrets":
            for pod in self._pods.values():
                pod.sync(self._objects)
                pod.synced.set()
        elif change.key.plural != "pods":
            return
        elif change.before is None and change.after is not None:
            self._pods[name] = RunningPod(change.after, self._folder / name)
            threading.Thread(target=self._admit, args=(self._pods[name],), daemon=True).start()
        elif change.after is None or change.after["metadata"].get("deletionTimestamp"):
            self._pods[name].end(change.after)

    def _admit(self, pod: RunningPod) -> None:
        if not self.schedulable:
            message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
            }
            return self._set_status(pod, {"phase": "Pending", "conditions": [condition]})
        pod.thread = threading.Thread(target=self._run, args=(pod,), daemon=True)
        pod.thread.start()
        return None

    def _run(self, pod: RunningPod) -> None:
        name = pod.obj["metadata"]["name"]
        with suppress(ApiError):
            self._objects.change("Pod", name, lambda o: o["spec"].update(nodeName="node"))
        while not pod.ending.is_set() and not pod.sync(self._objects):
            pod.synced.wait()
            pod.synced.clear()
        if not pod.ending.is_set():
            self._set_status(pod, {"phase": "Running"})
            pod.run(self._objects)
            self._set_status(pod, pod.ended())
        if pod.ending.is_set():
            self._objects.remove("Pod", name)

    def _set_status(self, pod: RunningPod, status: Object) -> None:
        def update(obj: Object) -> None:
            conditions = [*obj["status"].get("conditions", []), *status.get("conditions", [])]
            obj["status"].update(status, conditions=conditions)

        with suppress(ApiError):  # deleted meanwhile
            self._objects.change("Pod", pod.obj["metadata"]["name"], update)
