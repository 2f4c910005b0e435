"""Artifacts at URIs: immutable folders, complete if and only if their manifest.json exists.

Knows manifests and digests; knows nothing about what the files mean. Where files lie is `services.stores`'.
"""

import hashlib
import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from google.protobuf import json_format

from conch.v1 import models_pb2
from services import stores
from services.errors import InvalidRequest, NotFound, NotReady
from services.stores import join, list_files, list_folders, local_path, read_bytes, remove, write_bytes

__all__ = [
    "MANIFEST",
    "bring_checked",
    "check_uri",
    "describe",
    "download",
    "fetch_file",
    "join",
    "list_files",
    "list_folders",
    "local_path",
    "read_bytes",
    "read_manifest",
    "remove",
    "sha256_of",
    "upload",
    "write_bytes",
]

MANIFEST = "manifest.json"


def check_uri(uri: str, *, field: str) -> None:
    """Raises InvalidRequest naming `field` unless `uri` is of a kind that we can read."""
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if not uri or "\0" in uri or scheme not in stores.SCHEMES:
        raise InvalidRequest.field(
            field, f"{uri!r} is no path and no URI of {', '.join(stores.SCHEMES)}", reason="UNREADABLE_URI"
        )


def fetch_file(uri: str, destination: Path, *, field: str = "uri") -> Path:
    """Returns a local path with the content of the file at `uri`, downloading to `destination` if remote.

    Raises InvalidRequest naming `field` if there is no such file or it may not be read, and
    BackendUnavailable if the store does not answer.
    """
    check_uri(uri, field=field)
    path = local_path(uri)
    if path is not None:
        return _readable(path, uri, field)
    try:
        stores.bring_file(uri, destination)
    except (NotFound, NotReady) as error:
        if error.reason == "DISK_FULL":
            raise
        raise InvalidRequest.field(field, error.message, reason="UNREADABLE_URI") from error
    return destination


def read_manifest(uri: str) -> tuple[models_pb2.Manifest, str]:
    """Returns an artifact's manifest and its digest (sha256 of manifest.json, hex).

    Raises NotFound if there is no complete artifact at `uri`, NotReady if the manifest is damaged.
    """
    try:
        data = read_bytes(join(uri, MANIFEST))
    except NotFound as error:
        raise NotFound(f"no complete artifact at {uri}", reason="ARTIFACT_NOT_FOUND") from error
    manifest = _parsed(uri, data)
    for file in manifest.files:
        _check_inside(uri, file.path)
    return manifest, hashlib.sha256(data).hexdigest()


def download(uri: str, destination: Path) -> tuple[models_pb2.Manifest, str]:
    """Brings an artifact's files into the folder `destination`, hard-linked where the file system allows.

    Every file is checked against the manifest, which is written last. Do not write to what it brought:
    it may be the artifact itself. Returns manifest and digest. Raises NotFound, NotReady (a file is
    missing or damaged: says which) or BackendUnavailable.
    """
    manifest, digest = read_manifest(uri)
    for file in manifest.files:
        bring_checked(uri, file, destination / file.path)
    stores.bring_file(join(uri, MANIFEST), destination / MANIFEST)
    return manifest, digest


def bring_checked(uri: str, file: models_pb2.ArtifactFile, target: Path) -> None:
    """Brings one file of the artifact at `uri` to `target`; raises NotReady if it is missing or damaged."""
    source = join(uri, file.path)
    try:
        stores.bring_file(source, target)
    except NotFound as error:
        raise NotReady(f"{source} is missing", reason="ARTIFACT_DAMAGED") from error
    if sha256_of(target) != file.sha256:
        target.unlink()
        raise NotReady(
            f"{source} is damaged: its sha256 is not the one in the manifest", reason="ARTIFACT_DAMAGED"
        )


def upload(folder: Path, uri: str, manifest: models_pb2.Manifest) -> str:
    """Completes the artifact in `folder` with a manifest of all its files and uploads it, manifest last.

    Fills in `files` and `create_time`. `folder` may already lie at `uri`; then only the manifest is
    written. Returns the artifact's digest. Raises NotReady(DISK_FULL) if there is no room: nothing
    that counts as an artifact is left then.
    """
    manifest.create_time.GetCurrentTime()
    del manifest.files[:]
    manifest.files.extend(describe(folder))
    data = json_format.MessageToJson(manifest, indent=2).encode()
    if local_path(uri) != folder.absolute():
        # While files change there must be no manifest: an earlier attempt may have left its own.
        remove(join(uri, MANIFEST))
        _upload_files(folder, uri, manifest)
    write_bytes(join(uri, MANIFEST), data)
    return hashlib.sha256(data).hexdigest()


def describe(folder: Path) -> list[models_pb2.ArtifactFile]:
    """Returns path, size and sha256 of every file below `folder` but manifest.json, by path."""
    names = [name for name in list_files(str(folder)) if name != MANIFEST and not _is_leftover(name)]
    return [
        models_pb2.ArtifactFile(
            path=name, num_bytes=(folder / name).stat().st_size, sha256=sha256_of(folder / name)
        )
        for name in names
    ]


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _upload_files(folder: Path, uri: str, manifest: models_pb2.Manifest) -> None:
    target = local_path(uri)
    uploaded: dict[str, Path] = {}
    for file in manifest.files:
        twin = uploaded.get(file.sha256)
        if twin is not None and target is not None:
            # Equal files, such as one graph for two runtimes, take the room of one.
            with stores.translated(uri):
                stores.link_or_copy(twin, target / file.path)
            continue
        stores.upload_file(folder / file.path, join(uri, file.path))
        uploaded[file.sha256] = (target or folder) / file.path


def _parsed(uri: str, data: bytes) -> models_pb2.Manifest:
    try:
        manifest = json_format.Parse(data, models_pb2.Manifest(), ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise NotReady(f"{uri}: manifest.json is damaged: {error}", reason="ARTIFACT_DAMAGED") from error
    if not manifest.HasField("create_time"):
        raise NotReady(f"{uri}: manifest.json is damaged: it was never completed", reason="ARTIFACT_DAMAGED")
    return manifest


def _check_inside(uri: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise NotReady(f"{uri}: manifest.json names {name!r}, outside of it", reason="ARTIFACT_DAMAGED")


def _is_leftover(name: str) -> bool:
    return name.endswith(stores.PARTIAL)


def _readable(path: Path, uri: str, field: str) -> Path:
    if not path.is_file():
        raise InvalidRequest.field(field, f"there is no file {uri}", reason="UNREADABLE_URI")
    if not os.access(path, os.R_OK):
        raise InvalidRequest.field(field, f"{uri} may not be read", reason="UNREADABLE_URI")
    return path
