"""Workers that wait: said after a while, once, and never taken for dead."""

import asyncio
from typing import Any

import pytest

from services.cluster.client import connect
from services.cluster.obstacles import Obstacle, Obstacles
from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault

_UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes have a GPU",
        }
    ]
}


def waiting(reason: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": "not found"}}
    return {"containerStatuses": [{"name": "worker", "image": "conch:1", "state": state}]}


def pod(api: ApiServer, name: str, status: dict[str, Any]) -> None:
    labels = {"conch/kind": "training", "batch.kubernetes.io/job-name": name}
    obj = {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {}}
    api.objects.create(obj | {"status": {"phase": "Pending"} | status})


async def told(api: ApiServer, count: int, *, patience_seconds: float = 0) -> list[Obstacle]:
    """Returns the first `count` obstacles that are told of, looking often."""
    found: list[Obstacle] = []
    enough = asyncio.Event()

    def tell(obstacle: Obstacle) -> None:
        found.append(obstacle)
        if len(found) >= count:
            enough.set()

    cluster = connect(component="test", url=api.url, namespace="default")
    labels = {"conch/kind": "training"}
    obstacles = Obstacles(cluster, labels, tell, patience_seconds=patience_seconds, look_seconds=0.01)
    task = asyncio.create_task(obstacles.run())
    try:
        await asyncio.wait_for(enough.wait(), 20)
    finally:
        task.cancel()
        await cluster.close()
    return found


@pytest.mark.parametrize(
    ("status", "reason", "sentence"),
    [
        (
            _UNSCHEDULABLE,
            "UNSCHEDULABLE",
            "no machine of the cluster can take the worker: 0/3 nodes have a GPU",
        ),
        (waiting("ImagePullBackOff"), "IMAGE_NOT_PULLED", "the image conch:1 cannot be pulled: not found"),
        (waiting("CreateContainerConfigError"), "POD_NOT_STARTED", "the pod k-a1 cannot start: not found"),
    ],
)
async def test_what_keeps_a_pod_from_starting_is_told(
    api: ApiServer, status: dict[str, Any], reason: str, sentence: str
) -> None:
    pod(api, "k-a1", status)
    (obstacle,) = await told(api, 1)
    assert (obstacle.job, obstacle.reason) == ("k-a1", reason)
    assert obstacle.message == f"the worker waits for 0 min by now: {sentence}"


async def test_each_obstacle_is_told_once_and_a_server_that_is_away_is_asked_again(api: ApiServer) -> None:
    pod(api, "a", _UNSCHEDULABLE)
    pod(api, "b", {})
    api.faults.add(Fault("list", times=2))
    seen = asyncio.create_task(told(api, 2))
    while api.calls.count(("list", "pods")) < 5:  # noqa: ASYNC110  # looks change nothing to wait for
        await asyncio.sleep(0.01)
    pod(api, "c", waiting("ErrImagePull"))
    assert [obstacle.job for obstacle in await seen] == ["a", "c"]


async def test_a_pod_is_given_some_time(api: ApiServer) -> None:
    pod(api, "k-a1", _UNSCHEDULABLE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(told(api, 1, patience_seconds=60), 0.5)
