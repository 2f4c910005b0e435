"""The ledger as lines: which changes of the routes are still to be written into it, and its pages.

Knows conch.v1.RouteChange, one a line; knows nothing about where the lines are kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from conch.v1 import models_pb2
from services.routes import Revision

log = structlog.get_logger(__name__)

_Marked = list[tuple[models_pb2.RouteChange, int]]


@dataclass(frozen=True)
class Recorded:
    """What the lines of a ledger come to: the newest number, and each model's route with its mark.

    A mark is the number of the revision that a line was written for. Of several gateways the first writes the
    line; the others find the mark as high as theirs.
    """

    sequence: int = 0
    routes: Mapping[str, models_pb2.Route] = field(default_factory=dict)
    marks: Mapping[str, int] = field(default_factory=dict)
    place: str = ""
    """Where the marks count, as in Revision."""
    seen: int = 0
    """The newest revision of which all held when it was taken in: what an older one said is over."""

    @classmethod
    def of(cls, changes: Sequence[models_pb2.RouteChange]) -> "Recorded":
        """Returns what these lines come to, without marks."""
        return cls(
            sequence=changes[-1].sequence if changes else 0,
            routes={change.after.model: change.after for change in changes},
        )

    def missing(
        self, revision: Revision, held: Iterable[models_pb2.Route], time: Timestamp
    ) -> tuple[list[models_pb2.RouteChange], "Recorded"]:
        """Returns the lines that a revision still lacks, and what the ledger comes to with them.

        `held` are those of its routes that hold; those that wait for their versions get no line yet.
        """
        holding = list(held)
        known = self._in(revision.place)
        signed, known = known._with(_signed(revision))
        if revision.number < known.seen:
            return signed, known
        edited, known = known._with(_edited(known, revision, holding, time))
        # What still waits for its versions is for whoever sees it hold.
        whole = {route.model for route in holding} >= {route.model for route in revision.routes.routes}
        return signed + edited, replace(known, seen=revision.number) if whole else known

    def _in(self, place: str) -> "Recorded":
        return self if self.place == place else replace(self, marks={}, place=place, seen=0)

    def _with(self, wanted: _Marked) -> tuple[list[models_pb2.RouteChange], "Recorded"]:
        lines, known = [], self
        for change, mark in wanted:
            if not mark or known.marks.get(change.after.model, 0) < mark:
                known = known._with_line(change, mark)
                lines.append(change)
        return lines, known

    def _with_line(self, change: models_pb2.RouteChange, mark: int) -> "Recorded":
        """Returns what the ledger comes to with one line more; fills in its `sequence` and `before`."""
        model = change.after.model
        change.sequence = self.sequence + 1
        change.ClearField("before")
        if model in self.routes:
            change.before.CopyFrom(self.routes[model])
        routes = {**self.routes, model: change.after}
        return replace(self, sequence=change.sequence, routes=routes, marks={**self.marks, model: mark})


def line(change: models_pb2.RouteChange) -> str:
    """Returns a change as a line of the ledger, its end included."""
    return json_format.MessageToJson(change, indent=None) + "\n"


def parse(lines: Iterable[str | bytes]) -> list[models_pb2.RouteChange]:
    """Returns the changes of a ledger's lines; what cannot be read is passed over, and said in the log."""
    return [change for number, text in enumerate(lines, 1) if (change := _parse_line(text, number))]


def page(
    changes: Sequence[models_pb2.RouteChange], *, model: str, size: int, below: int | None
) -> tuple[list[models_pb2.RouteChange], int | None]:
    """Returns up to `size` changes, newest first, of one model ("" = all), older than sequence `below`.

    Beside them stands the `below` of the next page, None if there is none.
    """
    found = [
        change
        for change in reversed(changes)
        if model in ("", change.after.model) and (below is None or change.sequence < below)
    ]
    more = len(found) > size
    return found[:size], found[size - 1].sequence if more else None


def find(
    changes: Sequence[models_pb2.RouteChange], asked: models_pb2.RouteChange
) -> models_pb2.RouteChange | None:
    """Returns the line of a change that was asked for; None if it is not among `changes`."""
    for change in reversed(changes):
        if (change.time, change.actor, change.after) == (asked.time, asked.actor, asked.after):
            return change
    return None


def _signed(revision: Revision) -> _Marked:
    wanted = []
    for signed in revision.signed:
        change = models_pb2.RouteChange()
        change.CopyFrom(signed.change)
        wanted.append((change, signed.mark))
    return wanted


def _edited(
    recorded: Recorded, revision: Revision, held: Iterable[models_pb2.Route], time: Timestamp
) -> _Marked:
    routed = {route.model for route in revision.routes.routes}
    dropped = [
        models_pb2.Route(model=model)
        for model, route in sorted(recorded.routes.items())
        if model not in routed and route.versions
    ]
    changed = [route for route in held if recorded.routes.get(route.model) != route]
    return [
        (
            models_pb2.RouteChange(time=time, actor=revision.actor, reason=revision.reason, after=route),
            revision.number,
        )
        for route in (*changed, *dropped)
    ]


def _parse_line(text: str | bytes, number: int) -> models_pb2.RouteChange | None:
    try:
        return json_format.Parse(text, models_pb2.RouteChange())
    except (json_format.ParseError, UnicodeDecodeError) as error:
        # Only a hand can do this. Serving goes on: the ledger is a record, not a source.
        log.error("ledger.damaged", line=number, error=str(error))
        return None
