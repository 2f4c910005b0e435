"""Tiny random language models with a real tokenizer, exported and put before a real Triton, and a caller.

`checkpoint` makes a Hugging Face folder, `add` exports it into a Triton's repository, `generate` asks and
waits, `Stream` asks and lets the test look at the pieces as they come.
"""

import json
import queue
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClient

from examples.assets import gpt2_tokenizer
from tests.integration.triton import RunningTriton, tensors

EXTRAS = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")
WINDOW = 4096


def checkpoint(kind: str, folder: Path, *, window: int = WINDOW) -> Path:
    """Fills `folder` with a random model of two layers, "llama" or "gpt2", and GPT-2's tokenizer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(11)
    # Wider than usual weights, so that the likeliest token is so by more than rounding.
    model: Any
    if kind == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=window,
                initializer_range=0.15,
                **ends,
            )
        )
    else:
        sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": window}
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=len(tokenizer), initializer_range=0.15, **sizes, **ends)
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from transformers import GPT2Tokenizer

    folder = gpt2_tokenizer()
    return GPT2Tokenizer(vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe"))


def reference(folder: Path, prompt: str, **options: Any) -> list[int]:
    """Returns the tokens that transformers generates greedily for `prompt`, without the prompt's."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    asked = tokenizer(prompt, return_tensors="pt")
    answer = model.generate(**asked, do_sample=False, **options)[0]
    generated: list[int] = answer[asked["input_ids"].shape[1] :].tolist()
    return generated


def config(*, max_num_seqs: int = 8, cache_size: float = 0.25, **parameters: str) -> str:
    """Returns the config.pbtxt of a generating model; the backend completes what is not said here."""
    values = {"max_num_seqs": str(max_num_seqs), "cache_size": str(cache_size), **parameters}
    entries = [f'parameters {{ key: "{k}" value: {{ string_value: "{v}" }} }}' for k, v in values.items()]
    return "\n".join(
        [
            'backend: "openvino_generation"',
            'default_model_filename: "openvino/openvino_model.xml"',
            "instance_group [{ kind: KIND_CPU count: 1 }]",
            *entries,
        ]
    )


def add(triton: RunningTriton, model: str, ir: Path, text: str) -> None:
    """Puts the IR of a folder into the repository as `model` and loads it."""
    shutil.copytree(ir, triton.repository / model / "1" / "openvino", dirs_exist_ok=True)
    (triton.repository / model / "config.pbtxt").write_text(text)
    triton.load(model)


@dataclass
class Answer:
    """What came back: the pieces of the text, and the extras of each."""

    pieces: list[str] = field(default_factory=list)
    extras: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)

    @property
    def finish_reason(self) -> str:
        """Of the last piece."""
        return str(self.extras[-1]["finish_reason"].decode())

    @property
    def num_tokens(self) -> int:
        """Tokens of all pieces."""
        return sum(extra["num_output_tokens"] for extra in self.extras)

    @property
    def logprobs(self) -> list[dict[str, dict[str, Any]]]:
        """Of all tokens, as vLLM's backend writes them."""
        return [token for extra in self.extras for token in json.loads(extra["logprobs"])]


class Stream:
    """One request under way, on a connection of its own."""

    def __init__(
        self, triton: RunningTriton, model: str, prompt: str, *, stream: bool = True, **sampling: Any
    ) -> None:
        self._responses: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
        self._client = InferenceServerClient(triton.address)
        self._client.start_stream(lambda result, error: self._responses.put((result, error)))
        inputs = {
            "text_input": np.array([prompt], np.object_),
            "stream": np.array([stream]),
            "exclude_input_in_output": np.array([True]),
            "sampling_parameters": np.array([json.dumps(sampling)], np.object_),
            **{f"return_{name}": np.array([True]) for name in EXTRAS},
        }
        self._client.async_stream_infer(model, tensors(inputs), enable_empty_final_response=True)
        self.answer = Answer()
        self.done = False

    def next(self, timeout_seconds: float = 60) -> None:
        """Waits for the next response and adds it to `answer`."""
        result, error = self._responses.get(timeout=timeout_seconds)
        if error is not None:
            self.answer.error, self.done = str(error), True
            return
        response = result.get_response()
        if response.outputs:
            values = {output.name: result.as_numpy(output.name).item() for output in response.outputs}
            self.answer.pieces.append(values.pop("text_output").decode())
            self.answer.extras.append(values)
        self.done = response.parameters["triton_final_response"].bool_param

    def rest(self) -> Answer:
        """Waits for the end and returns the answer."""
        while not self.done:
            self.next()
        self.close()
        return self.answer

    def close(self) -> None:
        """Cancels what is under way."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()


def generate(triton: RunningTriton, model: str, prompt: str, **asked: Any) -> Answer:
    """Asks once and waits for the end."""
    return Stream(triton, model, prompt, **asked).rest()


@contextmanager
def under_way(triton: RunningTriton, model: str, count: int, **sampling: Any) -> Iterator[list[Stream]]:
    """Keeps `count` texts under way, each of which has its first piece."""
    streams = [
        Stream(triton, model, f"Number {i} of those beside", **{"seed": i, "max_tokens": 3000, **sampling})
        for i in range(count)
    ]
    try:
        for stream in streams:
            stream.next()
        yield streams
    finally:
        for stream in streams:
            stream.close()
