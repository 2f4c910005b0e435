"""Artifacts at URIs: immutable folders, complete if and only if their manifest.json exists.

Reads and writes file://, s3://, gs:// and az:// through obstore; a plain path means file://.
Knows manifests and digests; knows nothing about what the files mean.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from google.protobuf import json_format
from obstore.store import LocalStore, ObjectStore, from_url

from conch.v1 import models_pb2
from services.errors import BackendUnavailable, InvalidRequest, NotFound, NotReady

MANIFEST = "manifest.json"
_SCHEMES = ("file", "s3", "gs", "az", "abfs")
_CHUNK_BYTES = 1 << 20


def local_path(uri: str) -> Path | None:
    """Returns the path behind a plain path or a file:// URI, None for any other URI."""
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in uri else Path(uri).expanduser().absolute()


def join(uri: str, *names: str) -> str:
    """Returns the URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *names])


def check_uri(uri: str, *, field: str) -> None:
    """Raises InvalidRequest naming `field` unless `uri` is of a kind that we can read."""
    scheme = urlsplit(uri).scheme if "://" in uri else "file"
    if not uri or scheme not in _SCHEMES:
        raise InvalidRequest.field(
            field, f"{uri!r} is no path and no URI of {', '.join(_SCHEMES)}", reason="UNREADABLE_URI"
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
    base, _, name = uri.rpartition("/")
    try:
        _download_object(_store(base), name, destination)
    except (FileNotFoundError, PermissionError) as error:
        raise InvalidRequest.field(field, f"cannot read {uri}: {error}", reason="UNREADABLE_URI") from error
    except obstore.exceptions.BaseError as error:
        raise BackendUnavailable(f"storage did not answer for {uri}", reason="STORAGE_UNAVAILABLE") from error
    return destination


def read_manifest(uri: str) -> tuple[models_pb2.Manifest, str]:
    """Returns an artifact's manifest and its digest (sha256 of manifest.json, hex).

    Raises NotFound if there is no complete artifact at `uri`, NotReady if the manifest is damaged.
    """
    try:
        data = bytes(obstore.get(_store(uri), MANIFEST).bytes())
    except FileNotFoundError as error:
        raise NotFound(f"no complete artifact at {uri}", reason="ARTIFACT_NOT_FOUND") from error
    except obstore.exceptions.BaseError as error:
        raise BackendUnavailable(f"storage did not answer for {uri}", reason="STORAGE_UNAVAILABLE") from error
    try:
        manifest = json_format.Parse(data, models_pb2.Manifest())
    except json_format.ParseError as error:
        raise NotReady(f"{uri}: manifest.json is damaged: {error}", reason="ARTIFACT_DAMAGED") from error
    return manifest, hashlib.sha256(data).hexdigest()


def download(uri: str, destination: Path) -> tuple[models_pb2.Manifest, str]:
    """Brings an artifact's files into the folder `destination`, hard-linked where the file system allows.

    Every file is checked against the manifest, which is written last. Returns manifest and digest.
    Raises NotFound, NotReady (a file is missing or damaged: says which) or BackendUnavailable.
    """
    manifest, digest = read_manifest(uri)
    destination.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        target = destination / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch_checked(uri, file, target)
    _link_or_download(uri, MANIFEST, destination / MANIFEST)
    return manifest, digest


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
    try:
        _upload_files(folder, uri, manifest)
        _write_manifest(uri, data)
    except OSError as error:
        raise _no_room(error, uri) from error
    except obstore.exceptions.BaseError as error:
        if "No space left" in str(error) or "os error 28" in str(error):
            raise _no_room(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), uri) from error
        raise BackendUnavailable(f"storage did not take {uri}", reason="STORAGE_UNAVAILABLE") from error
    return hashlib.sha256(data).hexdigest()


def describe(folder: Path) -> list[models_pb2.ArtifactFile]:
    """Returns path, size and sha256 of every file below `folder` but manifest.json, by path."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return [
        models_pb2.ArtifactFile(
            path=str(p.relative_to(folder)), num_bytes=p.stat().st_size, sha256=sha256_of(p)
        )
        for p in paths
    ]


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file's content, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_folders(uri: str) -> list[str]:
    """Returns the names of the folders right below `uri`, sorted; none if `uri` does not exist."""
    path = local_path(uri)
    if path is not None:
        return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    found = obstore.list_with_delimiter(_store(uri))
    return sorted(str(prefix).rstrip("/").rpartition("/")[2] for prefix in found["common_prefixes"])


def read_bytes(uri: str) -> bytes:
    """Returns a file's content. Raises NotFound."""
    base, _, name = uri.rpartition("/")
    try:
        return bytes(obstore.get(_store(base), name).bytes())
    except FileNotFoundError as error:
        raise NotFound(f"no file at {uri}", reason="FILE_NOT_FOUND") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Writes a file as a whole: readers see the old content or the new, never half of it."""
    base, _, name = uri.rpartition("/")
    path = local_path(base)
    if path is not None:
        path.mkdir(parents=True, exist_ok=True)
    obstore.put(_store(base), name, data)


def _store(uri: str) -> ObjectStore:
    path = local_path(uri)
    if path is None:
        return from_url(uri)
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path}")
    return LocalStore(prefix=path)


def _readable(path: Path, uri: str, field: str) -> Path:
    if not path.is_file():
        raise InvalidRequest.field(field, f"there is no file {uri}", reason="UNREADABLE_URI")
    if not os.access(path, os.R_OK):
        raise InvalidRequest.field(field, f"{uri} may not be read", reason="UNREADABLE_URI")
    return path


def _fetch_checked(uri: str, file: models_pb2.ArtifactFile, target: Path) -> None:
    try:
        _link_or_download(uri, file.path, target)
    except FileNotFoundError as error:
        raise NotReady(f"{join(uri, file.path)} is missing", reason="ARTIFACT_DAMAGED") from error
    if sha256_of(target) != file.sha256:
        target.unlink()
        raise NotReady(
            f"{join(uri, file.path)} is damaged: its sha256 is not the one in the manifest",
            reason="ARTIFACT_DAMAGED",
        )


def _link_or_download(uri: str, name: str, target: Path) -> None:
    folder = local_path(uri)
    if folder is None:
        return _download_object(_store(uri), name, target)
    target.unlink(missing_ok=True)
    try:
        os.link(folder / name, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(folder / name, target)


def _download_object(store: ObjectStore, name: str, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as file:
        for chunk in _chunks(store, name):
            file.write(chunk)
    partial.replace(target)


def _chunks(store: ObjectStore, name: str) -> Iterator[bytes]:
    for chunk in obstore.get(store, name).stream(min_chunk_size=_CHUNK_BYTES):
        yield bytes(chunk)


def _upload_files(folder: Path, uri: str, manifest: models_pb2.Manifest) -> None:
    target = local_path(uri)
    if target == folder.absolute():
        return
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
    store = _store(uri)
    for file in manifest.files:
        with (folder / file.path).open("rb") as stream:
            obstore.put(store, file.path, stream)


def _write_manifest(uri: str, data: bytes) -> None:
    obstore.put(_store(uri), MANIFEST, data)


def _no_room(error: OSError, uri: str) -> NotReady:
    if error.errno == errno.ENOSPC:
        return NotReady(f"no space left to write {uri}", reason="DISK_FULL")
    return NotReady(f"cannot write {uri}: {error.strerror or error}", reason="UNWRITABLE_URI")
