"""The autoscalers' own queries, asked of a real Prometheus about a real gateway and a real Triton."""

import asyncio
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from onnx import TensorProto

from services.gateway import pool_metrics
from services.jobs.database import Database
from services.jobs.metrics import JobSeries
from services.jobs.store import NewJob, Store
from services.telemetry import Exposition
from tests.integration.triton import RunningTriton, echo_graph, free_port, started
from tests.monitoring import prometheus, rendered, shipped
from tests.monitoring.known_load import (
    EXPECTED_SHARE,
    NUM_CALLERS,
    NUM_HELD,
    SERVICE_SECONDS,
    TOKENS_OF_A_TEXT,
    Load,
    gateway,
    slow_triton,
    under_load,
)
from tests.monitoring.prometheus import Pod, Prometheus


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


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the metrics of a trainer that leads and has a job waiting."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('jobs') / 'jobs.db'}")
    database.migrate()
    store = Store(database)
    store.create(NewJob(id="a", kind="training", spec=b"", max_attempts=1))
    exposition = Exposition(JobSeries("training", store, lambda: True).registry(), "127.0.0.1:0")
    yield f"127.0.0.1:{exposition.port}"
    exposition.close()
    database.close()


@pytest.fixture(scope="module")
async def loaded(
    tmp_path_factory: pytest.TempPathFactory, triton: tuple[RunningTriton, str], jobs: str
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
            "trainer-x": Pod(jobs, rendered.pod_labels("conch-trainer"), rendered.monitor("trainer")),
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


async def test_jobs_are_recorded_by_kind_and_state(loaded: tuple[Prometheus, Load]) -> None:
    server, _ = loaded
    own = 'namespace="team-a",release="conch",kind="training"'
    assert server.values(f'conch:jobs:max{{{own},state="pending"}}') == [1]
    assert server.values(f'conch:jobs:max{{{own},state="failed"}}') == [0]
    assert server.values(f"conch:scheduler_leaders:sum{{{own}}}") == [1]
    assert server.values(f"conch:oldest_pending_job_seconds:max{{{own}}} > 0")


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
