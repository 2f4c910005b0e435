"""What only workers on this machine do: spools and folders; and what keeps a service from serving."""

import json
import sqlite3
from pathlib import Path

import pytest

from conch.v1 import job_pb2
from tests.contract.jobs.conftest import Start
from tests.contract.jobs.places import Local, Place
from tests.contract.jobs.running import (
    Service,
    forget_worker,
    sequences,
    start_in_vain,
    states,
    wait_for_exit,
)

_S = job_pb2.JobStatus


@pytest.fixture
def place() -> Place:
    """This machine alone."""
    return Local()


def test_what_a_worker_did_while_no_service_ran_is_read_from_its_spool(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 1}, {"wait": str(go)}, {"warn": 2}], job_id="k")
    trainer.wait_for("k", '"1"')
    pid = trainer.worker_pid("k")
    trainer.kill()
    go.touch()
    wait_for_exit(pid)
    trainer.start()
    events = list(trainer.watch("k"))
    assert sequences(events) == [1, 2, 3, 4, 5, 6]
    assert states(events)[-1] == _S.STATE_SUCCEEDED
    assert trainer.job("k").status.attempt == 1


def test_an_attempt_that_was_claimed_but_never_begun_begins_now(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"wait": str(go)}], job_id="k", max_attempts=1)
    trainer.wait_for("k", "STATE_RUNNING")
    trainer.kill()
    trainer.end()
    forget_worker(trainer.home)
    (trainer.home / "jobs" / "k" / "attempt-1" / "spool.binpb").unlink(missing_ok=True)
    trainer.start()
    go.touch()
    job = trainer.finish("k")
    assert (job.status.state, job.status.attempt) == (_S.STATE_SUCCEEDED, 1)


def test_a_worker_whose_attempt_was_taken_over_ends_itself(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"warn": 1}, {"wait": str(go)}, {"warn": 1}, {"wait": "/never"}], job_id="k")
    trainer.wait_for("k", '"1"')
    with sqlite3.connect(trainer.home / "conch.db") as connection:
        connection.execute("UPDATE jobs SET attempt = attempt + 1")
    connection.close()
    go.touch()
    wait_for_exit(trainer.worker_pid("k"))
    log = trainer.home / "jobs" / "k" / "attempt-1" / "worker.log"
    assert "worker.superseded" in log.read_text()


@pytest.mark.parametrize("name", ["trainer", "converter"])
def test_a_wrong_database_url_is_one_readable_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    url = "postgresql://conch:hush-hush@127.0.0.1:1/none"
    done = start_in_vain(name, tmp_path, CONCH_DATABASE_URL=url)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "jobs database" in done.stderr
    assert "hush-hush" not in done.stderr
    assert done.stdout == ""


def test_a_taken_port_is_one_readable_line_and_exit_code_2(start: Start, tmp_path: Path) -> None:
    trainer = start()
    done = start_in_vain("trainer", tmp_path, CONCH_TRAINER_ADDRESS=trainer.address)
    assert done.returncode == 2
    assert f"cannot listen on {trainer.address}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_workers_report_to_the_address_that_the_operator_names(start: Start) -> None:
    trainer = start(CONCH_REPORT_TO="trainer.example:50052")
    trainer.train([{"warn": 1}], job_id="k")
    trainer.wait_for_log("job.started", job="k")
    order = json.loads((trainer.home / "jobs" / "k" / "attempt-1" / "order.json").read_text())
    assert order["reportTo"] == "trainer.example:50052"
    # Nobody is there; what it told is in its spool.
    assert sequences(list(trainer.watch("k"))) == [1, 2, 3, 4]


def test_a_job_that_ran_elsewhere_is_not_taken_for_a_process_of_this_machine(trainer: Service) -> None:
    go = trainer.home / "go"
    trainer.train([{"attempt": 1, "wait": str(go)}], job_id="k")
    trainer.wait_for_log("job.started", job="k")
    trainer.kill()
    trainer.end()
    with sqlite3.connect(trainer.home / "conch.db") as connection:
        connection.execute("UPDATE jobs SET worker_name = 'k-a1', worker_mark = 'uid'")
    connection.close()
    trainer.start()
    job = trainer.finish("k")
    assert (job.status.state, job.status.attempt) == (_S.STATE_SUCCEEDED, 2)
