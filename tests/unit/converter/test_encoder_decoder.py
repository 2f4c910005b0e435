"""The recipe of encoder-decoders: what it publishes, what its verdict is bound to, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import transformers

from conch.v1 import conversion_pb2, job_pb2, models_pb2, tasks_pb2
from services.converter.checkpoint import Checkpoint
from services.converter.encoder_decoder import EncoderDecoderRecipe
from services.converter.recipe import Stages
from services.errors import NotReady
from services.jobs.reporting import Reporter
from services.reference_search import search
from services.tasks import Example, find_task
from services.tasks.encoding import Encoder
from services.tasks.golden import golden_example
from services.triton.backends.seq2seq import generation

FP32 = conversion_pb2.Target(runtime=job_pb2.RUNTIME_ONNXRUNTIME, precision=job_pb2.PRECISION_FP32)
SPEC = conversion_pb2.ConversionSpec(targets=[FP32], num_parity_examples=24)
WORDS = ["trip", "city", "fine", "dull", "Größe", "lovely", "7"]


@pytest.fixture(scope="module")
def source(tiny_t5: Path) -> Checkpoint:
    """A checkpoint of a model with random weights."""
    model = transformers.T5ForConditionalGeneration.from_pretrained(tiny_t5).eval()
    task = find_task("text2text-generation")
    own = tasks_pb2.Text2TextGenerationSpec(max_target_length=10, num_beams=3)
    facts = task.settle([], tasks_pb2.TaskSpec(text2text_generation=own))
    encoder = Encoder.from_file(tiny_t5 / "tokenizer.json", 16)
    dice = np.random.default_rng(3)
    held_out = [
        Example(" ".join(dice.choice(WORDS, 1 + i % 7)), "", " ".join(dice.choice(WORDS, 3)), i)
        for i in range(40)
    ]
    encoded = task.encode(encoder, [replace(e, target=None) for e in held_out[:8]], facts)
    answers = [search(model, one.windows, encoder.pad_id) for one in encoded]
    return Checkpoint(
        folder=tiny_t5,
        digest="",
        manifest=models_pb2.CheckpointManifest(task=task.id, task_spec=facts.spec, max_length=16, seed=1),
        task=task,
        model=model,
        encoder=encoder,
        golden=models_pb2.GoldenExamples(examples=map(golden_example, encoded, answers)),
        held_out=held_out,
    )


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return Stages(Reporter(tmp_path / "spool"), EncoderDecoderRecipe.num_stages(SPEC))


@pytest.fixture(scope="module")
def built(source: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version's folder as `build` fills it."""
    folder = tmp_path_factory.mktemp("version")
    reporter = Reporter(tmp_path_factory.mktemp("spool") / "spool")
    EncoderDecoderRecipe(source, SPEC).build(folder, folder, Stages(reporter, 3))
    return folder


@pytest.fixture
def damaged(built: Path, tmp_path: Path) -> Callable[[float], Path]:
    """Makes a copy of the version, the weights of whose decoder are multiplied."""

    def make(factor: float) -> Path:
        for path in built.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        graph = onnx.load_model(built / "decoder.onnx")
        for weight in graph.graph.initializer:
            if len(weight.dims) == 2 and weight.data_type == onnx.TensorProto.FLOAT:
                scaled = onnx.numpy_helper.to_array(weight) * np.float32(factor)
                weight.CopyFrom(onnx.numpy_helper.from_array(scaled, weight.name))
        onnx.save_model(graph, tmp_path / "decoder.onnx")
        return tmp_path

    return make


def figures(verdict: job_pb2.Verdict) -> dict[str, float]:
    return {figure.name: figure.value for figure in verdict.figures}


def test_a_faithful_version_passes_and_is_bound_to_its_three_files(
    source: Checkpoint, built: Path, stages: Stages
) -> None:
    [verdict] = EncoderDecoderRecipe(source, SPEC).judge(built, stages)
    assert verdict.passed, verdict
    assert set(verdict.files) == {"encoder.onnx", "decoder.onnx", "generation.json"}
    assert verdict.num_examples == 24
    assert set(figures(verdict)) == set(source.task.limits(job_pb2.PRECISION_FP32))
    assert figures(verdict)["sequence_mismatch_rate"] == 0
    assert 0 < figures(verdict)["max_abs_logit_difference"] < 1e-3


@pytest.mark.parametrize(
    ("factor", "figure"), [(1.01, "max_abs_logit_difference"), (-1.0, "sequence_mismatch_rate")]
)
def test_a_decoder_that_answers_otherwise_fails_by_the_figure_that_shows_it(
    source: Checkpoint, damaged: Callable[[float], Path], stages: Stages, factor: float, figure: str
) -> None:
    [verdict] = EncoderDecoderRecipe(source, SPEC).judge(damaged(factor), stages)
    assert not verdict.passed
    assert figure in [found.name for found in verdict.figures if not found.passed]


def test_numbers_that_are_none_show_as_such(
    source: Checkpoint, damaged: Callable[[float], Path], stages: Stages
) -> None:
    [verdict] = EncoderDecoderRecipe(source, SPEC).judge(damaged(float("nan")), stages)
    assert not verdict.passed
    assert figures(verdict)["num_nonfinite"] > 0


def test_golden_examples_of_other_weights_are_refused(
    source: Checkpoint, tmp_path: Path, stages: Stages
) -> None:
    golden = models_pb2.GoldenExamples()
    golden.CopyFrom(source.golden)
    golden.examples[0].windows[0].outputs["sequences"].values[0] += 1
    with pytest.raises(NotReady, match=r"golden\.json is not of these weights: a sequence differs"):
        EncoderDecoderRecipe(replace(source, golden=golden), SPEC).build(tmp_path, tmp_path, stages)


def test_what_the_task_settled_is_what_the_backend_is_told(built: Path, source: Checkpoint) -> None:
    rules = json.loads((built / "generation.json").read_text())
    assert rules["pad_token_id"] == source.encoder.pad_id
    assert rules["eos_token_ids"] == [source.encoder.ids("", add_special_tokens=True)[-1]]


def test_an_end_that_is_forced_is_no_end_of_the_model_s_own() -> None:
    rules = generation.Rules(0, 0, 9, 9, (1,))
    forcing = replace(rules, forced_eos_token_ids=(1,))
    written = np.array([5, 4, 1])
    assert rules.ends(written, 3)
    assert not rules.ends(written[:2], 2)
    assert forcing.ends(written, 4)
    assert not forcing.ends(written, 3)


def test_a_row_gets_no_more_tokens_than_the_decoder_has_positions() -> None:
    parameters = generation.Parameters.alike(2, max_new_tokens=50, min_new_tokens=20)
    bounded = parameters.within(generation.Rules(0, 0, 9, 9, (1,), max_target_length=16))
    assert bounded.max_new_tokens.tolist() == bounded.min_new_tokens.tolist() == [16, 16]
    assert parameters.within(generation.Rules(0, 0, 9, 9, (1,))) is parameters
