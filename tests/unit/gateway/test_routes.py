"""The routes file: what it may say, how it is written, how an edit is seen, and the draw by weight."""

import asyncio
import os
import random
import stat
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from conch.v1 import models_pb2
from services import routes
from services.errors import InvalidRequest, NotReady
from services.gateway.routes import RoutesFile, Shares


def route(model: str, **weights: int) -> models_pb2.Route:
    """Returns a route; versions are written v1=90."""
    versions = [models_pb2.WeightedVersion(version=int(v[1:]), weight=w) for v, w in weights.items()]
    return models_pb2.Route(model=model, versions=versions)


def test_routes_are_read_as_people_write_them() -> None:
    text = '{"routes": [{"model": "b", "versions": [{"version": 2, "weight": 1}, {"version": "1"}]}, '
    text += '{"model": "a", "versions": [{"version": 1, "weight": 5}]}]}'
    read = routes.parse(text)
    assert [r.model for r in read.routes] == ["a", "b"]
    assert [v.version for v in read.routes[1].versions] == [1, 2]


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("{", "routes", "no conch.v1.Routes"),
        ('{"route": []}', "routes", "route"),
        (
            '{"routes": [{"model": "../x", "versions": [{"version": 1, "weight": 1}]}]}',
            "routes[0].model",
            "name",
        ),
        ('{"routes": [{"model": "m", "versions": []}]}', "routes[0].versions", "above 0"),
        ('{"routes": [{"model": "m", "versions": [{"version": 1}]}]}', "routes[0].versions", "above 0"),
        (
            '{"routes": [{"model": "m", "versions": [{"weight": 1}]}]}',
            "routes[0].versions[0].version",
            "count from 1",
        ),
        (
            '{"routes": [{"model": "m", "versions": [{"version": 1, "weight": 1000001}]}]}',
            "routes[0].versions[0].weight",
            "more than 1000000",
        ),
        ('{"routes": [{"model": "m", "versions": [{"version": 1, "weight": -1}]}]}', "routes", "weight"),
        (
            '{"routes": [{"model": "m", "versions": [{"version": 1, "weight": 1}, {"version": 1}]}]}',
            "routes[0].versions",
            "version 1 occurs more than once",
        ),
        (
            '{"routes": [{"model": "m", "versions": [{"version": 1, "weight": 1}], "shadow": 1}]}',
            "routes[0].shadow",
            "version 1 answers callers already",
        ),
        (
            '{"routes": [{"model": "m", "versions": [{"version": 1, "weight": 1}], "shadow": -1}]}',
            "routes",
            "shadow",
        ),
        (
            '{"routes": [{"model": "m", "versions": [{"version": 1, "weight": 1}]}, '
            '{"model": "m", "versions": [{"version": 2, "weight": 1}]}]}',
            "routes",
            "model m occurs more than once",
        ),
    ],
)
def test_a_bad_file_is_refused_by_field(text: str, field: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        routes.parse(text)
    assert field in {v.field for v in refused.value.violations}
    assert words in refused.value.message


def test_every_bad_field_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        routes.check(route("", v0=0), field="route")
    assert {v.field for v in refused.value.violations} == {
        "route.model",
        "route.versions",
        "route.versions[0].version",
    }


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    file = RoutesFile(tmp_path / "home" / "routes.json")
    file.write(models_pb2.Routes(routes=[route("b", v2=1, v1=0), route("a", v1=1)]))
    assert file.read().routes == models_pb2.Routes(routes=[route("a", v1=1), route("b", v1=0, v2=1)])
    assert [p.name for p in file.path.parent.iterdir()] == ["routes.json"]


def test_a_write_that_fails_leaves_the_old_routes(tmp_path: Path) -> None:
    file = RoutesFile(tmp_path / "routes.json")
    file.write(models_pb2.Routes(routes=[route("a", v1=1)]))
    (
        tmp_path / f".routes.json.{os.getpid()}.partial"
    ).mkdir()  # stands in the way also of root, whom no mode stops
    with pytest.raises(NotReady, match="cannot write"):
        file.write(models_pb2.Routes(routes=[route("a", v2=1)]))
    assert file.read().routes.routes[0].versions[0].version == 1
    assert stat.S_ISREG(file.path.stat().st_mode)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"routes\.json: cannot be read"):
        RoutesFile(tmp_path / "routes.json").read()


