"""Files and folders at URIs: file://, s3://, gs://, az://; a plain path means file://.

Local files are written whole by rename and flushed to disk; everything else goes through obstore, which
reads credentials and endpoints from the stores' own variables (AWS_*, GOOGLE_*, AZURE_*). Knows nothing
about artifacts or manifests. All functions raise NotFound, NotReady (no room, not allowed) or
BackendUnavailable.
"""

import errno
import fcntl
import functools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import ObjectStore, from_url

from services.errors import BackendUnavailable, NotFound, NotReady, ServiceError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

SCHEMES = ("file", "s3", "gs", "az", "abfs")
PARTIAL = ".partial"
"""Ends the name of what is still being written; a leftover of a killed process, never read."""

_CHUNK_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_LINK = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)
# obstore's own defaults retry a store that is gone for three minutes.
_RETRIES: "RetryConfig" = {"max_retries": 4, "retry_timeout": timedelta(seconds=20)}
# An endpoint that is plain HTTP (MinIO in the cluster) was written so by its owner.
_CLIENT: "ClientConfig" = {"connect_timeout": "5s", "timeout": "120s", "allow_http": True}


def local_path(uri: str) -> Path | None:
    """Returns the path behind a plain path or a file:// URI, None for any other URI."""
    if "://" not in uri:
        return Path(uri).expanduser().absolute()
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def join(uri: str, *names: str) -> str:
    """Returns the URI of something below `uri`."""
    return "/".join([uri.rstrip("/"), *names])


def read_bytes(uri: str) -> bytes:
    """Returns a file's content."""
    path = local_path(uri)
    with translated(uri):
        return path.read_bytes() if path is not None else bytes(obstore.get(*_object(uri)).bytes())


def write_bytes(uri: str, data: bytes) -> None:
    """Writes a file as a whole: readers see the old content or the new, never half of it."""
    path = local_path(uri)
    with translated(uri):
        if path is None:
            obstore.put(*_object(uri), data)
        else:
            with whole(path) as partial:
                partial.write_bytes(data)


def upload_file(source: Path, uri: str) -> None:
    """Writes a local file's content to `uri`, as a whole."""
    path = local_path(uri)
    with translated(uri):
        if path is None:
            with source.open("rb") as stream:
                obstore.put(*_object(uri), stream)
        else:
            with whole(path) as partial:
                shutil.copyfile(source, partial)


def bring_file(uri: str, target: Path) -> None:
    """Makes the local file `target` one with what lies at `uri`: a hard link where possible, else a copy."""
    path = local_path(uri)
    with translated(uri):
        if path is None:
            with whole(target) as partial:
                _download(uri, partial)
        else:
            link_or_copy(path, target)


def link_or_copy(source: Path, target: Path) -> None:
    """Makes `target` a hard link of `source`, or a copy where the file system cannot link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        with whole(target) as partial:
            shutil.copyfile(source, partial)


def move(source: Path, target: Path) -> None:
    """Renames a complete file or folder to a name that is free, at once and durably."""
    with translated(str(target)):
        source.rename(target)
        _flush(target.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds `folder` against other processes that lock it too; the lock of a killed process is free."""
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def list_files(uri: str) -> list[str]:
    """Returns the paths of all files below `uri`, relative to it, sorted; none if there is nothing."""
    path = local_path(uri)
    with translated(uri):
        if path is None:
            return sorted(entry["path"] for page in obstore.list(_store(uri)) for entry in page)
        # os.walk, unlike rglob, does not mind a folder that vanishes meanwhile.
        return sorted(
            str(Path(folder, name).relative_to(path)) for folder, _, names in os.walk(path) for name in names
        )


def list_folders(uri: str) -> list[str]:
    """Returns the names of the folders right below `uri`, sorted; none if there is nothing."""
    path = local_path(uri)
    with translated(uri):
        if path is None:
            found = obstore.list_with_delimiter(_store(uri))["common_prefixes"]
            return sorted(str(prefix).rstrip("/").rpartition("/")[2] for prefix in found)
        return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []


def remove(uri: str) -> None:
    """Removes the file or folder at `uri` and all below it; nothing happens if there is none."""
    path = local_path(uri)
    with translated(uri):
        if path is None:
            names = list_files(uri)
            obstore.delete(_store(uri), names) if names else obstore.delete(*_object(uri))
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yields the path to write to; puts it in the place of `path` once it is safely on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
        _flush(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turns what file systems and object stores raise into ServiceErrors that name `uri`."""
    try:
        yield
    except ServiceError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"there is nothing at {uri}", reason="FILE_NOT_FOUND") from error
    except OSError as error:
        raise _refused(uri, error) from error
    except obstore.exceptions.BaseError as error:
        raise _store_error(uri, error) from error


def _refused(uri: str, error: OSError) -> NotReady:
    if error.errno in _NO_ROOM:
        return NotReady(f"no space left to write {uri}", reason="DISK_FULL")
    return NotReady(f"cannot read or write {uri}: {error.strerror or error}", reason="UNUSABLE_URI")


def _store_error(uri: str, error: Exception) -> ServiceError:
    forbidden = (obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError)
    if isinstance(error, forbidden):
        return NotReady(f"{uri}: the store refuses us", reason="STORAGE_FORBIDDEN")
    if isinstance(error, obstore.exceptions.NotFoundError):
        return NotFound(f"there is nothing at {uri}", reason="FILE_NOT_FOUND")
    if "No space left" in str(error) or "InsufficientStorage" in str(error):
        return NotReady(f"no space left to write {uri}", reason="DISK_FULL")
    summary = str(error).partition("\n")[0]
    return BackendUnavailable(f"storage did not answer for {uri}: {summary}", reason="STORAGE_UNAVAILABLE")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _download(uri: str, target: Path) -> None:
    with target.open("wb") as file:
        for chunk in obstore.get(*_object(uri)).stream(min_chunk_size=_CHUNK_BYTES):
            file.write(chunk)


def _object(uri: str) -> tuple[ObjectStore, str]:
    base, _, name = uri.rpartition("/")
    return _store(base), name


@functools.lru_cache(maxsize=64)
def _store(uri: str) -> ObjectStore:
    return from_url(uri, retry_config=_RETRIES, client_options=_CLIENT)
