"""The converter's worker: a checkpoint becomes a certified, published version.

Reads top to bottom like a recipe; each step is a module of its own. An attempt that was killed leaves
nothing that the next one trusts, but a version that it did publish is found and kept.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import structlog

from conch.v1 import conversion_pb2, job_pb2, models_pb2, worker_pb2
from services.converter import (
    certificate,
    checkpoint,
    onnx_export,
    optimize,
    parity,
    quantize,
    runtimes,
    triton_config,
)
from services.converter.checkpoint import Checkpoint
from services.errors import Cancelled, NotFound, NotReady
from services.jobs import worker
from services.jobs.reporting import Reporter
from services.repository import layout, publishing, versions
from services.targets import target_name

log = structlog.get_logger(__name__)

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
    stages = _Stages(report, spec.targets)
    work = _emptied(Path(order.work_dir) / "conversion")

    stages.begin("download")
    source = checkpoint.load(spec.checkpoint_uri, work / "checkpoint")
    inputs = onnx_export.model_inputs(source.model, source.task)
    parity.check_golden(source, inputs)

    stages.begin("export")
    exported, portable = work / "exported.onnx", work / "portable.onnx"
    onnx_export.export(source.model, source.task, max_length=source.manifest.max_length, path=exported)

    stages.begin("optimize")
    optimize.optimize(exported, portable)
    folder = _laid_out(_emptied(work / "version"), source, portable, spec.targets, stages)

    stages.begin("reference")
    held = parity.hold(source, inputs, num_examples=spec.num_parity_examples, check=stages.check)
    verdicts = []
    for target in spec.targets:
        stages.begin(f"parity {target_name(target.runtime, target.precision)}")
        verdicts.append(parity.judge(target, held, folder=folder, limits=spec.limits, check=stages.check))
        report.event(verdict=verdicts[-1])
    _warn_of_emulation(report, spec.targets)

    stages.begin("publish")
    certificate.issue(
        folder, model=spec.model, version=order.version, checkpoint_digest=source.digest, verdicts=verdicts
    )
    publishing.publish(
        folder,
        repository_uri=order.output_uri,
        model=spec.model,
        version=order.version,
        configs=triton_config.config_texts(spec.model, source.task, inputs),
        manifest=_manifest(order, source),
    )
    shutil.rmtree(work)


class _Stages:
    """Reports each part of the work as it begins, and stops between parts once that was asked for."""

    def __init__(self, report: Reporter, targets: Sequence[conversion_pb2.Target]) -> None:
        self._report = report
        self._begun = 0
        # download, export, optimize, reference, publish; int8 is a part more, as is each target.
        self._total = 5 + len(targets) + _wants_int8(targets)

    def begin(self, name: str) -> None:
        self.check()
        self._begun += 1
        self._report.stage(name, self._begun, self._total)

    def check(self) -> None:
        if self._report.cancelled:
            raise Cancelled("the conversion was cancelled", reason="JOB_CANCELLED")


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


def _warn_of_emulation(report: Reporter, targets: Sequence[conversion_pb2.Target]) -> None:
    if any(t.precision == job_pb2.PRECISION_BF16 for t in targets) and not runtimes.has_bf16():
        report.warning(
            "BF16_NOT_NATIVE",
            "this CPU has no bf16, so openvino answered in fp32: convert on a CPU like those that serve, "
            "or the certificate shows less than bf16 loses",
        )


def _laid_out(
    folder: Path,
    source: Checkpoint,
    portable: Path,
    targets: Sequence[conversion_pb2.Target],
    stages: _Stages,
) -> Path:
    """Fills the version's folder with all but certificate and manifest, and returns it."""
    model = folder / layout.served_file(job_pb2.RUNTIME_ONNXRUNTIME)
    if _wants_int8(targets):
        stages.begin("quantize")
        quantize.quantize(portable, model)
    else:
        _link(portable, model)
    if any(target.runtime == job_pb2.RUNTIME_OPENVINO for target in targets):
        _link(portable, folder / layout.served_file(job_pb2.RUNTIME_OPENVINO))
    for name in ("tokenizer.json", "golden.json"):
        shutil.copyfile(source.folder / name, folder / name)
    return folder


def _wants_int8(targets: Sequence[conversion_pb2.Target]) -> bool:
    return any(target.precision == job_pb2.PRECISION_INT8 for target in targets)


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


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


if __name__ == "__main__":
    worker.main(run)
