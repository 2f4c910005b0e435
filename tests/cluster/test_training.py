"""Real training in an emulated cluster: what a lost machine costs, and machines that train together."""

import csv
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from conch.v1 import job_pb2, training_pb2
from services import storage
from tests.cluster.running import Cluster, ClusterTrainer, cluster
from tests.contract.jobs.running import sequences, warnings

_S = job_pb2.JobStatus


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path / "templates") as running:
        yield running


@pytest.fixture
def trainer(place: Cluster, tmp_path: Path) -> Iterator[ClusterTrainer]:
    """A trainer whose workers train, with a minute to wind down."""
    settings = {"CONCH_TRAINER_WORKER_MODULE": "services.trainer.run", "CONCH_CANCEL_GRACE_SECONDS": "60"}
    service = ClusterTrainer(place, tmp_path / "home", **settings)
    yield service
    service.end()


@pytest.fixture
def opinions(tmp_path: Path) -> Path:
    path = tmp_path / "opinions.csv"
    words = {"good": ["great", "lovely", "brilliant"], "bad": ["awful", "dull", "terrible"]}
    choose = random.Random(1).choice
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for i in range(160):
            label = ("good", "bad")[i % 2]
            writer.writerow([f"a {choose(words[label])} film number {i}", label])
    return path


def create(
    trainer: ClusterTrainer, job_id: str, opinions: Path, base: Path, *, num_epochs: int, **spec: int
) -> None:
    spec_of_all = training_pb2.TrainingSpec(
        task="text-classification",
        base_model=str(base),
        dataset=training_pb2.Dataset(train_uri=str(opinions), validation_fraction=0.25),
        hyperparameters=training_pb2.Hyperparameters(
            num_epochs=num_epochs,
            batch_size=4,
            learning_rate=2e-3,
            max_length=16,
            num_threads=1,
            early_stopping_patience=0,
        ),
        max_attempts=1,
        **spec,
    )
    trainer.training.CreateTrainingJob(training_pb2.CreateTrainingJobRequest(id=job_id, spec=spec_of_all))


def followed(trainer: ClusterTrainer, job_id: str) -> list[job_pb2.JobEvent]:
    events = list(trainer.watch(job_id))
    assert trainer.job(job_id).status.state == _S.STATE_SUCCEEDED, trainer.job(job_id).status
    assert sequences(events) == list(range(1, len(events) + 1))
    return events


@pytest.mark.parametrize("in_peace", [True, False])
def test_a_preempted_training_goes_on_from_its_last_checkpoint_within_the_same_attempt(
    trainer: ClusterTrainer, opinions: Path, tiny_bert: Path, in_peace: bool
) -> None:
    kubelet = trainer.cluster.kubelet
    create(trainer, "k", opinions, tiny_bert, num_epochs=2)
    saved = itertools.islice((e for e in trainer.watch("k") if e.HasField("checkpoint_saved")), 2)
    newest = list(saved)[-1]
    pod = kubelet.wait_for_pods("k")
    kubelet.preempt(pod)
    if not in_peace:
        kubelet.kill(pod, reason="NodeLost")
    events = followed(trainer, "k")
    second = [e for e in events if e.sequence > newest.sequence]
    begun = next(e.sequence for e in second if e.stage_started.name == "data")
    steps = [e.training_step.step for e in events if e.HasField("training_step")]
    steps_after = [e.training_step.step for e in second if e.sequence > begun and e.HasField("training_step")]
    assert steps_after[0] > newest.checkpoint_saved.step
    assert steps == sorted(set(steps)) or not in_peace
    assert len(kubelet.pods("k")) == 2
    assert trainer.job("k").status.attempt == 1
    assert warnings(events, "WORKER_DIED") == []
    assert storage.list_files(str(trainer.home / "artifacts" / "work" / "k")) == []


def test_two_machines_train_one_model_and_only_the_first_one_speaks(
    trainer: ClusterTrainer, opinions: Path, tiny_bert: Path
) -> None:
    create(trainer, "two", opinions, tiny_bert, num_epochs=8, num_nodes=2)
    events = followed(trainer, "two")
    job = trainer.job("two")
    assert len(trainer.cluster.kubelet.pods("two")) == 2
    assert [e.stage_started.name for e in events if e.HasField("stage_started")] == [
        "data",
        "model",
        "train",
        "evaluate",
        "write",
    ]
    steps = [e.training_step for e in events if e.HasField("training_step")]
    # 120 examples in batches of 4 are 30 batches an epoch, of which each machine takes every other one.
    assert steps[-1].num_steps == 8 * 15
    assert job.result.evaluation.metrics["accuracy"] > 0.8
    assert storage.read_manifest(job.result.checkpoint_uri)[1] == job.result.checkpoint_digest
