"""The two graphs of an encoder-decoder in onnxruntime, and the memory of one generation.

`encoder.onnx` gives the keys and values that every step's cross-attention reads; `decoder.onnx` takes
them with those of the tokens so far. Keys and values stay onnxruntime's own from step to step: only
tokens go in and logits come out. Knows shapes; knows nothing about search.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

ENCODER, DECODER = "encoder.onnx", "decoder.onnx"


class Graphs:
    """Both graphs of the version in `folder`, loaded with `options`."""

    def __init__(self, folder: Path, options: ort.SessionOptions) -> None:
        providers = ["CPUExecutionProvider"]
        self.encoder = ort.InferenceSession(folder / ENCODER, options, providers=providers)
        self.decoder = ort.InferenceSession(folder / DECODER, options, providers=providers)
        names = [value.name for value in self.decoder.get_inputs()]
        self.cross = [name for name in names if name.startswith("cross.")]
        self.past = [name for name in names if name.startswith("past.")]
        self.present = [f"present.{name.removeprefix('past.')}" for name in self.past]
        _, self.heads, _, self.head_size = self.decoder.get_inputs()[names.index(self.past[0])].shape

    def hidden_state(self, input_ids: Ints, attention_mask: Ints) -> Floats:
        """Returns the encoder's last hidden state `(row, source, size)`."""
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        hidden: Floats = self.encoder.run(["last_hidden_state"], feed)[0]
        return hidden

    def logits(self, input_ids: Ints, attention_mask: Ints, decoder_input_ids: Ints) -> Floats:
        """Returns the logits `(row, target, vocabulary)` after each of `decoder_input_ids` `(row, target)`.

        One step that takes all tokens: what a teacher-forced PyTorch model gives.
        """
        decoding = Decoding(self, input_ids, attention_mask)
        parents = np.arange(len(input_ids))[:, None]
        return decoding.advance(decoder_input_ids[:, None], parents)[:, 0]


class Decoding:
    """The rows `input_ids` and `attention_mask` `(row, source)` on their way; call it as a search.Step."""

    def __init__(self, graphs: Graphs, input_ids: Ints, attention_mask: Ints) -> None:
        self._graphs = graphs
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        cross: list[Any] = graphs.encoder.run(graphs.cross, feed)
        self._held = np.arange(len(input_ids))
        self._sources = {"attention_mask": attention_mask, **dict(zip(graphs.cross, cross, strict=True))}
        self._values = _values(self._sources)
        empty = np.zeros((len(input_ids), graphs.heads, 0, graphs.head_size), np.float32)
        self._past = [ort.OrtValue.ortvalue_from_numpy(empty)] * len(graphs.past)

    def __call__(self, tokens: Ints, parents: Ints, rows: Ints) -> Floats:
        """Returns the logits `(row, beam, vocabulary)` after one more token; see search.Step."""
        if len(rows) < len(self._held):
            self._drop(rows)
        return self.advance(tokens[:, :, None], parents)[:, :, 0]

    def advance(self, tokens: Ints, parents: Ints) -> Floats:
        """Returns the logits `(row, beam, target, vocabulary)` after `tokens` `(row, beam, target)`."""
        graphs = self._graphs
        feed = self._values | _values({"input_ids": np.ascontiguousarray(tokens), "parents": parents})
        feed.update(zip(graphs.past, self._past, strict=True))
        logits, *self._past = graphs.decoder.run_with_ort_values(["logits", *graphs.present], feed)
        scores: Floats = logits.numpy()
        return scores

    def _drop(self, rows: Ints) -> None:
        """Forgets the sources of all but `rows`; what they hold of the tokens goes by `parents`."""
        places = np.searchsorted(self._held, rows)
        self._held = rows
        self._sources = {name: array[places] for name, array in self._sources.items()}
        self._values = _values(self._sources)


def _values(arrays: dict[str, npt.NDArray[Any]]) -> dict[str, ort.OrtValue]:
    return {
        name: ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()
    }
