"""The converter's worker: a checkpoint becomes a certified, published version.

Reads top to bottom like a recipe; each step is a module of its own. An attempt that was killed leaves
nothing that the next one trusts, but a version that it did publish is found and kept.
"""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import structlog

from conch.v1 import conversion_pb2, job_pb2, models_pb2, worker_pb2
from services.converter import certificate, checkpoint, onnx_export
from services.converter.checkpoint import Checkpoint
from services.converter.decoder import DecoderRecipe
from services.converter.encoder import EncoderRecipe
from services.converter.encoder_decoder import EncoderDecoderRecipe
from services.converter.recipe import Recipe, Stages
from services.errors import NotFound, NotReady
from services.jobs import worker
from services.jobs.reporting import Reporter
from services.repository import publishing, versions
from services.tasks import Architecture

log = structlog.get_logger(__name__)

_RECIPES: dict[Architecture, type[Recipe]] = {
    Architecture.ENCODER: EncoderRecipe,
    Architecture.ENCODER_DECODER: EncoderDecoderRecipe,
    Architecture.DECODER: DecoderRecipe,
}
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "openvino", "torch", "transformers")


def run(order: worker_pb2.WorkOrder, report: Reporter) -> conversion_pb2.ConversionResult:
    """Publishes the version that `order` claims and returns where it lies, with its certificate.

    Raises NotReady(CERTIFICATE_FAILED) if a target's answers are too far off, Cancelled between steps,
    and what `checkpoint.load`, `onnx_export.export` and `publishing.publish` raise; nothing is published
    then.
    """
    if not _is_published(order):
        with _room_needed(order.work_dir):
            _convert(order, report)
    return _finish(order, report)


def _convert(order: worker_pb2.WorkOrder, report: Reporter) -> None:
    spec = order.conversion
    work = _emptied(Path(order.work_dir) / "conversion")

    kind = _RECIPES[checkpoint.read_task(spec.checkpoint_uri).architecture]
    # Download and publishing are stages beside the recipe's own.
    stages = Stages(report, kind.num_stages(spec) + 2)
    stages.begin("download")
    recipe = kind(checkpoint.load(spec.checkpoint_uri, work / "checkpoint"), spec)
    source = recipe.source

    # Named as it will lie in the repository.
    folder = _emptied(work / "repository" / spec.model / str(order.version))
    recipe.build(folder, work, stages)
    for name in ("tokenizer.json", "golden.json"):
        shutil.copyfile(source.folder / name, folder / name)
    verdicts = []
    for verdict in recipe.judge(folder, stages):
        verdicts.append(verdict)
        report.event(verdict=verdict)

    stages.begin("publish")
    certificate.issue(
        folder, model=spec.model, version=order.version, checkpoint_digest=source.digest, verdicts=verdicts
    )
    publishing.publish(
        folder,
        repository_uri=order.output_uri,
        model=spec.model,
        version=order.version,
        configs=recipe.configs(spec.model),
        manifest=_manifest(order, source),
    )
    shutil.rmtree(work)


def _is_published(order: worker_pb2.WorkOrder) -> bool:
    """Returns whether an attempt of this job published its version before it was killed."""
    try:
        found = versions.read_version(order.output_uri, order.conversion.model, order.version)
    except NotFound:
        return False
    return found.manifest.conversion_job == order.job_id


def _finish(order: worker_pb2.WorkOrder, report: Reporter) -> conversion_pb2.ConversionResult:
    found = versions.read_version(order.output_uri, order.conversion.model, order.version)
    report.event(artifact_written=job_pb2.ArtifactWritten(kind="version", uri=found.uri, digest=found.digest))
    log.info("version.published", model=found.model, version=found.version, digest=found.digest)
    return conversion_pb2.ConversionResult(
        model=found.model,
        version=found.version,
        uri=found.uri,
        digest=found.digest,
        certificate=found.certificate,
    )


def _manifest(order: worker_pb2.WorkOrder, source: Checkpoint) -> models_pb2.VersionManifest:
    return models_pb2.VersionManifest(
        model=order.conversion.model,
        version=order.version,
        conversion_job=order.job_id,
        checkpoint_uri=order.conversion.checkpoint_uri,
        checkpoint_digest=source.digest,
        checkpoint=source.manifest,
        opset=onnx_export.OPSET,
        libraries={name: metadata.version(name) for name in _LIBRARIES},
    )


@contextlib.contextmanager
def _room_needed(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise NotReady(f"no space left to work in {place}", reason="DISK_FULL") from error


def _emptied(folder: Path) -> Path:
    """Returns `folder` without what a killed attempt left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    worker.main(run)
