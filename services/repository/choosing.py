"""Chooses what a pod of a pool stages of each model: the form, its configuration, and of which versions.

All versions of a model share one configuration in Triton, so they share the form: a plan for some and the
ONNX twin for others is not to be had. Reads manifests, certificates and configurations; brings no file.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from conch.v1 import job_pb2, models_pb2
from services import storage
from services.errors import InvalidRequest, NotFound, NotReady, ServiceError
from services.repository import certificates, layout, plans, twins, versions
from services.repository.copies import Files
from services.repository.plans import Device
from services.repository.routed import Key
from services.tasks.forms import Form

ALWAYS_STAGED = frozenset({"tokenizer.json", "golden.json", layout.CERTIFICATE})
"""What is small, and needed by whoever looks after the version."""
ENVIRONMENT = frozenset({"DISK_FULL", "STORAGE_FORBIDDEN", "UNUSABLE_URI"})
"""Reasons that speak of the disk or the store as a whole, not of any version."""

Failures = dict[int, ServiceError]
"""Why versions of a model cannot be staged, by number."""
Spoiled = Mapping[tuple[int, str], ServiceError]
"""What is wrong with a version in the form of a runtime, by number and runtime."""

_TWIN = "onnxruntime"
_NO_DEVICE = Device()


@dataclass(frozen=True)
class Pick:
    """One version in one form: `source` lies in the version, the backend opens it as the form's file."""

    version: models_pb2.Version
    form: Form
    source: str

    @property
    def key(self) -> Key:
        """Model and version."""
        return self.version.model, self.version.version

    def files(self, manifest: models_pb2.Manifest) -> Files:
        """Returns what the form needs: all but what other forms alone read."""
        others = self._of_others() - {self.source}
        kept = {file.path: file for file in manifest.files if file.path not in others}
        if self.source in kept:
            kept[self.form.file] = kept.pop(self.source)
        return kept

    def _of_others(self) -> set[str]:
        manifest, verdicts = self.version.manifest, self.version.certificate.verdicts
        ours = {path for v in verdicts if v.runtime == self.form.runtime for path in v.files}
        ours -= {plan.path for plan in manifest.plans}
        theirs = {path for v in verdicts if v.runtime != self.form.runtime for path in v.files}
        return (theirs | {plan.path for plan in manifest.plans}) - ours - ALWAYS_STAGED


@dataclass(frozen=True)
class Choice:
    """What a pod stages of a model, as `runtime` serves it: `configs` by their path in the model's folder."""

    runtime: str
    picks: tuple[Pick, ...] = ()
    failures: Failures = field(default_factory=dict)
    configs: Mapping[str, bytes] = field(default_factory=dict)
    fallback: str = ""
    """Why the ONNX twin stands in for plans, in a sentence; empty where it does not."""


@dataclass(frozen=True)
class Pool:
    """What the pods of a pool are alike in."""

    runtime: str
    device: Device = _NO_DEVICE
    allow_uncertified: frozenset[str] = frozenset()
    """Versions ("model@version") that need no certificate."""


def choose(
    model: str,
    numbers: Iterable[int],
    pool: Pool,
    *,
    repository_uri: str,
    spoiled: Spoiled = MappingProxyType({}),
) -> Choice:
    """Returns the form in which most of a model's versions can be staged, plans before their twins.

    `spoiled` is what turned out to be damaged meanwhile. What is wrong with a version is among the
    failures. Raises NotReady (of ENVIRONMENT) or BackendUnavailable where the store is at fault.
    """
    found, missing = _read(repository_uri, model, numbers)
    runtimes = ("tensorrt", _TWIN) if pool.runtime == "tensorrt" else (pool.runtime,)
    tried = [_in_form(runtime, found, pool, repository_uri, spoiled) for runtime in runtimes]
    best = max(tried, key=lambda choice: len(choice.picks))
    if not best.picks:
        best = tried[-1]
    fallback = _why(tried[0]) if best.picks and best is not tried[0] else ""
    return replace(best, failures=missing | _in_no_form(best, tried[0]), fallback=fallback)


