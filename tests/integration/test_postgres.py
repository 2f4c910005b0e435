"""A trainer over a real PostgreSQL: a job's life, and a database that goes away and comes back."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from conch.v1 import job_pb2
from tests.contract.jobs.running import Service, sequences, states, warnings
from tests.integration.postgres import PASSWORD, Postgres

_S = job_pb2.JobStatus


@pytest.fixture
def trainer(postgres: Postgres, tmp_path: Path) -> Iterator[Service]:
    service = Service("trainer", tmp_path, CONCH_DATABASE_URL=postgres.new_database())
    yield service
    service.end()


def test_a_job_survives_kill_9_of_its_service_over_postgresql(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 2}, {"wait": str(go)}, {"warn": 2}], job_id="k")
    trainer.wait_for("k", '"2"')
    trainer.kill()
    trainer.start()
    go.touch()
    events = list(trainer.watch("k"))
    assert sequences(events) == list(range(1, 8))
    assert warnings(events) == ["1", "2", "3", "4"]
    assert states(events) == [_S.STATE_PENDING, _S.STATE_RUNNING, _S.STATE_SUCCEEDED]


def test_services_that_start_at_once_share_a_new_database(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()

    def start(name: str) -> Service:
        return Service(name, tmp_path, CONCH_DATABASE_URL=url)

    with ThreadPoolExecutor(2) as pool:
        for service in pool.map(start, ["trainer", "converter"]):
            assert service.stop() == 0


def test_a_database_that_goes_away_is_unavailable_and_loses_nothing(
    trainer: Service, postgres: Postgres
) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 1}, {"wait": str(go)}, {"warn": 2}], job_id="k")
    trainer.wait_for("k", '"1"')
    postgres.stop()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            trainer.job("k")
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert PASSWORD not in caught.value.details()
        # The worker goes on, and ends, without a database.
        go.touch()
        trainer.wait_for_log("replicas.missed")
    finally:
        postgres.start()
    events = list(trainer.watch("k"))
    assert warnings(events) == ["1", "2", "3"]
    assert states(events)[-1] == _S.STATE_SUCCEEDED
    assert trainer.process.send_signal(signal.SIGTERM) is None
    assert trainer.process.wait(timeout=30) == 0
