"""ModelService against a fake Triton: what serves, what never serves, and what callers are told."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from conch.v1 import job_pb2, models_pb2
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack, gateway
from tests.contract.versions import damage, publish, route

State = models_pb2.Version


@pytest.fixture
async def stack(tmp_path: Path, triton: FakeTriton) -> AsyncIterator[Stack]:
    async with gateway(tmp_path, triton.address, chance=random.Random(5)) as started:
        yield started


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Versions 1 and 2 of "sentiment"."""
    folder = tmp_path / "repository"
    publish(folder, 1)
    publish(folder, 2)
    return folder


def beside(**more: Any) -> models_pb2.Route:
    """Returns a route to version 1 with something more than versions."""
    made = models_pb2.Route(**more)
    made.MergeFrom(route(v1=1))
    return made


async def refusal(call: object) -> tuple[grpc.StatusCode, str, str]:
    """Returns code, reason and message of the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return caught.value.code(), info.reason, status.message


async def state_of(stack: Stack, version: int, model: str = "sentiment") -> models_pb2.Version:
    request = models_pb2.GetVersionRequest(model=model, version=version)
    return (await stack.models.GetVersion(request)).version


async def test_a_routed_version_is_proven_then_answers(stack: Stack, repository: Path) -> None:
    change = await stack.set_route(route(v1=1), actor="anna", reason="first")
    assert (change.sequence, change.actor, change.reason) == (1, "anna", "first")
    assert not change.HasField("before")
    served = await stack.classify()
    assert (served.version, served.precision, served.runtime) == (
        1,
        job_pb2.PRECISION_FP32,
        job_pb2.RUNTIME_ONNXRUNTIME,
    )
    version = await state_of(stack, 1)
    assert version.state == State.STATE_SERVING
    assert served.artifact_digest == version.digest
    assert not served.uncertified
    assert await stack.check("sentiment@1") == SERVING
    assert await stack.check("sentiment") == SERVING
    assert (await state_of(stack, 2)).state == State.STATE_PUBLISHED


async def test_a_new_route_replaces_the_old_and_unloads_what_it_left(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    await stack.set_route(route(v1=1))
    change = await stack.set_route(route(v2=1))
    assert change.before == route(v1=1)
    assert (await stack.classify()).version == 2
    await triton.until(lambda: triton.loaded["sentiment"] == {2})
    assert await stack.check("sentiment@1") == NOT_SERVING
    assert (await state_of(stack, 1)).state == State.STATE_PUBLISHED
    assert not (stack.home / "staged" / "sentiment" / "1").exists()


async def test_wrong_golden_answers_never_serve_and_the_old_route_holds(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    publish(repository, 3, shift=0.01)
    await stack.set_route(route(v1=1))
    code, reason, message = await refusal(stack.set_route(route(v1=90, v3=10)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PROVEN")
    assert "sentiment@3" in message
    assert "max_abs_logit_difference" in message
    failed = await state_of(stack, 3)
    assert failed.state == State.STATE_FAILED
    assert "max_abs_logit_difference" in failed.state_reason
    assert await stack.check("sentiment@3") == NOT_SERVING
    assert await stack.check("sentiment") == SERVING
    assert (await stack.models.GetRoutes(models_pb2.GetRoutesRequest())).routes.routes[0] == route(v1=1)
    assert [(await stack.classify()).version for _ in range(20)] == [1] * 20
    assert triton.loaded["sentiment"] == {1}


def _fail(certificate: models_pb2.Certificate) -> None:
    certificate.verdicts[0].passed = False
    certificate.verdicts[0].figures[0].value = 9
    certificate.verdicts[0].figures[0].passed = False


@pytest.mark.parametrize("fault", ["missing certificate", "failed certificate", "damaged byte", "foreign"])
async def test_an_unproven_file_never_reaches_triton(stack: Stack, repository: Path, fault: str) -> None:
    await stack.set_route(route(v1=1))
    if fault == "missing certificate":
        publish(repository, 3, certified=False)
    elif fault == "failed certificate":
        publish(repository, 3, certificate=_fail)
    elif fault == "foreign":
        publish(
            repository, 3, certificate=lambda made: made.verdicts[0].files.update({"model.onnx": "0" * 64})
        )
    else:
        damage(publish(repository, 3) / "model.onnx")
    code, _, message = await refusal(stack.set_route(route(v3=1)))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "3" in message
    assert (await state_of(stack, 3)).state == State.STATE_FAILED
    assert (await stack.classify()).version == 1
    assert not (stack.home / "staged" / "sentiment" / "3").exists()


async def test_an_override_is_explicit_and_shows_in_answers(
    tmp_path: Path, triton: FakeTriton, repository: Path
) -> None:
    publish(repository, 3, certified=False)
    allowed = frozenset({"sentiment@3"})
    async with gateway(tmp_path, triton.address, allow_uncertified=allowed) as stack:
        await stack.set_route(route(v3=1))
        assert (await stack.classify()).uncertified


async def test_what_triton_refuses_is_said_in_tritons_words(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    await stack.set_route(route(v1=1))
    triton.load_failures["sentiment"] = "the graph has no nodes"
    code, reason, message = await refusal(stack.set_route(route(v2=1)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LOAD_REFUSED")
    assert "the graph has no nodes" in message
    assert (await stack.classify()).version == 1


async def test_a_triton_of_another_runtime_is_refused(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    triton.backend = "openvino"
    code, reason, message = await refusal(stack.set_route(route(v1=1)))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_RUNTIME")
    assert "CONCH_RUNTIME" in message


async def test_what_does_not_exist_is_not_found(stack: Stack, repository: Path) -> None:
    assert (await refusal(stack.set_route(route(v9=1))))[0] == grpc.StatusCode.NOT_FOUND
    assert (await refusal(stack.set_route(route("strange", v1=1))))[0] == grpc.StatusCode.NOT_FOUND
    assert (await refusal(state_of(stack, 9)))[0] == grpc.StatusCode.NOT_FOUND
    request = models_pb2.GetModelRequest(name="strange")
    assert (await refusal(stack.models.GetModel(request)))[0] == grpc.StatusCode.NOT_FOUND
    code, _, message = await refusal(stack.classify("strange"))
    assert code == grpc.StatusCode.NOT_FOUND
    await stack.set_route(route(v1=1))
    code, _, message = await refusal(stack.classify("strange"))
    assert "routed: sentiment" in message
    code, _, message = await refusal(stack.classify(version=2))
    assert (code, "routed: 1" in message) == (grpc.StatusCode.NOT_FOUND, True)


async def test_bad_input_is_named_by_field(stack: Stack, repository: Path) -> None:
    token = "bm9wZQ=="
    for call, field in [
        (stack.set_route(models_pb2.Route()), "route.model"),
        (stack.set_route(route(v1=0)), "route.versions"),
        (stack.set_route(beside(pool="gpu")), "route.pool: no pool 'gpu'; here is one pool"),
        (stack.set_route(beside(shadow=1)), "route.shadow: version 1 answers callers already"),
        (stack.set_route(route(v1=1), actor="a" * 257), "actor"),
        (stack.set_route(route(v1=1), reason="a" * 4097), "reason"),
        (stack.models.ListModels(models_pb2.ListModelsRequest(page_size=1001)), "page_size"),
        (stack.models.ListModels(models_pb2.ListModelsRequest(page_token=token)), "page_token"),
        (stack.models.ListModels(models_pb2.ListModelsRequest(page_token="%%%")), "page_token"),
        (stack.models.ListRouteChanges(models_pb2.ListRouteChangesRequest(page_token=token)), "page_token"),
        (stack.models.GetModel(models_pb2.GetModelRequest()), "name"),
        (stack.models.GetVersion(models_pb2.GetVersionRequest(model="../x", version=1)), "model"),
        (stack.models.GetVersion(models_pb2.GetVersionRequest(model="sentiment")), "version"),
    ]:
        code, _, message = await refusal(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert field in message


async def test_models_are_listed_in_pages_with_task_versions_and_route(
    stack: Stack, repository: Path
) -> None:
    for model in ("intent", "topic"):
        publish(repository, 1, model=model)
    await stack.set_route(route(v1=1))
    first = await stack.models.ListModels(models_pb2.ListModelsRequest(page_size=2))
    assert [m.name for m in first.models] == ["intent", "sentiment"]
    assert list(first.models[1].versions) == [2, 1]
    assert first.models[1].task == "text-classification"
    assert first.models[1].route == route(v1=1)
    assert not first.models[0].HasField("route")
    rest = await stack.models.ListModels(
        models_pb2.ListModelsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [m.name for m in rest.models] == ["topic"]
    assert not rest.next_page_token


async def test_a_shadow_is_part_of_the_route_until_it_is_set_anew(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    change = await stack.set_route(beside(shadow=2))
    assert change.after == beside(shadow=2)
    await triton.until(lambda: triton.loaded["sentiment"] == {1, 2})
    held = (await stack.models.GetRoutes(models_pb2.GetRoutesRequest())).routes
    assert held.routes[0].shadow == 2
    assert routes_file(stack).routes[0] == beside(shadow=2)
    assert (await stack.set_route(route(v1=1))).before == beside(shadow=2)
    assert not routes_file(stack).routes[0].shadow


def routes_file(stack: Stack) -> models_pb2.Routes:
    """Returns the routes on disk."""
    return json_format.Parse(stack.routes_file.read_text(), models_pb2.Routes())


async def test_the_ledger_is_paged_newest_first(stack: Stack, repository: Path) -> None:
    for chosen in (route(v1=1), route(v2=1), route(v1=1, v2=1)):
        await stack.set_route(chosen, actor="anna")
    request = models_pb2.ListRouteChangesRequest(page_size=2)
    first = await stack.models.ListRouteChanges(request)
    request.page_token = first.next_page_token
    rest = await stack.models.ListRouteChanges(request)
    assert [c.sequence for c in [*first.changes, *rest.changes]] == [3, 2, 1]
    assert not rest.next_page_token
    other = await stack.models.ListRouteChanges(models_pb2.ListRouteChangesRequest(model="other"))
    assert not other.changes


async def test_shares_follow_the_weights_and_weight_zero_answers_who_names_it(
    stack: Stack, repository: Path
) -> None:
    await stack.set_route(route(v1=1, v2=0))
    assert {(await stack.classify()).version for _ in range(20)} == {1}
    assert (await stack.classify(version=2)).version == 2
    await stack.set_route(route(v1=1, v2=1))
    assert {(await stack.classify()).version for _ in range(40)} == {1, 2}


async def test_a_roll_back_to_a_routed_version_loads_nothing(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    await stack.set_route(route(v1=0, v2=1))
    loads, calls = len(triton.loads), len(triton.calls)
    await stack.set_route(route(v1=1, v2=0))
    assert (len(triton.loads), len(triton.calls)) == (loads, calls)
    assert (await stack.classify()).version == 1


async def test_a_roll_back_within_the_grace_finds_the_old_version_loaded(
    tmp_path: Path, triton: FakeTriton, repository: Path
) -> None:
    async with gateway(tmp_path, triton.address, grace_seconds=60) as stack:
        await stack.set_route(route(v1=1))
        await stack.set_route(route(v2=1))
        assert triton.loaded["sentiment"] == {1, 2}
        loads = len(triton.loads)
        await stack.set_route(route(v1=1))
        assert len(triton.loads) == loads
        assert (await stack.classify()).version == 1


async def test_concurrent_changes_happen_one_after_the_other(stack: Stack, repository: Path) -> None:
    changes = await asyncio.gather(*(stack.set_route(route(**{f"v{1 + n % 2}": 1})) for n in range(6)))
    ordered = sorted(changes, key=lambda c: c.sequence)
    assert [c.sequence for c in ordered] == [1, 2, 3, 4, 5, 6]
    for before, after in itertools.pairwise(ordered):
        assert after.before == before.after
    routes = (await stack.models.GetRoutes(models_pb2.GetRoutesRequest())).routes
    assert routes.routes[0] == ordered[-1].after
    assert (await stack.classify()).version == ordered[-1].after.versions[0].version


async def test_a_caller_who_gives_up_leaves_the_old_route(
    stack: Stack, repository: Path, triton: FakeTriton
) -> None:
    await stack.set_route(route(v1=1))
    triton.hold()
    call = stack.models.SetRoute(models_pb2.SetRouteRequest(route=route(v2=1)))
    seen = len(triton.calls)
    await triton.until(lambda: len(triton.calls) > seen)
    call.cancel()
    await triton.until(lambda: triton.num_cancelled > 0)
    triton.release()
    assert (await stack.classify()).version == 1
    await stack.set_route(route(v2=1))
    assert (await stack.classify()).version == 2


async def test_a_cluster_owns_its_routes(tmp_path: Path, triton: FakeTriton, repository: Path) -> None:
    async with gateway(tmp_path, triton.address, routes_readonly=True) as stack:
        code, reason, _ = await refusal(stack.set_route(route(v1=1)))
        assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTES_READONLY")


async def test_no_call_fails_while_routes_change(stack: Stack, repository: Path) -> None:
    stack.serving._grace_seconds = 0.2
    await stack.set_route(route(v1=1))
    stop = asyncio.Event()

    async def caller() -> int:
        answered = 0
        while not stop.is_set():
            await stack.classify()
            answered += 1
        return answered

    callers = [asyncio.create_task(caller()) for _ in range(4)]
    for n in range(4):
        await stack.set_route(route(**{f"v{1 + (n + 1) % 2}": 1}))
    stop.set()
    assert sum(await asyncio.gather(*callers)) > 0
