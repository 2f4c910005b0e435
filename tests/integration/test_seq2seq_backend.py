"""The seq2seq backend in the real Triton: what transformers generates, rows of a call, calls of a batch."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from tritonclient.utils import InferenceServerException

from tests.integration.triton import RunningTriton, tensors, triton
from tests.unit.converter import seq2seq_models

__all__ = ["triton"]

Inputs = dict[str, np.ndarray[Any, Any]]
CONFIG = """
backend: "seq2seq"
max_batch_size: 64
input [
  { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true },
  { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true },
  { name: "num_beams" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "max_new_tokens" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "min_new_tokens" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "no_repeat_ngram_size" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "length_penalty" data_type: TYPE_FP32 dims: [ 1 ] }
]
output [
  { name: "sequences" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "sequence_scores" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "sequence_lengths" data_type: TYPE_INT64 dims: [ 1 ] },
  { name: "sequence_ended" data_type: TYPE_INT64 dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { }
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""


@pytest.fixture(scope="session", params=["t5", "marian"])
def model(request: pytest.FixtureRequest, triton: RunningTriton) -> str:
    """The name of a loaded model, in Triton and in seq2seq_models."""
    name: str = request.param
    shutil.copytree(seq2seq_models.exported(name).folder, triton.repository / name / "1")
    (triton.repository / name / "config.pbtxt").write_text(CONFIG)
    triton.load(name)
    return name


def call(rows: int, *, width: int = 9, seed: int = 0, longest: int = 20, beams: int = 1) -> Inputs:
    """Returns the inputs of a call whose rows have 1 to `width` tokens."""
    dice = np.random.default_rng(seed)
    mask = (np.arange(width) < dice.integers(1, width + 1, (rows, 1))).astype(np.int64)
    numbers = {"num_beams": beams, "max_new_tokens": longest, "min_new_tokens": 0, "no_repeat_ngram_size": 2}
    return {
        "input_ids": dice.integers(3, 90, mask.shape) * mask,
        "attention_mask": mask,
        **{name: np.full((rows, 1), number) for name, number in numbers.items()},
        "length_penalty": np.ones((rows, 1), np.float32),
    }


def reference(model: str, inputs: Inputs) -> np.ndarray[Any, Any]:
    """Returns what transformers generates for a call whose rows have equal parameters."""
    source = {name: torch.from_numpy(inputs[name]) for name in ("input_ids", "attention_mask")}
    names = ("num_beams", "max_new_tokens", "no_repeat_ngram_size")
    settings = {name: int(inputs[name][0, 0]) for name in names}
    with torch.inference_mode():
        answer: Any = seq2seq_models.exported(model).model.generate(**source, **settings, do_sample=False)
    found: np.ndarray[Any, Any] = answer[:, 1:].numpy()
    return found


def assert_equal_up_to_padding(model: str, got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    """Fails unless rows are equal up to their end; behind it transformers' beams repeat the end."""
    end = seq2seq_models.exported(model).model.generation_config.eos_token_id
    assert got.shape == want.shape
    for mine, theirs in zip(got.tolist(), want.tolist(), strict=True):
        length = theirs.index(end) + 1 if end in theirs else len(theirs)
        assert mine[:length] == theirs[:length]


@pytest.mark.parametrize("beams", [1, 4])
def test_a_call_answers_what_transformers_generates(triton: RunningTriton, model: str, beams: int) -> None:
    inputs = call(8, beams=beams)
    answer = triton.infer(model, inputs)
    assert_equal_up_to_padding(model, answer["sequences"], reference(model, inputs))
    assert answer["sequence_scores"].shape == (8, 1)
    assert (answer["sequence_scores"] < 0).all()


def test_calls_of_every_length_and_beam_that_run_together_answer_as_alone(
    triton: RunningTriton, model: str
) -> None:
    calls = [call(1 + i % 3, width=3 + i, seed=i, longest=5 + i, beams=1 + 3 * (i % 2)) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda inputs: triton.infer(model, inputs), calls))
    for inputs, answer in zip(calls, answers, strict=True):
        assert_equal_up_to_padding(model, answer["sequences"], reference(model, inputs))


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("num_beams", 0, "num_beams must be from 1 to 32"),
        ("max_new_tokens", 0, "max_new_tokens must be 1 or more"),
        ("length_penalty", np.nan, "length_penalty must be a finite number"),
        ("input_ids", 96, "input_ids must be from 0 to 95"),
    ],
)
def test_a_bad_call_is_refused_with_the_reason(
    triton: RunningTriton, model: str, name: str, value: float, complaint: str
) -> None:
    inputs = call(2)
    inputs[name][1, 0] = value
    with pytest.raises(InferenceServerException, match=complaint) as refused:
        triton.infer(model, inputs)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_a_cancelled_call_stops_and_lets_the_next_one_run(triton: RunningTriton, model: str) -> None:
    if model == "marian":
        pytest.skip("its decoder has 64 positions, too few to be caught in the middle")
    gone = threading.Event()
    inputs = call(16, longest=100_000) | {"min_new_tokens": np.full((16, 1), 100_000)}
    inputs["no_repeat_ngram_size"][:] = 0
    running = triton.client.async_infer(model, tensors(inputs), callback=lambda result, error: gone.set())
    time.sleep(0.3)
    assert not gone.is_set()
    running.cancel()
    started = time.monotonic()
    triton.infer(model, call(1))
    assert time.monotonic() - started < 5
