"""transformers' own generate in a process of its own, the peer that streams are measured beside."""

import multiprocessing as mp
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

_loaded: Any = None


class Peer:
    """A child process that holds a causal language model in fp32."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    @classmethod
    def start(cls, checkpoint: Path, *, threads: int) -> "Peer":
        """Loads the model; returns once it is there."""
        pool = ProcessPoolExecutor(1, mp_context=mp.get_context("spawn"))
        pool.submit(_load, checkpoint, threads).result()
        return cls(pool)

    def seconds(self, prompts: Sequence[str], num_tokens: int) -> float:
        """Returns how long `num_tokens` greedy tokens after each prompt take, as one padded batch."""
        return float(self._pool.submit(_generate, list(prompts), num_tokens).result())

    def stop(self) -> None:
        """Ends the child."""
        self._pool.shutdown()


def _load(checkpoint: Path, threads: int) -> None:
    global _loaded
    import torch
    import transformers

    torch.set_num_threads(threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    _loaded = (tokenizer, model)


def _generate(prompts: list[str], num_tokens: int) -> float:
    import torch

    tokenizer, model = _loaded
    started = time.perf_counter()
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        model.generate(**batch, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False)
    return time.perf_counter() - started
