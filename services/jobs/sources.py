"""URIs in specs: made absolute, so that they mean the same in a worker, and checked as far as is cheap."""

from pathlib import Path

from services import storage


def absolute(uri: str) -> str:
    """Returns a plain path as an absolute one; URIs and empty strings as they are."""
    if not uri or "://" in uri or "\0" in uri:
        return uri
    return str(Path(uri).expanduser().absolute())


def check_file(uri: str, *, field: str) -> None:
    """Raises InvalidRequest naming `field` if `uri` can be no file; remote ones are not asked for."""
    storage.check_uri(uri, field=field)
    if (path := storage.local_path(uri)) is not None:
        storage.fetch_file(uri, path, field=field)
