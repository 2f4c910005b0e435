"""What a task is: the one place where trainer, converter and gateway read the facts of a task from.

Knows examples, tokens and a model's outputs; knows nothing about torch, Triton or gRPC calls.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from conch.v1 import job_pb2, tasks_pb2, training_pb2
from services.errors import Violation
from services.tasks.encoding import Encoder
from services.tasks.example import Encoded, Example, Facts
from services.tasks.forms import ENCODER_FORMS, Form
from services.tasks.rpcs import StreamRpc, UnaryRpc
from services.tasks.tensors import Answer, Array, TensorSpec

TOKENS = (
    TensorSpec("input_ids", "int64", ("batch", "sequence")),
    TensorSpec("attention_mask", "int64", ("batch", "sequence")),
    TensorSpec("token_type_ids", "int64", ("batch", "sequence")),
)
"""The inputs of an encoder, in the order of the exported graph."""


class Architecture(Enum):
    """How a model gives its answer, which decides how it is trained, exported and served."""

    ENCODER = "encoder"
    """Tokens in, tensors out, in one pass."""
    ENCODER_DECODER = "encoder-decoder"
    """Reads a text, then writes another token by token; the whole of it is the answer."""
    DECODER = "decoder"
    """Writes on, token by token, each being an answer."""


@dataclass(frozen=True)
class Column:
    """A role that a column of a data file plays, and the names it usually bears, best first."""

    role: str
    guesses: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True)
class SpecialTokens:
    """What a base model's tokenizer brings along: the texts of the tokens that begin and end a text.

    `bos_token` is empty where the tokenizer sets it before every text by itself, or has none.
    """

    bos_token: str
    eos_token: str
    chat_template: str


@dataclass(frozen=True)
class LowRank:
    """LoRA: matrices of `rank` beside frozen weights, their product scaled by `alpha` / `rank`."""

    rank: int
    alpha: float


class Task(ABC):
    """One NLP task. Everything that trainer, converter and gateway must agree on stands in its subclass."""

    id: ClassVar[str]
    """Hugging Face task id; its kind in TaskSpec is the same with underscores."""
    architecture: ClassVar[Architecture] = Architecture.ENCODER
    auto_model: ClassVar[str]
    """Name of the class that loads a checkpoint with this task's head: transformers' or services.models'."""
    loss: ClassVar[str] = ""
    """Name of the trainer's loss (services.trainer.train) where the model's head computes none itself."""
    inputs: ClassVar[tuple[TensorSpec, ...]] = TOKENS
    """Inputs in the order of the exported graph; a model that takes fewer is exported with fewer."""
    outputs: ClassVar[tuple[TensorSpec, ...]]
    """Outputs in the order of the exported graph."""
    forms: ClassVar[tuple[Form, ...]] = ENCODER_FORMS
    """How versions are served, the default first."""
    columns: ClassVar[tuple[Column, ...]]
    """Roles that the trainer looks for in a data file."""
    column_sets: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Sets of optional roles, one of which a data file must have whole; empty if none need be there."""
    formats: ClassVar[Mapping[str, training_pb2.Dataset.Format.ValueType]] = {}
    """Formats by a file name's ending that mean something else, or nothing, to other tasks."""
    best_metric: ClassVar[str]
    """Metric by which the best checkpoint is chosen."""
    greater_is_better: ClassVar[bool] = True
    """Whether a checkpoint with more of `best_metric` is better."""
    rates: ClassVar[frozenset[str]]
    """Parity figures that are shares of examples: few examples resolve them only coarsely."""
    rpcs: ClassVar[Mapping[str, UnaryRpc[Any, Any] | StreamRpc[Any, Any]]]
    """The rpcs of InferenceService that models of this task answer, by name."""
    ask: ClassVar[str]
    """Arguments of `conch` that ask a model of this task, {model} standing for its name."""
    grouped: ClassVar[bool] = False
    """Whether the windows of an example are trained on together, as the texts of a pair are."""

    def form_in(self, pool: job_pb2.Runtime.ValueType) -> Form | None:
        """Returns the form that answers in a pool of Triton that was started for the runtime `pool`."""
        return next((form for form in self.forms if pool in form.pools), None)

    def form_of(self, runtime: job_pb2.Runtime.ValueType) -> Form | None:
        """Returns the form that `runtime` computes."""
        return next((form for form in self.forms if form.runtime == runtime), None)

    def metric_of(self, facts: Facts) -> str:
        """Returns the metric by which the best checkpoint of a model of these facts is chosen."""
        return self.best_metric

    def check_spec(self, spec: tasks_pb2.TaskSpec) -> list[Violation]:
        """Returns what in the task's own choices can never succeed, under "spec.task_spec"."""
        return []

    @abstractmethod
    def read(self, values: Mapping[str, Any], row: int, spec: tasks_pb2.TaskSpec) -> Example:
        """Returns the example of a row, given its values by role (None where missing).

        Raises ValueError whose message completes "row 7: ...".
        """

    @abstractmethod
    def settle(self, train: Sequence[Example], spec: tasks_pb2.TaskSpec) -> Facts:
        """Returns the facts of a model that is trained on these examples, defaults filled in."""

    def with_special_tokens(self, facts: Facts, special: SpecialTokens) -> Facts:
        """Returns `facts` with what the task keeps of the base model's tokenizer."""
        return facts

    def low_rank(self, facts: Facts) -> LowRank | None:
        """Returns the LoRA matrices that are trained instead of the weights, None where all weights are."""
        return None

    @abstractmethod
    def find_problems(
        self, train: Sequence[Example], validation: Sequence[Example], facts: Facts
    ) -> list[Violation]:
        """Returns what makes these splits untrainable for this task, with row numbers; empty if nothing."""

    def find_stray(self, example: Example, facts: Facts) -> str:
        """Returns what in an example's target a model of these facts does not know, empty if nothing."""
        return ""

    def strata(self, examples: Sequence[Example]) -> list[str]:
        """Returns the stratum of each example, by which splits and samples stay balanced."""
        return [""] * len(examples)

    def config(self, facts: Facts) -> dict[str, Any]:
        """Returns what transformers' config must say of a model's head."""
        if not facts.labels:
            return {}
        id2label = dict(enumerate(facts.labels))
        return {
            "id2label": id2label,
            "label2id": {label: i for i, label in id2label.items()},
            "num_labels": len(facts.labels),
        }

    def encode(self, encoder: Encoder, examples: Sequence[Example], facts: Facts) -> list[Encoded]:
        """Returns what the model reads of each example; by default one window, its end cut off."""
        pairs = [e.text_pair for e in examples]
        rows = encoder.encode([e.text for e in examples], pairs if any(pairs) else ())
        return [Encoded(e, (row,)) for e, row in zip(examples, rows, strict=True)]

    def default_parameters(self, facts: Facts) -> dict[str, float]:
        """Returns the parameters that a row has beside its tokens where nobody asks for others."""
        return {}

    def warming_parameters(self, facts: Facts) -> dict[str, float]:
        """Returns the parameters of rows that only warm a version up, the cheapest there are."""
        return self.default_parameters(facts)

    def text_scores(self, facts: Facts) -> Sequence[str]:
        """Returns the names of the scores (services.trainer.text_scores) of what a trained model writes."""
        return ()

    @abstractmethod
    def targets(self, encoded: Encoded, facts: Facts) -> list[dict[str, Array]]:
        """Returns what the loss compares the outputs with, by the name of the model's argument.

        One for each window, or one for all of them where the task is `grouped`. Rows of a batch that
        differ in length are padded with -100.
        """

    @abstractmethod
    def evaluate(
        self, encoded: Sequence[Encoded], answers: Sequence[Answer], facts: Facts
    ) -> job_pb2.Evaluation:
        """Returns this task's metrics of fp32 answers to examples; caller sets split and step."""

    @abstractmethod
    def compare(
        self,
        encoded: Sequence[Encoded],
        reference: Sequence[Answer],
        candidate: Sequence[Answer],
        facts: Facts,
    ) -> dict[str, float]:
        """Returns the parity figures of a converted model; smaller is better, 0 is perfect.

        NaN or infinity in `candidate` shows in the figure "num_nonfinite" and never hides elsewhere.
        Where examples have no target, the reference's own answer stands for it.
        """

    def compare_texts(self, reference: Sequence[str], candidate: Sequence[str]) -> dict[str, float]:
        """Returns the parity figures of texts that a decoder wrote greedily; smaller is better, 0 is perfect.

        Models that write nothing have none.
        """
        return {}

    @abstractmethod
    def limits(self, precision: job_pb2.Precision.ValueType) -> dict[str, float]:
        """Returns the largest value of each parity figure that certifies `precision`."""
