"""What text-generation reads of data files, which tokens it learns, and what its figures say."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from conch.v1 import job_pb2, tasks_pb2
from services.errors import InvalidRequest
from services.tasks import Example, Facts
from services.tasks.base import LowRank, SpecialTokens
from services.tasks.encoding import Encoder
from services.tasks.tensors import IGNORED, Row
from services.tasks.text_generation.chat_template import Chat
from services.tasks.text_generation.task import TextGeneration
from tests import causal_models

TASK, SPEC = TextGeneration(), tasks_pb2.TaskSpec()
SPECIAL = SpecialTokens("", causal_models.EOS, causal_models.CHAT_TEMPLATE)
TALK = [
    {"role": "user", "content": "Who sees the cat?"},
    {"role": "assistant", "content": "The dog sees the cat."},
    {"role": "user", "content": "And who the dog?"},
    {"role": "assistant", "content": "The bird."},
]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_models.save_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal_models.save_gpt2(tmp_path_factory.mktemp("gpt2"))


def facts(**spec: Any) -> Facts:
    own = tasks_pb2.TextGenerationSpec(**spec)
    settled = TASK.settle([], tasks_pb2.TaskSpec(text_generation=own))
    return TASK.with_special_tokens(settled, SPECIAL)


def read(**values: Any) -> Example:
    return TASK.read(values, 7, SPEC)


def learned(encoder: Encoder, example: Example, known: Facts) -> list[str]:
    """Returns the text of the tokens that the loss compares, by window."""
    [encoded] = TASK.encode(encoder, [example], known)
    targets = [t["labels"] for t in TASK.targets(encoded, known)]
    tokenizer = encoder._reader
    return [tokenizer.decode(t[t != IGNORED].tolist(), skip_special_tokens=False) for t in targets]


# Reading


def test_a_row_is_a_document_a_prompt_with_its_completion_or_a_conversation() -> None:
    assert read(text="A whole text.") == Example("A whole text.", "", None, 7)
    assert read(prompt="Say", completion=" it") == Example("Say", " it", None, 7)
    talk = read(messages=TALK)
    assert (talk.text_pair, talk.target) == ("The bird.", TALK)
    assert talk.text.splitlines()[0] == "user: Who sees the cat?"


def test_what_is_missing_or_wrong_in_a_row_is_named() -> None:
    def refused(**values: Any) -> str:
        with pytest.raises(ValueError, match=r".") as caught:
            read(**values)
        return str(caught.value)

    assert "neither text" in refused(text=None)
    assert refused(text="  ") == "text is empty"
    assert refused(prompt="Say", completion=None) == "completion is missing"
    assert refused(messages="hello") == "messages is not a list of two messages or more"
    assert refused(messages=TALK[:3]) == "messages ends without the assistant's answer"
    assert "role 'bot'" in refused(messages=[{"role": "bot", "content": "x"}, TALK[1]])
    assert refused(messages=[{"role": "user", "content": " "}, TALK[1]]) == "message 1 has no content"
    system = {"role": "system", "content": "Be kind."}
    assert "system message after" in refused(messages=[TALK[0], system, TALK[1]])
    assert refused(messages=[system, TALK[1]]) == "messages has no message of the user"


# What is learned


def test_all_of_a_document_is_learned_in_windows_side_by_side(llama: Path) -> None:
    known, encoder = facts(), Encoder.from_file(llama / "tokenizer.json", 16)
    document = " ".join(causal_models.documents(4, seed=1))
    [encoded] = TASK.encode(encoder, [read(text=document)], known)
    assert len(encoded.windows) > 4
    assert all(len(window) <= 16 and not window.truncated for window in encoded.windows)
    # Each window begins with <s>, which nobody writes.
    assert "".join(learned(encoder, read(text=document), known)) == document + causal_models.EOS


def test_of_a_prompt_with_a_completion_the_completion_and_its_end_are_learned(llama: Path) -> None:
    encoder = Encoder.from_file(llama / "tokenizer.json", 64)
    example = read(prompt="The cat sees", completion=" the dog.")
    assert learned(encoder, example, facts()) == [" the dog." + causal_models.EOS]


def test_of_a_conversation_all_that_the_assistant_says_is_learned(llama: Path) -> None:
    encoder, known = Encoder.from_file(llama / "tokenizer.json", 128), facts()
    end = causal_models.EOS
    assert learned(encoder, read(messages=TALK), known) == [f"The dog sees the cat.{end}The bird.{end}"]
    [encoded] = TASK.encode(encoder, [read(messages=TALK)], known)
    theirs = AutoTokenizer.from_pretrained(llama).apply_chat_template(TALK, tokenize=False)
    assert encoded.windows[0].input_ids == encoder.ids(theirs.rstrip("\n"), add_special_tokens=True)


def test_what_is_too_long_loses_the_prompts_begin_before_the_answers_end(gpt2: Path) -> None:
    encoder = Encoder.from_file(gpt2 / "tokenizer.json", 16)
    long_prompt = read(prompt=" ".join(causal_models.documents(3)), completion=" Yes.")
    [encoded] = TASK.encode(encoder, [long_prompt], facts())
    assert (len(encoded.windows[0]), encoded.windows[0].truncated) == (16, True)
    assert learned(encoder, long_prompt, facts()) == [" Yes." + causal_models.EOS]
    both_long = read(prompt=long_prompt.text, completion=long_prompt.text)
    [encoded] = TASK.encode(encoder, [both_long], facts())
    [target] = TASK.targets(encoded, facts())
    assert (target["labels"] != IGNORED).tolist() == [False] * 8 + [True] * 8


def test_a_conversation_without_a_template_is_refused_by_row(gpt2: Path) -> None:
    encoder = Encoder.from_file(gpt2 / "tokenizer.json", 64)
    bare = TASK.with_special_tokens(TASK.settle([], SPEC), SpecialTokens("", causal_models.EOS, ""))
    with pytest.raises(InvalidRequest) as none:
        TASK.encode(encoder, [read(messages=TALK)], bare)
    assert none.value.reason == "NO_CHAT_TEMPLATE"
    last_only = "{% if loop is defined %}{% endif %}{{ messages[-1].content }}"
    with pytest.raises(InvalidRequest) as shifting:
        TASK.encode(encoder, [read(messages=TALK)], facts(chat_template=last_only))
    assert "row 7: the chat template renders turn" in shifting.value.violations[0].description


def test_a_template_is_rendered_as_transformers_renders_it(llama: Path) -> None:
    template = (
        "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% continue %}{% endif %}{% set ns.n = ns.n + 1 %}[{{ ns.n }}]{{ m | tojson }}\n  {% endfor %}"
        "{%- generation %}{{ add_generation_prompt }}{% endgeneration %}"
    )
    tokenizer = AutoTokenizer.from_pretrained(llama)
    theirs = tokenizer.apply_chat_template(
        TALK, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert Chat(template, "<s>", causal_models.EOS).prompt(TALK) == theirs
    with pytest.raises(ValueError, match="refuses this conversation: no"):
        Chat("{{ raise_exception('no') }}").prompt(TALK)
    with pytest.raises(ValueError, match="unsafe"):
        Chat("{{ messages.__class__.__mro__ }}").prompt(TALK)


# Facts


def test_defaults_are_filled_in_and_the_tokenizers_tokens_are_kept() -> None:
    own = facts().spec.text_generation
    assert (own.lora_rank, own.lora_alpha) == (8, 16.0)
    assert (own.eos_token, own.chat_template) == (causal_models.EOS, causal_models.CHAT_TEMPLATE)
    assert facts(chat_template="mine").spec.text_generation.chat_template == "mine"
    assert TASK.low_rank(facts(lora_rank=4)) == LowRank(4, 16.0)
    assert TASK.low_rank(facts(adaptation=tasks_pb2.TextGenerationSpec.ADAPTATION_FULL)) is None
    with pytest.raises(InvalidRequest) as caught:
        TASK.with_special_tokens(TASK.settle([], SPEC), SpecialTokens("", "", ""))
    assert caught.value.reason == "NO_EOS_TOKEN"


def test_choices_that_cannot_succeed_are_named() -> None:
    own = tasks_pb2.TextGenerationSpec(lora_rank=513, lora_alpha=-1, chat_template="{% for %}")
    problems = TASK.check_spec(tasks_pb2.TaskSpec(text_generation=own))
    fields = [problem.field.rpartition(".")[2] for problem in problems]
    assert fields == ["lora_rank", "lora_alpha", "chat_template"]


# Figures


def rows(losses: list[float], best: list[float], top: list[list[float]]) -> list[list[Row]]:
    target = np.array([1.0, 2.0], np.float32)
    given = {"losses": losses, "best": best, "top_logits": top}
    arrays = {name: np.array(value, np.float32) for name, value in given.items()}
    return [[arrays | {"target": target}]]


TRAINED = rows([0.5, 1.5], [1.0, 3.0], [[4.0, 2.0], [3.0, 1.0]])


def test_perplexity_is_the_exponential_of_the_mean_loss_over_tokens() -> None:
    evaluation = TASK.evaluate([], TRAINED, Facts())
    assert evaluation.metrics["perplexity"] == pytest.approx(math.e)
    assert evaluation.metrics["token_accuracy"] == 0.5
    assert evaluation.metrics["num_tokens"] == 2


def test_an_equal_model_has_no_difference_and_a_worse_one_is_measured() -> None:
    assert set(TASK.compare([], TRAINED, TRAINED, Facts()).values()) == {0.0}
    worse = rows([0.5, 1.7], [1.0, 2.0], [[4.0, 2.5], [3.0, 1.0]])
    figures = TASK.compare([], TRAINED, worse, Facts())
    assert figures["max_abs_logit_difference"] == 0.5
    assert figures["token_flip_rate"] == 0.5
    assert figures["perplexity_increase"] == pytest.approx(math.expm1(0.1), rel=1e-5)


def test_what_is_no_number_shows_and_hides_nowhere_else() -> None:
    broken = rows([0.5, math.nan], [1.0, 3.0], [[4.0, 2.0], [math.nan, 1.0]])
    figures = TASK.compare([], TRAINED, broken, Facts())
    assert (figures["num_nonfinite"], figures["token_flip_rate"]) == (1.0, 0.5)
    assert all(math.isfinite(value) for value in figures.values())
    silent = rows([math.nan] * 2, [0.0, 0.0], [[math.nan] * 2] * 2)
    assert TASK.compare([], TRAINED, silent, Facts())["perplexity_increase"] == math.inf


def test_every_figure_has_a_limit_at_every_precision() -> None:
    measured = TASK.compare([], TRAINED, TRAINED, Facts()) | TASK.compare_texts(["a"], ["b"])
    for precision in (job_pb2.PRECISION_FP32, job_pb2.PRECISION_BF16, job_pb2.PRECISION_INT8):
        assert TASK.limits(precision).keys() == measured.keys()
    assert json.dumps(sorted(TASK.rates)) == '["text_mismatch_rate"]'
