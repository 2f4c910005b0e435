"""What a checkpoint fixes about generation (`generation.json`) and what each row asks for.

Knows names, defaults and limits; knows nothing about scores.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FILE_NAME = "generation.json"
MAX_BEAMS = 32
"""Beyond it a call's memory is its caller's mistake rather than his wish."""


@dataclass(frozen=True)
class Rules:
    """The facts of a checkpoint, named as in transformers' generation config; lists where it allows both."""

    decoder_start_token_id: int
    pad_token_id: int
    vocab_size: int
    source_vocab_size: int
    eos_token_ids: Sequence[int]
    forced_bos_token_id: int | None = None
    forced_eos_token_ids: Sequence[int] = ()
    bad_words_ids: Sequence[Sequence[int]] = ()
    suppress_tokens: Sequence[int] = ()
    begin_suppress_tokens: Sequence[int] = ()
    repetition_penalty: float = 1.0
    early_stopping: bool | str = False
    """True: stop at num_beams finished ones; False: by a heuristic; "never": when none can be better."""
    max_source_length: int | None = None
    """Tokens that the encoder has positions for; None for relative positions."""
    max_target_length: int | None = None
    """Tokens that the decoder has positions for, its start token among them; None for relative positions."""

    def ends(self, tokens: npt.NDArray[np.int64], most: int) -> bool:
        """Returns whether the model ended `tokens` by itself, which an end forced at `most` tokens is not."""
        forced = bool(self.forced_eos_token_ids) and len(tokens) >= most
        # Of a row whose scores are no numbers nothing is written.
        return not forced and len(tokens) > 0 and int(tokens[-1]) in self.eos_token_ids

    def check_source(self, input_ids: npt.NDArray[np.int64], attention_mask: npt.NDArray[np.int64]) -> None:
        """Raises ValueError unless the encoder can read these `(row, token)`."""
        if input_ids.shape != attention_mask.shape or not input_ids.size:
            raise ValueError(
                f"input_ids {input_ids.shape} and attention_mask {attention_mask.shape} do not fit"
            )
        if input_ids.min() < 0 or input_ids.max() >= self.source_vocab_size:
            raise ValueError(f"input_ids must be from 0 to {self.source_vocab_size - 1}")
        if self.max_source_length is not None and input_ids.shape[1] > self.max_source_length:
            raise ValueError(f"input_ids are longer than the encoder's {self.max_source_length} positions")

    @classmethod
    def read(cls, path: Path) -> "Rules":
        """Returns the rules at `path`; what it does not know there is for others."""
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{f.name: content[f.name] for f in fields(cls) if f.name in content})


@dataclass(frozen=True)
class Parameters:
    """What each row asks for; arrays `(row,)`."""

    num_beams: npt.NDArray[np.int64]
    max_new_tokens: npt.NDArray[np.int64]
    min_new_tokens: npt.NDArray[np.int64]
    no_repeat_ngram_size: npt.NDArray[np.int64]
    """0 allows every repetition."""
    length_penalty: npt.NDArray[np.float32]

    @classmethod
    def alike(
        cls,
        rows: int,
        *,
        max_new_tokens: int,
        num_beams: int = 1,
        min_new_tokens: int = 0,
        no_repeat_ngram_size: int = 0,
        length_penalty: float = 1.0,
    ) -> "Parameters":
        """Returns the same parameters for each of `rows` rows."""
        return cls(
            num_beams=np.full(rows, num_beams, np.int64),
            max_new_tokens=np.full(rows, max_new_tokens, np.int64),
            min_new_tokens=np.full(rows, min_new_tokens, np.int64),
            no_repeat_ngram_size=np.full(rows, no_repeat_ngram_size, np.int64),
            length_penalty=np.full(rows, length_penalty, np.float32),
        )

    @classmethod
    def gathered(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> "Parameters":
        """Returns parameters of tensors by name, each `(row, 1)`."""
        return cls(**{f.name: tensors[f.name].reshape(-1) for f in fields(cls)})

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> "Parameters":
        """Returns the parameters of these rows alone."""
        return Parameters(*(getattr(self, f.name)[rows] for f in fields(self)))

    def within(self, rules: Rules) -> "Parameters":
        """Returns these, no row asking for more tokens than the decoder has positions."""
        if rules.max_target_length is None:
            return self
        most = np.int64(rules.max_target_length)
        return replace(
            self,
            max_new_tokens=np.minimum(self.max_new_tokens, most),
            min_new_tokens=np.minimum(self.min_new_tokens, most),
        )

    def check(self, rules: Rules) -> None:
        """Raises ValueError, naming the parameter, unless every row can be generated."""
        longest = rules.max_target_length
        checks = {
            f"num_beams must be from 1 to {MAX_BEAMS}": (self.num_beams >= 1) & (self.num_beams <= MAX_BEAMS),
            "max_new_tokens must be 1 or more": self.max_new_tokens >= 1,
            f"max_new_tokens must be at most {longest}, the decoder has no more positions": (
                self.max_new_tokens <= (longest or np.iinfo(np.int64).max)
            ),
            "min_new_tokens must be 0 or more": self.min_new_tokens >= 0,
            "no_repeat_ngram_size must be 0 or more": self.no_repeat_ngram_size >= 0,
            "length_penalty must be a finite number": np.isfinite(self.length_penalty),
        }
        broken = [message for message, good in checks.items() if not good.all()]
        if broken:
            raise ValueError("; ".join(broken))
