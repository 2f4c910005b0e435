"""Makes the staged repository, the one that Triton reads, hold exactly the versions that routes name.

For one machine, where the gateway shares a disk with Triton; what pods of a pool hold is staged by
`services.repository.pods`. Knows digests and certificates; knows nothing about Triton.
"""

from pathlib import Path

import structlog

from conch.v1 import job_pb2, models_pb2
from services import storage, stores
from services.errors import NotFound, NotReady, ServiceError
from services.repository import certificates, copies, layout, routed, versions
from services.repository.routed import Key
from services.targets import runtime_name

log = structlog.get_logger(__name__)


def stage(
    routes: models_pb2.Routes,
    *,
    repository_uri: str,
    staged: Path,
    runtime: "job_pb2.Runtime.ValueType | str",
    allow_uncertified: frozenset[str] = frozenset(),
) -> list[models_pb2.Version]:
    """Returns the versions that `routes` name (weight 0 and shadows too), sorted, once all are staged.

    Every file is held against its digest and every version against its certificate for `runtime`
    ("openvino" or the enum value); versions in `allow_uncertified` ("model@version") need none. What
    is staged already is hashed once a process and again when it changes on disk; a damaged copy is
    made anew. Whatever the routes do not name is removed at the end, so name what still serves.

    Raises NotReady (damaged, not certified: says which file or figure; DISK_FULL), NotFound or
    BackendUnavailable, with "model" and "version" in the metadata. Nothing is removed then.
    """
    name = runtime_name(runtime)
    wanted = routed.versions_of(routes)
    with stores.locked(staged):
        found = [
            _stage_version(key, repository_uri, staged, name, allow_uncertified=allow_uncertified)
            for key in wanted
        ]
        copies.sweep(staged, set(wanted))
    return found


def _stage_version(
    key: Key, repository_uri: str, staged: Path, runtime: str, *, allow_uncertified: frozenset[str]
) -> models_pb2.Version:
    model, number = key
    try:
        version = versions.read_version(repository_uri, model, number)
        _check_certificate(version, runtime, allow_uncertified)
        with stores.translated(str(staged)):
            if copies.materialize(version, staged / model / str(number)):
                log.info("version.staged", model=model, version=number, digest=version.digest)
            _stage_configs(layout.model_uri(repository_uri, model), staged / model, runtime)
    except ServiceError as error:
        error.metadata |= {"model": model, "version": str(number)}
        raise
    return version


def _check_certificate(version: models_pb2.Version, runtime: str, allow_uncertified: frozenset[str]) -> None:
    try:
        certificates.check(version, runtime)
    except NotReady as error:
        if f"{version.model}@{version.version}" not in allow_uncertified:
            raise
        log.warning(
            "version.admitted_uncertified", model=version.model, version=version.version, reason=error.reason
        )


def _stage_configs(uri: str, folder: Path, runtime: str) -> None:
    """Writes the configurations that changed, config.pbtxt last: Triton knows no model without it."""
    for name, path in reversed(layout.CONFIGS.items()):
        try:
            text = storage.read_bytes(storage.join(uri, path))
        except NotFound as error:
            if name in (runtime, layout.DEFAULT_RUNTIME):
                # Triton would serve the default configuration instead, without a word.
                raise NotReady(f"{uri} has no {path}, which {name} needs", reason="CONFIG_MISSING") from error
            copies.discard(folder / path)
            continue
        copies.write_if_changed(folder / path, text)
