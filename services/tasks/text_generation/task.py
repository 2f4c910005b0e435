"""text-generation: a causal language model continues a prompt or answers a conversation, token by token.

Knows documents, prompts with completions and conversations, and which of their tokens are learned; knows
nothing about how models run or how tokens are chosen.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jinja2 import TemplateError

from conch.v1 import job_pb2, tasks_pb2, training_pb2
from services.errors import InvalidRequest, Violation
from services.tasks import next_tokens
from services.tasks.base import Architecture, Column, LowRank, SpecialTokens, Task
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded, Example, Facts, open_copy
from services.tasks.forms import DECODER_FORMS, Form
from services.tasks.reading import TRAIN, read_text
from services.tasks.rpcs import StreamRpc
from services.tasks.tensors import Answer, Array, TensorSpec
from services.tasks.text_generation import written
from services.tasks.text_generation.chat_template import chat_of, compiled
from services.tasks.text_generation.conversations import read_messages, readable
from services.tasks.text_generation.generate import Chat, Generate

_SPEC = "spec.task_spec.text_generation"
_RANK, _ALPHA = 8, 16.0


def _limits(*, logit: float, flips: float, perplexity: float, texts: float) -> dict[str, float]:
    return {
        "max_abs_logit_difference": logit,
        "token_flip_rate": flips,
        "perplexity_increase": perplexity,
        "text_mismatch_rate": texts,
        "num_nonfinite": 0.0,
    }


# Measured with SmolLM2-135M: see docs/adr/0011-parity-limits-of-generation.md.
_LIMITS: dict[int, dict[str, float]] = {
    job_pb2.PRECISION_FP32: _limits(logit=0.01, flips=0.002, perplexity=0.001, texts=0.07),
    job_pb2.PRECISION_BF16: _limits(logit=3.0, flips=0.04, perplexity=0.01, texts=0.7),
    job_pb2.PRECISION_INT8: _limits(logit=6.0, flips=0.1, perplexity=0.04, texts=0.9),
}


class TextGeneration(Task):
    """Continues text; see the module's docstring.

    An example's `text` is what is read before: a prompt, or a whole document, of which all is learned.
    `text_pair` is the completion. Of a conversation both are its readable form, and `target` its messages.
    """

    id: ClassVar[str] = "text-generation"
    architecture: ClassVar[Architecture] = Architecture.DECODER
    auto_model: ClassVar[str] = "AutoModelForCausalLM"
    inputs: ClassVar[tuple[TensorSpec, ...]] = (
        TensorSpec("input_ids", "int64", ("batch", "sequence")),
        TensorSpec("attention_mask", "int64", ("batch", "sequence")),
    )
    outputs: ClassVar[tuple[TensorSpec, ...]] = (
        TensorSpec("logits", "float32", ("batch", "sequence", "vocabulary")),
    )
    forms: ClassVar[tuple[Form, ...]] = DECODER_FORMS
    columns: ClassVar[tuple[Column, ...]] = (
        Column("text", ("text", "document", "content", "body"), required=False),
        Column("prompt", ("prompt", "instruction"), required=False),
        Column("completion", ("completion", "response", "output"), required=False),
        Column("messages", ("messages", "conversation", "conversations"), required=False),
    )
    column_sets: ClassVar[tuple[tuple[str, ...], ...]] = (("text",), ("prompt", "completion"), ("messages",))
    formats: ClassVar[Mapping[str, training_pb2.Dataset.Format.ValueType]] = {
        ".txt": training_pb2.Dataset.FORMAT_TEXT
    }
    best_metric: ClassVar[str] = "perplexity"
    greater_is_better: ClassVar[bool] = False
    rates: ClassVar[frozenset[str]] = frozenset({"text_mismatch_rate"})
    rpcs: ClassVar[Mapping[str, StreamRpc[Any, Any]]] = {"Generate": Generate(), "Chat": Chat()}
    ask: ClassVar[str] = 'generate --model {model} "..."'

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        own, problems = spec.text_generation, []
        if own.lora_rank > 512:
            problems.append(Violation(f"{_SPEC}.lora_rank", "must be in [1, 512]"))
        if not (math.isfinite(own.lora_alpha) and own.lora_alpha >= 0):
            problems.append(Violation(f"{_SPEC}.lora_alpha", "must be a number above 0"))
        try:
            compiled(own.chat_template)
        except TemplateError as error:
            problems.append(Violation(f"{_SPEC}.chat_template", f"is no Jinja template: {error}"))
        return problems

    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Reads a conversation, else a prompt with its completion, else a document."""
        given = {role for role, value in values.items() if value is not None}
        if "messages" in given:
            messages = read_messages(values["messages"])
            return Example(readable(messages[:-1]), messages[-1]["content"], messages, row)
        if given & {"prompt", "completion"}:
            return Example(read_text(values, "prompt"), read_text(values, "completion"), None, row)
        if "text" not in given:
            raise ValueError("has neither text, nor prompt and completion, nor messages")
        return Example(read_text(values), "", None, row)

    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        full = open_copy(spec)
        own = full.text_generation
        own.adaptation = own.adaptation or tasks_pb2.TextGenerationSpec.ADAPTATION_LORA
        own.lora_rank, own.lora_alpha = own.lora_rank or _RANK, own.lora_alpha or _ALPHA
        own.ClearField("bos_token")
        own.ClearField("eos_token")
        return Facts((), full)

    def with_special_tokens(self, facts: Facts, special: SpecialTokens) -> Facts:
        """Adds the tokens that begin and end a text, and the tokenizer's chat template if none is there."""
        if not special.eos_token:
            raise InvalidRequest.field(
                "spec.base_model", "its tokenizer has no token that ends a text", reason="NO_EOS_TOKEN"
            )
        full = open_copy(facts.spec)
        own = full.text_generation
        own.chat_template = own.chat_template or special.chat_template
        own.bos_token, own.eos_token = special.bos_token, special.eos_token
        return Facts(facts.labels, full)

    def low_rank(self, facts: Facts) -> LowRank | None:
        own = facts.spec.text_generation
        is_full = own.adaptation == tasks_pb2.TextGenerationSpec.ADAPTATION_FULL
        return None if is_full else LowRank(own.lora_rank, own.lora_alpha)

    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        if len(train) < 2:
            return [Violation(TRAIN, "a language model needs two texts: one to learn, one to be held out")]
        return []

    def encode(self, encoder: Encoder, examples: Sequence[Example], facts: Facts) -> list[Encoded]:
        """Returns documents in windows, nothing cut; of anything else one window, see `written`."""
        chat = chat_of(facts)
        return [Encoded(example, written.windows(encoder, example, chat)) for example in examples]

    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        """Returns the labels of each window `(sequence,)`: its tokens, -100 where nothing is learned."""
        return [{"labels": written.labels(window)} for window in encoded.windows]

    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        return job_pb2.Evaluation(num_examples=len(encoded), metrics=next_tokens.metrics(answers))

    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        return next_tokens.figures(reference, candidate)

    def compare_texts(self, reference: Sequence[str], candidate: Sequence[str]) -> dict[str, float]:
        return {"text_mismatch_rate": next_tokens.text_mismatch_rate(reference, candidate)}

    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        return dict(_LIMITS[precision])
