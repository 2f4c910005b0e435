"""Greedy search as transformers 5.23 does it (GenerationMixin._sample without sampling).

Knows arrays and constraints; knows nothing about graphs.
"""

from collections.abc import Iterator

import numpy as np

from .constraints import constrain, forced
from .rules import Parameters, Rules
from .search import Finished, Ints, Step, Watch, log_normalizer


def greedy(
    step: Step, rows: Ints, rules: Rules, parameters: Parameters, watch: Watch
) -> Iterator[list[Finished]]:
    """Yields the rows that each step finished; a finished row takes no further part.

    `parameters` are those of `rows`, in their order.
    """
    tokens = np.full((len(rows), 1, 1 + int(parameters.max_new_tokens.max(initial=0))), rules.pad_token_id)
    tokens[:, :, 0] = rules.decoder_start_token_id
    totals = np.zeros(len(rows), np.float32)
    parents, length = np.arange(len(rows))[:, None], 1
    while len(rows):
        logits = step(tokens[:, :, length - 1], parents, rows)
        scores = logits.copy()
        constrain(scores, tokens[:, :, :length], rules, parameters)
        chosen = scores.argmax(axis=-1)[..., None]  # (row, 1, 1)
        tokens[:, :, length] = chosen[..., 0]
        gained = np.take_along_axis(logits, chosen, axis=-1) - log_normalizer(logits)
        totals += np.where(forced(length, rules, parameters), 0, gained[:, 0, 0])
        done = np.isin(chosen[:, 0, 0], rules.eos_token_ids) | (length >= parameters.max_new_tokens)
        length += 1
        yield [Finished(int(rows[i]), tokens[i, 0, 1:length], float(totals[i])) for i in np.flatnonzero(done)]
        kept = np.flatnonzero(~(done | watch(rows)))
        rows, tokens, totals, parameters = rows[kept], tokens[kept], totals[kept], parameters[kept]
        parents = kept[:, None]
