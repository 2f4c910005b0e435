"""`python -m services.gateway` as its own process: starts, answers, is watched, drains, refuses to start."""

import asyncio
import json
import os
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from conch.v1 import inference_pb2, inference_pb2_grpc
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.calls import request
from tests.contract.versions import publish

ROOT = Path(__file__).parents[3]
ROUTES = {"routes": [{"model": "sentiment", "versions": [{"version": "1", "weight": 1}]}]}


def environment(home: Path, **settings: str) -> dict[str, str]:
    ours = {
        "CONCH_HOME": str(home),
        "CONCH_REPOSITORY_URI": str(home / "repository"),
        "CONCH_GATEWAY_ADDRESS": "127.0.0.1:0",
        "CONCH_METRICS_ADDRESS": "127.0.0.1:0",
        "CONCH_WARM_SECONDS": "0",
    }
    path = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    return {**os.environ, "PYTHONPATH": path, **ours, **settings}


async def start(home: Path, **settings: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.gateway",
        env=environment(home, **settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def event(process: asyncio.subprocess.Process, name: str) -> dict[str, Any]:
    """Returns the next log line of this name."""
    assert process.stderr
    async with asyncio.timeout(30):
        while line := await process.stderr.readline():
            if line.startswith(b"{") and (found := json.loads(line))["event"] == name:
                return dict(found)
    raise AssertionError(f"it ended without saying {name}")


@asynccontextmanager
async def gateway(home: Path, triton: FakeTriton) -> AsyncIterator[tuple[Any, str, int]]:
    """Yields the process, its address and its port of metrics, once version 1 answers."""
    publish(home / "repository", 1)
    (home / "routes.json").write_text(json.dumps(ROUTES))
    process = await start(home, CONCH_TRITON_ADDRESS=triton.address)
    try:
        port = (await event(process, "server.started"))["port"]
        metrics_port = (await event(process, "metrics.exposed"))["port"]
        await event(process, "version.proven")
        yield process, f"127.0.0.1:{port}", metrics_port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def classify(channel: grpc.aio.Channel) -> Any:
    stub = inference_pb2_grpc.InferenceServiceStub(channel)
    return await stub.Classify(request("a fine film"), timeout=20)


async def until_serving(channel: grpc.aio.Channel) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(
        health_pb2.HealthCheckRequest(service="conch.v1.InferenceService/sentiment@1")
    )
    async for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return


async def services(channel: grpc.aio.Channel) -> set[str]:
    """Returns what reflection lists."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = await stub.ServerReflectionInfo(iter([asked])).read()
    return {service.name for service in answer.list_services_response.service}


async def test_it_answers_is_reflected_is_measured_and_drains(tmp_path: Path, triton: FakeTriton) -> None:
    async with (
        gateway(tmp_path, triton) as (process, address, metrics_port),
        grpc.aio.insecure_channel(address) as channel,
    ):
        await until_serving(channel)
        assert (await classify(channel)).served_by.version == 1
        assert {"conch.v1.InferenceService", "conch.v1.ModelService"} <= await services(channel)
        text = await asyncio.to_thread(_read, f"http://127.0.0.1:{metrics_port}/metrics")
        for series in (
            'conch_stage_seconds_bucket{le="0.001",model="sentiment",rpc="Classify",stage="queue",version="1"}',
            'conch_rpcs_total{code="OK",rpc="InferenceService/Classify"} 1.0',
            'conch_batch_texts_count{model="sentiment",version="1"}',
            'conch_queue_tokens{model="sentiment",version="1"} 0.0',
        ):
            assert series in text
        triton.hold()
        before = len(triton.calls)
        last = asyncio.ensure_future(classify(channel))
        await triton.until(lambda: len(triton.calls) > before)
        process.terminate()
        triton.release()
        assert isinstance(await last, inference_pb2.ClassifyResponse)
        stdout, _ = await process.communicate()
        assert (process.returncode, stdout) == (0, b"")


def _read(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        return str(response.read().decode())


@pytest.mark.parametrize("name", ["CONCH_GATEWAY_ADDRESS", "CONCH_METRICS_ADDRESS"])
async def test_a_taken_port_is_one_readable_line_and_exit_2(tmp_path: Path, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await start(tmp_path, **{name: address})
        _, stderr = await process.communicate()
    assert process.returncode == 2
    assert f"gateway: cannot listen on {address}" in stderr.decode()
    assert "Traceback" not in stderr.decode()


async def test_a_setting_that_makes_no_sense_is_one_readable_line_and_exit_2(tmp_path: Path) -> None:
    process = await start(tmp_path, CONCH_MAX_TEXTS="none")
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().startswith("gateway: CONCH_MAX_TEXTS: ")
    assert len(stderr.decode().splitlines()) == 1


async def test_it_serves_over_pools_once_it_is_ready(tmp_path: Path, triton: FakeTriton) -> None:
    publish(tmp_path / "repository", 1)
    triton.loaded = {"sentiment": {1}}
    (tmp_path / "routes.json").write_text(json.dumps(ROUTES))
    pools = {"cpu": {"address": triton.address, "runtime": "onnxruntime"}}
    process = await start(tmp_path, CONCH_POOLS=json.dumps(pools), CONCH_STAGED_BY="pool")
    try:
        port = (await event(process, "server.started"))["port"]
        await event(process, "gateway.ready")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await classify(channel)).served_by.version == 1
        assert not triton.loads
        process.terminate()
        await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"CONCH_POOLS": '{"cpu": {"address": "a:1"}}'}, "gateway: CONCH_POOLS needs CONCH_STAGED_BY=pool"),
        ({"CONCH_POOLS": '{"cpu": {"address": "a"}}'}, "gateway: CONCH_POOLS_CPU_ADDRESS: "),
    ],
)
async def test_pools_that_cannot_be_are_one_readable_line_and_exit_2(
    tmp_path: Path, settings: dict[str, str], words: str
) -> None:
    process = await start(tmp_path, **settings)
    _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().startswith(words)


async def test_a_stop_before_triton_was_ever_there_is_quick_and_clean(tmp_path: Path) -> None:
    process = await start(tmp_path, CONCH_TRITON_ADDRESS="127.0.0.1:1")
    await event(process, "server.started")
    process.terminate()
    async with asyncio.timeout(10):
        await process.communicate()
    assert process.returncode == 0
