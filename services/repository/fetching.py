"""Brings chosen files of a version, those that are read beside Triton, without its graphs.

Knows manifests and digests; knows nothing about routes or what the files mean.
"""

from collections.abc import Collection
from pathlib import Path

from conch.v1 import models_pb2
from services import storage, stores
from services.errors import NotFound, NotReady
from services.repository import layout

READ_BY_GATEWAYS = ("tokenizer.json", "golden.json", layout.CERTIFICATE)
"""What a gateway needs of a version that others hold ready for it."""


def fetch(version: models_pb2.Version, folder: Path, names: Collection[str]) -> None:
    """Makes `folder` hold the files `names` of a version, as far as it has them, and its manifest.

    Each is held against its digest; what is there already and intact is not brought again. Raises NotReady
    (damaged: says which file; DISK_FULL), NotFound or BackendUnavailable.
    """
    with stores.locked(folder.parent):
        if _is_intact(folder, version.digest, names):
            return
        partial = folder.with_name(f".{folder.name}{stores.PARTIAL}")
        storage.remove(str(partial))
        _bring(version, partial, names)
        storage.remove(str(folder))
        stores.move(partial, folder)


def _bring(version: models_pb2.Version, partial: Path, names: Collection[str]) -> None:
    manifest, digest = storage.read_manifest(version.uri)
    if digest != version.digest:
        raise NotReady(f"{version.uri} changed while it was read", reason="ARTIFACT_DAMAGED")
    for file in _chosen(manifest, names):
        storage.bring_checked(version.uri, file, partial / file.path)
    stores.bring_file(storage.join(version.uri, storage.MANIFEST), partial / storage.MANIFEST)


def _is_intact(folder: Path, digest: str, names: Collection[str]) -> bool:
    try:
        manifest, found = storage.read_manifest(str(folder))
        return found == digest and all(
            storage.sha256_of(folder / file.path) == file.sha256 for file in _chosen(manifest, names)
        )
    except (NotFound, NotReady, FileNotFoundError):
        return False


def _chosen(manifest: models_pb2.Manifest, names: Collection[str]) -> list[models_pb2.ArtifactFile]:
    return [file for file in manifest.files if file.path in names]
