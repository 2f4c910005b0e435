"""Gateways of a cluster: they follow one ConfigMap, change it, and stand by what holds if nobody answers."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest

from conch.v1 import models_pb2
from services.cluster.client import connect
from services.cluster.revisions import patch_of, revision_of
from services.cluster.routes import RoutesConfigMap
from services.errors import NotReady
from tests.cluster import recorded
from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault, conflict, throttled
from tests.cluster.gateways import (
    ROUTES,
    gateways,
    lines,
    mount,
    refusal,
    release,
    shifted,
    until,
    until_held,
    until_problem,
    written,
)
from tests.contract.gateway.stack import SERVING
from tests.contract.versions import publish, route


@pytest.fixture(autouse=True)
def cluster(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """The cluster that gateways believe to be in."""
    monkeypatch.setenv("CONCH_KUBERNETES_URL", api.url)
    monkeypatch.setattr("services.cluster.ledger._SPREAD_SECONDS", 0.0)
    return api


async def test_every_gateway_follows_a_release(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1, v2=0), actor="helm", reason="helm revision 1")
    async with gateways(tmp_path) as stacks:
        await shifted(stacks, 1)
        started = time.monotonic()
        release(api, route(v1=0, v2=1), actor="helm", reason="helm revision 2")
        await until_held(stacks, route(v1=0, v2=1))
        print(f"\n{time.monotonic() - started:.3f} s from the release to two gateways on the new route")
        for stack in stacks:
            assert (await stack.classify()).version == 2


async def test_a_route_set_at_one_gateway_holds_at_all_and_is_told_to_people(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, route(v1=1), route("topic", v1=1), actor="helm", reason="helm revision 1")
    async with gateways(tmp_path) as stacks:
        await shifted(stacks, 1)
        change = await stacks[0].set_route(route(v2=1), actor="anna", reason="the new one")
        recorded.check("gateway", api.calls_made())
        assert (change.sequence, change.before, change.after) == (3, route(v1=1), route(v2=1))
        await shifted(stacks, 2)
        assert written(api).routes[1] == route("topic", v1=1)
        annotations = api.objects.get("ConfigMap", ROUTES)["metadata"]["annotations"]
        assert (annotations["conch/actor"], annotations["conch/reason"]) == ("anna", "the new one")


async def test_a_version_that_does_not_prove_itself_is_not_written(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        publish(stack.home / "repository", 3, shift=0.01)
        code, message = await refusal(stack.set_route(route(v3=1)))
        assert (code, "sentiment@3" in message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
        assert list(written(api).routes) == [route(v1=1)]


async def test_a_release_with_a_bad_version_changes_nothing_and_shows(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1), actor="helm", reason="helm revision 1")
    async with gateways(tmp_path, versions=1) as stacks:
        await shifted(stacks, 1)
        for stack in stacks:
            publish(stack.home / "repository", 2, shift=0.01)
        release(api, route(v2=1), actor="helm", reason="helm revision 2")
        for stack in stacks:
            answer = await until_problem(stack, "sentiment@2")
            assert list(answer.routes.routes) == [route(v1=1)]
            assert (await stack.classify()).version == 1
        release(api, route(v1=1), actor="helm", reason="helm revision 3")
        for stack in stacks:
            await until_problem(stack, "")
        assert [c.after for c in lines(api)] == [route(v1=1)]  # what never held is not in the ledger


@pytest.mark.parametrize("text", ["{", "", '{"routes": [{"model": "sentiment"}]}'])
async def test_broken_routes_keep_the_old_ones_and_show(tmp_path: Path, api: ApiServer, text: str) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        release(api, text=text)
        await until_problem(stack, "the old routes hold")
        assert (await stack.classify()).version == 1
        # SetRoute mends what cannot be read by what holds.
        await stack.set_route(route(v2=1))
        await until_problem(stack, "")
        assert list(written(api).routes) == [route(v2=1)]


async def test_a_deleted_configmap_keeps_the_old_routes_and_shows(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        api.objects.delete("ConfigMap", ROUTES)
        await until_problem(stack, f"there is no ConfigMap {ROUTES} in namespace default")
        assert (await stack.classify()).version == 1
        assert (await refusal(stack.set_route(route(v2=1))))[0] == grpc.StatusCode.FAILED_PRECONDITION
        release(api, route(v2=1))
        await shifted([stack], 2)


async def test_what_happened_while_the_watch_was_cut_or_expired_is_seen(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        api.faults.add(Fault("watch", "configmaps", how="gone"), throttled(verb="list"))
        api.cut_watches()
        api.objects.compact()
        release(api, route(v2=1))
        await shifted([stack], 2)
        api.cut_watches()
        release(api, route(v1=1))
        await until_held([stack], route(v1=1))


async def test_while_the_cluster_does_not_answer_at_the_start_the_mounted_file_holds(
    tmp_path: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cluster.routes._FIRST_ANSWER_SECONDS", 0.05)
    release(api, route(v2=1))
    api.faults.add(Fault(code=503, times=1_000_000))
    async with gateways(tmp_path, 1, routes_file=mount(tmp_path, route(v1=1))) as (stack,):
        await shifted([stack], 1)
        await until_problem(stack, "are not seen")
        assert (await refusal(stack.set_route(route(v2=1))))[0] == grpc.StatusCode.UNAVAILABLE
        assert (await stack.classify()).version == 1
        api.faults.clear()
        await shifted([stack], 2)
        await until_problem(stack, "")
        mount(tmp_path, route(v1=1))  # the kubelet's copy rules no more
        release(api, route(v2=9))
        await until(api, lambda: [c.after for c in lines(api)][-1:] == [route(v2=9)])
        assert (await stack.classify()).version == 2


async def test_when_the_cluster_goes_away_later_what_holds_stays(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        api.faults.add(Fault(code=503, times=1_000_000))
        api.cut_watches()
        await until_problem(stack, f"changes of ConfigMap {ROUTES} are not seen")
        code, message = await refusal(stack.set_route(route(v2=1)))
        assert (code, "503" in message) == (grpc.StatusCode.UNAVAILABLE, True)
        assert (await stack.classify()).version == 1
        api.faults.clear()
        await until_problem(stack, "")
        assert list(written(api).routes) == [route(v1=1)]


async def test_a_conflict_is_read_again_and_written_again(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1), route("topic", v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        api.faults.add(conflict(verb="patch", resource="configmaps", name=ROUTES, times=3))
        await stack.set_route(route(v2=1))
        assert list(written(api).routes) == [route(v2=1), route("topic", v1=1)]


async def test_a_lost_answer_is_no_second_change(tmp_path: Path, api: ApiServer) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        for name in (ROUTES, "conch-ledger"):
            api.faults.add(Fault("patch", "configmaps", how="drop", name=name))
        assert (await stack.set_route(route(v2=1), actor="anna")).sequence == 2
        assert [c.actor for c in lines(api)] == ["helm", "anna"]


async def test_routes_set_at_once_through_two_gateways_are_both_in_the_ledger_and_one_holds_everywhere(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, route(v1=1, v2=1))
    async with gateways(tmp_path) as stacks:
        await until_held(stacks, route(v1=1, v2=1))
        for version in (1, 2):
            await asyncio.gather(*(s.until_health(f"sentiment@{version}", SERVING) for s in stacks))
        wanted = [route(v1=weight, v2=weight + 1) for weight in range(1, 7)]
        changes = await asyncio.gather(
            *(stacks[n % 2].set_route(one, actor=f"anna-{n}") for n, one in enumerate(wanted))
        )
        assert sorted(c.sequence for c in changes) == list(range(2, 8))
        newest = max(changes, key=lambda c: c.sequence)
        assert list(written(api).routes) == [newest.after]
        await until_held(stacks, newest.after)


async def test_a_route_keeps_its_pool_and_names_one_that_there_is(tmp_path: Path, api: ApiServer) -> None:
    here = route(v1=1, v2=0)
    here.pool, here.shadow = "cpu", 2
    release(api, here)
    address = "127.0.0.1:1"
    async with gateways(tmp_path, 1, pools={"cpu": {"address": address}, "gpu": {"address": address}}) as (
        stack,
    ):
        await until_held([stack], here)
        strange = route(v1=1)
        strange.pool = "tpu"
        code, message = await refusal(stack.set_route(strange))
        assert (code, "no pool 'tpu'; known: cpu, gpu" in message) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            True,
        )
        strange.pool, strange.shadow = "", 1
        code, message = await refusal(stack.set_route(strange))
        assert (code, "route.shadow" in message) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        release(api, strange)
        await until_problem(stack, "answers callers already")
        other = route(v1=1)
        other.pool = "tpu"
        release(api, other)
        assert list((await until_problem(stack, "no pool 'tpu'")).routes.routes) == [here]


async def test_the_routes_of_a_release_keep_their_author_below_those_of_people(api: ApiServer) -> None:
    release(api, route(v1=1), actor="ci", reason="build 7")
    source = RoutesConfigMap(connect(component="test"), ROUTES, mounted=Path("none"))
    try:
        for actor in ("anna", "berta"):
            change = models_pb2.RouteChange(actor=actor, after=route("topic", v1=1))
            async with source.writing(change, held=models_pb2.Routes()) as revision:
                assert (revision.actor, revision.reason) == ("ci", "build 7")
                assert revision.signed[-1].change == change
                assert revision.signed[-1].mark <= revision.number
                assert (revision.author_of("topic"), revision.author_of("sentiment")) == (actor, "ci")
        assert [s.change.actor for s in revision.signed] == ["anna", "berta"]
        obj = release(api, route(v2=1), actor="ci", reason="build 8")
        assert (revision_of(obj).actor, revision_of(obj).reason) == ("ci", "build 8")
        assert len(revision_of(obj).signed) == 2
    finally:
        await source._cluster.close()


async def test_without_a_cluster_around_it_a_gateway_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONCH_KUBERNETES_URL")
    with pytest.raises(NotReady, match="service account"):
        async with gateways(tmp_path, 1):
            pass
    with pytest.raises(NotReady, match="CONCH_ROUTES_CONFIGMAP"):
        async with gateways(tmp_path, 1, routes_configmap=""):
            pass


def test_the_newest_changes_stay_in_an_annotation_as_long_as_there_is_room(api: ApiServer) -> None:
    obj = release(api, route(v1=1))
    for n in range(60):
        change = models_pb2.RouteChange(actor=f"anna-{n}", reason="ü" * 4096, after=route(v1=1 + n))
        obj = api.objects.change(
            "ConfigMap",
            ROUTES,
            lambda present, c=change: merge(present, patch_of(present, c, models_pb2.Routes())),  # type: ignore[misc]
        )
        signed = revision_of(obj).signed
        assert signed[-1].change == change
    assert len(signed) < 20
    assert sum(len(value.encode()) for value in obj["metadata"]["annotations"].values()) < 256 << 10


def merge(obj: dict, patch: dict) -> None:  # type: ignore[type-arg]
    """Applies a patch of ConfigMaps."""
    obj["metadata"]["annotations"].update(patch["metadata"]["annotations"])
    obj["data"].update(patch["data"])
