"""The gateway over the real Triton: versions come, go and come back; what is damaged never serves."""

import asyncio
import functools
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from conch.v1 import job_pb2, models_pb2
from services.converter import triton_config
from services.tasks import find_task
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack, gateway
from tests.contract.versions import LABELS, damage, publish, route
from tests.integration.triton import RunningTriton, finished, free_port, started

TASK = find_task("text-classification")
INPUTS = TASK.inputs[:2]  # this model takes no token types
VOCABULARY = 30522


@functools.cache
def graph(seed: int) -> bytes:
    """Returns a classifier that averages one vector a token under the mask, and projects."""
    rng = np.random.default_rng(seed)
    weights = {
        "table": rng.normal(size=(VOCABULARY, 8)).astype(np.float32),
        "projection": rng.normal(size=(8, len(LABELS))).astype(np.float32),
        "last": np.array([2], dtype=np.int64),
        "first": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "first"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "first"], ["count"], keepdims=1),
        helper.make_node("Div", ["sum", "count"], ["mean"]),
        helper.make_node("MatMul", ["mean", "projection"], ["logits"]),
    ]
    tokens = ["batch", "sequence"]
    made = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info(spec.name, TensorProto.INT64, tokens) for spec in INPUTS],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "label"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return finished(made).SerializeToString()


def logits(seed: int) -> Any:
    """Returns what `graph(seed)` answers in process."""
    session = onnxruntime.InferenceSession(graph(seed), providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0]


def add(home: Path, version: int, *, model: str = "sentiment", broken: bool = False, **more: Any) -> Path:
    """Publishes a version of its own weights; a `broken` one is certified, but is no ONNX."""
    data = b"no graph" if broken else graph(version)
    return publish(
        home / "repository",
        version,
        model=model,
        files={"model.onnx": data, "openvino.onnx": data},
        configs=triton_config.config_texts(model, TASK, INPUTS),
        logits=logits(version),
        **more,
    )


@pytest.fixture
def triton(tmp_path: Path) -> Iterator[RunningTriton]:
    """A Triton of the test's own: these tests kill it."""
    with started(tmp_path) as running:
        yield running


def loaded(triton: RunningTriton, model: str = "sentiment") -> set[str]:
    """Returns the versions that Triton says are ready."""
    index = triton.client.get_model_repository_index()
    return {m.version for m in index.models if m.name == model and m.state == "READY"}


async def until_loaded(triton: RunningTriton, versions: set[str]) -> None:
    """Waits for what Triton tells nobody."""
    async with asyncio.timeout(10):
        while True:
            if await asyncio.to_thread(loaded, triton) == versions:
                return
            await asyncio.sleep(0.05)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_a_version_comes_beside_the_one_that_serves_without_a_failing_call(
    tmp_path: Path, triton: RunningTriton
) -> None:
    add(tmp_path, 1)
    add(tmp_path, 2)
    async with gateway(tmp_path, triton.address, grace_seconds=0.3) as stack:
        await stack.set_route(route(v1=1))
        stop, answers = asyncio.Event(), asyncio.Queue[int]()

        async def caller() -> None:
            while not stop.is_set():
                answers.put_nowait((await stack.classify()).version)

        async def until_answered_by(version: int) -> None:
            while await answers.get() != version:
                pass

        callers = [asyncio.create_task(caller()) for _ in range(3)]
        for chosen, wanted in ((route(v1=1, v2=1), 2), (route(v2=1), 2), (route(v1=1), 1)):
            await stack.set_route(chosen)
            async with asyncio.timeout(30):
                await until_answered_by(wanted)
        stop.set()
        await asyncio.gather(*callers)
        assert (await stack.classify()).version == 1


async def test_what_is_no_longer_routed_leaves_triton(tmp_path: Path, triton: RunningTriton) -> None:
    for version in (1, 2):
        add(tmp_path, version)
    add(tmp_path, 1, model="topic")
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route("topic", v1=1))
        await stack.set_route(route(v1=1))
        await stack.set_route(route(v2=1))
        await until_loaded(triton, {"2"})
        assert loaded(triton, "topic") == {"1"}
        assert (await stack.classify("topic")).model == "topic"


