"""The recipe for causal language models: OpenVINO's IR for the engine on CPUs, vLLM's files, an ONNX graph.

Reads top to bottom like a recipe; each step is a module of its own. The figures of vLLM's form are torch's,
on the very files and in the very dtype that vLLM reads: vLLM itself is not run, and the gateway proves a
version by its golden texts before it serves.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from conch.v1 import conversion_pb2, job_pb2
from services.converter import (
    causal_export,
    ir_export,
    logits,
    optimize,
    parity,
    quantize,
    teacher_forcing,
    triton_config,
)
from services.converter.checkpoint import Checkpoint
from services.converter.encoder import link, warn_of_emulation
from services.converter.recipe import Stages
from services.converter.teacher_forcing import Held
from services.errors import NotReady
from services.repository import layout
from services.targets import target_name
from services.tasks import next_tokens
from services.tasks.example import grouped
from services.tasks.text_generation.chat_template import chat_of
from services.token_scores import ends_of, write_greedily

_NUM_REWRITTEN = 4
_VLLM_DTYPES = {job_pb2.PRECISION_BF16: "bfloat16", job_pb2.PRECISION_FP32: "float32"}
_CHECKPOINT_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "model*.safetensors",
    "model.safetensors.index.json",
)


class DecoderRecipe:
    """One causal language model's conversion; see services.converter.recipe.Recipe."""

    def __init__(self, source: Checkpoint, spec: conversion_pb2.ConversionSpec) -> None:
        self.source = source
        self._spec = spec

    @staticmethod
    def num_stages(spec: conversion_pb2.ConversionSpec) -> int:
        """An export for each target, the reference, a proof for each target."""
        return 2 * len(spec.targets) + 1

    def build(self, folder: Path, work: Path, stages: Stages) -> None:
        """Exports what each target serves."""
        _check_golden(self.source)
        build = {
            job_pb2.RUNTIME_OPENVINO: self._build_openvino,
            job_pb2.RUNTIME_ONNXRUNTIME: self._build_onnx,
            job_pb2.RUNTIME_VLLM: self._build_vllm,
        }
        for target in self._spec.targets:
            stages.begin(f"export {target_name(target.runtime, target.precision)}")
            build[target.runtime](target, folder, work, stages)

    def judge(self, folder: Path, stages: Stages) -> Iterator[job_pb2.Verdict]:
        """Holds each target against the trained model on held-out text, and its golden texts."""
        stages.begin("reference")
        held = teacher_forcing.hold(
            self.source,
            logits.of_torch(self.source.model),
            num_examples=self._spec.num_parity_examples,
            check=stages.check,
        )
        for target in self._spec.targets:
            stages.begin(f"parity {target_name(target.runtime, target.precision)}")
            yield self._judged(target, held, folder, stages.check)
        warn_of_emulation(self._spec, stages)

    def configs(self, model: str) -> Mapping[str, str]:
        """One config a pool; vLLM's only if it is a target."""
        task = self.source.task
        texts = triton_config.config_texts(model, task, task.inputs)
        if any(target.runtime == job_pb2.RUNTIME_VLLM for target in self._spec.targets):
            form = task.form_of(job_pb2.RUNTIME_VLLM)
            assert form is not None, "it is a target"
            texts[layout.config_file(form.runtime)] = triton_config.config_text(
                model, task, task.inputs, form
            )
        return texts

    def _build_openvino(
        self, target: conversion_pb2.Target, folder: Path, work: Path, stages: Stages
    ) -> None:
        weights: Literal["int8", "fp32"] = "int8" if target.precision == job_pb2.PRECISION_INT8 else "fp32"
        place = folder / "openvino"
        ir_export.export(self.source.folder, place, precision=weights, check=stages.check)
        # Versions of one model share its config.pbtxt, so what they differ in stands beside the IR.
        properties = {"INFERENCE_PRECISION_HINT": logits.PROPERTY[target.precision]}
        (place / "properties.json").write_text(json.dumps(properties), encoding="utf-8")

    def _build_onnx(self, target: conversion_pb2.Target, folder: Path, work: Path, stages: Stages) -> None:
        source = self.source
        exported, portable = work / "exported.onnx", work / "portable.onnx"
        causal_export.export(source.model, source.task, max_length=source.manifest.max_length, path=exported)
        stages.check()
        optimize.optimize(exported, portable)
        exported.unlink()
        stages.check()
        place = quantize.quantize if target.precision == job_pb2.PRECISION_INT8 else link
        place(portable, folder / "model.onnx")

    def _build_vllm(self, target: conversion_pb2.Target, folder: Path, work: Path, stages: Stages) -> None:
        place = folder / "checkpoint"
        place.mkdir()
        for path in (path for name in _CHECKPOINT_FILES for path in self.source.folder.glob(name)):
            link(path, place / path.name)
        arguments = {
            # vLLM takes a path from where Triton was started: in the folder of the model repository.
            "model": f"{folder.parent.name}/{folder.name}/checkpoint",
            "dtype": _VLLM_DTYPES[target.precision],
            "max_model_len": self.source.manifest.max_length,
        }
        (folder / "model.json").write_text(json.dumps(arguments, indent=2), encoding="utf-8")

    def _judged(
        self, target: conversion_pb2.Target, held: Held, folder: Path, check: Callable[[], None]
    ) -> job_pb2.Verdict:
        task = self.source.task
        rows = teacher_forcing.rows_of(held, _open(target, folder), check, held.reference)
        reference, candidate = grouped(held.encoded, held.reference), grouped(held.encoded, rows)
        values = task.compare(held.encoded, reference, candidate, self.source.facts)
        form = task.form_of(target.runtime)
        if form is not None and form.pools:
            values |= task.compare_texts(
                [example.generated for example in self.source.golden.examples],
                self._golden_texts(target, folder),
            )
        return parity.verdict(
            target,
            task,
            values,
            _files(target, folder),
            len(held.encoded),
            folder=folder,
            limits=self._spec.limits,
        )

    def _golden_texts(self, target: conversion_pb2.Target, folder: Path) -> list[str]:
        """Returns what the engine's model writes after the golden prompts; torch, in vLLM's stead."""
        encoder, ends, most = self.source.encoder, _ends(self.source), next_tokens.NUM_WRITTEN
        golden = self.source.golden.examples
        prompts = [encoder.ids(example.text, add_special_tokens=True) for example in golden]
        if target.runtime == job_pb2.RUNTIME_VLLM:
            model = _load(target, folder)
            written = [write_greedily(model, prompt, most=most, ends=ends) for prompt in prompts]
        else:
            ir = folder / "openvino" / "openvino_model.xml"
            written = logits.write_texts(ir, target.precision, prompts, most=most, ends=ends)
        return [encoder.decode(ids) for ids in written]


