"""A causal language model in each runtime: tokens to logits, and the texts that it writes in the engine.

Knows torch, onnxruntime and OpenVINO; knows nothing about examples or limits.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch

from conch.v1 import job_pb2
from services.converter import runtimes
from services.tasks.tensors import Array, FloatArray
from services.triton.backends.openvino_generation.paged import PagedModel, Slice

Logits = Callable[[Mapping[str, Array]], FloatArray]
"""From input_ids and attention_mask `(batch, sequence)` to logits `(batch, sequence, vocabulary)`."""

PROPERTY = {job_pb2.PRECISION_FP32: "f32", job_pb2.PRECISION_BF16: "bf16", job_pb2.PRECISION_INT8: "f32"}
"""What OpenVINO computes in; int8 are weights alone."""
_CACHE_BYTES = 2**28


def of_torch(model: Any) -> Logits:
    """Returns the logits of a transformers model."""

    def run(inputs: Mapping[str, Array]) -> FloatArray:
        with torch.inference_mode():
            answer = model(
                **{name: torch.from_numpy(array) for name, array in inputs.items()}, use_cache=False
            )
        return np.asarray(answer.logits.float().numpy(), dtype=np.float32)

    return run


def of_onnx(path: Path) -> Logits:
    """Returns the logits of the portable graph at `path`, by onnxruntime."""
    run = runtimes.open_graph(path, job_pb2.RUNTIME_ONNXRUNTIME)
    return lambda inputs: run(inputs)["logits"]


def of_openvino(path: Path, precision: job_pb2.Precision.ValueType) -> Logits:
    """Returns the logits of the stateful IR at `path`, each call beginning anew."""
    hint = PROPERTY[precision]
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint, "KV_CACHE_PRECISION": hint}
    compiled = openvino.Core().compile_model(path, "CPU", properties)
    names = {name for port in compiled.inputs for name in port.get_names()}
    request = compiled.create_infer_request()

    def run(inputs: Mapping[str, Array]) -> FloatArray:
        mask = inputs["attention_mask"]
        given = {
            **inputs,
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0),
            "beam_idx": np.arange(len(mask), dtype=np.int32),
        }
        request.reset_state()
        answer = request.infer({name: array for name, array in given.items() if name in names})
        return np.array(answer["logits"], dtype=np.float32)

    return run


def write_texts(
    path: Path,
    precision: job_pb2.Precision.ValueType,
    prompts: Sequence[Sequence[int]],
    *,
    most: int,
    ends: Collection[int],
) -> list[list[int]]:
    """Returns up to `most` tokens after each prompt, written greedily and all at once as the engine does."""
    model = PagedModel(path, precision=PROPERTY[precision], cache_bytes=_CACHE_BYTES)
    needed = [-(-(len(prompt) + most) // model.block_size) for prompt in prompts]
    begins = np.cumsum([0, *needed])
    written: list[list[int]] = [[] for _ in prompts]
    slices = {i: Slice(prompt, 0, range(begins[i], begins[i + 1])) for i, prompt in enumerate(prompts)}
    for _ in range(most):
        if not slices:
            break
        best = model.forward(list(slices.values())).argmax(axis=-1).tolist()
        for (i, last), token in zip(list(slices.items()), best, strict=True):
            if token in ends:
                del slices[i]
                continue
            written[i].append(token)
            slices[i] = Slice([token], last.past + len(last.tokens), last.blocks)
    return written