def test_one_route_is_replaced_and_the_others_stay() -> None:
    before = models_pb2.Routes(routes=[route("a", v1=1), route("b", v1=1)])
    after = routes.replace(before, route("b", v2=1))
    assert after == models_pb2.Routes(routes=[route("a", v1=1), route("b", v2=1)])


def test_pool_and_shadow_survive_whatever_is_done_with_a_route() -> None:
    shadowed = route("b", v2=1, v1=0)
    shadowed.pool, shadowed.shadow = "cpu", 1
    text = routes.text(models_pb2.Routes(routes=[shadowed, route("a", v1=1)]))
    read = routes.replace(routes.parse(text), route("a", v2=1))
    assert (read.routes[1].pool, read.routes[1].shadow) == ("cpu", 1)
    assert [v.version for v in read.routes[1].versions] == [1, 2]


def test_a_pool_is_one_that_there_is() -> None:
    here = route("m", v1=1)
    routes.check_pool(here, [], field="route")
    with pytest.raises(InvalidRequest, match=r"route\.pool: m needs a pool; known: cpu, gpu"):
        routes.check_pool(here, ["gpu", "cpu"], field="route")
    here.pool = "tpu"
    with pytest.raises(InvalidRequest, match="no pool 'tpu'; known: cpu, gpu"):
        routes.check_pool(here, ["gpu", "cpu"], field="route")
    with pytest.raises(InvalidRequest, match="no pool 'tpu'; here is one pool, and it has no name"):
        routes.check_pool(here, [], field="route")


async def test_a_route_that_cannot_be_recorded_is_taken_out_of_the_file_again(tmp_path: Path) -> None:
    file = RoutesFile(tmp_path / "routes.json")
    file.write(models_pb2.Routes(routes=[route("a", v1=1)]))
    change = models_pb2.RouteChange(after=route("a", v2=1))

    async def record() -> None:
        async with file.writing(change, held=models_pb2.Routes()) as written:
            assert written.routes == file.read().routes == models_pb2.Routes(routes=[change.after])
            raise NotReady("no room", reason="DISK_FULL")

    with pytest.raises(NotReady):
        await record()
    assert file.read().routes == models_pb2.Routes(routes=[route("a", v1=1)])


def test_shares_follow_the_weights_and_weight_zero_is_never_drawn() -> None:
    shares = Shares(route("m", v1=90, v2=10, v3=0).versions)
    drawn = Counter(shares.draw(chance) for chance in [random.Random(7)] for _ in range(2000))
    assert drawn.keys() == {1, 2}
    assert 150 < drawn[2] < 250


def test_the_draw_is_that_of_the_given_random() -> None:
    shares = Shares(route("m", v1=1, v2=1).versions)
    one, other = random.Random(1), random.Random(1)
    assert [shares.draw(one) for _ in range(50)] == [shares.draw(other) for _ in range(50)]


async def next_edit(looks: AsyncIterator[bool]) -> None:
    async with asyncio.timeout(5):
        while not await anext(looks):
            pass


async def test_an_edit_is_seen_and_no_edit_is_not(tmp_path: Path) -> None:
    file = RoutesFile(tmp_path / "routes.json")
    async with aclosing(file.looks()) as looks:
        assert await anext(looks)  # the first look, whatever there is
        file.write(models_pb2.Routes(routes=[route("a", v1=1)]))
        await next_edit(looks)
        (tmp_path / "other.json").write_text("{}")
        assert not await anext(looks)
        file.path.write_text("{")  # in place, as some editors do
        await next_edit(looks)
        file.path.unlink()
        await next_edit(looks)


async def test_a_swapped_folder_link_is_an_edit(tmp_path: Path) -> None:
    """So a Kubernetes ConfigMap changes."""
    for name, version in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        RoutesFile(tmp_path / name / "routes.json").write(
            models_pb2.Routes(routes=[route("a", **{f"v{version}": 1})])
        )
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "routes.json").symlink_to("..data/routes.json")
    file = RoutesFile(tmp_path / "routes.json")
    async with aclosing(file.looks()) as looks:
        await anext(looks)
        (tmp_path / "..new").symlink_to("two")
        (tmp_path / "..new").rename(tmp_path / "..data")
        await next_edit(looks)
    assert file.read().routes.routes[0].versions[0].version == 2
