"""How a model's texts are made of tokens: its tokenizer, its window, what ends a text.

Reads the tokenizer.json that trainer and gateway read, so that a prompt is the same tokens everywhere. Runs
inside Triton's python stubs and cannot import Conch. Knows files; knows nothing about requests.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grammar import Grammars
from paged import PagedModel
from sampling import Sampling
from text import Characters
from tokenizers import Tokenizer

_WINDOW_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length")


class Language:
    """A model's tokenizer, and what its configuration files say about its texts."""

    def __init__(self, folder: Path, model: PagedModel) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._window = _window(_json(folder / "config.json"), model)
        self._num_tokens = model.num_tokens
        self.eos = self._eos(folder)
        self._file = folder / "tokenizer.json"
        self._grammars: Grammars | None = None

    def encode(self, prompt: str) -> list[int]:
        """Returns the prompt's tokens. Raises ValueError if none are left for an answer."""
        ids = list(self._tokenizer.encode(prompt).ids)
        if not ids:
            raise ValueError("text_input: must not be empty")
        if len(ids) >= self._window:
            raise ValueError(f"text_input: has {len(ids)} tokens, must have fewer than {self._window}")
        return ids

    def limit(self, wishes: Sampling, prompt: Sequence[int]) -> int:
        """Returns how many tokens an answer may have."""
        room: int = self._window - len(prompt)
        return room if wishes.max_tokens is None else min(wishes.max_tokens, room)

    def ends(self, wishes: Sampling) -> list[int]:
        """Returns the tokens that end a text. Raises ValueError if one is not in the vocabulary."""
        beyond = [token for token in wishes.stop_token_ids if token >= self._num_tokens]
        if beyond:
            raise ValueError(f"stop_token_ids: {beyond[0]} is no token of this model")
        return sorted({*self.eos, *wishes.stop_token_ids})

    def grammar(self, wishes: Sampling) -> Any:
        """Returns the grammar that is wished for, or None. Raises ValueError if it is none."""
        if wishes.structured_outputs is None:
            return None
        if self._grammars is None:
            self._grammars = Grammars(self._file, num_tokens=self._num_tokens, eos=self.eos)
        return self._grammars.compile(*wishes.structured_outputs)

    def characters(self, wishes: Sampling) -> Characters:
        """Returns what turns a row's tokens to text."""
        skip = wishes.skip_special_tokens
        return Characters(lambda ids: self._tokenizer.decode(list(ids), skip_special_tokens=skip))

    def decode_one(self, token: int) -> str:
        """Returns a token's text."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        return text

    def _eos(self, folder: Path) -> list[int]:
        """Returns the tokens that end a text, by the tokenizer and by the model, as vLLM takes them."""
        files = [_json(folder / name) for name in ("generation_config.json", "config.json")]
        ids: Any = next((c["eos_token_id"] for c in files if c.get("eos_token_id") is not None), [])
        word = _json(folder / "tokenizer_config.json").get("eos_token")
        word = word.get("content") if isinstance(word, dict) else word
        own = self._tokenizer.token_to_id(word) if word else None
        named = [ids] if isinstance(ids, int) else ids
        return sorted({*named, *([own] if own is not None else [])})


def _window(config: dict[str, Any], model: PagedModel) -> int:
    """Returns how many tokens prompt and answer may have together, by config.json and by the cache."""
    lengths = [config[name] for name in _WINDOW_NAMES if config.get(name)]
    shortest: int = min([*lengths, model.block_size * model.num_blocks])
    return shortest


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
