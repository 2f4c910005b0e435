"""Token for token what transformers generates, over the exported graphs, in this process."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from services.triton.backends.seq2seq.generation import Finished, Generator, Parameters
from tests.unit.converter import seq2seq_models

Ints = np.ndarray[Any, np.dtype[np.int64]]
MODELS = ["t5", "gated_t5", "marian", "bart"]
ENDS = {
    "t5": [1, 4, 12, 17, 33, 70, 80, 84],
    "gated_t5": [1, 5, 17, 33],
    "marian": [0, 8, 19, 30, 46],
    "bart": [2, 9, 45, 56, 29, 30, 31, 32, 60, 61],
}
ROWS, LONGEST = 128, 24


def prompts(rows: int = ROWS, *, seed: int = 5) -> tuple[Ints, Ints]:
    """Returns ids and mask of random texts of 1 to 16 tokens."""
    dice = np.random.default_rng(seed)
    mask = (np.arange(16) < dice.integers(1, 17, (rows, 1))).astype(np.int64)
    return dice.integers(6, 90, mask.shape) * mask, mask


def prepared(name: str, **rules: Any) -> tuple[Any, Generator]:
    """Returns model `name` and its generator, both with these rules of the checkpoint replaced."""
    exported = seq2seq_models.exported(name)
    generator = Generator(exported.folder)
    generator.rules = dataclasses.replace(generator.rules, eos_token_ids=ENDS[name], **rules)
    return exported.model, generator


def generated(generator: Generator, source: tuple[Ints, Ints], parameters: Parameters) -> dict[int, Finished]:
    """Returns every row's answer."""
    return {f.row: f for some in generator.generate(*source, parameters) for f in some}


def reference(model: Any, source: tuple[Ints, Ints], ends: Sequence[int], **settings: Any) -> Any:
    """Returns what transformers generates, each row cut behind its end, and its scores if it gives any."""
    ids, mask = map(torch.from_numpy, source)
    with torch.inference_mode():
        answer = model.generate(
            ids,
            attention_mask=mask,
            eos_token_id=list(ends),
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
            **settings,
        )
    scores = getattr(answer, "sequences_scores", None)
    return [cut(row, ends) for row in answer.sequences[:, 1:].tolist()], scores


def cut(row: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Returns `row` up to its first end token."""
    return list(row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))])


def assert_same(
    name: str, *, rows: int = 32, rules: Mapping[str, Any] | None = None, **settings: Any
) -> None:
    """Fails unless model `name` generates as transformers does.

    `rules` are settings of the checkpoint, by transformers' names; `settings` are parameters.
    """
    rules, settings = dict(rules or {}), {"max_new_tokens": LONGEST, "num_beams": 1} | settings
    model, generator = prepared(name, **{_OURS.get(n, n): value for n, value in rules.items()})
    source = prompts(rows)
    want, scores = reference(model, source, ENDS[name], **settings, **rules)
    got = generated(generator, source, Parameters.alike(rows, **settings))
    assert [got[row].tokens.tolist() for row in range(rows)] == want
    if scores is not None:
        np.testing.assert_allclose([got[row].score for row in range(rows)], scores, rtol=1e-3, atol=1e-3)
    # A penalty of 2 makes every answer as long as may be.
    assert len({len(row) for row in want}) > 2 or settings.get("length_penalty") == 2


_OURS = {"forced_eos_token_id": "forced_eos_token_ids"}


@pytest.mark.parametrize("beams", [1, 2, 4, 5])
@pytest.mark.parametrize("name", MODELS)
def test_tokens_and_scores_are_those_of_transformers(name: str, beams: int) -> None:
    # Without it this Marian, whose embeddings are tied, says one token for ever.
    assert_same(name, rows=ROWS, num_beams=beams, no_repeat_ngram_size=2 if name == "marian" else 0)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 0.6, 1.0, 2.0])
def test_length_penalty_and_early_stopping(early_stopping: bool | str, length_penalty: float) -> None:
    assert_same("t5", num_beams=4, length_penalty=length_penalty, rules={"early_stopping": early_stopping})


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {"min_new_tokens": 7},
        {"min_new_tokens": 1, "max_new_tokens": 5},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 3, "min_new_tokens": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["t5", "bart"])
def test_lengths_and_repetitions_asked_for(name: str, settings: dict[str, int], beams: int) -> None:
    assert_same(name, num_beams=beams, **settings)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(
    "rules",
    [
        {"repetition_penalty": 1.3},
        {"bad_words_ids": [[52], [57, 29], [12, 12, 12], [1]]},
        {"suppress_tokens": [52, 57, 29]},
        {"begin_suppress_tokens": [52, 57, 10]},
        {"forced_bos_token_id": 9, "begin_suppress_tokens": [52, 57]},
        {"forced_eos_token_id": [17]},
    ],
    ids=lambda rules: "+".join(rules),
)
def test_rules_of_the_checkpoint(rules: dict[str, Any], beams: int) -> None:
    assert_same("t5", num_beams=beams, rules=rules)


def test_one_token_is_the_most_that_is_generated_if_one_is_asked_for() -> None:
    _, generator = prepared("t5")
    for beams in (1, 3):
        got = generated(generator, prompts(4), Parameters.alike(4, max_new_tokens=1, num_beams=beams))
        assert {len(finished.tokens) for finished in got.values()} == {1}


def test_rows_of_one_call_with_parameters_of_their_own_answer_as_alone() -> None:
    _, generator = prepared("t5")
    ids, mask = prompts(12)
    parameters = Parameters(
        num_beams=np.array([1, 4, 2] * 4),
        max_new_tokens=np.arange(12) + 6,
        min_new_tokens=np.array([0, 5, 2, 0] * 3),
        no_repeat_ngram_size=np.array([0, 2, 3] * 4),
        length_penalty=np.array([1, 0.6, 2, -1] * 3, np.float32),
    )
    together = generated(generator, (ids, mask), parameters)
    for row in range(12):
        only = np.array([row])
        alone = generated(generator, (ids[only], mask[only]), parameters[only])[0]
        assert together[row].tokens.tolist() == alone.tokens.tolist()
        assert together[row].score == pytest.approx(alone.score, rel=1e-4, abs=1e-5)


def test_a_row_of_padding_changes_nothing_for_the_others() -> None:
    _, generator = prepared("t5")
    ids, mask = prompts(4)
    padded = np.zeros_like(ids[:2]), np.zeros_like(mask[:2])
    padded[1][:, 0] = 1
    with_them = np.concatenate([ids, padded[0]]), np.concatenate([mask, padded[1]])
    for beams in (1, 4):
        want = generated(generator, (ids, mask), Parameters.alike(4, max_new_tokens=12, num_beams=beams))
        got = generated(generator, with_them, Parameters.alike(6, max_new_tokens=12, num_beams=beams))
        assert len(got) == 6
        assert all(got[row].tokens.tolist() == want[row].tokens.tolist() for row in want)
