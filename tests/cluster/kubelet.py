"""The kubelet of an emulated cluster: runs the `worker` container of each pod as a process of this machine.

Secrets are mounted as files in a folder of the test's own and kept up to date; paths of mounts are
translated in commands, environments and mounted files, names of a Job's pods to 127.0.0.1. Deletion is
SIGTERM, grace, SIGKILL.
"""

import base64
import itertools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.api_server import ApiServer
from tests.cluster.objects import ApiError, Change, Object

ROOT = Path(__file__).parents[2]
_OOM = "OOMKilled"


class Kubelet:
    """Runs every pod of the cluster; tests may hinder pods, and take them away."""

    def __init__(self, api: ApiServer) -> None:
        self.schedulable = True
        """False: new pods stay Pending, Unschedulable."""
        self._objects = api.objects
        self._folder = Path(tempfile.mkdtemp(prefix="kubelet-"))
        self._pods: dict[str, _Pod] = {}
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

    def kill(self, name: str, *, reason: str = _OOM) -> None:
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
            self._pods[name] = _Pod(change.after, self._folder / name)
            threading.Thread(target=self._admit, args=(self._pods[name],), daemon=True).start()
        elif change.after is None or change.after["metadata"].get("deletionTimestamp"):
            self._pods[name].end(change.after)

    def _admit(self, pod: "_Pod") -> None:
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

    def _run(self, pod: "_Pod") -> None:
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

    def _set_status(self, pod: "_Pod", status: Object) -> None:
        def update(obj: Object) -> None:
            conditions = [*obj["status"].get("conditions", []), *status.get("conditions", [])]
            obj["status"].update(status, conditions=conditions)

        with suppress(ApiError):  # deleted meanwhile
            self._objects.change("Pod", pod.obj["metadata"]["name"], update)


class _Pod:
    """One pod and its process."""

    def __init__(self, obj: Object, folder: Path) -> None:
        self.obj = obj
        self.folder = folder
        self.log = folder / "log"
        self.reason = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.thread = threading.Thread()
        self.ending = threading.Event()
        self.synced = threading.Event()
        self.span = (0.0, math.inf)
        """When its process began and ended."""
        self._killing: threading.Timer | None = None
        folder.mkdir(parents=True)

    def sync(self, objects: Any) -> bool:
        """Writes the files of its Secrets; returns whether all of them are there."""
        there = True
        for volume in self.obj["spec"].get("volumes", []):
            (self.folder / volume["name"]).mkdir(exist_ok=True)
            if "secret" in volume:
                there = self._write_secret(objects, volume) and there
        return there

    def run(self, objects: Any) -> None:
        """Runs the container's command to its end."""
        worker = self._worker()
        env = {e["name"]: self._local(e["value"]) for e in worker.get("env", []) if "value" in e}
        command = [
            re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], m[0]), self._local(c)) for c in worker["command"]
        ]
        command[0] = sys.executable if command[0] == "python" else command[0]
        inherited = {n: v for n, v in os.environ.items() if not n.startswith("CONCH_")}
        with self.log.open("ab") as log, objects.changed:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=inherited | env, stdout=log, stderr=log, start_new_session=True
            )
            self.span = (time.monotonic(), math.inf)
            objects.changed.notify_all()
        if self.ending.is_set():
            self.end(self.obj)
        self.process.wait()
        self.span = (self.span[0], time.monotonic())
        self.kill()

    def end(self, obj: Object | None) -> None:
        """Sends SIGTERM, and SIGKILL after the grace; at once if the object is gone already."""
        self.ending.set()
        self.synced.set()
        grace = obj["metadata"].get("deletionGracePeriodSeconds", 30) if obj is not None else 0
        if self.process is None or self.process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        if self._killing is None:
            self._killing = threading.Timer(grace, self.kill)
            self._killing.daemon = True
            self._killing.start()

    def kill(self) -> None:
        """Kills its processes."""
        if self._killing is not None:
            self._killing.cancel()
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def ended(self) -> Object:
        """Returns the status of a pod whose process has ended."""
        assert self.process is not None
        code = self.process.returncode
        terminated = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
        }
        if self.reason == _OOM:
            terminated["reason"] = _OOM
        status: Object = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "worker", "state": {"terminated": terminated}}],
        }
        if self.reason and self.reason != _OOM:
            status |= {"reason": self.reason, "message": "The node was low on resource: ephemeral-storage."}
        return status

    def _write_secret(self, objects: Any, volume: Object) -> bool:
        try:
            secret = objects.get("Secret", volume["secret"]["secretName"])
        except ApiError:
            return False
        for name, data in secret["data"].items():
            path = self.folder / volume["name"] / name
            partial = path.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            partial.write_text(self._local(base64.b64decode(data).decode()))
            partial.chmod(volume["secret"].get("defaultMode", 0o644))
            partial.replace(path)
        return True

    def _local(self, text: str) -> str:
        for mount in self._worker().get("volumeMounts", []):
            text = text.replace(mount["mountPath"], str(self.folder / mount["name"]))
        job = self.obj["metadata"]["labels"]["batch.kubernetes.io/job-name"]
        return re.sub(rf"{re.escape(job)}-\d+\.[a-z0-9-]+", "127.0.0.1", text)

    def _worker(self) -> dict[str, Any]:
        containers: list[dict[str, Any]] = self.obj["spec"]["containers"]
        return next(container for container in containers if container["name"] == "worker")
