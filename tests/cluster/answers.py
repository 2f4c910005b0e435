"""What an emulated API server writes: events of watches, refusals, ends of logs."""

import json
from typing import Any

from aiohttp import web

from tests.cluster.faults import Fault
from tests.cluster.objects import ApiError, Change, Object
from tests.cluster.requests import Asked
from tests.cluster.selectors import matches


def event_of(change: Change, asked: Asked, selectors: tuple[str, str]) -> tuple[str, Object] | None:
    key = change.key
    if (key.group, key.plural) != (asked.group, asked.plural) or asked.namespace not in ("", key.namespace):
        return None
    was = change.before is not None and matches(change.before, *selectors)
    if change.after is not None and matches(change.after, *selectors):
        return ("MODIFIED" if was else "ADDED"), change.after
    return ("DELETED", change.after or change.before or {}) if was else None


async def send(response: web.StreamResponse, event: str, obj: Object) -> None:
    await response.write(json.dumps({"type": event, "object": obj}).encode() + b"\n")


def refused(fault: Fault) -> web.Response:
    error = ApiError(fault.code, fault.reason, fault.message)
    after = fault.retry_after_seconds
    headers = {"Retry-After": str(after)} if after is not None else {}
    return web.json_response(error.status(), status=fault.code, headers=headers)


def tail(log: str, query: Any) -> str:
    lines = query.get("tailLines")
    return "\n".join(log.splitlines()[-int(lines) :]) if lines else log
