"""Brings chosen files of a version, those that are read beside Triton, without its graphs.

Knows manifests and digests; knows nothing about routes or what the files mean.
"""

from collections.abc import Collection
from pathlib import Path

from conch.v1 import models_pb2
from services import stores
from services.repository import copies, layout
from services.repository.copies import Files

READ_BY_GATEWAYS = ("tokenizer.json", "golden.json", layout.CERTIFICATE)
"""What a gateway needs of a version that others hold ready for it."""


def fetch(version: models_pb2.Version, folder: Path, names: Collection[str]) -> None:
    """Makes `folder` hold the files `names` of a version, as far as it has them, and its manifest.

    Each is held against its digest; what is there already and intact is not brought again. Raises NotReady
    (damaged: says which file; DISK_FULL), NotFound or BackendUnavailable.
    """

    def select(manifest: models_pb2.Manifest) -> Files:
        return {file.path: file for file in manifest.files if file.path in names}

    with stores.locked(folder.parent):
        copies.materialize(version, folder, select=select)
