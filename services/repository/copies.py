"""A staged version: a folder with the version's files, checked, complete from the moment it has its name.

Knows digests; knows nothing about which versions or files are wanted. What a killed process brought is
kept and checked, so that the next one goes on from there. A staged file may be the published one (hard
link): nobody may write to it.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from conch.v1 import models_pb2
from services import storage, stores
from services.errors import NotFound, NotReady
from services.repository import layout
from services.repository.routed import Key

Files = Mapping[str, models_pb2.ArtifactFile]
"""What a folder shall hold, by the path that it has there."""
Select = Callable[[models_pb2.Manifest], Files]
Say = Callable[[str], None]


def everything(manifest: models_pb2.Manifest) -> Files:
    """Returns all files of a version, each where it lies."""
    return {file.path: file for file in manifest.files}


def silent(sentence: str) -> None:
    """Says nothing."""


def materialize(
    version: models_pb2.Version, folder: Path, *, select: Select = everything, say: Say = silent
) -> bool:
    """Makes `folder` hold the files of `version` that `select` picks, and its manifest.

    Returns False if it does already: a copy that is intact stays untouched. `say` hears of every file that
    is brought. Raises NotReady (a file is missing or damaged: says which; DISK_FULL), NotFound or
    BackendUnavailable.
    """
    if _is_intact(folder, version.digest, select):
        return False
    partial = folder.with_name(f".{folder.name}{stores.PARTIAL}")
    manifest, digest = storage.read_manifest(version.uri)
    if digest != version.digest:
        raise _changed(version)
    _fill(partial, version, select(manifest), say)
    discard(folder)
    stores.move(partial, folder)
    return True


def sweep(staged: Path, wanted: set[Key], *, places: Iterable[str] = ()) -> None:
    """Removes models and versions that are not `wanted`; models in `places` stay though they have none."""
    models = {model for model, _ in wanted} | set(places)
    for place in _folders(staged):
        if place.name not in models:
            discard(place)
            continue
        for folder in _folders(place):
            version = layout.parse_version(folder.name)
            unwanted = version is not None and (place.name, version) not in wanted
            if unwanted or folder.name.endswith(stores.PARTIAL):
                discard(folder)


def discard(path: Path) -> None:
    """Removes a file or folder; Triton never sees half a folder, as it is renamed first."""
    if path.is_dir() and not path.name.endswith(stores.PARTIAL):
        hidden = path.with_name(f".{path.name}.old{stores.PARTIAL}")
        storage.remove(str(hidden))
        path.rename(hidden)
        path = hidden
    storage.remove(str(path))


def write_if_changed(path: Path, text: bytes) -> None:
    """Writes a configuration; Triton reloads every version of a model whose config.pbtxt has a new time."""
    with suppress(FileNotFoundError):
        if path.read_bytes() == text:
            return
    storage.write_bytes(str(path), text)


def _fill(partial: Path, version: models_pb2.Version, files: Files, say: Say) -> None:
    for path, file in files.items():
        if not _holds(partial / path, file):
            say(f"{version.model}@{version.version}: {file.path}, {file.num_bytes / 1e6:.1f} MB")
            storage.bring_checked(version.uri, file, partial / path)
    for stray in [path for path in partial.rglob("*") if path.is_file()]:
        if str(stray.relative_to(partial)) not in files:
            stray.unlink()
    stores.bring_file(storage.join(version.uri, storage.MANIFEST), partial / storage.MANIFEST)
    if storage.sha256_of(partial / storage.MANIFEST) != version.digest:
        raise _changed(version)


def _changed(version: models_pb2.Version) -> NotReady:
    return NotReady(f"{version.uri} changed while it was staged", reason="ARTIFACT_DAMAGED")


def _is_intact(folder: Path, digest: str, select: Select) -> bool:
    """Returns whether `folder` holds what is picked of the version with this digest, byte for byte."""
    try:
        manifest, found = storage.read_manifest(str(folder))
    except (NotFound, NotReady):
        return False
    return found == digest and all(_holds(folder / path, file) for path, file in select(manifest).items())


def _holds(path: Path, file: models_pb2.ArtifactFile) -> bool:
    try:
        return _sha256(path) == file.sha256
    except FileNotFoundError:
        return False


def _sha256(path: Path) -> str:
    status = path.stat()
    return _known_sha256(path, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _known_sha256(path: Path, inode: int, num_bytes: int, mtime_ns: int) -> str:
    return storage.sha256_of(path)


def _folders(path: Path) -> Iterable[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir())
