"""A causal language model over a paged KV cache, compiled by OpenVINO.

Reads the stateful IR that `optimum-cli export openvino` writes and lets OpenVINO's own pass turn its
attention into PagedAttention, whose keys and values lie in blocks that the caller hands out. Runs inside
Triton's python stubs and cannot import Conch. Knows tensors; knows nothing about requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13
from openvino._offline_transformations import paged_attention_transformation

_LAST = "last_tokens"
_CACHES = ("key_cache.", "value_cache.")


@dataclass(frozen=True)
class Slice:
    """Tokens of one row to process: they stand behind `past` others whose keys and values lie in `blocks`."""

    tokens: Sequence[int]
    past: int
    blocks: Sequence[int]


class PagedModel:
    """The compiled model and its cache."""

    def __init__(
        self, path: Path, *, precision: str = "f32", cache_bytes: int = 2**30, num_threads: int = 0
    ) -> None:
        properties: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
        }
        if num_threads:
            properties["INFERENCE_NUM_THREADS"] = num_threads
        self._compiled = ov.Core().compile_model(_paged(path), "CPU", properties)
        shapes = {port: _block_shape(port) for port in self._compiled.inputs if _is_cache(port)}
        self.block_size = next(iter(shapes.values()))[1]
        """Tokens of a block."""
        block_bytes = sum(
            int(np.prod(shape)) * port.get_element_type().size for port, shape in shapes.items()
        )
        self.num_blocks = cache_bytes // block_bytes
        if not self.num_blocks:
            raise ValueError(f"parameter cache_size must hold a block, {block_bytes} bytes")
        self.num_tokens: int = self._compiled.outputs[0].partial_shape[-1].get_length()
        """Size of the vocabulary that logits are over; it may be padded beyond the tokenizer's."""
        self._request = self._compiled.create_infer_request()
        # Zeros, because a kernel multiplies what lies behind the last token by 0, and 0 times NaN is NaN.
        # Pages that were never written take no memory.
        self._caches = []
        for port, shape in shapes.items():
            kind = port.get_element_type()
            memory = np.zeros(self.num_blocks * int(np.prod(shape)) * kind.size, np.uint8)
            self._caches.append(memory)
            self._request.set_tensor(port, ov.Tensor(memory, [self.num_blocks, *shape], kind))

    def forward(self, slices: Sequence[Slice]) -> npt.NDArray[np.float32]:
        """Returns the logits `(slices, vocabulary)` behind each slice's last token, until the next call."""
        ends = [slice_.past + len(slice_.tokens) for slice_ in slices]
        used = [s.blocks[: -(-end // self.block_size)] for s, end in zip(slices, ends, strict=True)]
        begins = _begins([s.tokens for s in slices])
        inputs = {
            "input_ids": np.concatenate([s.tokens for s in slices]).astype(np.int64),
            "position_ids": np.concatenate(
                [np.arange(s.past, end) for s, end in zip(slices, ends, strict=True)]
            ),
            "max_context_len": np.array(max(ends), np.int32),
            "past_lens": np.array([s.past for s in slices], np.int32),
            "subsequence_begins": begins,
            "block_indices": np.concatenate(used).astype(np.int32),
            "block_indices_begins": _begins(used),
            _LAST: (begins[1:] - 1).astype(np.int64),
        }
        for name, array in inputs.items():
            self._request.set_tensor(name, ov.Tensor(array))
        self._request.infer()
        logits: npt.NDArray[np.float32] = self._request.get_output_tensor(0).data
        return logits.reshape(len(slices), -1)


def _paged(path: Path) -> ov.Model:
    model = ov.Core().read_model(path)
    paged_attention_transformation(model)
    _keep_last_tokens(model)
    return model


def _keep_last_tokens(model: ov.Model) -> None:
    """Lets the last product, onto the vocabulary, see each row's last token only."""
    node = model.outputs[0].get_node()
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    hidden = node.input_value(0)
    last = opset13.parameter([-1], np.int64, name=_LAST)
    last.output(0).set_names({_LAST})
    node.input(0).replace_source_output(opset13.gather(hidden, last, np.int64(0)).output(0))
    model.add_parameters([last])
    model.validate_nodes_and_infer_types()


def _is_cache(port: Any) -> bool:
    return bool(port.get_any_name().startswith(_CACHES))


def _block_shape(port: Any) -> list[int]:
    """Returns (heads, tokens, width) of one block."""
    _, heads, tokens, width = port.partial_shape
    return [heads.get_length(), tokens.get_length(), width.get_length()]


def _begins(parts: Sequence[Sequence[int]]) -> npt.NDArray[np.int32]:
    return np.cumsum([0, *(len(part) for part in parts)]).astype(np.int32)
