"""The recipe for encoders: one ONNX graph, exported once, served by each runtime from a file of its own.

Reads top to bottom like a recipe; each step is a module of its own.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from conch.v1 import conversion_pb2, job_pb2
from services.converter import onnx_export, optimize, parity, quantize, runtimes, triton_config
from services.converter.checkpoint import Checkpoint
from services.converter.recipe import Stages, wants
from services.targets import target_name


class EncoderRecipe:
    """One encoder's conversion; see services.converter.recipe.Recipe."""

    def __init__(self, source: Checkpoint, spec: conversion_pb2.ConversionSpec) -> None:
        self.source = source
        self._spec = spec
        self._inputs = onnx_export.model_inputs(source.model, source.task)

    @staticmethod
    def num_stages(spec: conversion_pb2.ConversionSpec) -> int:
        """Export, optimize, reference; int8 is a part more, as is each target."""
        return 3 + len(spec.targets) + wants(spec.targets, job_pb2.PRECISION_INT8)

    def build(self, folder: Path, work: Path, stages: Stages) -> None:
        """Exports the graph, cleans it up and lays it out for each runtime."""
        source = self.source
        parity.check_golden(source, self._inputs)
        stages.begin("export")
        exported, portable = work / "exported.onnx", work / "portable.onnx"
        onnx_export.export(source.model, source.task, max_length=source.manifest.max_length, path=exported)
        stages.begin("optimize")
        optimize.optimize(exported, portable)
        self._lay_out(portable, folder, stages)

    def judge(self, folder: Path, stages: Stages) -> Iterator[job_pb2.Verdict]:
        """Holds each target against the trained model on held-out examples."""
        spec = self._spec
        stages.begin("reference")
        held = parity.hold(
            self.source, self._inputs, num_examples=spec.num_parity_examples, check=stages.check
        )
        for target in spec.targets:
            stages.begin(f"parity {target_name(target.runtime, target.precision)}")
            yield parity.judge(target, held, folder=folder, limits=spec.limits, check=stages.check)
        warn_of_emulation(spec, stages)

    def configs(self, model: str) -> Mapping[str, str]:
        """One config a pool, from the task's TensorSpecs."""
        return triton_config.config_texts(model, self.source.task, self._inputs)

    def _lay_out(self, portable: Path, folder: Path, stages: Stages) -> None:
        files = {form.runtime: folder / form.file for form in self.source.task.forms}
        if wants(self._spec.targets, job_pb2.PRECISION_INT8):
            stages.begin("quantize")
            quantize.quantize(portable, files[job_pb2.RUNTIME_ONNXRUNTIME])
        else:
            link(portable, files[job_pb2.RUNTIME_ONNXRUNTIME])
        if any(target.runtime == job_pb2.RUNTIME_OPENVINO for target in self._spec.targets):
            link(portable, files[job_pb2.RUNTIME_OPENVINO])


def warn_of_emulation(spec: conversion_pb2.ConversionSpec, stages: Stages) -> None:
    """Warns if openvino was to answer in bf16 and this CPU has none."""
    targets = [(target.runtime, target.precision) for target in spec.targets]
    if (job_pb2.RUNTIME_OPENVINO, job_pb2.PRECISION_BF16) in targets and not runtimes.has_bf16():
        stages.report.warning(
            "BF16_NOT_NATIVE",
            "this CPU has no bf16, so openvino answered in fp32: convert on a CPU like those that serve, "
            "or the certificate shows less than bf16 loses",
        )


def link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy where hard links are unknown."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
