"""Two trainers over one database: one leads, each serves everything, and a job runs once whoever dies."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from conch.v1 import job_pb2, training_pb2
from tests.contract.jobs.running import Service, sequences, states, warnings
from tests.integration.cut_off import Way
from tests.integration.postgres import Postgres

_S = job_pb2.JobStatus
_ONCE = [_S.STATE_PENDING, _S.STATE_RUNNING, _S.STATE_SUCCEEDED]

Pair = tuple[Service, Service]
StartPair = Callable[..., Pair]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database that replicas can share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.new_database()


@pytest.fixture
def start_pair(tmp_path: Path) -> Iterator[StartPair]:
    """Starts a leader and one that follows, over one database and one home."""
    started: list[Service] = []

    def start_pair(url: str, **settings: str) -> Pair:
        for _ in range(2):
            started.append(Service("trainer", tmp_path, CONCH_DATABASE_URL=url, **settings))
            started[0].wait_for_log("leader.began")
        return started[0], started[1]

    yield start_pair
    for service in started:
        service.end()


@pytest.fixture
def leader_way(postgres: Postgres) -> Iterator[Way]:
    """A way to the database that can go dead."""
    way = Way(postgres.port)
    yield way
    way.close()


def runs(home: Path) -> Counter[str]:
    """Returns how many workers worked on each job, by their own word."""
    return Counter((home / "runs").read_text().split())


def assert_told_once(events: list[job_pb2.JobEvent], num_warnings: int) -> None:
    assert sequences(events) == list(range(1, len(events) + 1))
    assert warnings(events) == [str(n + 1) for n in range(num_warnings)]
    assert states(events) == _ONCE


def test_twenty_jobs_run_once_each_though_the_leader_is_killed_midway(
    start_pair: StartPair, url: str, tmp_path: Path
) -> None:
    leader, other = start_pair(url, CONCH_MAX_CONCURRENT_JOBS="4")
    go = tmp_path / "go"
    names = [f"j{i:02}" for i in range(20)]

    def script(name: str) -> list[dict[str, Any]]:
        wait = {"wait": str(go)} if name > "j05" else {}
        return [{"append": str(tmp_path / "runs")}, {"warn": 3}, wait, {"warn": 2}]

    for i, name in enumerate(names):
        (leader, other)[i % 2].train(script(name), job_id=name)
    other.wait_for("j06", '"3"')
    leader.kill()
    other.wait_for_log("leader.began")
    go.touch()
    with ThreadPoolExecutor(4) as pool:
        for events in pool.map(lambda name: list(other.watch(name)), names):
            assert_told_once(events, 5)
    assert {other.job(name).status.attempt for name in names} == {1}
    assert runs(tmp_path) == Counter(dict.fromkeys(names, 1))


def test_watch_create_and_cancel_work_on_the_replica_that_does_not_lead(
    start_pair: StartPair, url: str, tmp_path: Path
) -> None:
    _, other = start_pair(url)
    go = tmp_path / "go"
    other.train([{"warn": 1}, {"wait": str(go)}, {"warn": 1}, {"until_cancelled": 1}], job_id="k")
    seen = other.wait_for("k", '"1"')
    watch = other.watch("k", len(seen) + 1)
    go.touch()
    assert next(watch).warning.message == "2"
    other.training.CancelTrainingJob(training_pb2.CancelTrainingJobRequest(id="k"))
    assert states(list(watch)) == [_S.STATE_CANCELLED]
    assert not any(entry["event"] == "leader.began" for entry in other.log)
    other.training.DeleteTrainingJob(training_pb2.DeleteTrainingJobRequest(id="k"))
    assert not (tmp_path / "jobs" / "k").exists()


def test_a_leader_that_stops_hands_over_and_its_worker_goes_on(
    start_pair: StartPair, url: str, tmp_path: Path
) -> None:
    leader, other = start_pair(url)
    go = tmp_path / "go"
    leader.train([{"warn": 1}, {"wait": str(go)}, {"warn": 2}], job_id="k")
    leader.wait_for("k", '"1"')
    assert leader.stop() == 0
    other.wait_for_log("worker.adopted", job="k")
    go.touch()
    assert_told_once(list(other.watch("k")), 3)


def test_a_leader_that_loses_its_connection_leads_no_more(
    start_pair: StartPair, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.new_database()
    leader, _ = start_pair(url)
    go = tmp_path / "go"
    script = [{"append": str(tmp_path / "runs")}, {"warn": 1}, {"wait": str(go)}, {"warn": 2}]
    for name in ("runs", "waits"):
        leader.train(script, job_id=name)
    leader.wait_for("runs", '"1"')
    cut_off_leader(url)
    leader.wait_for_log("leader.ended")
    # Either of them may be the faster one: in both cases what runs is adopted.
    go.touch()
    for name in ("runs", "waits"):
        assert_told_once(list(leader.watch(name)), 3)
    assert runs(tmp_path) == Counter(runs=1, waits=1)


def test_a_leader_that_freezes_is_followed_by_another_and_does_no_harm_when_it_thaws(
    start_pair: StartPair, postgres: Postgres, tmp_path: Path
) -> None:
    leader, other = start_pair(postgres.new_database())
    more, end = tmp_path / "more", tmp_path / "end"
    script = [{"append": str(tmp_path / "runs")}, {"warn": 1}, {"wait": str(more)}, {"warn": 1}]
    leader.train([*script, {"wait": str(end)}], job_id="k")
    leader.wait_for("k", '"1"')
    leader.process.send_signal(signal.SIGSTOP)
    other.wait_for_log("worker.adopted", job="k")
    # Its worker finds the one that leads now, and that before anyone thaws the other.
    more.touch()
    other.wait_for("k", '"2"')
    leader.process.send_signal(signal.SIGCONT)
    leader.wait_for_log("leader.ended")
    end.touch()
    assert_told_once(list(leader.watch("k")), 2)
    assert runs(tmp_path) == Counter(k=1)


def test_a_leader_whose_way_to_the_database_is_dead_leads_no_more(
    postgres: Postgres, tmp_path: Path, leader_way: Way
) -> None:
    url = postgres.new_database()
    far = Service(
        "trainer", tmp_path, CONCH_DATABASE_URL=url.replace(str(postgres.port), str(leader_way.port))
    )
    try:
        far.wait_for_log("leader.began")
        near = Service("trainer", tmp_path, CONCH_DATABASE_URL=url)
        try:
            assert_hands_over(far, near, leader_way)
        finally:
            near.end()
    finally:
        far.end()


def assert_hands_over(far: Service, near: Service, way: Way) -> None:
    """Cuts the leader off while a job runs and one waits; the other one sees both through."""
    go = near.home / "go"
    script = [{"append": str(near.home / "runs")}, {"warn": 1}, {"wait": str(go)}, {"warn": 1}]
    for name in ("runs", "waits"):
        far.train(script, job_id=name)
    far.wait_for("runs", '"1"')
    way.die()
    far.wait_for_log("leader.ended")
    near.wait_for_log("worker.adopted", job="runs")
    go.touch()
    for name in ("runs", "waits"):
        assert_told_once(list(near.watch(name)), 2)
    assert runs(near.home) == Counter(runs=1, waits=1)


def cut_off_leader(url: str) -> None:
    """Ends the connection that holds the leader's lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchall()
    assert ended == [(True,)]