async def test_what_triton_cannot_load_never_serves_and_the_rest_goes_on(
    tmp_path: Path, triton: RunningTriton
) -> None:
    add(tmp_path, 1)
    add(tmp_path, 2, broken=True)
    add(tmp_path, 3)
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        code, words = await refusal(stack.set_route(route(v1=1, v2=1)))
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert "sentiment@2" in words
        assert loaded(triton) == {"1"}
        assert (await stack.classify()).version == 1
        await stack.set_route(route(v3=1))
        assert (await stack.classify()).version == 3


async def test_at_start_up_the_good_version_serves_beside_one_that_triton_refuses(
    tmp_path: Path, triton: RunningTriton
) -> None:
    add(tmp_path, 1)
    add(tmp_path, 2, broken=True)
    (tmp_path / "routes.json").write_text(
        '{"routes": [{"model": "sentiment", "versions": '
        '[{"version": 1, "weight": 1}, {"version": 2, "weight": 1}]}]}'
    )
    async with gateway(tmp_path, triton.address) as stack:
        await stack.until_health("sentiment@1", SERVING)
        assert {(await stack.classify()).version for _ in range(10)} == {1}
        request = models_pb2.GetVersionRequest(model="sentiment", version=2)
        version = (await stack.models.GetVersion(request)).version
        assert version.state == models_pb2.Version.STATE_FAILED
        assert version.state_reason


async def test_a_damaged_byte_and_wrong_golden_answers_never_serve(
    tmp_path: Path, triton: RunningTriton
) -> None:
    add(tmp_path, 1)
    damage(add(tmp_path, 2) / "model.onnx")
    add(tmp_path, 3, shift=0.1)
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        for version, words in (("v2", "damaged"), ("v3", "did not prove itself")):
            code, said = await refusal(stack.set_route(route(**{version: 1})))
            assert code == grpc.StatusCode.FAILED_PRECONDITION
            assert words in said
            assert (await stack.classify()).version == 1
        assert loaded(triton) == {"1"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_triton_that_ends_under_load_costs_only_unavailable_and_all_comes_back(
    tmp_path: Path, how: signal.Signals
) -> None:
    add(tmp_path, 1)
    add(tmp_path, 2)
    port = free_port()
    seen: list[grpc.StatusCode] = []
    stop = asyncio.Event()

    async def caller(stack: Stack) -> None:
        while not stop.is_set():
            try:
                await stack.classify()
                seen.append(grpc.StatusCode.OK)
            except grpc.aio.AioRpcError as error:
                seen.append(error.code())
                await asyncio.sleep(0.02)

    with ExitStack() as tritons:
        first = tritons.enter_context(started(tmp_path, port=port))
        async with gateway(tmp_path, first.address) as stack:
            await stack.set_route(route(v1=1, v2=1))
            callers = [asyncio.create_task(caller(stack)) for _ in range(4)]
            first.process.send_signal(how)
            await stack.until_health("sentiment", NOT_SERVING)
            await asyncio.to_thread(first.process.wait)
            second = await asyncio.to_thread(tritons.enter_context, started(tmp_path, port=port))
            await stack.until_health("sentiment", SERVING, seconds=60)
            stop.set()
            await asyncio.gather(*callers)
            assert loaded(second) == {"1", "2"}
            assert {(await stack.classify()).version for _ in range(20)} == {1, 2}
    assert set(seen) == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}


async def test_openvino_proves_and_serves_its_own_file(tmp_path: Path) -> None:
    add(tmp_path, 1)
    with started(tmp_path, runtime="openvino") as triton:
        async with gateway(tmp_path, triton.address, runtime="openvino") as stack:
            await stack.set_route(route(v1=1))
            served = await stack.classify()
            assert served.runtime == job_pb2.RUNTIME_OPENVINO
            assert served.precision == job_pb2.PRECISION_BF16
