"""The spool and the reporter that writes it."""

from pathlib import Path

import pytest

from conch.v1 import job_pb2, training_pb2, worker_pb2
from services.jobs.reporting import Reporter
from services.jobs.spool import read_spool


def test_a_reporter_without_a_service_spools_everything_in_order(tmp_path: Path) -> None:
    report = Reporter(tmp_path / "spool.binpb", attempt=2)
    report.stage("data", 1, 5)
    report.warning("ODD", "something")
    report.event(training_step=job_pb2.TrainingStep(step=1))
    report.outcome(worker_pb2.Outcome(training=training_pb2.TrainingResult(checkpoint_uri="here")))
    report.close()
    spooled = read_spool(tmp_path / "spool.binpb")
    assert [r.worker_sequence for r in spooled] == [1, 2, 3, 4]
    kinds = [r.event.WhichOneof("event") for r in spooled[:3]]
    assert kinds == ["stage_started", "warning", "training_step"]
    assert {r.event.attempt for r in spooled[:3]} == {2}
    assert spooled[3].outcome.training.checkpoint_uri == "here"


def test_a_report_cut_off_anywhere_is_left_out_and_those_before_it_stay(tmp_path: Path) -> None:
    path = tmp_path / "spool.binpb"
    report = Reporter(path)
    ends = [0]
    for n in range(3):
        report.warning("R", "x" * 100 * n)
        ends.append(path.stat().st_size)
    report.close()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert len(read_spool(path)) == sum(end <= cut for end in ends[1:])


def test_there_is_nothing_in_a_spool_that_was_never_written(tmp_path: Path) -> None:
    assert read_spool(tmp_path / "none") == []


def test_an_event_must_be_one_of_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mood"):
        Reporter(tmp_path / "spool.binpb").event(mood="good")
