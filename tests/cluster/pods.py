"""One pod of an emulated cluster: its mounted files, its process, its status."""

import base64
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.cluster.objects import ApiError, Object

ROOT = Path(__file__).parents[2]
OOM = "OOMKilled"


class RunningPod:
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
        if self.reason == OOM:
            terminated["reason"] = OOM
        status: Object = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "containerStatuses": [{"name": "worker", "state": {"terminated": terminated}}],
        }
        if self.reason and self.reason != OOM:
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
