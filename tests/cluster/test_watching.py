"""What a watch makes of a cluster whose API server fails in every way that it can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.cluster.client import Cluster, connect
from services.cluster.objects import CONFIG_MAPS
from services.cluster.watching import Watched, stopped
from services.errors import AlreadyExists, BackendUnavailable, Forbidden, NotFound, NotReady
from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault, conflict, throttled


def config_map(name: str, value: str = "") -> dict[str, Any]:
    labels = {"on": "1"}
    return {"kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": {"key": value}}


@asynccontextmanager
async def connected(api: ApiServer) -> AsyncIterator[Cluster]:
    cluster = connect(component="test", url=api.url, namespace="default")
    try:
        yield cluster
    finally:
        await cluster.close()


class Seen:
    """What a watch told, in order, and its newest state."""

    def __init__(self, cluster: Cluster) -> None:
        self.told: list[tuple[str, str | None]] = []
        self.changed = asyncio.Event()
        self.watched = Watched(cluster, CONFIG_MAPS, labels="on", on_change=self.note)

    def note(self, name: str, obj: dict[str, Any] | None) -> None:
        self.told.append((name, obj["data"]["key"] if obj else None))
        self.changed.set()

    async def until(self, values: dict[str, str]) -> None:
        async with asyncio.timeout(20):
            while {n: o["data"]["key"] for n, o in self.watched.objects.items()} != values:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def watching(api: ApiServer) -> AsyncIterator[Seen]:
    async with connected(api) as cluster:
        seen = Seen(cluster)
        task = asyncio.create_task(seen.watched.run())
        await asyncio.wait_for(seen.watched.synced.wait(), 20)
        await asyncio.to_thread(api.wait_for_watchers)
        yield seen
        await stopped(task)


def set_value(api: ApiServer, name: str, value: str) -> None:
    api.objects.change("ConfigMap", name, lambda o: o.update(data={"key": value}))


async def test_a_watch_tells_of_what_is_there_and_of_each_change(api: ApiServer) -> None:
    api.objects.create(config_map("a", "1"))
    async with watching(api) as seen:
        set_value(api, "a", "2")
        api.objects.create(config_map("b", "1"))
        await seen.until({"a": "2", "b": "1"})
        api.objects.delete("ConfigMap", "a")
        await seen.until({"b": "1"})
        assert seen.told == [("a", "1"), ("a", "2"), ("b", "1"), ("a", None)]


async def test_a_cut_watch_goes_on_from_where_it_was(api: ApiServer) -> None:
    api.objects.create(config_map("a", "1"))
    async with watching(api) as seen:
        api.cut_watches()
        api.faults.add(Fault("watch", times=2), Fault("watch", how="cut"))
        for value in "234":
            set_value(api, "a", value)
        await seen.until({"a": "4"})
        assert [value for _, value in seen.told] == ["1", "2", "3", "4"]
        assert api.calls.count(("list", "configmaps")) == 1


async def test_after_410_everything_is_listed_anew_and_only_differences_are_told(api: ApiServer) -> None:
    for name in "abc":
        api.objects.create(config_map(name, "1"))
    async with watching(api) as seen:
        seen.told.clear()
        api.faults.add(Fault("watch", how="gone"), Fault("watch", code=410, reason="Expired"))
        api.faults.add(Fault("list", times=2), throttled(verb="list"))
        api.cut_watches()
        set_value(api, "a", "2")
        api.objects.delete("ConfigMap", "b")
        api.objects.create(config_map("d", "1"))
        api.objects.compact()
        await seen.until({"a": "2", "c": "1", "d": "1"})
        assert sorted(seen.told, key=str) == [("a", "2"), ("b", None), ("d", "1")]


async def test_a_watch_says_what_keeps_it_from_being_up_to_date(api: ApiServer) -> None:
    async with watching(api) as seen:
        api.faults.add(Fault("watch", code=403, reason="Forbidden", times=3))
        api.cut_watches()
        async with asyncio.timeout(20):
            while not seen.watched.problem:  # noqa: ASYNC110  # a plain string, which tells nobody
                await asyncio.sleep(0)
        api.objects.create(config_map("a", "1"))
        await seen.until({"a": "1"})
        assert seen.watched.problem == ""


async def test_what_may_pass_is_asked_again_and_retry_after_is_heeded(api: ApiServer) -> None:
    async with connected(api) as cluster:
        api.faults.add(throttled(1, verb="create"), Fault("create", code=503), Fault("create", code=500))
        began = asyncio.get_running_loop().time()
        await cluster.create(CONFIG_MAPS, config_map("a"))
        assert asyncio.get_running_loop().time() - began >= 1
        assert api.calls.count(("create", "configmaps")) == 4
        api.faults.add(Fault("get", times=100))
        with pytest.raises(BackendUnavailable, match="injected"):
            await cluster.get(CONFIG_MAPS, "a")


async def test_a_create_whose_answer_was_lost_is_found_to_exist(api: ApiServer) -> None:
    async with connected(api) as cluster:
        api.faults.add(Fault("create", how="drop"))
        with pytest.raises(AlreadyExists):
            await cluster.create(CONFIG_MAPS, config_map("a"))


async def test_refusals_are_errors_of_ours(api: ApiServer) -> None:
    async with connected(api) as cluster:
        with pytest.raises(NotFound):
            await cluster.get(CONFIG_MAPS, "a")
        made = await cluster.create(CONFIG_MAPS, config_map("a"))
        set_value(api, "a", "2")
        with pytest.raises(NotReady) as changed:
            await cluster.patch(CONFIG_MAPS, "a", {"metadata": made["metadata"]})
        assert changed.value.reason == "OBJECT_CHANGED"
        with pytest.raises(NotReady):
            await cluster.delete(CONFIG_MAPS, "a", uid="another")
        api.faults.add(conflict(verb="patch"), Fault("list", code=403, reason="Forbidden"))
        with pytest.raises(NotReady):
            await cluster.patch(CONFIG_MAPS, "a", {"data": {"key": "3"}})
        with pytest.raises(Forbidden):
            await cluster.list(CONFIG_MAPS)
        await cluster.delete(CONFIG_MAPS, "a", uid=made["metadata"]["uid"])
        assert api.objects.all("ConfigMap") == []


async def test_outside_of_a_cluster_there_is_none() -> None:
    with pytest.raises(NotReady, match="no service account"):
        connect(component="test")
