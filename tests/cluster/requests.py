"""Requests to the Kubernetes API, taken apart: verb, resource, name, selectors."""

import json
import re
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.cluster.objects import KINDS, ApiError

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Asked:
    """One request, taken apart."""

    verb: str
    group: str
    version: str
    plural: str
    sub: str
    namespace: str
    name: str

    @property
    def kind(self) -> str:
        return KINDS[self.group, self.plural]

    @property
    def resource(self) -> str:
        """The resource as in a rule of RBAC, with its group in front unless that is the core's."""
        plural = f"{self.plural}/{self.sub}" if self.sub else self.plural
        return f"{self.group}/{plural}" if self.group else plural


def taken_apart(request: web.Request) -> Asked:
    found = _PATH.fullmatch(request.path)
    if found is None or (found["group"] or "", found["plural"]) not in KINDS:
        raise ApiError(404, "NotFound", f"the server could not find the requested resource {request.path}")
    verb = _VERBS.get(request.method) or ("get" if found["name"] else "list")
    if verb == "list" and request.query.get("watch", "").lower() in ("true", "1"):
        verb = "watch"
    return Asked(
        verb=verb,
        group=found["group"] or "",
        version=found["core"] or found["version"],
        plural=found["plural"],
        sub=found["sub"] or "",
        namespace=found["namespace"] or "",
        name=found["name"] or "",
    )


async def body_of(request: web.Request) -> Any:
    data = await request.read()
    return json.loads(data) if data else None


def selectors_of(request: web.Request) -> tuple[str, str]:
    return request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
