"""Starting, draining and stopping a server on real sockets."""

import asyncio
import os
import signal
import socket
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conch.v1 import inference_pb2, inference_pb2_grpc
from services import server

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Slow(inference_pb2_grpc.InferenceServiceServicer):
    """Answers once it may."""

    def __init__(self) -> None:
        self.entered, self.may_end = asyncio.Event(), asyncio.Event()

    async def Classify(self, request: Any, context: Any) -> Any:
        self.entered.set()
        await self.may_end.wait()
        return inference_pb2.ClassifyResponse()


async def test_a_started_server_is_healthy() -> None:
    ours = server.build([])
    port = await ours.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == SERVING
    await ours.drain(0)


async def test_a_taken_port_is_said_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: the port is taken"):
            await server.build([]).start(address)


async def test_two_servers_never_share_a_port() -> None:
    first = server.build([])
    port = await first.start("127.0.0.1:0")
    with pytest.raises(OSError, match="port is taken"):
        await server.build([]).start(f"127.0.0.1:{port}")
    await first.drain(0)


async def test_draining_turns_health_off_and_lets_running_rpcs_end() -> None:
    ours, slow = server.build([]), Slow()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(slow, ours.grpc)
    port = await ours.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        call = inference_pb2_grpc.InferenceServiceStub(channel).Classify(inference_pb2.ClassifyRequest())
        waiting = asyncio.ensure_future(call.code())
        await slow.entered.wait()
        draining = asyncio.ensure_future(ours.drain(10))
        assert (await watch.read()).status == NOT_SERVING
        slow.may_end.set()
        assert await waiting is grpc.StatusCode.OK
        async with asyncio.timeout(5):
            await draining  # although somebody still watches health


async def test_what_does_not_end_in_time_is_cut_off() -> None:
    ours, slow = server.build([]), Slow()
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(slow, ours.grpc)
    port = await ours.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = inference_pb2_grpc.InferenceServiceStub(channel).Classify(inference_pb2.ClassifyRequest())
        waiting = asyncio.ensure_future(call.code())
        await slow.entered.wait()
        async with asyncio.timeout(5):
            await ours.drain(0.05)
        assert await waiting is not grpc.StatusCode.OK


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_to_stop(number: signal.Signals) -> None:
    waiting = asyncio.ensure_future(server.stop_signal())
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    async with asyncio.timeout(5):
        await waiting
    loop = asyncio.get_running_loop()
    for installed in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(installed)
    signal.signal(signal.SIGINT, signal.default_int_handler)
