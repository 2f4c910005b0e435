"""Deployments: pods come and go one by one as a rolling update does, and their Service knows who is there.

Knows replicas, maxSurge 1 with maxUnavailable 0, readiness and endpoints; knows nothing about what pods do.
"""

import asyncio
import hashlib
import itertools
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.rehearsal.pods import ContainerFailedError, Pod, Site

Object = dict[str, Any]
_LOOK_SECONDS = 0.1
_PROBE_SECONDS = 2.0


class Endpoints:
    """The addresses that a headless Service's name has, as a file with one host:port a line."""

    def __init__(self, path: Path, port: int, changes: list[float]) -> None:
        self.path, self._port, self._changes = path, port, changes
        path.write_text("")

    def set(self, pods: Iterable[Pod]) -> None:
        """Lets the name mean these pods."""
        partial = self.path.with_suffix(".partial")
        partial.write_text("".join(f"{pod.address}:{self._port}\n" for pod in pods))
        partial.replace(self.path)
        self._changes.append(time.monotonic())


class Deployment:
    """The pods of one Deployment. `apply` begins an update; `settled` waits for its end."""

    def __init__(
        self, site: Site, *, endpoints: Endpoints | None = None, lists_unready: bool = False
    ) -> None:
        self._site, self._endpoints, self._lists_unready = site, endpoints, lists_unready
        self._pods: list[tuple[str, Pod]] = []
        self._ready: set[str] = set()
        self._leaving: set[str] = set()
        self._numbers = itertools.count(1)
        self._update: asyncio.Task[None] | None = None
        self._revision = ""
        self.num_started = 0
        """Pods started so far: what a change of weights must not change."""

    def pods(self) -> list[Pod]:
        """Returns the pods that are ready."""
        return [pod for _, pod in self._pods if pod.name in self._ready]

    async def apply(self, manifest: Object) -> None:
        """Begins the update to `manifest`; one under way is given up, as a newer revision does."""
        template = manifest["spec"]["template"]
        revision = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        if revision == self._revision:
            return
        await self._give_up()
        self._revision = revision
        work = self._roll(manifest["metadata"]["name"], template, manifest["spec"]["replicas"], revision)
        self._update = asyncio.create_task(work)

    async def settled(self) -> None:
        """Returns once all pods are of the newest revision and ready, and the others gone."""
        if self._update is not None:
            await asyncio.shield(self._update)

    async def close(self) -> None:
        """Ends everything at once."""
        await self._give_up()
        for _, pod in self._pods:
            pod.kill()

    async def _give_up(self) -> None:
        if self._update is not None:
            self._update.cancel()
            await asyncio.gather(self._update, return_exceptions=True)

    async def _roll(self, name: str, template: Object, replicas: int, revision: str) -> None:
        for made, pod in list(self._pods):
            # What never got ready goes first: it serves nobody.
            if made != revision and pod.name not in self._ready:
                await self._remove(made, pod)
        while True:
            new = [pod for made, pod in self._pods if made == revision and pod.name in self._ready]
            old = [(made, pod) for made, pod in self._pods if made != revision]
            if len(new) + len(old) > replicas and old:
                await self._remove(*old[0])
            elif len(new) < replicas:
                await self._add(name, template, revision)
            else:
                return

    async def _add(self, name: str, template: Object, revision: str) -> None:
        pod = Pod(f"{name}-{revision}-{next(self._numbers)}", template, self._site)
        self._pods.append((revision, pod))
        self.num_started += 1
        await pod.start()
        self._tell()
        while not await _is_ready(pod):
            if not pod.alive():
                raise ContainerFailedError(f"{pod.name} died before it was ready")
            await asyncio.sleep(_LOOK_SECONDS)
        self._ready.add(pod.name)
        self._tell()

    async def _remove(self, revision: str, pod: Pod) -> None:
        self._leaving.add(pod.name)
        self._ready.discard(pod.name)
        self._tell()
        await pod.stop()
        self._pods.remove((revision, pod))
        self._tell()

    def _tell(self) -> None:
        if self._endpoints is not None:
            listed = [pod for _, pod in self._pods if self._lists_unready or pod.name in self._ready]
            self._endpoints.set(listed)


async def _is_ready(pod: Pod) -> bool:
    probes = [(c["readinessProbe"], c.get("ports", [])) for c in pod.containers if "readinessProbe" in c]
    return all([await _probe(pod.address, probe, ports) for probe, ports in probes])


async def _probe(address: str, probe: Object, ports: list[Object]) -> bool:
    if "httpGet" in probe:
        port = _port(probe["httpGet"]["port"], ports)
        return await asyncio.to_thread(_answers, f"http://{address}:{port}{probe['httpGet']['path']}")
    service = probe["grpc"].get("service", "")
    async with grpc.aio.insecure_channel(f"{address}:{_port(probe['grpc']['port'], ports)}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_PROBE_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _port(port: int | str, ports: list[Object]) -> int:
    if isinstance(port, int):
        return port
    return next(int(one["containerPort"]) for one in ports if one["name"] == port)
