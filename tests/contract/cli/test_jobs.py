"""train, convert, ship, jobs and watch against services that follow a script."""

from pathlib import Path

import pytest

from conch.errors import FailedPrecondition, InvalidArgument
from tests.contract.cli.conftest import Conch
from tests.contract.cli.fakes import FakeServices

TRAIN = ("train", "reviews.csv", "--base-model", "./minilm")
SHIP = ("ship", "reviews.csv", "--model", "sentiment", "--base-model", "./minilm", "--id", "run")


def test_train_follows_the_job_and_prints_what_came_of_it(conch: Conch) -> None:
    ran = conch(*TRAIN, "--id", "first")
    assert ran.code == 0
    assert "accuracy 0.8700" in ran.stdout
    assert "step 20/20" in ran.stderr


def test_train_sends_what_was_typed_with_absolute_paths(conch: Conch, services: FakeServices) -> None:
    conch(*TRAIN, "--id", "first", "--epochs", "2", "--column", "label=stars", "--seed", "0", "--no-watch")
    spec = services.training.jobs["first"].spec
    assert (spec.task, spec.hyperparameters.num_epochs) == ("text-classification", 2)
    assert dict(spec.dataset.columns) == {"label": "stars"}
    assert spec.hyperparameters.HasField("seed")
    assert not spec.hyperparameters.HasField("warmup_ratio")
    assert spec.dataset.train_uri == str(Path("reviews.csv").absolute())
    assert spec.base_model == str(Path("minilm").absolute())


def test_train_leaves_hub_ids_and_uris_as_they_are(conch: Conch, services: FakeServices) -> None:
    conch("train", "s3://bucket/a.csv", "-b", "bert-base-cased", "--id", "first", "--no-watch")
    spec = services.training.jobs["first"].spec
    assert (spec.dataset.train_uri, spec.base_model) == ("s3://bucket/a.csv", "bert-base-cased")


def test_ship_says_on_which_machines_of_a_cluster_each_job_runs(conch: Conch, services: FakeServices) -> None:
    conch(*SHIP, "--profile", "gpu", "--nodes", "4", "--conversion-profile", "cpu")
    training = next(iter(services.training.jobs.values())).spec
    conversion = next(iter(services.conversion.jobs.values())).spec
    assert (training.profile, training.num_nodes, conversion.profile) == ("gpu", 4, "cpu")


def test_train_makes_an_id_from_the_files_name(conch: Conch, services: FakeServices) -> None:
    conch(*TRAIN, "--no-watch")
    assert next(iter(services.training.jobs)).startswith("reviews-")


def test_json_of_a_followed_job_is_its_events_and_then_the_job(conch: Conch) -> None:
    ran = conch(*TRAIN, "--id", "first", "--json")
    *events, job = ran.lines
    assert [event["sequence"] for event in events] == ["1", "2", "3", "4", "5"]
    assert job["id"] == "first"
    assert job["status"]["state"] == "STATE_SUCCEEDED"


def test_a_failed_job_is_exit_code_1_and_one_line_that_says_why(conch: Conch, services: FakeServices) -> None:
    services.training.error = InvalidArgument("dataset.train_uri: no such file", reason="UNREADABLE_URI")
    ran = conch(*TRAIN, "--id", "first", "--json")
    assert ran.code == 1
    message = "training job first FAILED: dataset.train_uri: no such file (UNREADABLE_URI)"
    assert ran.stderr == f"conch: {message}\n"
    assert ran.lines


def test_an_id_of_another_spec_is_exit_code_4(conch: Conch) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    ran = conch(*TRAIN, "--id", "first", "--epochs", "7", "--no-watch")
    assert ran.code == 4
    assert ran.stderr == "conch: job first has another spec (JOB_ID_TAKEN)\n"


def test_watch_resumes_a_broken_stream_without_gap_or_repeat(conch: Conch, services: FakeServices) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    services.training.break_after = 2
    *events, _ = conch("watch", "first", "--json").lines
    assert [event["sequence"] for event in events] == ["1", "2", "3", "4", "5"]
    assert services.training.watched_from == [1, 3]


def test_watch_finds_conversion_jobs_by_themselves(conch: Conch) -> None:
    conch("convert", "/checkpoints/a", "--model", "sentiment", "--id", "proof", "--no-watch")
    ran = conch("watch", "proof")
    assert ran.code == 0
    assert "onnxruntime fp32 certified on 500 examples: label_flip_rate 0.001 (<= 0.01)" in ran.stderr
    assert "sentiment version 3" in ran.stdout


def test_watch_can_start_in_the_middle(conch: Conch) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    *events, _ = conch("watch", "first", "--from-sequence", "4", "--json").lines
    assert [event["sequence"] for event in events] == ["4", "5"]


