"""What Prometheus reads of a trainer, over HTTP."""

import re
import socket
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.jobs.conftest import Start
from tests.contract.jobs.places import Local, Place
from tests.contract.jobs.running import Service, start_in_vain


@pytest.fixture
def place() -> Place:
    """This machine alone."""
    return Local()


def scrape(trainer: Service) -> dict[str, float]:
    """Returns the values by series; the labels without the kind, which is the same for all."""
    port = next(entry["port"] for entry in trainer.log if entry["event"] == "metrics.exposed")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    assert {sample.labels["kind"] for sample in samples} == {"training"}
    return {sample.name + sample.labels.get("state", ""): sample.value for sample in samples}


def test_jobs_are_counted_by_state_with_the_wait_of_the_oldest(start: Start) -> None:
    trainer = start(CONCH_METRICS_ADDRESS="127.0.0.1:0")
    trainer.wait_for_log("leader.began")
    empty = scrape(trainer)
    assert empty.pop("conch_scheduler_leader") == 1
    assert set(empty.values()) == {0}
    go = trainer.home / "go"
    trainer.train([{"end": "error"}], job_id="fails")
    trainer.finish("fails")
    trainer.train([{"wait": str(go)}], job_id="runs")
    trainer.wait_for("runs", "STATE_RUNNING")
    for name in ("waits", "waits-too"):
        trainer.train([], job_id=name)
    seen = scrape(trainer)
    counted = {name: value for name, value in seen.items() if name.startswith("conch_jobs")}
    assert counted == {
        "conch_jobspending": 2,
        "conch_jobsrunning": 1,
        "conch_jobssucceeded": 0,
        "conch_jobsfailed": 1,
        "conch_jobscancelled": 0,
    }
    created = trainer.job("waits").status.create_time.ToNanoseconds() / 1e9
    now = trainer.job("waits").status.create_time
    now.GetCurrentTime()
    assert 0 < seen["conch_oldest_pending_job_seconds"] <= now.ToNanoseconds() / 1e9 - created
    go.touch()
    trainer.finish("waits-too")
    assert scrape(trainer)["conch_oldest_pending_job_seconds"] == 0
    assert trainer.stop() == 0


def test_one_replica_of_two_says_that_it_leads(start: Start) -> None:
    first = start(CONCH_METRICS_ADDRESS="127.0.0.1:0")
    first.wait_for_log("leader.began")
    second = start(CONCH_METRICS_ADDRESS="127.0.0.1:0")
    assert [scrape(service)["conch_scheduler_leader"] for service in (first, second)] == [1, 0]
    first.kill()
    second.wait_for_log("leader.began")
    assert scrape(second)["conch_scheduler_leader"] == 1


def test_without_an_address_nothing_is_exposed(start: Start) -> None:
    assert not any(entry["event"] == "metrics.exposed" for entry in start().log)


def test_a_taken_metrics_port_is_one_readable_line_and_exit_code_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = start_in_vain("trainer", tmp_path, CONCH_METRICS_ADDRESS=address)
    assert done.returncode == 2
    assert re.fullmatch(f"cannot listen on {address} for metrics: .+\n", done.stderr)
