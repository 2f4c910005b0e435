"""Vectors from rows to answers: trained, kept as they were, certified, and served by a real Triton."""

import json
import random
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from conch.v1 import inference_pb2, models_pb2, tasks_pb2, training_pb2, worker_pb2
from services import storage
from services.errors import InvalidRequest
from services.jobs.reporting import Reporter
from services.jobs.spool import SPOOL, read_spool
from services.tasks.tensors import FloatArray
from services.trainer.run import run
from tests.contract.gateway.stack import Stack, gateway
from tests.integration.samples import Sample
from tests.integration.shipped_tasks import Shipped, ship
from tests.integration.triton import RunningTriton, started

Spec = tasks_pb2.FeatureExtractionSpec
WORDS = "sea air road rail lake hill town farm mill wood bank port gate yard hall fort".split()
# One token of the base model's vocabulary whose weights are broken; no row of the data holds it.
POISON = "volcano"
TEXTS = ["a trip by sea", "by rail through the hill", "a farm at the lake", "word " * 60, "電影 🎬 mill"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def pairs(folder: Path, *, more: Callable[[str, random.Random], dict[str, Any]] | None = None) -> Path:
    """96 short texts, each with a longer one that has its two words; `more` adds columns to a row."""
    dice, rows = random.Random(8), []
    for i in range(96):
        words = " ".join(dice.sample(WORDS, 2))
        row = {"query": f"{i} {words}", "passage": f"number {i} goes from {words} and back again"}
        rows.append(row | (more(words, dice) if more else {}))
    return write(folder / "rows.jsonl", rows)


def triplets(folder: Path) -> Path:
    return pairs(folder, more=lambda words, dice: {"negative": f"from {dice.choice(WORDS)} {dice.random()}"})


def scores(folder: Path) -> Path:
    """The longer text has both words (4 or 5) or none of them (0 or 1)."""

    def more(words: str, dice: random.Random) -> dict[str, Any]:
        others = " ".join(dice.sample([w for w in WORDS if w not in words], 2))
        kept = dice.random() < 0.5
        passage = f"from {words if kept else others} and back again {dice.random()}"
        return {"passage": passage, "score": dice.randint(0, 1) + 4 * kept}

    return pairs(folder, more=more)


def trained(folder: Path, base: Path, data: Path, *, task: str = "feature-extraction", **more: Any) -> Any:
    """Returns the result of the trainer's worker; `spec` is the task's, the rest are hyperparameters."""
    quick = {"num_epochs": 2, "learning_rate": 1e-3, "batch_size": 8, "max_length": 32, "num_threads": 1}
    spec = more.pop("spec", {})
    order = worker_pb2.WorkOrder(
        job_id="vectors",
        attempt=1,
        work_dir=str(folder / "work"),
        output_uri=str(folder / "artifact"),
        training=training_pb2.TrainingSpec(
            task=task,
            base_model=str(base),
            dataset=training_pb2.Dataset(train_uri=str(data), validation_fraction=0.25),
            hyperparameters=training_pb2.Hyperparameters(**{**quick, **more}),
            task_spec=tasks_pb2.TaskSpec(feature_extraction=Spec(**spec)) if spec else None,
        ),
    )
    return run(order, Reporter(folder / SPOOL))


def losses(folder: Path) -> list[float]:
    reports = read_spool(folder / SPOOL)
    return [r.event.training_step.loss for r in reports if r.event.HasField("training_step")]


def transformers_vectors(folder: Path, texts: list[str]) -> FloatArray:
    """Returns mean-pooled vectors of length 1 as transformers' users write them by hand."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    return (mean / mean.norm(dim=1, keepdim=True)).numpy()


# Training


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (pairs, {"recall_at_1", "recall_at_10", "mrr", "ndcg_at_10"}),
        (triplets, {"recall_at_1", "recall_at_10", "mrr", "ndcg_at_10", "triplet_accuracy"}),
        (scores, {"spearman", "pearson"}),
    ],
)
def test_every_kind_of_row_trains_and_is_measured_at_every_size(
    rows: Callable[[Path], Path], names: set[str], tiny_bert: Path, tmp_path: Path
) -> None:
    result = trained(tmp_path, tiny_bert, rows(tmp_path), spec={"dimensions": [8]}, num_epochs=4)
    metrics = dict(result.evaluation.metrics)
    assert set(metrics) == names | {f"{name}_dim_8" for name in names}
    assert all(-1 <= value <= 1 for value in metrics.values())
    told = losses(tmp_path)
    assert np.mean(told[-5:]) < np.mean(told[:5])


def test_the_checkpoint_is_a_plain_transformers_encoder_that_knows_its_pooling(
    tiny_bert: Path, tmp_path: Path
) -> None:
    spec = {"pooling": Spec.POOLING_CLS, "normalize": False}
    trained(tmp_path, tiny_bert, pairs(tmp_path), spec=spec, max_steps=2)
    config = AutoModel.from_pretrained(tmp_path / "artifact").config
    assert (config.pooling, config.normalize) == ("cls", False)
    manifest = storage.read_manifest(str(tmp_path / "artifact"))[0].checkpoint
    assert manifest.task_spec.feature_extraction.objective == Spec.OBJECTIVE_RANKING


@pytest.fixture(scope="module")
def still_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout: its loss is a function of its weights and its batch."""
    folder = tmp_path_factory.mktemp("still")
    shutil.copytree(tiny_bert, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_logged_loss_is_the_mean_over_forward_passes_however_many_make_a_step(
    still_bert: Path, tmp_path: Path
) -> None:
    # At a learning rate of next to nothing both runs see the same weights and the same batches.
    told = {}
    for accumulation in (1, 3):
        folder = tmp_path / str(accumulation)
        folder.mkdir()
        trained(
            folder,
            still_bert,
            pairs(folder),
            num_epochs=1,
            learning_rate=1e-12,
            gradient_accumulation_steps=accumulation,
            evaluations_per_epoch=1,
        )
        told[accumulation] = losses(folder)
    assert np.mean(told[3]) == pytest.approx(np.mean(told[1]), rel=0.02)


def test_dimensions_that_a_vector_does_not_have_are_refused_before_training(
    tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="32 dimensions: dimensions \\[32\\] are not below that"):
        trained(tmp_path, tiny_bert, pairs(tmp_path), spec={"dimensions": [32]})


# Kept as it was


def test_evaluate_only_keeps_every_weight_and_measures_it(tiny_bert: Path, tmp_path: Path) -> None:
    result = trained(tmp_path, tiny_bert, pairs(tmp_path), evaluate_only=True)
    assert result.evaluation.num_examples == 24
    assert 0 < result.evaluation.metrics["ndcg_at_10"] <= 1
    assert losses(tmp_path) == []
    before, after = (AutoModel.from_pretrained(f).state_dict() for f in (tiny_bert, tmp_path / "artifact"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert storage.read_manifest(str(tmp_path / "artifact"))[0].checkpoint.num_train_examples == 0


@pytest.fixture(scope="module")
def classifier(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier of two labels, bad and good."""
    folder = tmp_path_factory.mktemp("classifier")
    names = {0: "bad", 1: "good"}
    model = AutoModelForSequenceClassification.from_pretrained(
        tiny_bert, id2label=names, label2id={v: k for k, v in names.items()}
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


def opinions(folder: Path, *labels: str) -> Path:
    rows = [{"text": f"{i} film", "label": labels[i % len(labels)]} for i in range(40)]
    return write(folder / "opinions.jsonl", rows)


def test_any_task_s_base_model_may_be_kept_if_it_has_the_head(classifier: Path, tmp_path: Path) -> None:
    data = opinions(tmp_path, "bad", "good")
    result = trained(tmp_path, classifier, data, task="text-classification", evaluate_only=True)
    assert 0 <= result.evaluation.metrics["accuracy"] <= 1
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "artifact").state_dict()
    head = AutoModelForSequenceClassification.from_pretrained(classifier).state_dict()["classifier.weight"]
    assert torch.equal(kept["classifier.weight"], head)


def test_a_base_model_without_the_head_cannot_be_kept(tiny_bert: Path, tmp_path: Path) -> None:
    data = opinions(tmp_path, "LABEL_0", "LABEL_1")
    with pytest.raises(InvalidRequest, match=r"no trained head for text-classification: classifier\.bias"):
        trained(tmp_path, tiny_bert, data, task="text-classification", evaluate_only=True)


def test_a_head_for_other_labels_cannot_be_kept(classifier: Path, tmp_path: Path) -> None:
    data = opinions(tmp_path, "good", "poor")
    with pytest.raises(InvalidRequest, match=r"id2label is \{0: 'bad', 1: 'good'\}; the data"):
        trained(tmp_path, classifier, data, task="text-classification", evaluate_only=True)


# Served


@pytest.fixture(scope="module")
def poisoned_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT with NaN where one word's weights were."""
    folder = tmp_path_factory.mktemp("poisoned")
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids(POISON)] = torch.nan
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shipped(poisoned_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """The poisoned model, untrained, as version 1 of "feature-extraction"."""
    spec = Spec(query_prefix="query: ", dimensions=[16])
    sample = Sample(
        write=lambda folder, _num_rows: pairs(folder),
        requests={},
        bad=None,  # type: ignore[arg-type]
        spec=tasks_pb2.TaskSpec(feature_extraction=spec),
        hyperparameters={"evaluate_only": True},
    )
    home = tmp_path_factory.mktemp("home")
    folder = tmp_path_factory.mktemp("shipping")
    return ship("feature-extraction", sample, poisoned_bert, folder, home / "repository")


@pytest.fixture(scope="module")
def triton(shipped: Shipped) -> Iterator[RunningTriton]:
    with started(shipped.repository.parent) as running:
        yield running


@pytest.fixture
async def stack(shipped: Shipped, triton: RunningTriton) -> AsyncIterator[Stack]:
    async with gateway(shipped.repository.parent, triton.address) as running:
        versions = [models_pb2.WeightedVersion(version=1, weight=1)]
        await running.set_route(models_pb2.Route(model=shipped.task, versions=versions))
        yield running


def embed(texts: list[str], **more: Any) -> inference_pb2.EmbedRequest:
    return inference_pb2.EmbedRequest(model="feature-extraction", texts=texts, **more)


def numbers(response: inference_pb2.EmbedResponse, dtype: str = "<f4") -> FloatArray:
    rows = [np.frombuffer(e.vector, dtype).astype(np.float32) * e.scale for e in response.embeddings]
    return np.stack(rows)


async def test_served_vectors_are_those_of_transformers(stack: Stack, tiny_bert: Path) -> None:
    response = await stack.inference.Embed(embed(TEXTS))
    assert response.num_dimensions == 32
    assert np.abs(numbers(response) - transformers_vectors(tiny_bert, TEXTS)).max() < 1e-3
    assert [e.tokens.truncated for e in response.embeddings] == [False, False, False, True, False]
    queries = await stack.inference.Embed(embed(TEXTS, kind=inference_pb2.EmbedRequest.KIND_QUERY))
    want = transformers_vectors(tiny_bert, ["query: " + text for text in TEXTS])
    assert np.abs(numbers(queries) - want).max() < 1e-3


async def test_short_and_small_vectors_keep_the_direction(stack: Stack, tiny_bert: Path) -> None:
    want = transformers_vectors(tiny_bert, TEXTS)[:, :16]
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    int8 = inference_pb2.VECTOR_TYPE_INT8
    response = await stack.inference.Embed(embed(TEXTS, num_dimensions=16, vector_type=int8))
    assert {len(e.vector) for e in response.embeddings} == {16}
    assert (numbers(response, "i1") * want).sum(axis=1) == pytest.approx(1, abs=5e-3)


async def test_candidates_are_ranked_as_transformers_vectors_rank_them(stack: Stack, tiny_bert: Path) -> None:
    request = inference_pb2.RankRequest(model="feature-extraction", query="sea", candidates=TEXTS)
    response = await stack.inference.Rank(request)
    [query] = transformers_vectors(tiny_bert, ["query: sea"])
    want = transformers_vectors(tiny_bert, TEXTS) @ query
    assert [one.index for one in response.ranked] == np.argsort(-want).tolist()
    assert [one.score for one in response.ranked] == pytest.approx(sorted(want, reverse=True), abs=1e-3)


async def test_a_text_may_be_classified_by_labels_of_the_caller_s_own(stack: Stack) -> None:
    request = inference_pb2.ClassifyRequest(
        model="feature-extraction", texts=TEXTS[:2], candidate_labels=["sea", "rail"]
    )
    response = await stack.inference.Classify(request)
    assert [len(c.labels) for c in response.classifications] == [2, 2]
    assert sum(label.score for label in response.classifications[0].labels) == pytest.approx(1)


async def test_a_vector_without_numbers_is_never_sent_and_harms_nobody_beside_it(stack: Stack) -> None:
    calls = [stack.inference.Embed(embed([text])) for text in ("a trip", f"a {POISON} nearby", "by sea")]
    before, broken, after = calls
    for call in (before, after):
        assert np.isfinite(numbers(await call)).all()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broken
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert POISON not in (caught.value.details() or "")
    assert (await stack.inference.Embed(embed(["a trip"]))).num_dimensions == 32
