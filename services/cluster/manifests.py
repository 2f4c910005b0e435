"""The Kubernetes objects of one attempt: a Job made of a profile's template, its order, its Service.

Pure functions from an order to objects; knows nothing about the API server. What keeps an attempt from being
run twice or counted wrongly stands here and overrules the template:

- Another attempt is another Job, so a Job itself tries nothing again (`backoffLimit: 0`); of several machines
  that train together each is started again when another one's end has torn it down (`backoffLimitPerIndex`).
- A pod that a cluster takes away (DisruptionTarget) is no failure: the Job makes another one.
- That one starts only once the lost one has ended for good (`podReplacementPolicy: Failed`).
"""

import copy
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format

from conch.v1 import worker_pb2
from services.cluster import names
from services.cluster.objects import Object
from services.cluster.templates import CONTAINER, containers
from services.jobs.tables import Job

ORDER = "order.json"
_ORDER_FOLDER = "/var/run/conch"
WORK_FOLDER = "/var/lib/conch/work"
_ORDER_VOLUME, _WORK_VOLUME = "conch-order", "conch-work"
_READABLE_BY_OWNER = 0o400
_FINISHED_SECONDS = 24 * 3600
_RENDEZVOUS_PORT = 29500
_RESTARTS_PER_INDEX = 3
# Agents wait for machines that a busy cluster brings up minutes apart.
_JOIN_SECONDS = 1800


@dataclass(frozen=True)
class Filling:
    """What an executor puts into a template."""

    job: Job
    order: worker_pb2.WorkOrder
    module: str
    """Run as `python -m MODULE ORDER.JSON`."""
    grace_seconds: float
    labels: Mapping[str, str]

    @property
    def name(self) -> str:
        return names.job_name(self.job)

    @property
    def num_nodes(self) -> int:
        """Machines that work together."""
        return max(1, self.order.training.num_nodes)


def job_of(template: Object, filling: Filling) -> Object:
    """Returns the Job that runs an attempt."""
    made = copy.deepcopy(template)
    _name(made.setdefault("metadata", {}), filling)
    made["metadata"]["annotations"][names.DIGEST] = digest(filling)
    _name(made["spec"]["template"].setdefault("metadata", {}), filling)
    made["spec"]["template"]["metadata"].pop("name", None)
    made["spec"] |= _rules(filling, made["spec"])
    made["spec"].pop("activeDeadlineSeconds", None)
    _fill_pod(made, filling)
    return made


def secret_of(filling: Filling, owner: Object) -> Object:
    """Returns the Secret with the order, owned by the attempt's Job."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _owned(filling, owner, filling.name),
        "type": "conch/order",
        "stringData": {ORDER: json_format.MessageToJson(filling.order)},
    }


def service_of(filling: Filling, owner: Object) -> Object:
    """Returns the headless Service by which machines that train together find the first one."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _owned(filling, owner, names.service_name(filling.name)),
        "spec": {
            "clusterIP": "None",
            # They look for each other before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": filling.name},
            "ports": [{"name": "rendezvous", "port": _RENDEZVOUS_PORT}],
        },
    }


def digest(filling: Filling) -> str:
    """Returns what tells this attempt from that of another job of the same id: the token is no part of it."""
    order = filling.order
    told = worker_pb2.WorkOrder(
        job_id=order.job_id, attempt=order.attempt, output_uri=order.output_uri, version=order.version
    )
    content = told.SerializeToString(deterministic=True) + filling.job.spec
    return hashlib.sha256(content + str(filling.job.create_time).encode()).hexdigest()


def _name(metadata: dict[str, Any], filling: Filling) -> None:
    metadata["name"] = filling.name
    metadata["labels"] = {**(metadata.get("labels") or {}), **filling.labels}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), names.JOB: filling.job.id}
    metadata.pop("namespace", None)


def _owned(filling: Filling, owner: Object, name: str) -> Object:
    reference = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": filling.name,
        "uid": owner["metadata"]["uid"],
    }
    return {"name": name, "labels": dict(filling.labels), "ownerReferences": [reference]}


def _rules(filling: Filling, present: Mapping[str, Any]) -> Object:
    rules: Object = {
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
            ]
        },
        "ttlSecondsAfterFinished": present.get("ttlSecondsAfterFinished", _FINISHED_SECONDS),
    }
    if filling.num_nodes == 1:
        return rules | {"backoffLimit": 0, "completions": 1, "parallelism": 1}
    return rules | {
        "completionMode": "Indexed",
        "completions": filling.num_nodes,
        "parallelism": filling.num_nodes,
        "backoffLimitPerIndex": _RESTARTS_PER_INDEX,
        "maxFailedIndexes": 0,
        # The first machine alone reports and writes: what it leaves is what the others were for.
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }


def _fill_pod(made: Object, filling: Filling) -> None:
    pod = made["spec"]["template"]["spec"]
    pod["restartPolicy"] = "Never"
    pod["terminationGracePeriodSeconds"] = math.ceil(filling.grace_seconds)
    pod.setdefault("automountServiceAccountToken", False)
    worker = next(container for container in containers(made) if container["name"] == CONTAINER)
    worker["command"] = _command(filling, _gpus(worker))
    worker.pop("args", None)
    order = {"secretName": filling.name, "defaultMode": _READABLE_BY_OWNER}
    _mount(pod, worker, {"name": _ORDER_VOLUME, "secret": order}, path=_ORDER_FOLDER, read_only=True)
    if not any(volume["name"] == _WORK_VOLUME for volume in pod.get("volumes") or ()):
        _mount(pod, worker, {"name": _WORK_VOLUME, "emptyDir": {}}, path=WORK_FOLDER)
    if filling.num_nodes > 1:
        pod["subdomain"] = names.service_name(filling.name)


def _mount(pod: Object, worker: Object, volume: Object, *, path: str, read_only: bool = False) -> None:
    mount = {"name": volume["name"], "mountPath": path}
    pod["volumes"] = [*(pod.get("volumes") or ()), volume]
    worker["volumeMounts"] = [
        *(worker.get("volumeMounts") or ()),
        mount | ({"readOnly": True} if read_only else {}),
    ]


def _gpus(worker: Object) -> int:
    limits = (worker.get("resources") or {}).get("limits") or {}
    return next((int(count) for name, count in limits.items() if name.endswith("/gpu")), 0)


def _command(filling: Filling, gpus: int) -> list[str]:
    module = ["-m", filling.module, f"{_ORDER_FOLDER}/{ORDER}"]
    together = filling.order.HasField("training") and filling.num_nodes * max(1, gpus) > 1
    return ["python", *_torchrun(filling, gpus), *module] if together else ["python", *module]


def _torchrun(filling: Filling, gpus: int) -> list[str]:
    first = f"{filling.name}-0.{names.service_name(filling.name)}"
    address = "127.0.0.1" if filling.num_nodes == 1 else first
    return [
        "-m",
        "torch.distributed.run",
        f"--nnodes={filling.num_nodes}",
        f"--nproc-per-node={max(1, gpus)}",
        # Kubernetes fills in what the Job's controller says in each pod's environment.
        f"--node-rank={'$(JOB_COMPLETION_INDEX)' if filling.num_nodes > 1 else 0}",
        f"--master-addr={address}",
        f"--master-port={_RENDEZVOUS_PORT}",
        f"--rdzv-conf=timeout={_JOIN_SECONDS}",
        # The pods are what is started again.
        "--max-restarts=0",
        # Half a minute, its default, is not enough to save a checkpoint in.
        f"--shutdown-timeout={math.ceil(filling.grace_seconds)}",
    ]
