"""Edits of the routes file, restarts of the gateway, and a Triton that goes and comes back."""

import asyncio
import json
import random
import time
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conch.v1 import models_pb2
from services.gateway.routes import RoutesFile
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack, gateway
from tests.contract.versions import damage, publish, route

State = models_pb2.Version


@pytest.fixture(autouse=True)
def repository(tmp_path: Path) -> Path:
    """Versions 1 and 2 of "sentiment"."""
    folder = tmp_path / "repository"
    publish(folder, 1)
    publish(folder, 2)
    return folder


def write(home: Path, *routes: models_pb2.Route) -> None:
    RoutesFile(home / "routes.json").write(models_pb2.Routes(routes=routes))


async def changes(stack: Stack) -> list[models_pb2.RouteChange]:
    return list((await stack.models.ListRouteChanges(models_pb2.ListRouteChangesRequest())).changes)


async def problem_with(stack: Stack, words: str) -> models_pb2.GetRoutesResponse:
    """Returns what GetRoutes says once its problem holds `words`."""
    async with asyncio.timeout(10):
        while True:
            answer = await stack.models.GetRoutes(models_pb2.GetRoutesRequest())
            if words in answer.problem and (words or not answer.problem):
                return answer
            await asyncio.sleep(0.02)


async def until_refused(stack: Stack, words: str) -> None:
    """Calls until a call is refused with `words`."""
    async with asyncio.timeout(10):
        while True:
            try:
                await stack.classify()
            except grpc.aio.AioRpcError as error:
                if words in (error.details() or ""):
                    return
            await asyncio.sleep(0.02)


async def restart(triton: FakeTriton) -> None:
    """Kills the Triton; the new one is empty."""
    await triton.die()
    triton.loaded.clear()
    await triton.start()


async def test_an_edited_file_takes_hold_within_a_second_and_is_in_the_ledger(
    tmp_path: Path, triton: FakeTriton
) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1), actor="anna")
        started = time.monotonic()
        write(tmp_path, route(v2=1))
        await stack.until_health("sentiment@2", SERVING)
        assert time.monotonic() - started < 1.0
        assert (await stack.classify()).version == 2
        newest = (await changes(stack))[0]
        assert (newest.sequence, newest.actor) == (2, "file")
        assert (newest.before, newest.after) == (route(v1=1), route(v2=1))


async def test_what_set_route_wrote_is_no_second_change(tmp_path: Path, triton: FakeTriton) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        for version in ("v1", "v2", "v1"):
            await stack.set_route(route(**{version: 1}))
        publish(tmp_path / "repository", 1, model="topic")
        write(tmp_path, route(v1=1), route("topic", v1=1))
        await stack.until_health("topic@1", SERVING)
        assert [c.actor for c in await changes(stack)] == ["file", "unknown", "unknown", "unknown"]


@pytest.mark.parametrize("content", ["", "{", '{"routes": [{"model": "sentiment"}]}', "\x00\xff"])
async def test_a_broken_edit_keeps_the_old_routes_and_shows(
    tmp_path: Path, triton: FakeTriton, content: str
) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        (tmp_path / "routes.json").write_text(content, encoding="latin-1")
        answer = await problem_with(stack, "the old routes hold")
        assert list(answer.routes.routes) == [route(v1=1)]
        assert (await stack.classify()).version == 1
        write(tmp_path, route(v2=1))
        await problem_with(stack, "")
        assert (await stack.classify()).version == 2


async def test_a_deleted_file_keeps_the_old_routes(tmp_path: Path, triton: FakeTriton) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        write(tmp_path, route(v1=1))
        await stack.until_health("sentiment", SERVING)
        (tmp_path / "routes.json").unlink()
        await problem_with(stack, "cannot be read")
        assert (await stack.classify()).version == 1


async def test_an_edit_to_a_damaged_version_keeps_the_old_route(tmp_path: Path, triton: FakeTriton) -> None:
    damage(publish(tmp_path / "repository", 3) / "model.onnx")
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        write(tmp_path, route(v3=1))
        answer = await problem_with(stack, "sentiment@3")
        assert "damaged" in answer.problem
        assert list(answer.routes.routes) == [route(v1=1)]
        assert (await stack.classify()).version == 1


async def test_a_model_taken_out_of_the_file_is_unloaded(tmp_path: Path, triton: FakeTriton) -> None:
    publish(tmp_path / "repository", 1, model="topic")
    async with gateway(tmp_path, triton.address) as stack:
        write(tmp_path, route(v1=1), route("topic", v1=1))
        await stack.until_health("topic", SERVING)
        await stack.until_health("sentiment", SERVING)
        write(tmp_path, route("topic", v1=1))
        await triton.until(lambda: triton.unloads == ["sentiment"])
        await stack.until_health("sentiment", NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError, match="routed: topic"):
            await stack.classify()


async def test_a_restarted_gateway_serves_what_it_served_and_goes_on_with_the_ledger(
    tmp_path: Path, triton: FakeTriton
) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=3, v2=1), actor="anna")
    async with gateway(tmp_path, triton.address) as stack:
        await stack.until_health("sentiment", SERVING)
        assert (await stack.classify()).model == "sentiment"
        assert [c.actor for c in await changes(stack)] == ["anna"]
        assert (await stack.set_route(route(v2=1))).sequence == 2


async def test_an_edit_made_while_the_gateway_was_down_is_in_the_ledger(
    tmp_path: Path, triton: FakeTriton
) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1), actor="anna")
    write(tmp_path, route(v2=1))
    async with gateway(tmp_path, triton.address) as stack:
        await stack.until_health("sentiment", SERVING)
        newest = (await changes(stack))[0]
        assert (newest.sequence, newest.actor, newest.before) == (2, "file", route(v1=1))