def test_ctrl_c_detaches_and_says_how_to_come_back(conch: Conch, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("services.cli.progress.JobProgress.show", interrupt)
    ran = conch(*TRAIN, "--id", "first")
    assert ran.code == 130
    assert ran.stderr.endswith("conch: detached, the job goes on; watch it again: conch watch first\n")


def test_convert_takes_a_training_jobs_id(conch: Conch, services: FakeServices) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    ran = conch("convert", "first", "-m", "sentiment", "--target", "onnxruntime=int8", "--id", "c", "--json")
    assert ran.code == 0
    spec = services.conversion.jobs["c"].spec
    assert spec.checkpoint_uri == "/artifacts/training/x"
    assert ran.lines[-1]["spec"]["targets"] == [
        {"runtime": "RUNTIME_ONNXRUNTIME", "precision": "PRECISION_INT8"}
    ]


def test_a_target_that_does_not_exist_is_refused_before_any_call(conch: Conch) -> None:
    ran = conch("convert", "/a", "-m", "sentiment", "--target", "tensorflow")
    assert ran.code == 2
    assert "--target 'tensorflow'" in ran.stderr


def test_ship_trains_converts_routes_and_reports(conch: Conch, services: FakeServices) -> None:
    ran = conch(*SHIP)
    assert ran.code == 0
    assert "held out  accuracy 0.8700" in ran.stdout
    assert "onnxruntime fp32 certified" in ran.stdout
    assert "ready     sentiment version 3" in ran.stdout
    assert [(v.version, v.weight) for v in services.routes["sentiment"].versions] == [(3, 100)]
    assert services.ledger[0].reason == "shipped by run run"


def test_ship_prints_one_object_as_json_and_the_progress_on_stderr(conch: Conch) -> None:
    ran = conch(*SHIP, "--json")
    (summary,) = ran.lines
    assert summary["trainingJob"]["result"]["evaluation"]["metrics"]["accuracy"] == 0.87
    assert summary["conversionJob"]["result"]["version"] == "3"
    assert summary["route"]["versions"] == [{"version": "3", "weight": 100}]
    assert "step 20/20" in ran.stderr


def test_ship_with_the_same_id_continues_instead_of_starting_again(
    conch: Conch, services: FakeServices
) -> None:
    services.error = FailedPrecondition("not certified for openvino", reason="NOT_CERTIFIED")
    first = conch(*SHIP)
    assert (first.code, first.stderr.splitlines()[-1]) == (
        4,
        "conch: not certified for openvino (NOT_CERTIFIED)",
    )
    services.error = None
    assert conch(*SHIP).code == 0
    assert conch(*SHIP).code == 0
    assert len(services.training.jobs) == len(services.conversion.jobs) == 1
    assert len(services.ledger) == 1, "a route that says so already stays"


def test_ship_stops_at_a_failed_conversion(conch: Conch, services: FakeServices) -> None:
    services.conversion.error = FailedPrecondition("label_flip_rate 0.4 > 0.01", reason="PARITY_FAILED")
    ran = conch(*SHIP, "--json")
    assert ran.code == 1
    assert ran.stdout == ""
    last = ran.stderr.splitlines()[-1]
    assert last == "conch: conversion job run-convert FAILED: label_flip_rate 0.4 > 0.01 (PARITY_FAILED)"
    assert not services.routes


def test_jobs_alone_lists_both_kinds_newest_first(conch: Conch) -> None:
    conch(*SHIP)
    conch(*TRAIN, "--id", "later", "--no-watch")
    listed = conch("jobs", "--json").lines
    assert {(job["kind"], job["id"]) for job in listed} == {
        ("training", "run"),
        ("training", "later"),
        ("conversion", "run-convert"),
    }
    assert listed[0]["id"] == "later"
    assert "run-convert" in conch("jobs").stdout


def test_jobs_list_filters_by_state(conch: Conch) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    assert conch("jobs", "list", "--state", "failed", "--json").lines == []
    assert len(conch("jobs", "list", "--state", "succeeded", "--kind", "training", "--json").lines) == 1
    assert conch("jobs", "list", "--state", "happy").code == 2


@pytest.mark.parametrize("verb", ["get", "cancel"])
def test_get_and_cancel_print_the_job(conch: Conch, verb: str) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    assert conch("jobs", verb, "first", "--json").lines[0]["id"] == "first"


def test_delete_deletes(conch: Conch, services: FakeServices) -> None:
    conch(*TRAIN, "--id", "first", "--no-watch")
    assert conch("jobs", "delete", "first", "--json").lines == [{"deleted": "first", "kind": "training"}]
    assert not services.training.jobs


def test_an_unknown_job_is_exit_code_3(conch: Conch) -> None:
    ran = conch("jobs", "get", "nothing")
    assert (ran.code, ran.stdout, ran.stderr) == (3, "", "conch: no job 'nothing' (JOB_NOT_FOUND)\n")
