"""An emulation of the Kubernetes API server over real HTTP, for tests.

    with ApiServer() as api:
        api.objects.create({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "routes"}})
        api.faults.add(Fault(verb="watch", how="cut"))
        ... CONCH_KUBERNETES_URL=api.url ...
        assert ("patch", "configmaps") in api.calls

Knows HTTP, the verbs, watches and faults. Admission, authentication and schemas it does not know: the chart's
tests check objects against the schemas, `calls` are what RBAC has to allow.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self

from aiohttp import web

from tests.cluster.answers import event_of, refused, send, tail
from tests.cluster.faults import Fault, Faults
from tests.cluster.objects import ApiError, Change, Object, Objects
from tests.cluster.patches import patched
from tests.cluster.requests import Asked, body_of, selectors_of, taken_apart


class ApiServer:
    """A cluster's API at `url`, over `objects`; `faults` may be added at any time."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.faults = Faults()
        self.calls: list[tuple[str, str]] = []
        """Every (verb, resource) asked for, in order."""
        self.logs: dict[str, str] = {}
        """What `pods/log` answers, by pod."""
        self.read_log: Callable[[str], str] = lambda pod: self.logs.get(pod, "")
        self.url = ""
        self.watchers = 0
        """Watches that are open; `objects.changed` tells of changes."""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._cuts: set[asyncio.Event] = set()
        self._thread = threading.Thread(target=self._run, name="api-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.__exit__)

    def cut_watches(self) -> None:
        """Closes the connections of all watches that are open now."""
        self._loop.call_soon_threadsafe(self._cut_all)

    def wait_for_watchers(self, count: int = 1) -> None:
        """Returns once so many watches are open."""
        self.objects.wait_for(lambda: self.watchers >= count)

    def calls_made(self) -> list[str]:
        """Returns what was asked for as "verb resource", each once, in order of the alphabet."""
        return sorted({f"{verb} {resource}" for verb, resource in self.calls})

    def _cut_all(self) -> None:
        for cut in self._cuts:
            cut.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._started.set()
        await self._stop.wait()
        self._cut_all()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = taken_apart(request)
            with self.objects.lock:
                self.calls.append((asked.verb, asked.resource))
            fault = self.faults.take(asked.verb, asked.resource, asked.name)
            if fault is not None and fault.how == "refuse":
                return refused(fault)
            if asked.verb == "watch":
                return await self._watch(request, asked, fault)
            done = self._do(asked, request, await body_of(request))
        except ApiError as error:
            return web.json_response(error.status(), status=error.code)
        if fault is not None and fault.how == "drop":
            assert request.transport is not None
            request.transport.abort()
        return refused(fault) if fault is not None else done

    def _do(self, asked: Asked, request: web.Request, body: Any) -> web.Response:
        if asked.sub == "log":
            self.objects.get("Pod", asked.name, asked.namespace)
            return web.Response(text=tail(self.read_log(asked.name), request.query))
        if asked.verb == "list":
            return web.json_response(self._list(asked, request))
        if asked.verb == "get":
            found = self.objects.get(asked.kind, asked.name, asked.namespace)
            if "as=PartialObjectMetadata" in request.headers.get("Accept", ""):
                found = {"kind": "PartialObjectMetadata", "metadata": found["metadata"]}
            return web.json_response(found)
        return web.json_response(
            self._write(asked, request, body), status=201 if asked.verb == "create" else 200
        )

    def _write(self, asked: Asked, request: web.Request, body: Any) -> Object:
        if asked.verb == "delete":
            return self._delete(asked, request, body or {})
        if asked.verb == "patch":
            return self._patch(asked, body, request.content_type)
        body = {**body, "kind": asked.kind}
        body.setdefault("metadata", {}).setdefault("namespace", asked.namespace)
        return self.objects.create(body) if asked.verb == "create" else self.objects.replace(body)

    def _delete(self, asked: Asked, request: web.Request, body: dict[str, Any]) -> Object:
        options = {**request.query, **body}
        grace = options.get("gracePeriodSeconds")
        wanted = (body.get("preconditions") or {}).get("uid")
        with self.objects.lock:
            present = self.objects.get(asked.kind, asked.name, asked.namespace)
            if wanted is not None and wanted != present["metadata"]["uid"]:
                raise ApiError(409, "Conflict", "the uid in the precondition is not the object's")
            return self.objects.delete(
                asked.kind,
                asked.name,
                asked.namespace,
                propagation=options.get("propagationPolicy") or "Background",
                grace=int(grace) if grace is not None else None,
            )

    def _patch(self, asked: Asked, patch: Any, content_type: str) -> Object:
        with self.objects.lock:
            present = self.objects.get(asked.kind, asked.name, asked.namespace)
            return self.objects.replace(patched(present, patch, content_type))

    def _list(self, asked: Asked, request: web.Request) -> Object:
        with self.objects.lock:
            labels, fields = selectors_of(request)
            items = self.objects.all(asked.kind, asked.namespace, labels=labels, fields=fields)
            metadata = {"resourceVersion": str(self.objects.version)}
        version = f"{asked.group}/{asked.version}" if asked.group else asked.version
        return {"kind": f"{asked.kind}List", "apiVersion": version, "metadata": metadata, "items": items}

    async def _watch(self, request: web.Request, asked: Asked, fault: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if fault is not None and fault.how == "gone":
            await send(response, "ERROR", ApiError(410, "Expired", "too old resource version").status())
            return response
        woken, cut = asyncio.Event(), asyncio.Event()

        def wake(_: Change) -> None:
            self._loop.call_soon_threadsafe(woken.set)

        end = self.objects.listen(wake)
        self._cuts.add(cut)
        self._count_watcher(1)
        try:
            await self._send_changes(response, request, asked, woken, cut, fault)
        except ConnectionError:
            pass  # the client has gone
        finally:
            end()
            self._cuts.discard(cut)
            self._count_watcher(-1)
        if (cut.is_set() or fault is not None) and request.transport is not None:
            request.transport.abort()
        return response

    async def _send_changes(
        self,
        response: web.StreamResponse,
        request: web.Request,
        asked: Asked,
        woken: asyncio.Event,
        cut: asyncio.Event,
        fault: Fault | None,
    ) -> None:
        version = int(request.query.get("resourceVersion") or 0)
        if version == 0:
            version = await self._send_present(response, request, asked)
        ends = self._loop.time() + float(request.query.get("timeoutSeconds") or 300)
        bookmarks = request.query.get("allowWatchBookmarks") in ("true", "True")
        while self._loop.time() < ends and not cut.is_set():
            woken.clear()
            try:
                changes = self.objects.since(version)
            except ApiError as error:
                return await send(response, "ERROR", error.status())
            for change in changes:
                version = change.version
                if (told := event_of(change, asked, selectors_of(request))) is not None:
                    await send(response, *told)
                    if fault is not None and fault.how == "cut":
                        return None
            await self._wait(ends, woken, cut)
        if bookmarks and not cut.is_set():
            await send(
                response, "BOOKMARK", {"kind": asked.kind, "metadata": {"resourceVersion": str(version)}}
            )
        return None

    async def _send_present(self, response: web.StreamResponse, request: web.Request, asked: Asked) -> int:
        present = self._list(asked, request)
        for obj in present["items"]:
            await send(response, "ADDED", obj)
        return int(present["metadata"]["resourceVersion"])

    async def _wait(self, ends: float, *events: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=ends - self._loop.time(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _count_watcher(self, step: int) -> None:
        with self.objects.changed:
            self.watchers += step
            self.objects.changed.notify_all()
