"""The emulation answers as a Kubernetes API server does where Conch depends on it."""

import json
from typing import Any

import aiohttp
import pytest

from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault, throttled

JSON = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **metadata: Any) -> JSON:
    return {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, **metadata}, "data": {}}


async def ask(api: ApiServer, method: str, path: str, **fields: Any) -> tuple[int, JSON]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{api.url}{path}", **fields) as response,
    ):
        return response.status, await response.json()


async def patch(api: ApiServer, name: str, kind: str, content: Any) -> tuple[int, JSON]:
    headers = {"Content-Type": f"application/{kind}+json"}
    return await ask(api, "PATCH", f"{MAPS}/{name}", data=json.dumps(content), headers=headers)


async def test_a_taken_name_and_an_old_version_are_conflicts(api: ApiServer) -> None:
    status, made = await ask(api, "POST", MAPS, json=config_map("a"))
    assert (status, made["metadata"]["namespace"]) == (201, "default")
    status, refused = await ask(api, "POST", MAPS, json=config_map("a"))
    assert (status, refused["reason"]) == (409, "AlreadyExists")
    assert (await ask(api, "PUT", f"{MAPS}/a", json={**made, "data": {"k": "1"}}))[0] == 200
    status, refused = await ask(api, "PUT", f"{MAPS}/a", json=made)
    assert (status, refused["reason"]) == (409, "Conflict")
    old = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}}
    assert (await patch(api, "a", "merge-patch", old))[0] == 409
    assert (await ask(api, "GET", f"{MAPS}/b"))[0] == 404


async def test_patches_of_all_three_kinds_change_what_they_name(api: ApiServer) -> None:
    api.objects.create(config_map("a", annotations={"x": "1", "y": "2"}))
    await patch(api, "a", "merge-patch", {"metadata": {"annotations": {"x": None}}, "data": {"k": "v"}})
    await patch(api, "a", "strategic-merge-patch", {"metadata": {"annotations": {"z": "3"}}})
    await patch(api, "a", "json-patch", [{"op": "replace", "path": "/data/k", "value": "w"}])
    found = api.objects.get("ConfigMap", "a")
    assert (found["metadata"]["annotations"], found["data"]) == ({"y": "2", "z": "3"}, {"k": "w"})


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("labelSelector=a%3D1", ["one"]),
        ("labelSelector=a", ["one", "two"]),
        ("labelSelector=a%20in%20(2,3),!b", ["two"]),
        ("fieldSelector=metadata.name%3Dthree", ["three"]),
        ("fieldSelector=metadata.name!%3Dthree", ["one", "two"]),
    ],
)
async def test_lists_hold_what_the_selectors_match(api: ApiServer, query: str, names: list[str]) -> None:
    for name, labels in (("one", {"a": "1", "b": ""}), ("two", {"a": "2"}), ("three", {})):
        api.objects.create(config_map(name, labels=labels))
    _, found = await ask(api, "GET", f"{MAPS}?{query}")
    assert sorted(item["metadata"]["name"] for item in found["items"]) == sorted(names)


async def test_a_watch_tells_of_changes_after_its_version_and_of_objects_that_leave_the_selector(
    api: ApiServer,
) -> None:
    api.objects.create(config_map("a", labels={"on": "1"}))
    _, found = await ask(api, "GET", MAPS)
    version = found["metadata"]["resourceVersion"]
    api.objects.create(config_map("b", labels={"on": "1"}))
    api.objects.change("ConfigMap", "a", lambda o: o["metadata"].update(labels={}))
    query = f"watch=1&labelSelector=on&resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true"
    assert [(e["type"], e["object"]["metadata"].get("name")) for e in await watched(api, query)] == [
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("BOOKMARK", None),
    ]


async def test_a_watch_from_before_the_compaction_is_told_410(api: ApiServer) -> None:
    api.objects.create(config_map("a"))
    api.objects.compact()
    (event,) = await watched(api, "watch=1&resourceVersion=1")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


async def test_owned_objects_go_with_their_owner_and_hold_it_where_it_is_deleted_in_foreground(
    api: ApiServer,
) -> None:
    owner = api.objects.create({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": "j"}})
    reference = {"uid": owner["metadata"]["uid"], "kind": "Job", "name": "j", "apiVersion": "batch/v1"}
    pod = {"kind": "Pod", "metadata": {"name": "p", "ownerReferences": [reference]}}
    api.objects.create({**pod, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}})
    api.objects.create({"kind": "Secret", "metadata": {"name": "s", "ownerReferences": [reference]}})
    path = "/apis/batch/v1/namespaces/default/jobs/j"
    await ask(api, "DELETE", path, json={"propagationPolicy": "Foreground"})
    assert api.objects.all("Secret") == []
    assert api.objects.get("Job", "j")["metadata"]["deletionTimestamp"]
    assert api.objects.get("Pod", "p")["metadata"]["deletionGracePeriodSeconds"] == 30
    api.objects.remove("Pod", "p")
    assert api.objects.all("Job") == []


async def test_faults_fail_as_many_requests_as_they_say(api: ApiServer) -> None:
    api.faults.add(throttled(3, verb="get"), Fault("create", "configmaps", how="drop"))
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{api.url}{MAPS}/a") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "3")
        with pytest.raises(aiohttp.ClientError):
            await session.post(f"{api.url}{MAPS}", json=config_map("a"))
    assert (await ask(api, "GET", f"{MAPS}/a"))[0] == 200
    assert api.calls_made() == ["create configmaps", "get configmaps"]


async def watched(api: ApiServer, query: str) -> list[JSON]:
    async with aiohttp.ClientSession() as session, session.get(f"{api.url}{MAPS}?{query}") as response:
        return [json.loads(line) async for line in response.content]
