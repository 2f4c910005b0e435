"""Events about this pod, which `kubectl describe pod` and `kubectl events` show.

Knows core/v1 Event; knows nothing about what happened. Best effort: an event that cannot be posted is only
logged, for nothing may fail or wait because of it.
"""

import asyncio
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import structlog

from services.cluster.client import Cluster, connect
from services.cluster.objects import Object, Resource
from services.errors import AlreadyExists, ServiceError

log = structlog.get_logger(__name__)

EVENTS = Resource("", "v1", "events")
_MAX_MESSAGE = 1024
_SECONDS = 5.0


@dataclass(frozen=True)
class Pod:
    """Whom events are about: a pod, and the container of it that speaks ("initContainers{stage}")."""

    name: str
    namespace: str
    uid: str
    container: str = ""


@dataclass(frozen=True)
class Event:
    """Something that an operator should see; `reason` is CamelCase and stable."""

    reason: str
    message: str
    kind: Literal["Normal", "Warning"] = "Warning"


def post(events: Iterable[Event], pod: Pod) -> None:
    """Posts the events about `pod`, for at most a few seconds; logs them alone if `pod` has no name."""
    waiting = list(events)
    for event in waiting:
        log.info("event.told", reason=event.reason, message=event.message)
    if waiting and pod.name:
        asyncio.run(_post(waiting, pod))


async def _post(events: Iterable[Event], pod: Pod) -> None:
    try:
        cluster = connect(component="stage", namespace=pod.namespace)
    except ServiceError as error:
        log.warning("event.unposted", problem=error.message)
        return
    try:
        async with asyncio.timeout(_SECONDS):
            await _create(cluster, events, pod)
    except (TimeoutError, ServiceError) as error:
        log.warning("event.unposted", problem=str(error) or f"no answer within {_SECONDS:g} s")
    finally:
        await cluster.close()


async def _create(cluster: Cluster, events: Iterable[Event], pod: Pod) -> None:
    for event in events:
        # An answer that was lost is asked for again: the event is there already then.
        with suppress(AlreadyExists):
            await cluster.create(EVENTS, _object(event, pod))


def _object(event: Event, pod: Pod) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "namespace": pod.namespace, "uid": pod.uid}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{pod.name}.{uuid.uuid4().hex[:16]}", "namespace": pod.namespace},
        "involvedObject": about | {"fieldPath": f"spec.{pod.container}"} if pod.container else about,
        "type": event.kind,
        "reason": event.reason,
        "message": event.message[:_MAX_MESSAGE],
        "source": {"component": "conch"},
        "reportingComponent": "conch",
        "reportingInstance": pod.name,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
