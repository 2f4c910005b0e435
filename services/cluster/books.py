"""What the ConfigMap of a cluster's ledger says.

    data:         ledger.jsonl     one conch.v1.RouteChange a line
    annotations:  conch/recorded   what the lines come to: JSON

Knows marks and room; asks no server.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from google.protobuf import json_format

from conch.v1 import models_pb2
from services import changes
from services.changes import Recorded
from services.cluster.objects import Object

log = structlog.get_logger(__name__)

KEY = "ledger.jsonl"
RECORDED = "conch/recorded"

# A ConfigMap has room for 1 MiB of data, and for 256 KiB of annotations beside it.
_MAX_BYTES = 900 << 10


@dataclass(frozen=True)
class Book:
    """The ledger as it was read; `version` is empty where there is none yet."""

    version: str
    lines: tuple[str, ...]
    recorded: Recorded


def book_of(obj: Object) -> Book:
    """Returns what a ConfigMap says."""
    lines = tuple(((obj.get("data") or {}).get(KEY) or "").splitlines())
    recorded = recorded_in(obj["metadata"]) or Recorded.of(changes.parse(lines))
    return Book(obj["metadata"]["resourceVersion"], lines, recorded)


def content_of(book: Book, lines: Sequence[models_pb2.RouteChange], recorded: Recorded) -> Object:
    """Returns annotations and data with more lines, and fewer old ones where there is no room."""
    kept = _kept([*book.lines, *(changes.line(change).rstrip("\n") for change in lines)])
    return {
        "metadata": {"annotations": {RECORDED: _dump(recorded)}},
        "data": {KEY: "".join(f"{line}\n" for line in kept)},
    }


def recorded_in(metadata: Object) -> Recorded | None:
    """Returns what the annotation says, None if there is none or a hand damaged it."""
    try:
        said = json.loads((metadata.get("annotations") or {}).get(RECORDED) or "")
        models = said["models"].items()
        return Recorded(
            sequence=int(said["sequence"]),
            place=str(said["place"]),
            seen=int(said["seen"]),
            routes={m: json_format.ParseDict(one["route"], models_pb2.Route()) for m, one in models},
            marks={m: int(one["mark"]) for m, one in models},
        )
    except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError):
        return None


def _kept(lines: list[str]) -> list[str]:
    """Returns the newest lines that there is room for."""
    size, first = 0, len(lines)
    while first and size + len(lines[first - 1].encode()) + 1 <= _MAX_BYTES:
        first -= 1
        size += len(lines[first].encode()) + 1
    if first:
        log.warning("ledger.shortened", num_dropped=first)
    return lines[first:]


def _dump(recorded: Recorded) -> str:
    models = {
        model: {"mark": recorded.marks.get(model, 0), "route": json_format.MessageToDict(route)}
        for model, route in recorded.routes.items()
    }
    said = {
        "sequence": recorded.sequence,
        "place": recorded.place,
        "seen": recorded.seen,
        "models": models,
    }
    return json.dumps(said, separators=(",", ":"))
