"""Decides whether a certificate lets a runtime serve a version. Knows verdicts; measures nothing."""

from contextlib import suppress

from conch.v1 import job_pb2, models_pb2
from services import storage
from services.errors import NotReady
from services.targets import runtime_name, runtime_of
from services.tasks import TASKS
from services.tasks.forms import Form


def check(version: models_pb2.Version, pool: "job_pb2.Runtime.ValueType | str") -> job_pb2.Verdict:
    """Returns the verdict that lets pools of Triton for `pool` ("openvino" or the enum) serve `version`.

    Reads the version's manifest again for the digests of its files. Raises NotReady, naming version
    and figure or file, if there is no certificate, none for this runtime, a failed one, or one that
    was issued for other files or another version. Pools of tensorrt may serve any certified plan and,
    where it fits no GPU of theirs, what pools of onnxruntime serve: the twin.
    """
    form = form_in(version, pool)
    if form.runtime != job_pb2.RUNTIME_TENSORRT:
        return check_file(version, form.runtime, form.file)
    for plan in version.manifest.plans:
        with suppress(NotReady):
            return check_file(version, form.runtime, plan.path)
    return check(version, job_pb2.RUNTIME_ONNXRUNTIME)


def check_file(version: models_pb2.Version, runtime: job_pb2.Runtime.ValueType, file: str) -> job_pb2.Verdict:
    """Returns the verdict that lets `runtime` serve `file` of the version; raises NotReady as `check`."""
    name, label = runtime_name(runtime), f"{version.model}@{version.version}"
    if not version.HasField("certificate"):
        raise _refused(version, f"{label} has no certificate", "CERTIFICATE_MISSING")
    _check_identity(version, label)
    # One that failed is enough to refuse.
    verdicts = [v for v in version.certificate.verdicts if v.runtime == runtime and file in v.files]
    if not verdicts:
        raise _refused(version, f"{label} is not certified for {name}", "CERTIFICATE_MISSING")
    for verdict in verdicts:
        _check_verdict(version, verdict, f"{label} on {name}")
    return verdicts[0]


def form_in(version: models_pb2.Version, pool: "job_pb2.Runtime.ValueType | str") -> Form:
    """Returns the form that answers for the version in pools of `pool`; raises NotReady if there is none."""
    task = version.manifest.checkpoint.task
    form = TASKS[task].form_in(runtime_of(pool)) if task in TASKS else None
    if form is None:
        label = f"{version.model}@{version.version}"
        message = f"{label}: pools of {runtime_name(pool)} cannot serve {task or 'a version without task'}"
        raise _refused(version, message, "CERTIFICATE_MISSING")
    return form


def _check_identity(version: models_pb2.Version, label: str) -> None:
    certificate = version.certificate
    if (certificate.model, certificate.version) != (version.model, version.version):
        other = f"{certificate.model}@{certificate.version}"
        raise _refused(version, f"the certificate of {label} was issued for {other}", "CERTIFICATE_FOREIGN")
    if certificate.checkpoint_digest != version.manifest.checkpoint_digest:
        raise _refused(
            version, f"the certificate of {label} was issued for another checkpoint", "CERTIFICATE_FOREIGN"
        )


def _check_verdict(version: models_pb2.Version, verdict: job_pb2.Verdict, label: str) -> None:
    failed = [figure for figure in verdict.figures if not figure.passed or not figure.value <= figure.limit]
    if failed or not verdict.passed or not verdict.figures:
        figures = ", ".join(f"{f.name} {f.value:.4g} is above {f.limit:.4g}" for f in failed)
        raise _refused(
            version, f"{label} failed its certificate: {figures or 'no figure'}", "CERTIFICATE_FAILED"
        )
    manifest, digest = storage.read_manifest(version.uri)
    if digest != version.digest:
        raise _refused(version, f"{label}: its manifest changed meanwhile", "ARTIFACT_DAMAGED")
    ours = {file.path: file.sha256 for file in manifest.files}
    for path, sha256 in verdict.files.items():
        if ours.get(path) != sha256:
            message = f"{label}: the certificate was issued for another {path}"
            raise _refused(version, message, "CERTIFICATE_FOREIGN")


def _refused(version: models_pb2.Version, message: str, reason: str) -> NotReady:
    return NotReady(
        message, reason=reason, metadata={"model": version.model, "version": str(version.version)}
    )
