"""Every task's sample through the trainer's and the converter's workers, made once a session.

Knows orders and folders; what is looked at is tests/integration/test_every_task.py.
"""

from dataclasses import dataclass
from pathlib import Path

from conch.v1 import conversion_pb2, models_pb2, training_pb2, worker_pb2
from services import storage
from services.converter import run as converter
from services.converter import validation
from services.jobs.reporting import Reporter
from services.repository import versions
from services.tasks import find_task
from services.trainer.defaults import with_defaults
from services.trainer.run import run as train
from tests.integration.samples import Sample

NUM_ROWS = 96
QUICK = {
    "num_epochs": 1,
    "learning_rate": 1e-3,
    "batch_size": 8,
    "evaluations_per_epoch": 1,
    "max_length": 32,
    "num_threads": 1,
}


@dataclass(frozen=True)
class Shipped:
    """A trained and published sample; `version` 1 of a model that is named as its task."""

    task: str
    spec: training_pb2.TrainingSpec
    checkpoint: Path
    repository: Path
    evaluation: training_pb2.TrainingResult

    @property
    def manifest(self) -> models_pb2.CheckpointManifest:
        """What the checkpoint says of itself."""
        return storage.read_manifest(str(self.checkpoint))[0].checkpoint

    @property
    def folder(self) -> Path:
        """The version's folder."""
        return self.repository / self.task / "1"

    @property
    def version(self) -> models_pb2.Version:
        """The published version."""
        return versions.read_version(str(self.repository), self.task, 1)


def ship(task: str, sample: Sample, base: Path, folder: Path, repository: Path) -> Shipped:
    """Trains the sample on `base` and publishes it into `repository`."""
    spec = training_pb2.TrainingSpec(
        task=task,
        base_model=str(base),
        dataset=training_pb2.Dataset(train_uri=str(sample.write(folder, NUM_ROWS)), validation_fraction=0.4),
        hyperparameters=training_pb2.Hyperparameters(**{**QUICK, **sample.hyperparameters}),
        task_spec=sample.spec,
    )
    checkpoint = folder / "checkpoint"
    result = train(
        worker_pb2.WorkOrder(
            job_id=f"train-{task}",
            attempt=1,
            work_dir=str(folder / "training"),
            output_uri=str(checkpoint),
            training=spec,
        ),
        Reporter(folder / "training-spool"),
    )
    _convert(task, checkpoint, folder, repository)
    return Shipped(task, with_defaults(spec), checkpoint, repository, result)


def _convert(task: str, checkpoint: Path, folder: Path, repository: Path) -> None:
    spec = validation.complete(
        conversion_pb2.ConversionSpec(
            checkpoint_uri=str(checkpoint),
            model=task,
            num_parity_examples=32,
            # Two dozen examples resolve rates coarsely, and tiny models stand on ties.
            limits=dict.fromkeys(find_task(task).rates, 0.2),
        )
    )
    validation.check(spec)
    converter.run(
        worker_pb2.WorkOrder(
            job_id=f"convert-{task}",
            attempt=1,
            work_dir=str(folder / "conversion"),
            output_uri=str(repository),
            conversion=spec,
            version=1,
        ),
        Reporter(folder / "conversion-spool"),
    )
