"""Writes the objects of attempts into a cluster so that writing twice, after whatever fault, changes nothing.

Knows the API server, templates and manifests; knows nothing about what runs.
"""

import base64
from collections.abc import Mapping

import structlog
from google.protobuf import json_format

from conch.v1 import worker_pb2
from services.cluster import names
from services.cluster.client import Cluster
from services.cluster.manifests import ORDER, Filling, job_of, secret_of, service_of
from services.cluster.objects import JOBS, SECRETS, SERVICES, Object, Resource
from services.cluster.templates import Templates
from services.errors import AlreadyExists, BackendUnavailable, NotFound, NotReady, ServiceError
from services.jobs.tables import Job

log = structlog.get_logger(__name__)


class Writer:
    """Writes for one service: `labels` tell what is its own."""

    def __init__(self, cluster: Cluster, templates: Templates, labels: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._templates = templates
        self._labels = labels

    async def job(self, filling: Filling) -> Object:
        """Returns the attempt's Job, made now or by whoever asked before."""
        wanted = job_of(self._templates.find(_profile(filling.order)), filling)
        try:
            return await self._cluster.create(JOBS, wanted)
        except AlreadyExists as error:
            return await self._present(wanted, error)

    async def _present(self, wanted: Object, error: AlreadyExists) -> Object:
        name = wanted["metadata"]["name"]
        try:
            found = await self._cluster.get(JOBS, name)
        except NotFound:
            raise _in_the_way(name) from error
        metadata = found["metadata"]
        if not self._labels.items() <= (metadata.get("labels") or {}).items():
            raise AlreadyExists(
                f"there is a Kubernetes Job {name} already, which is not Conch's", reason="TAKEN"
            )
        if metadata.get("deletionTimestamp"):
            raise _in_the_way(name) from error
        if (metadata.get("annotations") or {}).get(names.DIGEST) != wanted["metadata"]["annotations"][
            names.DIGEST
        ]:
            # Of an earlier job of this id.
            await self.remove(name, metadata["uid"])
            raise _in_the_way(name) from error
        return found

    async def furnish(self, filling: Filling, owner: Object) -> None:
        """Makes what the Job's pods wait for; a Job that cannot have it is removed."""
        try:
            await self._write_order(filling, owner)
            if filling.num_nodes > 1:
                await self._create(SERVICES, service_of(filling, owner))
        except BackendUnavailable:
            raise
        except ServiceError:
            await self.remove(filling.name, owner["metadata"]["uid"])
            raise

    async def _write_order(self, filling: Filling, owner: Object) -> None:
        secret = secret_of(filling, owner)
        if await self._create(SECRETS, secret):
            return
        changed = await self._cluster.patch(SECRETS, filling.name, {"stringData": secret["stringData"]})
        if changed["metadata"].get("ownerReferences") != secret["metadata"]["ownerReferences"]:
            # It goes with an earlier Job of this name, any moment.
            raise _in_the_way(filling.name)

    async def _create(self, resource: Resource, obj: Object) -> bool:
        """Makes an object unless there is one; returns whether there was none."""
        try:
            await self._cluster.create(resource, obj)
        except AlreadyExists:
            return False
        return True

    async def tell_address(self, name: str, report_to: str) -> bool:
        """Puts an address into a worker's order if it has another; returns False if there is no order."""
        try:
            secret = await self._cluster.get(SECRETS, name)
            content = base64.b64decode(secret["data"][ORDER])
            order = json_format.Parse(content, worker_pb2.WorkOrder(), ignore_unknown_fields=True)
            if order.report_to != report_to:
                order.report_to = report_to
                await self._cluster.patch(
                    SECRETS, name, {"stringData": {ORDER: json_format.MessageToJson(order)}}
                )
        except NotFound:
            return False
        return True

    def is_ours(self, found: Object, job: Job) -> bool:
        """Says whether a Job of the cluster runs, or ran, an attempt of a job of this service."""
        metadata = found["metadata"]
        ours = self._labels.items() <= (metadata.get("labels") or {}).items()
        return ours and (metadata.get("annotations") or {}).get(names.JOB) == job.id

    async def remove(self, name: str, uid: str) -> None:
        """Deletes a Job and all that goes with it; nothing happens if it is gone."""
        try:
            await self._cluster.delete(JOBS, name, uid=uid)
        except (NotFound, NotReady):
            log.debug("worker.gone", job=name)


def _profile(order: worker_pb2.WorkOrder) -> str:
    return order.training.profile if order.HasField("training") else order.conversion.profile


def _in_the_way(name: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"the last Kubernetes Job {name} is still being removed", reason="JOB_IN_THE_WAY"
    )
