"""What many gateways write into one ledger: each change that held, once, in order, whoever comes when."""

import random
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from conch.v1 import models_pb2
from services.changes import Recorded
from services.routes import Revision, Signed, replace

MODELS = ("a", "b")


def route(model: str, version: int) -> models_pb2.Route:
    versions = [models_pb2.WeightedVersion(version=version, weight=1)]
    return models_pb2.Route(model=model, versions=versions)


@dataclass
class History:
    """Revisions as people and releases write them, each above the last."""

    revisions: list[Revision] = field(default_factory=list)

    def release(self, number: int, versions: tuple[int, int]) -> None:
        routes = [route(model, v) for model, v in zip(MODELS, versions, strict=True) if v]
        signed = self.revisions[-1].signed if self.revisions else ()
        self._add(number, models_pb2.Routes(routes=routes), f"ci-{number}", signed)

    def set_route(self, number: int, model: str, version: int) -> None:
        last = self.revisions[-1]
        change = models_pb2.RouteChange(
            actor=f"anna-{number}", time=Timestamp(seconds=number), after=route(model, version)
        )
        signed = (*last.signed, Signed(change, mark=last.number + 1))
        self._add(number, replace(last.routes, change.after), last.actor, signed)

    def _add(self, number: int, routes: models_pb2.Routes, actor: str, signed: tuple[Signed, ...]) -> None:
        self.revisions.append(Revision(routes, actor=actor, number=number, place="uid", signed=signed))


@st.composite
def histories(draw: st.DrawFn) -> list[Revision]:
    made, number = History(), 1
    version = st.integers(0, 3)
    made.release(number, (1, 1))
    for _ in range(draw(st.integers(0, 8))):
        number += draw(st.integers(1, 3))  # other objects of the cluster count, too
        if draw(st.booleans()):
            made.release(number, (draw(version), draw(version)))
        else:
            made.set_route(number, draw(st.sampled_from(MODELS)), draw(st.integers(1, 3)))
    return made.revisions


def write(
    recorded: Recorded, lines: list[models_pb2.RouteChange], revision: Revision
) -> tuple[Recorded, list[models_pb2.RouteChange]]:
    more, recorded = recorded.missing(revision, revision.routes.routes, Timestamp(seconds=revision.number))
    return recorded, lines + more


@given(revisions=histories(), seed=st.integers(0, 1 << 30), num_gateways=st.integers(1, 4))
def test_gateways_that_see_some_or_all_write_each_change_once_and_in_order(
    revisions: list[Revision], seed: int, num_gateways: int
) -> None:
    chance = random.Random(seed)
    seen = [
        sorted(chance.sample(range(len(revisions)), chance.randint(0, len(revisions))))
        for _ in range(num_gateways)
    ]
    seen[0] = [*seen[0], len(revisions) - 1]  # somebody sees the end
    recorded, lines = Recorded(), []
    while queues := [queue for queue in seen if queue]:
        recorded, lines = write(recorded, lines, revisions[chance.choice(queues).pop(0)])
    assert [c.sequence for c in lines] == list(range(1, len(lines) + 1))
    last: dict[str, models_pb2.Route] = {}
    for change in lines:
        assert change.before == last.get(change.after.model, models_pb2.Route())
        last[change.after.model] = change.after
    assert {m: r for m, r in last.items() if r.versions} == {r.model: r for r in revisions[-1].routes.routes}
    actors = [c.actor for c in lines]
    for signed in revisions[-1].signed:
        assert actors.count(signed.change.actor) == 1
    marks = [c.time.seconds for c in lines if c.after.model == "a"]
    assert marks == sorted(marks)


@given(revisions=histories())
def test_one_gateway_that_sees_all_records_all(revisions: list[Revision]) -> None:
    recorded, lines = Recorded(), []
    held: dict[str, models_pb2.Route] = {}
    num_changes = 0
    for revision in revisions:
        recorded, lines = write(recorded, lines, revision)
        now = {r.model: r for r in revision.routes.routes}
        changed = {m for m in held.keys() | now.keys() if held.get(m) != now.get(m)}
        signed = [s for s in revision.signed if s.change.time.seconds == revision.number]
        num_changes += len(changed | {s.change.after.model for s in signed})
        held = now
    assert len(lines) == num_changes