async def test_at_start_up_one_damaged_version_does_not_keep_the_rest_from_serving(
    tmp_path: Path, triton: FakeTriton
) -> None:
    damage(publish(tmp_path / "repository", 3) / "model.onnx")
    publish(tmp_path / "repository", 1, model="topic", shift=1.0)
    write(tmp_path, route(v1=1, v3=1), route("topic", v1=1))
    async with gateway(tmp_path, triton.address, chance=random.Random(2)) as stack:
        await stack.until_health("sentiment@1", SERVING)
        assert {(await stack.classify()).version for _ in range(20)} == {1}
        assert await stack.check("sentiment") == NOT_SERVING
        assert stack.metrics.registry.get_sample_value(
            "conch_route_fallbacks_total", {"model": "sentiment", "version": "3"}
        )
        with pytest.raises(grpc.aio.AioRpcError, match="topic@1: it did not prove itself") as caught:
            await stack.classify("topic")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        # SetRoute is how a person gets out of it.
        await stack.set_route(route(v1=1))
        assert await stack.check("sentiment") == SERVING


async def test_a_gateway_that_starts_before_triton_waits_for_it(tmp_path: Path, triton: FakeTriton) -> None:
    await triton.die()
    write(tmp_path, route(v1=1))
    async with gateway(tmp_path, triton.address) as stack:
        await stack.until_health("sentiment@1", NOT_SERVING)
        with pytest.raises(grpc.aio.AioRpcError, match="being loaded") as caught:
            await stack.classify()
        status = rpc_status.from_call(caught.value)
        assert any(d.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for d in status.details)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stack.set_route(route(v2=1))
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        await triton.start()
        await stack.until_health("sentiment", SERVING)
        assert (await stack.classify()).version == 1


async def test_a_triton_that_died_is_noticed_without_a_call_and_all_is_loaded_again(
    tmp_path: Path, triton: FakeTriton
) -> None:
    publish(tmp_path / "repository", 1, model="topic")
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1, v2=0))
        await stack.set_route(route("topic", v1=1))
        await triton.die()
        triton.loaded.clear()
        await stack.until_health("sentiment@2", NOT_SERVING)
        await stack.until_health("topic", NOT_SERVING)
        await triton.start()
        await stack.until_health("sentiment", SERVING)
        await stack.until_health("topic", SERVING)
        assert triton.loaded == {"sentiment": {1, 2}, "topic": {1}}
        assert (await stack.classify(version=2)).version == 2


async def test_a_triton_that_restarted_between_two_looks_is_noticed_by_a_failing_call(
    tmp_path: Path, triton: FakeTriton
) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        await restart(triton)
        seen: set[grpc.StatusCode] = set()
        async with asyncio.timeout(10):
            while True:
                try:
                    await stack.classify()
                except grpc.aio.AioRpcError as error:
                    seen.add(error.code())
                    await asyncio.sleep(0.01)
                    continue
                if seen:
                    break
        assert seen == {grpc.StatusCode.UNAVAILABLE}


async def test_what_came_back_wrong_does_not_serve(tmp_path: Path, triton: FakeTriton) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        right = triton.logits
        triton.logits = lambda ids, mask: right(ids, mask) + 1
        await restart(triton)
        await stack.until_health("sentiment", NOT_SERVING)
        request = models_pb2.GetVersionRequest(model="sentiment", version=1)
        await until_refused(stack, "did not prove itself")
        assert (await stack.models.GetVersion(request)).version.state == State.STATE_FAILED
        assert await stack.check("sentiment@1") == NOT_SERVING
        triton.logits = right
        await stack.set_route(route(v1=1))
        assert (await stack.classify()).version == 1


async def test_an_edit_that_triton_could_not_take_is_taken_when_it_is_back(
    tmp_path: Path, triton: FakeTriton
) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        await triton.die()
        triton.loaded.clear()
        write(tmp_path, route(v2=1))
        await problem_with(stack, "the old route holds")
        await triton.start()
        await stack.until_health("sentiment@2", SERVING)
        assert (await stack.classify()).version == 2
        await problem_with(stack, "")


async def test_the_file_stays_readable_for_people(tmp_path: Path, triton: FakeTriton) -> None:
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=9, v2=1))
    assert json.loads((tmp_path / "routes.json").read_text()) == {
        "routes": [
            {
                "model": "sentiment",
                "versions": [{"version": "1", "weight": 9}, {"version": "2", "weight": 1}],
            }
        ]
    }


async def test_a_failed_version_that_was_cured_serves_without_anybodys_help(
    tmp_path: Path, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.local_serving._RETRY_FAILED_SECONDS", 0.0)
    triton.load_failures["sentiment"] = "no memory left"
    write(tmp_path, route(v1=1))
    async with gateway(tmp_path, triton.address) as stack:
        await until_refused(stack, "no memory left")
        triton.load_failures.clear()
        await stack.until_health("sentiment", SERVING)


async def test_a_triton_that_forgets_what_it_loaded_is_not_the_versions_fault(
    tmp_path: Path, triton: FakeTriton
) -> None:
    triton.repository = None  # takes every load and holds nothing
    write(tmp_path, route(v1=1))
    async with gateway(tmp_path, triton.address) as stack:
        await triton.until(lambda: len(triton.loads) > 1)
        await until_refused(stack, "is being loaded")
        triton.repository = tmp_path / "staged"
        await stack.until_health("sentiment", SERVING)
