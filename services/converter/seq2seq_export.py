"""An encoder-decoder to two ONNX graphs and the facts that generation needs.

`encoder.onnx`  input_ids, attention_mask (source, tokens)
                -> last_hidden_state, cross.{layer}.{key,value} (source, head, tokens, size)
`decoder.onnx`  input_ids (source, beam, target), parents (source, beam), attention_mask, cross.*,
                past.{layer}.{key,value} (sequence, head, past, size)
                -> logits (source, beam, target, vocabulary),
                   present.{layer}.{key,value} (sequence, head, past + target, size)
`generation.json`  what seq2seq_rules.py says

One decoder serves the first step (no past) and all later ones. `parents` says which sequence of the
past each beam goes on, so that reordering, branching and leaving are one gather inside the graph; the
beams of a source share its cross-attention keys and values. Knows names, axes and torch's
exporter; knows nothing about checkpoints, precision or parity.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
import transformers

from services.converter import onnx_export, optimize, seq2seq_modules, seq2seq_rules
from services.errors import NotReady

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
Axes = Mapping[str, Sequence[str]]
"""The axes of tensors by name; an axis "" has the model's own extent."""

_SOURCE: Axes = {"input_ids": ("source", "token"), "attention_mask": ("source", "token")}
_ANY = torch.export.Dim.DYNAMIC


def export(model: transformers.PreTrainedModel, folder: Path) -> None:
    """Writes ENCODER, DECODER and generation.json of `model`, an AutoModelForSeq2SeqLM in evaluation mode.

    Raises NotReady: EXPORT_FAILED if torch cannot trace the model, GRAPH_TOO_LARGE past 2 GiB,
    GENERATION_UNSUPPORTED if its generation config asks for what the backend does not do.
    """
    rules = seq2seq_rules.rules(model)
    onnx_export.check_size(model)
    ids, mask = _example()
    with seq2seq_modules.shared_source(model), torch.no_grad():
        cross = seq2seq_modules.Encoder(model)(ids, mask)[1:]
        _export_encoder(model, ids, mask, len(cross) // 2, folder / ENCODER)
        _export_decoder(model, mask, cross, folder / DECODER)
    (folder / seq2seq_rules.FILE_NAME).write_text(json.dumps(rules, indent=2) + "\n", encoding="utf-8")


def _example() -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ids and mask `(2, 16)`; the second row ends in padding, which keeps the mask in the graph."""
    mask = torch.ones(2, 16, dtype=torch.int64)
    mask[1, 8:] = 0
    return torch.ones_like(mask), mask


def _export_encoder(
    model: transformers.PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, layers: int, path: Path
) -> None:
    cross = dict.fromkeys(_names("cross", layers), ("source", "", "token", ""))
    outputs = {"last_hidden_state": ("source", "token", ""), **cross}
    shapes = [_shape(axes) for axes in _SOURCE.values()]
    _export(seq2seq_modules.Encoder(model), (ids, mask), tuple(shapes), _SOURCE, outputs, path)


def _export_decoder(
    model: transformers.PreTrainedModel, mask: torch.Tensor, cross: Sequence[torch.Tensor], path: Path
) -> None:
    layers, (_, heads, _, size) = len(cross) // 2, cross[0].shape
    ids, parents = torch.ones(2, 3, 5, dtype=torch.int64), torch.tensor([[0, 1, 1], [3, 4, 4]])
    past = [torch.zeros(6, heads, 4, size) for _ in cross]
    own: Axes = {
        "input_ids": ("source", "beam", "target"),
        "parents": ("source", "beam"),
        "attention_mask": ("source", "token"),
    }
    crossing = dict.fromkeys(_names("cross", layers), ("source", "", "token", ""))
    passed = dict.fromkeys(_names("past", layers), ("past_sequence", "", "past", ""))
    present = dict.fromkeys(_names("present", layers), ("sequence", "", "present", ""))
    shapes = (
        *map(_shape, own.values()),
        [_shape(axes) for axes in crossing.values()],
        [_shape(axes) for axes in passed.values()],
    )
    _export(
        seq2seq_modules.Decoder(model),
        (ids, parents, mask, list(cross), past),
        shapes,
        {**own, **crossing, **passed},
        {"logits": ("source", "beam", "target", ""), **present},
        path,
    )


def _names(prefix: str, layers: int) -> list[str]:
    return [f"{prefix}.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]


def _shape(axes: Sequence[str]) -> dict[int, object]:
    return {position: _ANY for position, axis in enumerate(axes) if axis}


def _export(
    module: torch.nn.Module,
    example: tuple[object, ...],
    shapes: tuple[object, ...],
    inputs: Axes,
    outputs: Axes,
    path: Path,
) -> None:
    with onnx_export.quiet():
        try:
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                opset_version=onnx_export.OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                optimize=False,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            raise onnx_export.export_failed(module.model, error) from error
    assert program is not None, "torch.onnx.export(dynamo=True) always returns a program"
    _write(program.model_proto, {**inputs, **outputs}, path)


def _write(graph: onnx.ModelProto, axes: Axes, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        raw = Path(folder) / path.name
        onnx.save_model(graph, raw)
        optimize.optimize(raw, path)
    clean = onnx.load_model(path)
    _name_axes(clean.graph, axes)
    onnx.save_model(clean, path)


def _name_axes(graph: onnx.GraphProto, axes: Axes) -> None:
    """Gives the axes of inputs and outputs names for the exporter's symbols (s72*s70)."""
    values = {value.name: value for value in (*graph.input, *graph.output)}
    if values.keys() != axes.keys():
        raise NotReady(f"the graph lost {axes.keys() ^ values.keys()}", reason="EXPORT_FAILED")
    for name, value in values.items():
        for axis, dim in zip(axes[name], value.type.tensor_type.shape.dim, strict=True):
            if axis:
                dim.dim_param = axis
