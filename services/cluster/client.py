"""One namespace of a Kubernetes cluster: objects read, written and watched as plain dictionaries.

Knows the `kubernetes` library, which is imported only as a cluster is asked for, and what its errors mean
for us; knows nothing about what the objects are for. What may pass (429, 5xx, no answer) is asked again for
some seconds, so a create or a patch may have happened although the answer to it was lost: callers take
AlreadyExists and NotReady(OBJECT_CHANGED) for that possibility.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from services.cluster.objects import PODS, Object, Resource
from services.cluster.refusals import CHANGED, Refusal, refused, translated
from services.cluster.settings import ClusterSettings
from services.errors import BackendUnavailable, NotReady

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

log = structlog.get_logger(__name__)

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_ATTEMPTS = 6
_FIRST_BACKOFF_SECONDS = 0.1
_LONGEST_BACKOFF_SECONDS = 2.0
_LONGEST_RETRY_AFTER_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
# A watch that is silent for longer than it was asked to last has lost its server.
_SILENCE_SECONDS = 20.0
_JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_MERGE = _JSON | {"Content-Type": "application/merge-patch+json"}
_METADATA_ALONE = _JSON | {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}


class Cluster:
    """A namespace. Every method raises BackendUnavailable if the API server does not answer in time."""

    def __init__(self, api: "ApiClient", namespace: str) -> None:
        self._api = api
        self.namespace = namespace

    async def get(self, resource: Resource, name: str) -> Object:
        """Returns an object; raises NotFound."""
        return await self._ask("GET", resource, name)

    async def metadata(self, resource: Resource, name: str) -> Object:
        """Returns an object's metadata, without the rest of it, however much that is; raises NotFound."""
        metadata: Object = (await self._ask("GET", resource, name, headers=_METADATA_ALONE))["metadata"]
        return metadata

    async def create(self, resource: Resource, obj: Object) -> Object:
        """Makes an object and returns it; raises AlreadyExists, also where an answer was lost."""
        return await self._ask("POST", resource, body=obj)

    async def patch(self, resource: Resource, name: str, change: Object) -> Object:
        """Merges `change` into an object (RFC 7396) and returns it.

        Raises NotFound, and NotReady(OBJECT_CHANGED) if `change` names an older resourceVersion.
        """
        return await self._ask("PATCH", resource, name, body=change, headers=_MERGE)

    async def delete(
        self, resource: Resource, name: str, *, uid: str = "", propagation: str = "Background"
    ) -> None:
        """Deletes an object, and what it owns; raises NotFound, NotReady if its uid is another one by now."""
        options: Object = {"propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._ask("DELETE", resource, name, body=options)

    async def list(
        self, resource: Resource, *, labels: str = "", fields: str = ""
    ) -> tuple[list[Object], str]:
        """Returns the objects that both selectors match, and the resourceVersion to watch from."""
        answer = await self._ask("GET", resource, query=_selectors(labels, fields))
        return answer["items"], answer["metadata"]["resourceVersion"]

    async def log(self, pod: str, *, container: str, lines: int) -> str:
        """Returns the last lines that a container printed; raises NotFound or InvalidRequest."""
        query = {"container": container, "tailLines": str(lines)}
        return (await self._raw("GET", PODS.path(self.namespace, pod, "log"), query)).decode(errors="replace")

    @asynccontextmanager
    async def watch(
        self, resource: Resource, *, version: str, labels: str = "", fields: str = "", seconds: int = 300
    ) -> AsyncIterator[AsyncIterator[Object]]:
        """Gives the events after `version` for so many seconds, bookmarks among them.

        Raises NotReady(VERSION_EXPIRED) if the server no longer knows what came after `version`.
        """
        query = _selectors(labels, fields) | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        with translated():
            response = await self._send(
                "GET", resource.path(self.namespace), query, silence_seconds=seconds + _SILENCE_SECONDS
            )
        try:
            if response.status != 200:
                raise refused(await response.read(), response.status, response.headers).error
            yield _events(response)
        finally:
            response.response.close()

    async def close(self) -> None:
        """Closes all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # generated without types

    async def _ask(
        self,
        method: str,
        resource: Resource,
        *names: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        headers: Mapping[str, str] = _JSON,
    ) -> Object:
        path = resource.path(self.namespace, *names)
        answer: Object = json.loads(await self._raw(method, path, query or {}, body, headers))
        return answer

    async def _raw(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None = None,
        headers: Mapping[str, str] = _JSON,
    ) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                return await self._once(method, path, query, body, headers)
            except Refusal as refusal:
                if not _may_pass(refusal, method) or attempt == _ATTEMPTS - 1:
                    raise refusal.error from refusal.__cause__
                log.info("cluster.missed", method=method, path=path, problem=refusal.error.message)
                await asyncio.sleep(_pause(attempt, refusal.retry_after_seconds))
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        headers: Mapping[str, str],
    ) -> bytes:
        try:
            with translated():
                response = await self._send(method, path, query, body=body, headers=headers)
                data: bytes = await response.read()
        except BackendUnavailable as error:
            raise Refusal(error, may_pass=True) from error
        if response.status >= 300:
            raise refused(data, response.status, response.headers)
        return data

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        body: Object | None = None,
        headers: Mapping[str, str] = _JSON,
        silence_seconds: float = 0.0,
    ) -> Any:
        import aiohttp

        timeout = (
            aiohttp.ClientTimeout(sock_connect=_ANSWER_SECONDS, sock_read=silence_seconds)
            if silence_seconds
            else aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        )
        request = await self._api.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=dict(headers),
            body=body,
            auth_settings=["BearerToken"],
        )
        return await self._api.call_api(*request, _request_timeout=timeout)


def connect(*, component: str, namespace: str = "", url: str = "") -> Cluster:
    """Returns the cluster that this process runs in, or the one at `url` or CONCH_KUBERNETES_URL.

    `component` names us in the server's audit log. Raises NotReady(NO_CLUSTER) outside of a cluster.
    """
    from kubernetes.aio import client, config

    configuration = client.Configuration()
    # A proxy of the way to the internet has no business between a pod and its API server.
    configuration.client_session_kwargs = {"trust_env": False}
    if url := url or ClusterSettings().kubernetes_url:
        configuration.host = url.rstrip("/")
    else:
        try:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]  # as above
        except config.ConfigException as error:
            message = f"this process has no service account of a Kubernetes cluster: {error}"
            raise NotReady(message, reason="NO_CLUSTER") from error
    api = client.ApiClient(configuration)
    api.user_agent = f"conch-{component}"
    return Cluster(api, namespace or _own_namespace())


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.is_file() else "default"


def _selectors(labels: str, fields: str) -> dict[str, str]:
    named = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in named.items() if value}


async def _events(response: Any) -> AsyncIterator[Object]:
    with translated():
        async for line in response.response.content:
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise refused(
                    json.dumps(event["object"]).encode(), event["object"].get("code", 500), {}
                ).error
            yield event


def _may_pass(refusal: Refusal, method: str) -> bool:
    # What is new cannot have changed: its namespace's quota did, which the server should try again itself.
    return refusal.may_pass or (method == "POST" and refusal.error.reason == CHANGED)


def _pause(attempt: int, retry_after_seconds: float) -> float:
    longest: float = min(_FIRST_BACKOFF_SECONDS * 2**attempt, _LONGEST_BACKOFF_SECONDS)
    # Jitter keeps many gateways from coming back in step.
    return max(longest * random.uniform(0.5, 1.0), min(retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS))