def _read(
    repository_uri: str, model: str, numbers: Iterable[int]
) -> tuple[list[models_pb2.Version], Failures]:
    found: list[models_pb2.Version] = []
    failures: Failures = {}
    for number in numbers:
        with gathered(failures, number):
            found.append(versions.read_version(repository_uri, model, number))
    return found, failures


def _in_form(
    runtime: str,
    found: Sequence[models_pb2.Version],
    pool: Pool,
    repository_uri: str,
    spoiled: Spoiled,
) -> Choice:
    picks: list[Pick] = []
    failures: Failures = {}
    configs: dict[str, bytes] = {}
    for version in found:
        with gathered(failures, version.version):
            if (version.version, runtime) in spoiled:
                raise spoiled[version.version, runtime]
            picks.append(_pick(version, runtime, pool))
            configs = configs or _configs(layout.model_uri(repository_uri, version.model), runtime, pool)
    return Choice(runtime, tuple(picks) if configs else (), failures, configs)


def _pick(version: models_pb2.Version, runtime: str, pool: Pool) -> Pick:
    # Also where a twin is asked for: what serves no task there has no twin either.
    certificates.form_in(version, pool.runtime)
    form = certificates.form_in(version, runtime)
    is_plan = form.runtime == job_pb2.RUNTIME_TENSORRT
    source = plans.find(version, pool.device).path if is_plan else form.file
    if f"{version.model}@{version.version}" in pool.allow_uncertified:
        _check_there(version, source)
    else:
        certificates.check_file(version, form.runtime, source)
    return Pick(version, form, source)


def _check_there(version: models_pb2.Version, source: str) -> None:
    """Triton loads no version of a model of which one lacks its file."""
    manifest, _ = storage.read_manifest(version.uri)
    if source not in {file.path for file in manifest.files}:
        label = f"{version.model}@{version.version}"
        raise NotReady(f"{label} has no {source}", reason="FORM_MISSING")


def _configs(uri: str, runtime: str, pool: Pool) -> dict[str, bytes]:
    """Returns what goes into the model's folder, config.pbtxt last: without it Triton knows no model."""
    texts = {}
    for name in (runtime, layout.DEFAULT_RUNTIME):
        path = layout.CONFIGS[name]
        try:
            texts[name] = storage.read_bytes(storage.join(uri, path))
        except NotFound as error:
            # Triton would serve the default configuration instead, without a word.
            raise NotReady(f"{uri} has no {path}, which {name} needs", reason="CONFIG_MISSING") from error
    own = texts[runtime]
    if runtime != pool.runtime and pool.device.compute_capability:
        own = twins.on_gpu(own, source=storage.join(uri, layout.CONFIGS[runtime]))
    return {layout.CONFIGS[pool.runtime]: own} | {
        layout.CONFIGS[layout.DEFAULT_RUNTIME]: texts[layout.DEFAULT_RUNTIME]
    }


def _in_no_form(best: Choice, first: Choice) -> Failures:
    """Returns the failures of `best`, with those of the form that comes first said beside them."""
    if best is first:
        return best.failures
    return {
        number: NotReady(f"{first.failures[number].message}; {error.message}", reason=error.reason)
        if number in first.failures
        else error
        for number, error in best.failures.items()
    }


def _why(plans_choice: Choice) -> str:
    reasons = "; ".join(error.message for error in plans_choice.failures.values())
    return f"onnxruntime serves it in the place of TensorRT plans: {reasons}"


@contextmanager
def gathered(failures: Failures, number: int) -> Iterator[None]:
    """Keeps what speaks of the version alone as its failure; lets pass what speaks of the store."""
    try:
        yield
    except (InvalidRequest, NotFound, NotReady) as error:
        if error.reason in ENVIRONMENT:
            raise
        failures[number] = error
