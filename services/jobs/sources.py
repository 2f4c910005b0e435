"""URIs in specs: made absolute, so that they mean the same in a worker, and checked as far as is cheap."""

import os
from pathlib import Path

from services import storage
from services.errors import InvalidRequest


def absolute(uri: str) -> str:
    """Returns a plain path as an absolute one; URIs and empty strings as they are."""
    if not uri or "://" in uri or "\0" in uri:
        return uri
    # Not Path.expanduser, which raises for a user that does not exist.
    return str(Path(os.path.expanduser(uri)).absolute())


def check_file(uri: str, *, field: str) -> None:
    """Raises InvalidRequest naming `field` if `uri` can be no file; remote ones are not asked for."""
    storage.check_uri(uri, field=field)
    if (path := storage.local_path(uri)) is None:
        return
    # Not Path.is_file, which raises for names that are too long and folders that may not be entered.
    if not os.path.isfile(path):
        raise InvalidRequest.field(field, f"there is no file {uri}", reason="UNREADABLE_URI")
    storage.fetch_file(uri, path, field=field)
