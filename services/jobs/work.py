"""Keeps what an attempt has to go on from where it outlives the worker's machine.

Knows folders, each complete as soon as its last file is there; knows nothing about what they hold. On one
machine the worker's folder stays, and all of this does nothing.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from services import stores
from services.errors import ServiceError

log = structlog.get_logger(__name__)


@dataclass
class KeptFolders:
    """The folders right below `folder`, mirrored to `uri`; an empty `uri` keeps nothing.

    Never two processes at a time may keep at one URI.
    """

    folder: Path
    uri: str
    last: str
    """Name of the file without which a folder is not complete."""
    _kept: set[str] = field(default_factory=set)

    def restore(self) -> None:
        """Brings the complete folders that are kept and not here. Raises BackendUnavailable."""
        for name in stores.list_folders(self.uri) if self.uri else ():
            files = stores.list_files(stores.join(self.uri, name))
            if self.last not in files:
                continue
            self._kept.add(name)
            if not (self.folder / name).exists():
                self._bring(name, files)

    def keep(self) -> None:
        """Makes what is kept one with what is here. What fails is tried again by the next call."""
        if not self.uri:
            return
        try:
            here = {path.parent.name for path in self.folder.glob(f"*/{self.last}")}
            for name in sorted(here - self._kept):
                self._upload(name)
            # Only now: until the new one is safe the old one is all there is.
            for name in self._kept - here:
                stores.remove(stores.join(self.uri, name))
            self._kept &= here
        except ServiceError as error:
            log.warning("work.unkept", uri=self.uri, problem=error.message)

    def _bring(self, name: str, files: list[str]) -> None:
        partial = self.folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        for file in files:
            stores.bring_file(stores.join(self.uri, name, file), partial / file)
        partial.rename(self.folder / name)
        log.info("work.restored", name=name, num_files=len(files))

    def _upload(self, name: str) -> None:
        target = stores.join(self.uri, name)
        # Left by a worker that was lost half way: files of two runs must not make one folder.
        stores.remove(stores.join(target, self.last))
        files = stores.list_files(str(self.folder / name))
        for file in sorted(files, key=lambda path: path == self.last):
            stores.upload_file(self.folder / name / file, stores.join(target, file))
        self._kept.add(name)
