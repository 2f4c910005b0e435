"""What converts a checkpoint of one architecture: the files of a version, their verdicts, their configs.

Knows the interface; each architecture's recipe is a module of its own. A recipe reports its stages.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from conch.v1 import conversion_pb2, job_pb2
from services.converter.checkpoint import Checkpoint
from services.errors import Cancelled
from services.jobs.reporting import Reporter


class Recipe(Protocol):
    """One checkpoint's conversion; `folder` is the version's, `work` is for what is not published.

    `folder` ends as in the repository: <model>/<version>.
    """

    source: Checkpoint

    def __init__(self, source: Checkpoint, spec: conversion_pb2.ConversionSpec) -> None:
        """Takes what is converted, and into what."""

    @staticmethod
    def num_stages(spec: conversion_pb2.ConversionSpec) -> int:
        """Returns how many stages `build` and `judge` report together."""

    def build(self, folder: Path, work: Path, stages: "Stages") -> None:
        """Fills `folder` with all that the targets serve.

        Raises NotReady if the checkpoint is at odds with itself or cannot be exported.
        """

    def judge(self, folder: Path, stages: "Stages") -> Iterator[job_pb2.Verdict]:
        """Yields the verdict on each target, held against the trained model."""

    def configs(self, model: str) -> Mapping[str, str]:
        """Returns the text of each config.pbtxt by its path in the model's folder."""


class Stages:
    """Reports each part of the work as it begins, and stops between parts once that was asked for."""

    def __init__(self, report: Reporter, total: int) -> None:
        self.report = report
        self.total = total
        self._begun = 0

    def begin(self, name: str) -> None:
        """Begins the next part. Raises Cancelled."""
        self.check()
        self._begun += 1
        self.report.stage(name, self._begun, self.total)

    def check(self) -> None:
        """Raises Cancelled if somebody asked for it."""
        if self.report.cancelled:
            raise Cancelled("the conversion was cancelled", reason="JOB_CANCELLED")


def wants(targets: Sequence[conversion_pb2.Target], precision: job_pb2.Precision.ValueType) -> bool:
    """Returns whether a target asks for `precision`."""
    return any(target.precision == precision for target in targets)
