"""What a task alone knows, as `conch train` and `conch ship` take it."""

import pytest

from conch.v1 import tasks_pb2, training_pb2
from tests.contract.cli.conftest import Conch
from tests.contract.cli.fakes import FakeServices

TRAIN = ("train", "data", "-b", "./base", "--id", "first", "--no-watch")


def trained(conch: Conch, services: FakeServices, *arguments: str) -> training_pb2.TrainingSpec:
    ran = conch(*TRAIN, *arguments)
    assert ran.code == 0, ran.stderr
    spec: training_pb2.TrainingSpec = services.training.jobs["first"].spec
    return spec


def test_without_choices_the_task_decides(conch: Conch, services: FakeServices) -> None:
    spec = trained(conch, services, "--task", "question-answering")
    assert (spec.task, spec.HasField("task_spec")) == ("question-answering", False)


def test_enums_are_called_by_their_short_names(conch: Conch, services: FakeServices) -> None:
    spec = trained(conch, services, "--option", "problem_type=multi_label", "--option", "label-separator=;")
    assert spec.task_spec.text_classification == tasks_pb2.TextClassificationSpec(
        problem_type=tasks_pb2.TextClassificationSpec.PROBLEM_TYPE_MULTI_LABEL, label_separator=";"
    )


def test_labels_are_the_tasks_own_where_it_has_them(conch: Conch, services: FakeServices) -> None:
    task = ("-t", "token-classification", "-o", 'labels=["LOC"]', "--label", "ORG", "--label", "PER")
    assert trained(conch, services, *task).task_spec.token_classification.labels == ["LOC", "ORG", "PER"]
    ran = conch("train", "data", "-b", "./base", "-t", "question-answering", "--label", "ORG")
    assert (ran.code, ran.stderr) == (2, "conch: --label: question-answering has no labels\n")


def test_values_are_json_where_they_are_and_text_where_the_field_is(
    conch: Conch, services: FakeServices
) -> None:
    options = (
        "normalize=false",
        "dimensions=[64, 32]",
        "dimensions=16",
        "temperature=1e-1",
        "query_prefix=1",
    )
    arguments = [word for option in options for word in ("-o", option)]
    spec = trained(conch, services, "-t", "feature-extraction", *arguments).task_spec.feature_extraction
    assert (spec.HasField("normalize"), spec.normalize, spec.query_prefix) == (True, False, "1")
    assert (list(spec.dimensions), spec.temperature) == ([64, 32, 16], 0.1)


def test_messages_are_json_and_can_be_repeated(conch: Conch, services: FakeServices) -> None:
    pairs = ('language_pairs={"source": "en", "target": "de"}', 'language_pairs={"source": "de"}')
    spec = trained(conch, services, "-t", "text2text-generation", "-o", pairs[0], "-o", pairs[1]).task_spec
    sources = [(pair.source, pair.target) for pair in spec.text2text_generation.language_pairs]
    assert sources == [("en", "de"), ("de", "")]


@pytest.mark.parametrize("option", ["strid=1", "help", "stride"])
def test_a_bad_option_shows_what_the_task_has_and_what_it_means(conch: Conch, option: str) -> None:
    ran = conch("train", "data", "--task", "question-answering", "--option", option)
    assert (ran.code, ran.stdout) == (2, "")
    assert "max_answer_tokens  whole number  Longest answer in tokens, 1 to 512. Default 30." in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith(f"conch: --option {option!r}: ")


def test_what_the_trainer_writes_itself_cannot_be_chosen(conch: Conch) -> None:
    ran = conch("train", "data", "-b", "./base", "-t", "text-generation", "-o", "eos_token=x")
    assert ran.code == 2
    assert "lora_rank" in ran.stderr
    assert "eos_token " not in ran.stderr


@pytest.mark.parametrize(
    ("option", "takes"),
    [
        ("problem_type=many", "one of single_label, multi_label, regression"),
        ("labels=[1, []]", "it takes text, repeated"),
    ],
)
def test_a_value_that_does_not_fit_says_what_would(conch: Conch, option: str, takes: str) -> None:
    ran = conch("train", "data", "-b", "./base", "-o", option)
    assert (ran.code, ran.stderr) == (2, f"conch: --option {option}: {takes}\n")


def test_an_unknown_task_with_options_names_the_known_ones(conch: Conch) -> None:
    ran = conch("train", "data", "-b", "./base", "-t", "fill-mask", "-o", "a=1")
    assert ran.code == 2
    assert "one of text-classification, token-classification" in ran.stderr


def test_the_format_can_be_said(conch: Conch, services: FakeServices) -> None:
    spec = trained(conch, services, "-t", "token-classification", "--format", "conll")
    assert spec.dataset.format == training_pb2.Dataset.FORMAT_CONLL
    ran = conch(*TRAIN, "--format", "xml")
    assert (ran.code, ran.stderr.count("squad")) == (2, 1)


def test_ship_takes_the_same_options_and_ends_with_how_to_ask(conch: Conch, services: FakeServices) -> None:
    ran = conch(
        "ship", "data", "-m", "sentiment", "-b", "./base", "--id", "run", "-o", "problem_type=regression"
    )
    spec = services.training.jobs["run"].spec.task_spec.text_classification
    assert spec.problem_type == tasks_pb2.TextClassificationSpec.PROBLEM_TYPE_REGRESSION
    assert 'ask it    conch classify --model sentiment "..."' in ran.stdout
