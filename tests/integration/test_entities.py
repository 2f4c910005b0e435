"""Entities from a data file to the client: trained, certified, proven in a real Triton, as the pipeline's."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import transformers

from conch.v1 import inference_pb2, models_pb2
from services.tasks.encoding import Encoder
from tests.contract.gateway.stack import gateway
from tests.integration.samples import SAMPLES
from tests.integration.shipped_tasks import Shipped, ship
from tests.integration.triton import RunningTriton, started

TASK = "token-classification"
TEXTS = [
    "Ada Byron flew to Oslo yesterday.",
    "7 🎬 Jürgen 電影 flew to Tokyo, not to Lima: 👩‍🚀 Grace Hopper did.",
    "שלום Alan Turing, cafe\u0301 Paris",
    "nobody went anywhere",
]
LONG = " ".join(f"{i} 🎬 Alan Turing flew to Berlin yesterday." for i in range(40))
HOW = {
    "simple": inference_pb2.ExtractEntitiesRequest.AGGREGATION_UNSPECIFIED,
    "average": inference_pb2.ExtractEntitiesRequest.AGGREGATION_AVERAGE,
}


@pytest.fixture(scope="module")
def shipped(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    home = tmp_path_factory.mktemp("entities")
    return ship(TASK, SAMPLES[TASK], tiny_bert, home, home / "repository")


@pytest.fixture(scope="module")
def triton(shipped: Shipped) -> Iterator[RunningTriton]:
    with started(shipped.repository.parent) as running:
        yield running


@pytest.mark.filterwarnings("ignore")
async def test_a_proven_version_answers_as_the_trained_model_s_pipeline_does(
    shipped: Shipped, triton: RunningTriton
) -> None:
    async with gateway(shipped.repository.parent, triton.address) as stack:
        chosen = models_pb2.Route(model=TASK, versions=[models_pb2.WeightedVersion(version=1, weight=1)])
        await stack.set_route(chosen)  # proves the version on its golden examples, or fails
        for how, aggregation in HOW.items():
            request = inference_pb2.ExtractEntitiesRequest(model=TASK, texts=TEXTS, aggregation=aggregation)
            answer = await stack.inference.ExtractEntities(request, timeout=60)
            assert answer.served_by.version == 1
            for text, result, want in zip(TEXTS, answer.results, _pipeline(shipped, how), strict=True):
                found = [(e.label, e.start, e.end) for e in result.entities]
                assert found == [(w["entity_group"], w["start"], w["end"]) for w in want]
                assert [e.score for e in result.entities] == pytest.approx(
                    [w["score"] for w in want], abs=1e-3
                )
                assert all(text[e.start : e.end] == e.text for e in result.entities)
                assert not result.tokens.truncated
        await _check_long(stack.inference, shipped)


async def _check_long(inference: object, shipped: Shipped) -> None:
    request = inference_pb2.ExtractEntitiesRequest(model=TASK, texts=[LONG])
    [result] = (await inference.ExtractEntities(request, timeout=60)).results  # type: ignore[attr-defined]
    encoder = Encoder.from_file(shipped.folder / "tokenizer.json", shipped.manifest.max_length)
    assert result.tokens.num_windows > 10
    assert not result.tokens.truncated
    assert result.tokens.num_tokens > encoder.count(LONG)
    ends = [0, *(entity.end for entity in result.entities)]
    assert all(entity.start >= end for entity, end in zip(result.entities, ends, strict=False))
    assert all(LONG[entity.start : entity.end] == entity.text for entity in result.entities)


def _pipeline(shipped: Shipped, how: str) -> list[list[dict[str, object]]]:
    pipe = transformers.pipeline(TASK, model=str(shipped.checkpoint), aggregation_strategy=how, device="cpu")
    return [pipe(text) for text in TEXTS]
