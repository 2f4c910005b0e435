"""Makes the staged repository, the one that Triton reads, hold exactly the versions that routes name.

One function for one machine and for a pod's init container. Knows digests and certificates; knows
nothing about Triton. A staged file may be the published one (hard link): nobody may write to it.
"""

import functools
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from conch.v1 import job_pb2, models_pb2
from services import storage, stores
from services.errors import NotFound, NotReady, ServiceError
from services.repository import certificates, layout, versions
from services.targets import runtime_name

log = structlog.get_logger(__name__)

_Key = tuple[str, int]


def stage(
    routes: models_pb2.Routes,
    *,
    repository_uri: str,
    staged: Path,
    runtime: "job_pb2.Runtime.ValueType | str",
    allow_uncertified: frozenset[str] = frozenset(),
) -> list[models_pb2.Version]:
    """Returns the versions that `routes` name (weight 0 too), by model and version, once all are staged.

    Every file is held against its digest and every version against its certificate for `runtime`
    ("openvino" or the enum value); versions in `allow_uncertified` ("model@version") need none. What
    is staged already is hashed once a process and again when it changes on disk; a damaged copy is
    made anew. Whatever the routes do not name is removed at the end, so name what still serves.

    Raises NotReady (damaged, not certified: says which file or figure; DISK_FULL), NotFound or
    BackendUnavailable, with "model" and "version" in the metadata. Nothing is removed then.
    """
    name = runtime_name(runtime)
    wanted = sorted({(route.model, v.version) for route in routes.routes for v in route.versions})
    with stores.locked(staged):
        found = [
            _stage_version(key, repository_uri, staged, name, allow_uncertified=allow_uncertified)
            for key in wanted
        ]
        _sweep(staged, set(wanted))
    return found


def _stage_version(
    key: _Key, repository_uri: str, staged: Path, runtime: str, *, allow_uncertified: frozenset[str]
) -> models_pb2.Version:
    model, number = key
    try:
        version = versions.read_version(repository_uri, model, number)
        _check_certificate(version, runtime, allow_uncertified)
        with stores.translated(str(staged)):
            _materialize(version, staged / model / str(number))
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


def _materialize(version: models_pb2.Version, folder: Path) -> None:
    if _is_intact(folder, version.digest):
        return
    partial = folder.with_name(f".{folder.name}{stores.PARTIAL}")
    _discard(partial)
    _, digest = storage.download(version.uri, partial)
    if digest != version.digest:
        raise NotReady(f"{version.uri} changed while it was staged", reason="ARTIFACT_DAMAGED")
    _discard(folder)
    stores.move(partial, folder)
    log.info("version.staged", model=version.model, version=version.version, digest=digest)


def _is_intact(folder: Path, digest: str) -> bool:
    """Returns whether `folder` holds the version with this digest, byte for byte."""
    try:
        manifest, found = storage.read_manifest(str(folder))
        return found == digest and all(_sha256(folder / f.path) == f.sha256 for f in manifest.files)
    except (NotFound, NotReady, FileNotFoundError):
        return False


def _sha256(path: Path) -> str:
    status = path.stat()
    return _known_sha256(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _known_sha256(path: Path, inode: int, num_bytes: int, mtime_ns: int) -> str:
    return storage.sha256_of(path)


def _stage_configs(uri: str, folder: Path, runtime: str) -> None:
    """Writes the configurations that changed, config.pbtxt last: Triton knows no model without it."""
    for name, path in reversed(layout.CONFIGS.items()):
        try:
            text = storage.read_bytes(storage.join(uri, path))
        except NotFound as error:
            if name in (runtime, layout.DEFAULT_RUNTIME):
                # Triton would serve the default configuration instead, without a word.
                raise NotReady(f"{uri} has no {path}, which {name} needs", reason="CONFIG_MISSING") from error
            _discard(folder / path)
            continue
        _write_if_changed(folder / path, text)


def _write_if_changed(path: Path, text: bytes) -> None:
    with suppress(FileNotFoundError):
        if path.read_bytes() == text:
            # Triton reloads every version of a model whose config.pbtxt has a new time.
            return
    storage.write_bytes(str(path), text)


def _sweep(staged: Path, wanted: set[_Key]) -> None:
    models = {model for model, _ in wanted}
    for place in _folders(staged):
        if place.name not in models:
            _discard(place)
            continue
        for folder in _folders(place):
            version = layout.parse_version(folder.name)
            unwanted = version is not None and (place.name, version) not in wanted
            if unwanted or folder.name.endswith(stores.PARTIAL):
                _discard(folder)


def _discard(path: Path) -> None:
    """Removes a file or folder; Triton never sees half a folder, as it is renamed first."""
    if path.is_dir() and not path.name.endswith(stores.PARTIAL):
        hidden = path.with_name(f".{path.name}.old{stores.PARTIAL}")
        storage.remove(str(hidden))
        path.rename(hidden)
        path = hidden
    storage.remove(str(path))


def _folders(path: Path) -> Iterable[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir())
