"""What the ConfigMap of the routes says, and what a change of it looks like.

    data:         routes.json                 conch.v1.Routes
    annotations:  conch/actor, conch/reason   who wrote it last, and why
                  conch/changes               JSON: the newest changes that SetRoute made, for the ledger, and
                                              who wrote what they stand on

An upgrade of the chart writes routes, actor and reason anew and leaves `conch/changes`. Knows objects as
JSON; asks no server.
"""

import json
from typing import Any

import structlog
from google.protobuf import json_format

from conch.v1 import models_pb2
from services import routes as values
from services.cluster.objects import Object
from services.errors import InvalidRequest
from services.routes import Revision, Signed

log = structlog.get_logger(__name__)

KEY = "routes.json"
ACTOR, REASON, CHANGES = "conch/actor", "conch/reason", "conch/changes"
NOBODY = "helm"
"""Who writes without saying who he is: a release of the chart."""

# All annotations of an object have room for 256 KiB, and one change for 4096 characters of reason.
_CHANGES_BYTES = 128 << 10
_NUM_CHANGES = 20


def revision_of(obj: Object) -> Revision:
    """Returns what a ConfigMap says. Raises InvalidRequest if that are no routes."""
    text = (obj.get("data") or {}).get(KEY)
    if text is None:
        name = obj["metadata"]["name"]
        raise InvalidRequest.field("routes", f"ConfigMap {name} has no {KEY}", reason="INVALID_ROUTES")
    actor, reason = _author(obj)
    return Revision(
        values.parse(text),
        actor=actor,
        reason=reason,
        number=number_of(obj),
        place=obj["metadata"]["uid"],
        signed=signed_of(obj),
    )


def signed_of(obj: Object) -> tuple[Signed, ...]:
    """Returns the changes that SetRoute left in this very ConfigMap, oldest first; no damaged ones."""
    try:
        return tuple(
            Signed(json_format.ParseDict(entry["change"], models_pb2.RouteChange()), mark=int(entry["mark"]))
            for entry in _left(obj).get("changes", [])
        )
    except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError) as error:
        log.warning("routes.changes_damaged", name=obj["metadata"]["name"], error=str(error))
        return ()


def patch_of(present: Object, change: models_pb2.RouteChange, held: models_pb2.Routes) -> Object:
    """Returns the merge patch of one change, refused by the server if the ConfigMap is another by then.

    `held` stand in for routes that cannot be read.
    """
    try:
        before = revision_of(present).routes
    except InvalidRequest:
        before = held
    actor, reason = _author(present)
    signed = [*signed_of(present), Signed(change, mark=number_of(present) + 1)]
    place = present["metadata"]["uid"]
    left = {"place": place, "over": {"actor": actor, "reason": reason}, "changes": _newest(signed)}
    annotations = {ACTOR: change.actor, REASON: change.reason, CHANGES: json.dumps(left)}
    return {
        "metadata": {
            "resourceVersion": present["metadata"]["resourceVersion"],
            "annotations": annotations,
        },
        "data": {KEY: values.text(values.replace(before, change.after))},
    }


def number_of(obj: Object) -> int:
    """Returns an object's resourceVersion as a number."""
    # Comparable as integers by promise since Kubernetes 1.35 (KEP-5504), and in fact ever since etcd.
    version = obj["metadata"]["resourceVersion"]
    return int(version) if version.isdecimal() else 0


def _author(obj: Object) -> tuple[str, str]:
    """Returns who wrote what SetRoute did not, and why."""
    annotations = obj["metadata"].get("annotations") or {}
    author = annotations.get(ACTOR) or NOBODY, annotations.get(REASON) or ""
    signed = signed_of(obj)
    if signed and author == (signed[-1].change.actor, signed[-1].change.reason):
        over = _left(obj).get("over") or {}
        return over.get("actor") or NOBODY, over.get("reason") or ""
    return author


def _left(obj: Object) -> dict[str, Any]:
    try:
        left = json.loads((obj["metadata"].get("annotations") or {}).get(CHANGES) or "{}")
    except ValueError:
        return {}
    # In one that was restored from a backup they are history, and their marks count something else.
    ours = isinstance(left, dict) and left.get("place") == obj["metadata"]["uid"]
    return left if ours else {}


def _newest(signed: list[Signed]) -> list[dict[str, Any]]:
    """Returns as many of the newest changes as an annotation has room for, oldest first."""
    entries: list[dict[str, Any]] = []
    size = 0
    for one in reversed(signed[-_NUM_CHANGES:]):
        entry = {"mark": one.mark, "change": json_format.MessageToDict(one.change)}
        size += len(json.dumps(entry))
        if entries and size > _CHANGES_BYTES:
            break
        entries.insert(0, entry)
    return entries
