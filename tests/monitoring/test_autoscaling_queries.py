"""The autoscalers' own queries, asked of a real Prometheus about a real gateway and a real Triton."""

import asyncio
import json
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
from onnx import TensorProto

from conch.v1 import inference_pb2_grpc
from services.gateway import pool_metrics
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.calls import request
from tests.contract.gateway.test_main import event, start, until_serving
from tests.contract.versions import publish
from tests.integration.triton import RunningTriton, echo_graph, free_port, started
from tests.monitoring import prometheus, rendered, shipped
from tests.monitoring.prometheus import Pod, Prometheus

SERVICE_SECONDS = 0.1
NUM_CALLERS = 6
DEADLINE_SECONDS = 1.8
TOKENS_OF_A_TEXT = 8
NUM_HELD = 3
EXPECTED_SHARE = (NUM_CALLERS - 1) * SERVICE_SECONDS / DEADLINE_SECONDS


class SlowTriton(FakeTriton):
    """Takes as long for every call."""

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(SERVICE_SECONDS)
        return await super().ModelInfer(request, context)


class Load:
    """Callers who each ask again as soon as they were answered, so that the queue is as long all the time."""

    def __init__(self, address: str) -> None:
        self.shares: list[float] = []
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: Any = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Returns once the queue is as long as it will be, with calls held for the pool without servers."""
        await until_serving(self._channel)
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(NUM_CALLERS)]
        held = [self._stub.Classify(request("dull", model="sleeper"), timeout=60) for _ in range(NUM_HELD)]
        self._tasks += [asyncio.ensure_future(call) for call in held]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()

    async def _ask(self) -> None:
        while True:
            answer = await self._stub.Classify(request("a fine film"), timeout=DEADLINE_SECONDS)
            self.shares.append(answer.timings.queue.ToTimedelta().total_seconds() / DEADLINE_SECONDS)


@asynccontextmanager
async def gateway(home: Path, triton: FakeTriton) -> AsyncIterator[tuple[str, str]]:
    """Yields the addresses of calls and of metrics of a gateway over one slow server and a pool at zero."""
    pools = {"cpu": {"address": triton.address}, "gpu": {"address": "127.0.0.1:1"}}
    routes = [
        {"model": model, "versions": [{"version": "1", "weight": 1}], "pool": pool}
        for model, pool in (("sentiment", "cpu"), ("sleeper", "gpu"))
    ]
    (home / "routes.json").write_text(json.dumps({"routes": routes}))
    for model in ("sentiment", "sleeper"):
        publish(home / "repository", 1, model=model)
    process = await start(
        home,
        CONCH_POOLS=json.dumps(pools),
        CONCH_STAGED_BY="pool",
        CONCH_MAX_ROWS="1",
        CONCH_MAX_INFLIGHT="1",
    )
    try:
        port = (await event(process, "server.started"))["port"]
        metrics_port = (await event(process, "metrics.exposed"))["port"]
        yield f"127.0.0.1:{port}", f"127.0.0.1:{metrics_port}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningTriton, str]]:
    """A real Triton that has answered, and the address of its metrics."""
    home, port = tmp_path_factory.mktemp("triton"), free_port()
    with started(home, variables={"CONCH_TRITON_METRICS_PORT": str(port)}) as running:
        config = 'backend: "onnxruntime" max_batch_size: 8 version_policy { all { } }'
        tensors = "".join(
            f' {kind} {{ name: "{name}" data_type: TYPE_INT64 dims: -1 }}'
            for kind, name in (("input", "x"), ("output", "y0"))
        )
        running.add("echo", echo_graph(TensorProto.INT64), f'name: "echo" {config}{tensors}')
        running.load("echo")
        running.infer("echo", {"x": np.ones((1, 4), dtype=np.int64)})
        yield running, f"127.0.0.1:{port}"


@asynccontextmanager
async def slow_triton() -> AsyncIterator[SlowTriton]:
    """Yields a slow server that holds the version that is asked."""
    slow = SlowTriton()
    await slow.start()
    slow.loaded = {"sentiment": {1}}
    try:
        yield slow
    finally:
        await slow.die()


@asynccontextmanager
async def under_load(address: str) -> AsyncIterator[Load]:
    """Yields the load of a gateway."""
    load = Load(address)
    try:
        await load.begin()
        yield load
    finally:
        await load.end()


@pytest.fixture(scope="module")
async def loaded(
    tmp_path_factory: pytest.TempPathFactory, triton: tuple[RunningTriton, str]
) -> AsyncIterator[tuple[Prometheus, Load]]:
    """A Prometheus that has watched the load for some seconds, and the load."""
    home, cpu = tmp_path_factory.mktemp("home"), rendered.pod_labels("conch-triton-cpu")
    async with (
        slow_triton() as slow,
        gateway(home, slow) as (address, metrics),
        under_load(address) as load,
    ):
        pods = {
            "gateway-x": Pod(metrics, rendered.pod_labels("conch-gateway"), rendered.monitor("gateway")),
            "triton-cpu-x": Pod(triton[1], cpu, rendered.monitor("triton")),
        }
        folder = home / "prometheus"
        with prometheus.running(folder, pods, rendered.rules(), namespace=rendered.NAMESPACE) as server:
            # Five seconds of calls, each as late as the others.
            enough = f"sum(increase(conch_pool_queue_share_count[1m])) > {5 / SERVICE_SECONDS}"
            await asyncio.to_thread(server.until, enough, bool)
            yield server, load


def value(server: Prometheus, query: str) -> float:
    """Returns the one number that an autoscaler gets for a query."""
    (found,) = server.values(query)
    return found


def buckets_around(shares: list[float]) -> tuple[float, float]:
    """Returns the bounds of the histogram between which the 95th percentile lies, be it a little off."""
    cuts, bounds = statistics.quantiles(shares, n=100), pool_metrics._SHARES
    return bounds[bisect_left(bounds, cuts[91]) - 1], bounds[bisect_right(bounds, cuts[98])]


async def test_both_autoscalers_get_the_p95_of_the_share_that_callers_waited(
    loaded: tuple[Prometheus, Load],
) -> None:
    server, load = loaded
    low, high = buckets_around(load.shares)
    by_hpa = value(server, rendered.hpa_queries("conch-triton-cpu")["conch_pool_queue_share_p95"])
    by_keda = value(server, rendered.keda_queries("conch-triton-cpu")["queue-share"])
    assert low <= by_hpa <= high
    assert low <= by_keda <= high
    assert by_keda == pytest.approx(EXPECTED_SHARE, abs=0.1)


async def test_both_autoscalers_get_the_tokens_that_wait_and_are_computed(
    loaded: tuple[Prometheus, Load],
) -> None:
    server, _ = loaded
    expected = NUM_CALLERS * TOKENS_OF_A_TEXT
    by_hpa = value(server, rendered.hpa_queries("conch-triton-cpu")["conch_pool_tokens_avg"])
    by_keda = value(server, rendered.keda_queries("conch-triton-cpu")["tokens"])
    assert by_hpa == pytest.approx(expected, rel=0.1)
    assert by_keda == pytest.approx(expected, rel=0.1)


async def test_a_pool_at_zero_is_woken_by_the_calls_that_wait_for_it(loaded: tuple[Prometheus, Load]) -> None:
    server, _ = loaded
    queries = rendered.keda_queries("conch-triton-gpu")
    assert value(server, queries["held-calls"]) == NUM_HELD
    assert value(server, queries["queue-share"]) == 0
    assert value(server, rendered.keda_queries("conch-triton-cpu")["held-calls"]) == 0


async def test_both_autoscalers_get_the_calls_a_second_of_all_gateways(
    loaded: tuple[Prometheus, Load],
) -> None:
    server, _ = loaded
    by_hpa = value(server, rendered.hpa_queries("conch-gateway")["conch_gateway_calls_per_second"])
    assert value(server, rendered.keda_queries("conch-gateway")["calls"]) == pytest.approx(by_hpa, rel=0.2)
    # A mean over a minute, of which Prometheus has seen some seconds.
    calls = 'conch_rpcs_total{rpc="InferenceService/Classify"}'
    assert 60 * by_hpa == pytest.approx(value(server, f"sum({calls} - min_over_time({calls}[5m]))"), rel=0.3)


async def test_every_recorded_series_of_pools_has_a_number_from_a_running_gateway(
    loaded: tuple[Prometheus, Load],
) -> None:
    server, _ = loaded
    for name in shipped.recorded():
        if name.startswith(("conch:pool", "conch:rpcs", "conch:calls")):
            assert server.values(f'{name}{{namespace="team-a",release="conch"}}'), name


async def test_no_alert_but_that_of_the_pool_without_servers_is_on_its_way(
    loaded: tuple[Prometheus, Load],
) -> None:
    server, _ = loaded
    assert server.values('ALERTS{alertname="ConchPoolWithoutServer",pool="gpu"}') == [1]
    quiet = "ConchPoolWithoutServer|ConchVersionNotServing|ConchRoutesProblem|ConchServerUnreachable"
    assert server.values(f'ALERTS{{alertname!~"{quiet}"}}') == []


async def test_the_dashboard_s_series_of_triton_are_exposed_by_triton(
    loaded: tuple[Prometheus, Load],
) -> None:
    server, _ = loaded
    expressions = [expression for _, expression in shipped.dashboard_expressions()]
    read = {s.name for expression in expressions for s in shipped.selectors(expression)}
    without_gpu = {name for name in read if name.startswith("nv_") and not name.startswith("nv_gpu")}
    assert without_gpu
    for name in without_gpu:
        chosen = f'{name}{{namespace="team-a",release="conch",component="triton",pool="cpu",model="echo"}}'
        assert server.values(chosen), chosen
