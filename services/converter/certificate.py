"""The certificate: verdicts, bound by sha256 to the files that are served.

Knows its content and when it is refused; how figures are measured is parity's.
"""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import json_format

from conch.v1 import job_pb2, models_pb2
from services.errors import NotReady
from services.targets import target_name

FILE = "certificate.json"


def issue(
    folder: Path, *, model: str, version: int, checkpoint_digest: str, verdicts: Sequence[job_pb2.Verdict]
) -> models_pb2.Certificate:
    """Writes and returns the certificate of the version in `folder`.

    Raises NotReady(CERTIFICATE_FAILED) that names target, figure, value and limit of each shortfall.
    """
    shortfalls = [text for verdict in verdicts for text in _shortfalls(verdict)]
    if shortfalls:
        raise NotReady("parity failed: " + "; ".join(shortfalls), reason="CERTIFICATE_FAILED")
    certificate = models_pb2.Certificate(
        model=model, version=version, checkpoint_digest=checkpoint_digest, verdicts=verdicts
    )
    certificate.create_time.GetCurrentTime()
    (folder / FILE).write_text(json_format.MessageToJson(certificate, indent=2), encoding="utf-8")
    return certificate


def _shortfalls(verdict: job_pb2.Verdict) -> list[str]:
    target = target_name(verdict.runtime, verdict.precision)
    return [
        f"{target} {figure.name} {figure.value:.4g} is above its limit {figure.limit:.4g}"
        for figure in verdict.figures
        if not figure.passed
    ]
