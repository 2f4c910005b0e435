"""A cluster of one machine: what `helm upgrade` applies becomes processes and objects of an API server.

Knows the chart's names of components; knows nothing about what is rehearsed.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.errors import NotReady
from tests.cluster.api_server import ApiServer
from tests.rehearsal.deployments import Deployment, Endpoints
from tests.rehearsal.pods import NAMESPACE, ContainerFailedError, Pod, Site
from tests.rehearsal.release import Object, Revision, render

_TRITON_PORT, _GATEWAY_PORT = 8001, 50051


class Cluster:
    """Pools, gateways and routes of one release. `upgrade`, then look at `gateways` and `pools`."""

    def __init__(self, folder: Path, repository_parent: Path, api: ApiServer) -> None:
        self._folder, self._api = folder, api
        self._sites = Site(
            folder / "pods",
            repository_parent,
            self._configmap,
            variables={"CONCH_KUBERNETES_URL": api.url},
        )
        self.pools: dict[str, Deployment] = {}
        self.gateway = Deployment(self._sites)
        self.changes: list[float] = []
        """time.monotonic() of each write of the routes and each change of what a pool's name means."""

    async def upgrade(self, values: Mapping[str, Any]) -> None:
        """Applies what Helm makes of `values`; raises NotReady with preflight's sentences if that refuses."""
        revision = await asyncio.to_thread(render, values, self._folder)
        await self._preflight(revision)
        for configmap in revision.all("ConfigMap"):
            self._apply_configmap(configmap)
        deployments = {one["metadata"]["name"]: one for one in revision.all("Deployment")}
        self._name_pools(revision)
        for name, manifest in sorted(deployments.items()):
            if pool := manifest["spec"]["template"]["metadata"]["labels"].get("conch/pool"):
                await self.pools[pool].apply(manifest)
            elif name.endswith("-gateway"):
                await self.gateway.apply(manifest)

    async def settled(self) -> None:
        """Returns once every pod is of the newest revision and ready."""
        await asyncio.gather(*(one.settled() for one in [*self.pools.values(), self.gateway]))

    def gateways(self) -> list[str]:
        """Returns host:port of every gateway."""
        return [f"{pod.address}:{_GATEWAY_PORT}" for pod in self.gateway.pods()]

    def events(self, reason: str) -> list[str]:
        """Returns the messages of the events with this reason."""
        found = self._api.objects.all("Event", NAMESPACE)
        return [str(one["message"]) for one in found if one["reason"] == reason]

    async def close(self) -> None:
        """Ends everything."""
        await asyncio.gather(*(one.close() for one in [*self.pools.values(), self.gateway]))

    async def _preflight(self, revision: Revision) -> None:
        if not revision.hooks:
            return
        for one in revision.hooks:
            if one["kind"] == "ConfigMap":
                self._apply_configmap(one)
        job = revision.hook("Job", "preflight")
        pod = Pod(f"preflight-{time.monotonic_ns()}", job["spec"]["template"], self._sites)
        (self._sites.folder / pod.name).mkdir(parents=True)
        try:
            await pod.run(pod.containers[0])
        except ContainerFailedError as error:
            raise NotReady(pod.log(pod.containers[0]).strip(), reason="PREFLIGHT_REFUSED") from error

    def _name_pools(self, revision: Revision) -> None:
        services = {one["metadata"]["name"]: one for one in revision.all("Service")}
        for manifest in revision.all("Deployment"):
            pool = manifest["spec"]["template"]["metadata"]["labels"].get("conch/pool")
            if pool and pool not in self.pools:
                service = services[manifest["metadata"]["name"]]
                endpoints = Endpoints(self._folder / f"endpoints-{pool}", _TRITON_PORT, self.changes)
                self.pools[pool] = Deployment(
                    self._sites,
                    endpoints=endpoints,
                    lists_unready=service["spec"].get("publishNotReadyAddresses", False),
                )
                self._sites.rewrites |= {_address_in(revision, pool): f"file://{endpoints.path}"}

    def _configmap(self, name: str) -> Mapping[str, str]:
        found = self._api.objects.get("ConfigMap", name, NAMESPACE)
        data: Mapping[str, str] = found.get("data") or {}
        return data

    def _apply_configmap(self, obj: Object) -> None:
        """Makes the object or, as Helm's three-way merge does, changes what the chart says of it."""
        name = obj["metadata"]["name"]
        obj = {**obj, "metadata": {**obj["metadata"], "namespace": NAMESPACE}}
        with self._api.objects.lock:
            found = [one for one in self._api.objects.all("ConfigMap", NAMESPACE) if _name(one) == name]
            if not found:
                self._api.objects.create(obj)
            elif _content(found[0]) != _content(obj):
                self._api.objects.replace({**obj, "metadata": {**found[0]["metadata"], **obj["metadata"]}})
            if name.endswith("-routes"):
                self.changes.append(time.monotonic())


def _address_in(revision: Revision, pool: str) -> str:
    for manifest in revision.all("Deployment"):
        for container in manifest["spec"]["template"]["spec"]["containers"]:
            for one in container.get("env", []):
                if one["name"] == "CONCH_POOLS":
                    return str(json.loads(one["value"])[pool]["address"])
    raise AssertionError(f"no gateway names the pool {pool}")


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _content(obj: Object) -> tuple[Any, Any]:
    return obj.get("data"), obj["metadata"].get("annotations")
