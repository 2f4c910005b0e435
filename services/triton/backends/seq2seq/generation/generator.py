"""Rows to sequences: which rows run together, by which search, over which graphs.

Knows parameters and rules; knows nothing about requests.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort

from .beam import beam
from .graphs import Decoding, Graphs
from .greedy import greedy
from .rules import FILE_NAME, Parameters, Rules
from .search import Bools, Finished, Ints, Watch


def _everybody_waits(rows: Ints) -> Bools:
    return np.zeros(len(rows), np.bool_)


class Generator:
    """The encoder-decoder of the version in `folder`."""

    def __init__(self, folder: Path, options: ort.SessionOptions | None = None) -> None:
        self.rules = Rules.read(folder / FILE_NAME)
        self.graphs = Graphs(folder, options or ort.SessionOptions())

    def generate(
        self,
        input_ids: Ints,
        attention_mask: Ints,
        parameters: Parameters,
        *,
        watch: Watch = _everybody_waits,
    ) -> Iterator[list[Finished]]:
        """Yields rows as they finish, of `input_ids` and `attention_mask` `(row, source)`.

        Rows of equal num_beams run together, the greedy ones first. `watch` is asked once a step which
        of the rows given nobody waits for any more: those do not come out.
        """
        for beams in np.unique(parameters.num_beams):
            rows = np.flatnonzero(parameters.num_beams == beams)
            rows = rows[~watch(rows)]
            if len(rows):
                ids, mask = _trimmed(input_ids[rows], attention_mask[rows])
                decoding = Decoding(self.graphs, ids, mask)
                yield from self._searched(decoding, rows, parameters[rows], watch)

    def _searched(
        self, decoding: Decoding, rows: Ints, parameters: Parameters, watch: Watch
    ) -> Iterator[list[Finished]]:
        search = greedy if parameters.num_beams[0] == 1 else beam
        local = np.arange(len(rows))
        for finished in search(decoding, local, self.rules, parameters, lambda of: watch(rows[of])):
            yield [Finished(int(rows[f.row]), f.tokens, f.score) for f in finished]


def _trimmed(input_ids: Ints, attention_mask: Ints) -> tuple[Ints, Ints]:
    """Drops the columns behind the last token of the longest row; at least one stays."""
    used = np.flatnonzero(attention_mask.any(axis=0))
    width = int(used[-1]) + 1 if len(used) else 1
    return input_ids[:, :width], attention_mask[:, :width]