def _open(target: conversion_pb2.Target, folder: Path) -> logits.Logits:
    if target.runtime == job_pb2.RUNTIME_OPENVINO:
        return logits.of_openvino(folder / "openvino" / "openvino_model.xml", target.precision)
    if target.runtime == job_pb2.RUNTIME_ONNXRUNTIME:
        return logits.of_onnx(folder / "model.onnx")
    return logits.of_torch(_load(target, folder))


def _load(target: conversion_pb2.Target, folder: Path) -> Any:
    """Returns the very files that vLLM reads, in the dtype that it computes in."""
    dtype = getattr(torch, _VLLM_DTYPES[target.precision])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder / "checkpoint", dtype=dtype)
    return model.eval()


def _files(target: conversion_pb2.Target, folder: Path) -> list[str]:
    """Returns every file that the runtime reads."""
    found = {
        job_pb2.RUNTIME_OPENVINO: "openvino/*",
        job_pb2.RUNTIME_ONNXRUNTIME: "model.onnx",
        job_pb2.RUNTIME_VLLM: "checkpoint/*",
    }
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob(found[target.runtime]))
    return ["model.json", *files] if target.runtime == job_pb2.RUNTIME_VLLM else files


def _ends(source: Checkpoint) -> set[int]:
    [eos] = source.encoder.ids(chat_of(source.facts).eos_token, add_special_tokens=False)
    return ends_of(source.model, eos)


def _check_golden(source: Checkpoint) -> None:
    """Raises NotReady unless the checkpoint's weights write some golden text as recorded.

    A tie may tip over on another machine, but not in all of the texts.
    """
    examples, encoder, ends = source.golden.examples[:_NUM_REWRITTEN], source.encoder, _ends(source)
    for example in examples:
        prompt = encoder.ids(example.text, add_special_tokens=True)
        written = write_greedily(source.model, prompt, most=next_tokens.NUM_WRITTEN, ends=ends)
        if encoder.decode(written) == example.generated:
            return
    raise NotReady("golden.json is not of these weights: they write other texts", reason="GOLDEN_MISMATCH")
