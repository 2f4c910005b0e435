"""Sampling parameters as they are read, and the choice of tokens held against plain definitions."""

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from services.triton.backends.openvino_generation import sampling
from services.triton.backends.openvino_generation.choosing import Chooser
from services.triton.backends.openvino_generation.sampling import Sampling

LOGITS = np.random.default_rng(1).normal(scale=3, size=200).astype(np.float32) - 20


def chosen(logits: Any, *, count: int = 1, prompt: tuple[int, ...] = (), **wishes: Any) -> list[int]:
    chooser = Chooser(Sampling(**wishes), prompt)
    return [chooser.choose(logits).token for _ in range(count)]


def test_nothing_said_is_what_vllm_takes() -> None:
    assert sampling.parse("") == Sampling(temperature=1.0, top_k=0, top_p=1.0, max_tokens=16)


def test_numbers_in_quotes_and_both_spellings_of_a_constraint_are_read() -> None:
    read = sampling.parse(json.dumps({"temperature": "0.5", "top_k": -1, "seed": -1, "stop": "end", "n": 1}))
    assert (read.temperature, read.top_k, read.seed, read.stop) == (0.5, 0, None, ("end",))
    schema = {"type": "object"}
    for spelled in (
        {"structured_outputs": {"json": schema}},
        {"structured_outputs": json.dumps({"json": schema})},
        {"guided_decoding": {"json": schema, "backend": "xgrammar"}},
    ):
        assert sampling.of(spelled).structured_outputs == ("json", schema)


def test_null_is_as_if_nothing_were_said() -> None:
    assert sampling.parse('{"seed": null, "temperature": null}') == Sampling()


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("[1]", "sampling_parameters: must be a JSON object"),
        ("{", "sampling_parameters: no JSON"),
        ('{"temperature": true}', "temperature: must be a number, not True"),
        ('{"temperature": NaN}', "temperature: must be from 0, not nan"),
        ('{"top_k": 1.5}', "top_k: must be a whole number from -1"),
        ('{"seed": "x"}', "seed: must be a whole number, not 'x'"),
        ('{"presence_penalty": 2.5}', "presence_penalty: must be from -2 to 2, not 2.5"),
        ('{"logprobs": 21}', "logprobs: must be a whole number from 0 to 20, not 21"),
        ('{"ignore_eos": 1}', "ignore_eos: must be true or false, not 1"),
        ('{"stop_token_ids": 3}', "stop_token_ids: must be a list of token ids"),
        ('{"min_tokens": 20}', "min_tokens: must be at most max_tokens, 16"),
        ('{"structured_outputs": "{"}', "structured_outputs: no JSON"),
        (
            '{"structured_outputs": {"json": {}, "regex": "a", "choice": ["b"]}}',
            "structured_outputs: must be",
        ),
    ],
)
def test_what_is_wrong_is_said_after_the_parameters_name(given: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"^" + complaint.replace("(", r"\(")):
        sampling.parse(given)


def test_temperature_0_takes_the_likeliest() -> None:
    assert chosen(LOGITS, count=3, temperature=0) == [int(LOGITS.argmax())] * 3


def test_choices_are_as_frequent_as_they_are_likely() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    counts = Counter(chosen(logits, count=8000, seed=3))
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert counts[token] / 8000 == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_top_k_and_top_p_leave_exactly_the_nucleus(temperature: float) -> None:
    weights = np.exp(LOGITS.astype(np.float64) / temperature)
    order = np.argsort(-weights)
    shares = np.cumsum(weights[order]) / weights.sum()
    nucleus = set(order[: int((shares < 0.8).sum()) + 1].tolist())
    wishes: dict[str, Any] = {"temperature": temperature, "seed": 1, "count": 1000}
    assert set(chosen(LOGITS, **wishes, top_p=0.8)) <= nucleus
    assert int(LOGITS.argmax()) in set(chosen(LOGITS, **wishes, top_p=0.8))
    assert set(chosen(LOGITS, **wishes, top_k=5)) <= set(order[:5].tolist())
    # The nucleus of what top_k left.
    shares = np.cumsum(weights[order[:5]]) / weights[order[:5]].sum()
    both = set(order[: int((shares < 0.8).sum()) + 1].tolist())
    assert set(chosen(LOGITS, **wishes, top_k=5, top_p=0.8)) <= both


def test_a_nucleus_wider_than_the_first_look_is_found() -> None:
    flat = np.zeros(5000, np.float32)
    assert len(set(chosen(flat, count=2000, seed=1, top_p=0.9))) > 1100


def test_min_p_is_a_share_of_the_likeliest() -> None:
    allowed = set(np.flatnonzero(LOGITS.max() + math.log(0.1) <= LOGITS).tolist())
    assert set(chosen(LOGITS, count=1000, seed=1, min_p=0.1)) <= allowed


@pytest.mark.parametrize("shift", [-50, 0, 50])
def test_presence_and_frequency_lower_what_came_whatever_its_sign(shift: float) -> None:
    """Libraries are known to raise tokens of negative logits."""
    logits = np.array([1.0, 0.9, 0.0, -3.0], np.float32) + np.float32(shift)
    assert chosen(logits, count=3, temperature=0, presence_penalty=0.5) == [0, 1, 0]
    assert chosen(logits, count=6, temperature=0, frequency_penalty=0.3) == [0, 1, 0, 1, 0, 1]


def test_the_repetition_penalty_counts_the_prompt_too() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.1], np.float32)
    assert chosen(logits, temperature=0, repetition_penalty=2.0, prompt=(0,)) == [1]
    assert chosen(logits[2:], temperature=0, repetition_penalty=2.0, prompt=(0,)) == [1]


def test_an_end_is_not_chosen_before_min_tokens() -> None:
    logits = np.array([-1.0, -2.0, -9.0], np.float32)
    chooser = Chooser(Sampling(temperature=0, min_tokens=2), (), never_before_min=(0,))
    assert [chooser.choose(logits).token for _ in range(3)] == [1, 1, 0]
    assert logits.tolist() == [-1.0, -2.0, -9.0]


def test_logprobs_are_those_before_temperature_and_penalties() -> None:
    chooser = Chooser(Sampling(temperature=0.01, seed=1, logprobs=2, presence_penalty=2.0), ())
    expected = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum())
    order = np.argsort(-LOGITS)
    for _ in range(3):
        choice = chooser.choose(LOGITS)
        assert choice.logprob == pytest.approx(expected[choice.token], abs=1e-4)
        assert {e.token for e in choice.top} == {choice.token, *order[:2].tolist()}
        assert all(order[e.rank - 1] == e.token for e in choice.top)
