"""What an operator sees of a pod in the cluster's own events, and that nothing ever waits for them."""

import pytest

from services.cluster.events import Event, Pod, post
from tests.cluster import recorded
from tests.cluster.api_server import ApiServer
from tests.cluster.faults import Fault

POD = Pod("conch-triton-gpu-1", "models", "uid-1", "initContainers{stage}")
UNFIT = Event("PlanUnfit", "no plan fits")


@pytest.fixture
def events(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> ApiServer:
    monkeypatch.setenv("CONCH_KUBERNETES_URL", api.url)
    return api


def test_an_event_is_posted_about_the_pod_and_its_container(events: ApiServer) -> None:
    post([UNFIT, Event("VersionLeftOut", "x" * 2000)], POD)
    first, second = sorted(events.objects.all("Event"), key=lambda event: event["reason"])
    assert first["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "conch-triton-gpu-1",
        "namespace": "models",
        "uid": "uid-1",
        "fieldPath": "spec.initContainers{stage}",
    }
    assert (first["type"], first["reason"], first["message"]) == ("Warning", "PlanUnfit", "no plan fits")
    assert first["metadata"]["name"].startswith("conch-triton-gpu-1.")
    # The API server refuses a longer one.
    assert len(second["message"]) == 1024
    recorded.check("stage", events.calls_made())


def test_a_refused_event_stops_nobody(events: ApiServer) -> None:
    events.faults.add(Fault(verb="create", code=403, reason="Forbidden"))
    post([UNFIT], POD)
    assert events.objects.all("Event") == []


def test_an_event_that_was_made_though_its_answer_was_lost_is_not_made_twice(events: ApiServer) -> None:
    events.faults.add(Fault(verb="create", how="drop"))
    post([UNFIT], POD)
    assert len(events.objects.all("Event")) == 1


def test_without_a_pod_no_cluster_is_asked(events: ApiServer) -> None:
    post([UNFIT], Pod("", "", ""))
    assert events.calls == []


def test_without_a_cluster_events_are_logged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("CONCH_KUBERNETES_URL", raising=False)
    post([UNFIT], POD)


def test_a_cluster_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCH_KUBERNETES_URL", "http://127.0.0.1:9")
    post([UNFIT], POD)
