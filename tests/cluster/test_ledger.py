"""The ledger of a cluster: every change that held, once, in order, whichever gateway wrote it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from conch.v1 import models_pb2
from services import routes as values
from services.cluster.client import connect
from services.cluster.ledger import LedgerConfigMap
from services.cluster.revisions import revision_of
from services.cluster.routes import RoutesConfigMap
from services.routes import Revision
from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault, conflict
from tests.cluster.gateways import (
    LEDGER,
    ROUTES,
    gateways,
    history,
    lines,
    refusal,
    release,
    shifted,
    until,
)
from tests.contract.versions import route


@pytest.fixture(autouse=True)
def cluster(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    """The cluster that gateways believe to be in."""
    monkeypatch.setenv("CONCH_KUBERNETES_URL", api.url)
    monkeypatch.setattr("services.cluster.ledger._SPREAD_SECONDS", 0.0)
    monkeypatch.setattr("services.cluster.ledger._FIRST_BACKOFF_SECONDS", 0.05)
    return api


@asynccontextmanager
async def ledger() -> AsyncIterator[LedgerConfigMap]:
    """Yields the ledger of one gateway; what was noted is written at the end."""
    cluster = connect(component="test")
    made = LedgerConfigMap(cluster, LEDGER)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
        await cluster.close()


async def set_route(route: models_pb2.Route, actor: str, reason: str = "") -> Revision:
    """Writes a route into the ConfigMap as a gateway does that dies before it writes the ledger."""
    cluster = connect(component="test")
    change = models_pb2.RouteChange(actor=actor, reason=reason, after=route)
    change.time.GetCurrentTime()
    source = RoutesConfigMap(cluster, ROUTES, mounted=Path("none"))
    async with source.writing(change, held=models_pb2.Routes()) as revision:
        pass
    await cluster.close()
    return revision


async def noted(*revisions: Revision) -> None:
    """Notes revisions that hold as a gateway does that took up each."""
    async with ledger() as made:
        for revision in revisions:
            await made.note(revision, revision.routes.routes)


def told(api: ApiServer) -> list[tuple[int, str, str]]:
    return [(c.sequence, c.actor, c.reason) for c in lines(api)]


async def test_a_release_is_one_line_whoever_saw_it_first_and_any_gateway_shows_it(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, route(v1=1), actor="ci", reason="helm revision 1")
    async with gateways(tmp_path) as stacks:
        await shifted(stacks, 1)
        release(api, route(v2=1), actor="anna", reason="tuesday")
        await shifted(stacks, 2)
        await stacks[1].set_route(route(v1=1), actor="berta")
        await shifted(stacks, 1)
        release(api)
        await until(api, lambda: len(lines(api)) == 4)
        for stack in stacks:
            seen = await history(stack)
            assert [(c.sequence, c.actor, c.reason) for c in seen[:3]] == [
                (1, "ci", "helm revision 1"),
                (2, "anna", "tuesday"),
                (3, "berta", ""),
            ]
            assert all(c.time.seconds for c in seen)
            assert seen[3].after == models_pb2.Route(model="sentiment")
            assert [c.before for c in seen[1:]] == [c.after for c in seen[:-1]]
    async with gateways(tmp_path / "again") as stacks:  # gateways that start find all written
        release(api, route(v2=1), actor="helm")
        await shifted(stacks, 2)
    assert [c.sequence for c in lines(api)] == [1, 2, 3, 4, 5]


async def test_a_ledger_that_cannot_be_written_holds_no_shift_up_and_is_written_later(
    tmp_path: Path, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cluster.ledger._ANSWER_SECONDS", 0.2)
    release(api, route(v1=1))
    async with gateways(tmp_path) as stacks:
        await shifted(stacks, 1)
        await until(api, lambda: len(lines(api)) == 1)
        api.faults.add(Fault("patch", "configmaps", code=403, reason="Forbidden", name=LEDGER, times=9))
        change = await stacks[0].set_route(route(v2=1), actor="anna")
        assert change.sequence == 0
        assert stacks[0].metrics.registry.get_sample_value("conch_ledger_unwritten")
        await shifted(stacks, 2)
        await stacks[1].set_route(route(v1=1), actor="berta")
        await until(api, lambda: len(lines(api)) == 3)
    assert told(api) == [(1, "helm", ""), (2, "anna", ""), (3, "berta", "")]


async def test_who_asks_for_the_ledger_while_nobody_answers_is_told_to_come_back(
    tmp_path: Path, api: ApiServer
) -> None:
    release(api, route(v1=1))
    async with gateways(tmp_path, 1) as (stack,):
        await shifted([stack], 1)
        await until(api, lambda: len(lines(api)) == 1)
        api.faults.add(Fault("get", "configmaps", code=503, name=LEDGER, times=100))
        assert (await refusal(history(stack)))[0] == grpc.StatusCode.UNAVAILABLE
        api.faults.clear()
        assert len(await history(stack)) == 1


async def test_many_gateways_at_once_write_each_line_once(api: ApiServer) -> None:
    revisions = [revision_of(release(api, route(v1=1), actor="ci"))]
    revisions += [await set_route(route(v1=1, v2=n), f"anna-{n}") for n in range(3)]
    revisions.append(revision_of(release(api, route(v2=1), actor="ci", reason="build 2")))
    api.faults.add(conflict(verb="patch", name=LEDGER, times=2))
    await asyncio.gather(*(noted(*revisions[n % 5 :]) for n in range(10)), noted(*revisions))
    newest = [c.actor for c in lines(api)]
    # Gateways that joined late may have been first: the very first routes may have no line then.
    assert newest in (["ci", "anna-0", "anna-1", "anna-2", "ci"], ["anna-0", "anna-1", "anna-2", "ci"])
    assert [c.sequence for c in lines(api)] == list(range(1, len(newest) + 1))
    for before, after in itertools.pairwise(lines(api)):
        assert after.before == before.after


async def test_what_a_person_set_is_recorded_even_if_its_gateway_died_and_a_release_went_over_it(
    api: ApiServer,
) -> None:
    await noted(revision_of(release(api, route(v1=1), actor="ci")))
    await set_route(route(v1=1, v2=1), "anna", "half")
    await set_route(route(v2=1), "berta", "all")
    newest = revision_of(release(api, route(v1=1), actor="ci", reason="build 2"))
    await noted(newest)
    await noted(newest)
    assert told(api) == [(1, "ci", ""), (2, "anna", "half"), (3, "berta", "all"), (4, "ci", "build 2")]


async def test_a_gateway_that_lags_writes_nothing_over_what_came_after(api: ApiServer) -> None:
    first = revision_of(release(api, route(v1=1), route("topic", v1=1), actor="ci", reason="1"))
    second = revision_of(release(api, route(v2=1), actor="ci", reason="2"))
    await noted(first)
    await noted(second)
    await noted(first)
    assert [(c.after.model, c.reason) for c in lines(api)] == [
        ("sentiment", "1"),
        ("topic", "1"),
        ("sentiment", "2"),
        ("topic", "2"),
    ]


async def test_a_release_and_a_person_that_change_different_models_keep_their_names(api: ApiServer) -> None:
    await noted(revision_of(release(api, route(v1=1), route("topic", v1=1), actor="ci", reason="1")))
    release(api, route(v1=1), route("topic", v2=1), actor="ci", reason="2")  # topic@2 takes its time
    newest = await set_route(route(v2=1), "anna")
    await noted(newest)
    assert [(c.after.model, c.actor, c.reason) for c in lines(api)[2:]] == [
        ("sentiment", "anna", ""),
        ("topic", "ci", "2"),
    ]


async def test_a_full_ledger_drops_its_oldest_lines_and_keeps_counting(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.cluster.books._MAX_BYTES", 4000)
    topic = route("topic", v1=1)
    for n in range(1, 41):
        revision = revision_of(release(api, topic, route(v1=n), actor="ci", reason=f"build {n}"))
        await noted(revision)
    text = api.objects.get("ConfigMap", LEDGER)["data"]["ledger.jsonl"]
    assert 3000 < len(text) <= 4000
    kept = [c.sequence for c in lines(api)]
    assert kept == list(range(kept[0], 42))
    assert {c.after.model for c in lines(api)} == {"sentiment"}  # topic's line went, and does not come again


async def test_what_hands_damage_in_the_ledger_does_not_stop_it(api: ApiServer) -> None:
    await noted(revision_of(release(api, route(v1=1))), revision_of(release(api, route(v1=2))))

    def damage(obj: dict) -> None:  # type: ignore[type-arg]
        obj["metadata"]["annotations"]["conch/recorded"] = "{"
        first, second = obj["data"]["ledger.jsonl"].splitlines()
        obj["data"]["ledger.jsonl"] = f"oops {first}\n{second}\n"

    api.objects.change("ConfigMap", LEDGER, damage)
    await noted(revision_of(release(api, route(v1=3))))
    async with ledger() as made:
        page, below = await made.page(model="sentiment", size=10, below=None)
    assert ([c.sequence for c in page], below) == ([3, 2], None)
    assert page[0].before == route(v1=2)


async def test_routes_that_are_made_anew_are_counted_anew(api: ApiServer) -> None:
    """So a restored backup, or a release that was removed and installed again."""
    await noted(revision_of(release(api, route(v1=1))))
    await noted(await set_route(route(v2=1), "anna"))
    old = api.objects.get("ConfigMap", ROUTES)
    api.objects.delete("ConfigMap", ROUTES)
    api.objects.create(old)
    restored = revision_of(api.objects.get("ConfigMap", ROUTES))
    await noted(restored)
    assert restored.signed == ()
    await noted(await set_route(route(v1=1), "berta"))
    assert [c.actor for c in lines(api)] == ["helm", "anna", "berta"]


async def test_a_ledger_of_thousands_of_lines_fits_and_is_paged(api: ApiServer) -> None:
    routes = models_pb2.Routes(routes=[route(f"model-{n:04}", v1=90, v2=10) for n in range(1500)])
    obj = release(api, text=values.text(routes), actor="ci", reason="x" * 200)
    await noted(revision_of(obj))
    stored = api.objects.get("ConfigMap", LEDGER)
    annotations, text = stored["metadata"]["annotations"], stored["data"]["ledger.jsonl"]
    size = sum(len(words.encode()) for words in annotations.values())
    print(f"\n1500 models: ledger {len(text) >> 10} KiB, annotations {size >> 10} KiB")
    assert size < 256 << 10
    assert len(text) + size < 1 << 20
