"""The spool: what a worker has to tell, on disk before anyone else hears of it.

Knows length-delimited WorkerReports in one append-only file; knows nothing about who reads them.
"""

import os
from collections.abc import Iterator
from io import BufferedIOBase, BytesIO, RawIOBase
from pathlib import Path

from google.protobuf import proto
from google.protobuf.message import DecodeError

from conch.v1 import worker_pb2

SPOOL = "spool.binpb"


class SpoolWriter:
    """Appends reports to a spool file; each survives the death of the process once `append` returned."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: RawIOBase = path.open("ab", buffering=0)

    def append(self, report: worker_pb2.WorkerReport, *, durable: bool = False) -> None:
        """Writes one report; `durable` ones survive a power cut too. Raises OSError (disk full)."""
        size_and_report = _encode(report)
        if self._file.write(size_and_report) != len(size_and_report):
            raise OSError(f"short write to the spool {self._file}")
        if durable:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_spool(path: Path) -> list[worker_pb2.WorkerReport]:
    """Returns the reports in `path`, none if it does not exist; a last one that was cut off is left out."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        return list(_reports(file))


def _reports(file: BufferedIOBase) -> Iterator[worker_pb2.WorkerReport]:
    try:
        while (report := proto.parse_length_prefixed(worker_pb2.WorkerReport, file)) is not None:  # type: ignore[arg-type]  # stubbed as BytesIO
            yield report
    except (ValueError, EOFError, DecodeError):
        # The worker was killed, or the machine went down, in the middle of the last report.
        return


def _encode(report: worker_pb2.WorkerReport) -> bytes:
    encoded = BytesIO()
    proto.serialize_length_prefixed(report, encoded)
    return encoded.getvalue()
