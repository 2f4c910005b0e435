"""Holds a converted causal language model against the trained one on held-out text, token by token.

Both read the same text, so that one differing token does not make all that follow differ. Knows batches;
knows nothing about runtimes or limits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from services.converter.checkpoint import Checkpoint
from services.converter.logits import Logits
from services.tasks import Encoded
from services.tasks.encoding import Tokens, pad
from services.tasks.tensors import Row
from services.token_scores import score

_MOST_TOKENS = 4096
"""Read in all: enough to tell a rate of 0.001 from 0.002."""
_TOKENS_AT_ONCE = 1024
# Every 8th window goes alone: batch 1 takes other kernels.
_SINGLE_EVERY = 8


@dataclass(frozen=True)
class Held:
    """Held-out examples as batches of windows, `batches[k]` holding their numbers, and torch's answers."""

    source: Checkpoint
    encoded: list[Encoded]
    batches: list[list[int]]
    reference: list[Row]

    @property
    def windows(self) -> list[Tokens]:
        """All windows of all examples, in order."""
        return [window for one in self.encoded for window in one.windows]


def hold(source: Checkpoint, run: Logits, *, num_examples: int, check: Callable[[], None]) -> Held:
    """Returns up to `num_examples` held-out examples, 4096 tokens or little more, with the answers of `run`.

    `check` is called between batches and may raise to stop.
    """
    encoded = _cut(source.encode(source.sample(num_examples)))
    windows = [window for one in encoded for window in one.windows]
    held = Held(source, encoded, _batches(windows), [])
    return Held(source, encoded, held.batches, rows_of(held, run, check))


def rows_of(
    held: Held, run: Logits, check: Callable[[], None], like: Sequence[Row] | None = None
) -> list[Row]:
    """Returns a row for each window; of the logits those that are highest, or those that `like` keeps."""
    windows, rows = held.windows, dict[int, Row]()
    for batch in held.batches:
        check()
        chosen = [windows[i] for i in batch]
        tensors = pad(chosen, max(map(len, chosen)), held.source.encoder.pad_id)
        logits = run({name: tensors[name] for name in ("input_ids", "attention_mask")})
        kept = None if like is None else [like[i] for i in batch]
        rows |= zip(batch, score(torch.from_numpy(logits), chosen, kept), strict=True)
    return [rows[i] for i in range(len(windows))]


def _cut(encoded: Sequence[Encoded]) -> list[Encoded]:
    """Returns the first examples, less of the last one, until enough is read."""
    left, kept = _MOST_TOKENS, list[Encoded]()
    for one in encoded:
        windows = []
        for window in one.windows:
            if left > 0:
                windows.append(window)
                left -= len(window)
        if windows:
            kept.append(Encoded(one.example, windows))
    return kept


def _batches(windows: Sequence[Tokens]) -> list[list[int]]:
    order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))
    batches = [[i] for i in order[::_SINGLE_EVERY]]
    open_batch: list[int] = []
    for i in (i for n, i in enumerate(order) if n % _SINGLE_EVERY):
        if open_batch and len(windows[open_batch[0]]) * (len(open_batch) + 1) > _TOKENS_AT_ONCE:
            batches.append(open_batch)
            open_batch = []
        open_batch.append(i)
    return [*batches, open_batch] if open_batch else batches
