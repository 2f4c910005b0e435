"""What must be known of a version before any server runs it: its files, its task, and its verdicts.

Knows a version's small files on a local disk and its certificate; knows nothing about Triton's calls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conch.v1 import job_pb2, models_pb2
from services.errors import NotReady
from services.gateway import proving
from services.repository import certificates
from services.targets import runtime_name, runtime_of
from services.tasks import Task, find_task
from services.tasks.encoding import Encoder
from services.tasks.forms import Form

Runtime = job_pb2.Runtime.ValueType


@dataclass(frozen=True, eq=False)
class Dossier:
    """A version as its files tell it. `verdicts` are by backend, for those that may run it here."""

    version: models_pb2.Version
    task: Task
    encoder: Encoder
    golden: Sequence[models_pb2.GoldenExample]
    forms: Sequence[Form]
    verdicts: Mapping[str, job_pb2.Verdict | NotReady | None]
    pool_runtime: str

    @property
    def key(self) -> tuple[str, int]:
        """Model and number."""
        return self.version.model, self.version.version

    @property
    def name(self) -> str:
        """How it is written: sentiment@3."""
        return f"{self.version.model}@{self.version.version}"

    def form_run_by(self, config: Any) -> tuple[Form, job_pb2.Verdict | None]:
        """Returns in which form a server with this model config runs it, and the verdict that counts.

        Without verdict, it is explicitly allowed to serve uncertified. Raises NotReady if it may not be
        run so here.
        """
        backend = config.backend or config.platform.removesuffix("_onnx").removesuffix("_plan")
        form = next((form for form in self.forms if form.backend == backend), None)
        if form is None:
            expected = self.forms[0].backend if self.forms else self.pool_runtime
            raise NotReady(
                f"Triton runs it with {backend or 'no known backend'}, this gateway expects {expected}: "
                "start both with the same CONCH_RUNTIME",
                reason="OTHER_RUNTIME",
            )
        verdict = self.verdicts[backend]
        if isinstance(verdict, NotReady):
            raise verdict
        return form, verdict


def read(
    version: models_pb2.Version, folder: Path, *, runtime: str, allow_uncertified: frozenset[str]
) -> Dossier:
    """Returns what the files in `folder` say of a version that servers of `runtime` are to run.

    Raises NotReady if they cannot be read, or if no runtime that may stand there is certified.
    """
    task = find_task(version.manifest.checkpoint.task)
    forms = forms_in(task, runtime)
    allowed = f"{version.model}@{version.version}" in allow_uncertified
    verdicts = {form.backend: _verdict(version, form, runtime, allowed=allowed) for form in forms}
    refusals = [verdict for verdict in verdicts.values() if isinstance(verdict, NotReady)]
    if len(refusals) == len(forms):
        raise refusals[0] if refusals else _certificate_refusal(version, runtime)
    return Dossier(
        version=version,
        task=task,
        encoder=_read_encoder(folder, version),
        golden=proving.read_golden(folder),
        forms=forms,
        verdicts=verdicts,
        pool_runtime=runtime,
    )


def forms_in(task: Task, runtime: str) -> list[Form]:
    """Returns the forms that may answer in a pool of `runtime`, the one that it is for first.

    Where no plan fits a GPU, servers of a pool for TensorRT run the plan's ONNX twin.
    """
    runtimes = [runtime, "onnxruntime"] if runtime == "tensorrt" else [runtime]
    forms = [task.form_in(runtime_of(name)) for name in runtimes]
    return [form for form in forms if form]


def _verdict(
    version: models_pb2.Version, form: Form, runtime: str, *, allowed: bool
) -> job_pb2.Verdict | NotReady | None:
    pool = runtime if runtime_of(runtime) in form.pools else runtime_name(form.runtime)
    try:
        verdict = certificates.check(version, pool)
    except NotReady as refusal:
        return None if allowed else refusal
    if verdict.runtime == form.runtime:
        return verdict
    # For a pool of plans the twin's certificate is good, but not for the plan itself.
    words = f"{version.model}@{version.version} is not certified for {runtime_name(form.runtime)}"
    return None if allowed else NotReady(words, reason="CERTIFICATE_MISSING")


def _certificate_refusal(version: models_pb2.Version, runtime: str) -> NotReady:
    return NotReady(
        f"{version.model}@{version.version}: pools of {runtime} cannot serve "
        f"{version.manifest.checkpoint.task}",
        reason="CERTIFICATE_MISSING",
    )


def _read_encoder(folder: Path, version: models_pb2.Version) -> Encoder:
    try:
        return Encoder.from_file(folder / "tokenizer.json", version.manifest.checkpoint.max_length)
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        raise NotReady(f"its tokenizer.json cannot be read: {error}", reason="ARTIFACT_DAMAGED") from error
