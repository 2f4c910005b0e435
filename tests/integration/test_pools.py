"""A gateway over real Tritons that hold what was staged for them, as pods do, and are replaced one by one."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

from conch.v1 import models_pb2
from services.repository import staging
from tests.contract.gateway.calls import until
from tests.contract.gateway.pools import problem, steady_calls, write
from tests.contract.gateway.stack import SERVING, Stack, gateway
from tests.contract.versions import route
from tests.integration.test_gateway import add
from tests.integration.triton import RunningTriton, started


class Pods:
    """Tritons that load all that is staged as they start, and nothing later; a file stands for DNS."""

    def __init__(self, home: Path, exits: ExitStack) -> None:
        self.file = home / "pods"
        self._home, self._exits = home, exits
        self._named: list[RunningTriton] = []
        self._num_started = 0

    async def add(self, held: models_pb2.Route) -> RunningTriton:
        """Stages, starts a Triton over it, and names it."""
        self._num_started += 1
        folder = self._home / f"pod-{self._num_started}"
        staging.stage(
            models_pb2.Routes(routes=[held]),
            repository_uri=str(self._home / "repository"),
            staged=folder / "staged",
            runtime="onnxruntime",
        )
        running = started(folder, variables={"CONCH_TRITON_CONTROL": "none"})
        pod = await asyncio.to_thread(self._exits.enter_context, running)
        self._name([*self._named, pod])
        return pod

    async def terminate(self, pod: RunningTriton, *, how: signal.Signals) -> None:
        """Takes a pod out of DNS and ends it at the same moment."""
        self._name([p for p in self._named if p is not pod])
        pod.process.send_signal(how)
        await asyncio.to_thread(pod.process.wait)

    def _name(self, pods: list[RunningTriton]) -> None:
        self._named = pods
        partial = self.file.with_suffix(".new")
        partial.write_text("".join(f"{pod.address}\n" for pod in pods))
        partial.rename(self.file)


async def until_proven(stack: Stack, pod: RunningTriton, version: int) -> None:
    def proven() -> bool:
        entry = stack.serving._table.entries.get(("sentiment", version))
        places = entry.served.crew.places if entry and entry.served else []
        return pod.address in {place.server.address for place in places}

    await until(proven, seconds=60)


async def test_two_tritons_are_replaced_by_two_with_the_next_version_and_no_call_fails(
    tmp_path: Path,
) -> None:
    add(tmp_path, 1)
    add(tmp_path, 2)
    write(tmp_path, route(v1=1))
    with ExitStack() as exits:
        pods = Pods(tmp_path, exits)
        old = [await pods.add(route(v1=1)) for _ in range(2)]
        pool = {"address": f"file://{pods.file}", "runtime": "onnxruntime"}
        async with gateway(tmp_path, "127.0.0.1:1", staged_by="pool", pools={"cpu": pool}) as stack:
            await stack.until_health("sentiment", SERVING, seconds=60)
            for pod in old:
                await until_proven(stack, pod, 1)
            async with steady_calls(stack) as calls:
                await until(lambda: len(calls.versions) > 20)
                write(tmp_path, route(v2=1))
                for pod, how in zip(old, (signal.SIGTERM, signal.SIGKILL), strict=True):
                    await until_proven(stack, await pods.add(route(v2=1)), 2)
                    await pods.terminate(pod, how=how)
                await until(lambda: calls.versions[-1] == 2)
                seen = len(calls.versions)
                await until(lambda: len(calls.versions) > seen + 20)
            assert [error.details() for error in calls.errors] == []
            assert set(calls.versions[seen:]) == {2}
            assert await problem(stack) == ""
