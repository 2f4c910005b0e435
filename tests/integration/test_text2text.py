"""text2text-generation from a data file to answers through the gateway and a real Triton.

200 held-out texts must come back as transformers' generate writes them, greedily and by beams.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import torch
import transformers

from conch.v1 import inference_pb2, models_pb2
from services.converter.checkpoint import load
from services.tasks import Example
from tests.contract.gateway.stack import Stack, gateway
from tests.integration.samples import SAMPLES
from tests.integration.shipped_tasks import Shipped, ship
from tests.integration.triton import RunningTriton, started

TASK = "text2text-generation"
NUM_INPUTS = 200
SUMMARIZE, TRANSLATE = "summarize: ", "translate: "


@pytest.fixture(scope="module")
def shipped(tiny_t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    """A sample of which 200 examples are held out."""
    write = SAMPLES[TASK].write
    sample = replace(SAMPLES[TASK], write=lambda folder, _: write(folder, NUM_INPUTS * 5 // 2))
    home = tmp_path_factory.mktemp("home")
    return ship(TASK, sample, tiny_t5, tmp_path_factory.mktemp("shipped"), home / "repository")


@pytest.fixture(scope="module")
def triton(shipped: Shipped) -> Iterator[RunningTriton]:
    with started(shipped.repository.parent) as running:
        yield running


@pytest.fixture
async def stack(shipped: Shipped, triton: RunningTriton) -> AsyncIterator[Stack]:
    async with gateway(shipped.repository.parent, triton.address) as running:
        only = models_pb2.WeightedVersion(version=1, weight=1)
        await running.set_route(models_pb2.Route(model=TASK, versions=[only]))
        yield running


@pytest.fixture(scope="module")
def held_out(shipped: Shipped, tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    source = load(str(shipped.checkpoint), tmp_path_factory.mktemp("checkpoint"))
    return source.held_out


async def written(stack: Stack, texts: Sequence[str], **options: Any) -> list[inference_pb2.GeneratedText]:
    """Returns the answers to texts that begin with their prefix, each asked of the rpc that it is for."""
    search = inference_pb2.SearchOptions(**options)
    summarized = [text.removeprefix(SUMMARIZE) for text in texts if text.startswith(SUMMARIZE)]
    translated = [text.removeprefix(TRANSLATE) for text in texts if text.startswith(TRANSLATE)]
    ask: Any = stack.inference
    summaries = await ask.Summarize(
        inference_pb2.SummarizeRequest(model=TASK, texts=summarized, options=search), timeout=60
    )
    translations = await ask.Translate(
        inference_pb2.TranslateRequest(model=TASK, texts=translated, options=search), timeout=60
    )
    answers = {SUMMARIZE: iter(summaries.summaries), TRANSLATE: iter(translations.translations)}
    return [next(answers[SUMMARIZE if text.startswith(SUMMARIZE) else TRANSLATE]) for text in texts]


def reference(checkpoint: Path, texts: Sequence[str], **settings: Any) -> list[list[int]]:
    """Returns what generate writes for each text alone, the token that ends it included."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    found = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        with torch.inference_mode():
            found.append(model.generate(**inputs, **settings)[0][1:].tolist())
    return found


@pytest.mark.parametrize("settings", [{}, {"num_beams": 4}, {"num_beams": 2, "length_penalty": 2.0}])
async def test_held_out_texts_are_answered_as_transformers_generates(
    stack: Stack, shipped: Shipped, held_out: list[Example], settings: dict[str, Any]
) -> None:
    """Without settings both sides do what the checkpoint's own generation config says."""
    texts = [example.text for example in held_out]
    assert len(texts) == NUM_INPUTS
    answers = await written(stack, texts, **settings)
    want = reference(shipped.checkpoint, texts, **settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(shipped.checkpoint)
    for ids, answer in zip(want, answers, strict=True):
        assert answer.text == tokenizer.decode(ids, skip_special_tokens=True)
        assert answer.num_generated_tokens == len(ids)
        ended = ids[-1] == tokenizer.eos_token_id
        assert (answer.finish_reason == inference_pb2.FINISH_REASON_STOP) == ended
    assert len({tuple(ids) for ids in want}) > 10, "a model that always writes the same proves nothing"


async def test_a_caller_who_leaves_takes_his_search_along(stack: Stack) -> None:
    longest = inference_pb2.SearchOptions(max_new_tokens=4096, min_new_tokens=4096, num_beams=8)
    request = inference_pb2.SummarizeRequest(model=TASK, texts=["a fine trip"] * 32, options=longest)
    running = stack.inference.Summarize(request, timeout=120)
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    began = time.monotonic()
    await written(stack, [SUMMARIZE + "dull", TRANSLATE + "fine"])
    assert time.monotonic() - began < 10, "the search of 4096 steps went on"


async def test_a_search_ends_with_its_caller_s_deadline(stack: Stack) -> None:
    longest = inference_pb2.SearchOptions(max_new_tokens=4096, min_new_tokens=4096, num_beams=8)
    request = inference_pb2.SummarizeRequest(model=TASK, texts=["a fine trip"] * 32, options=longest)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stack.inference.Summarize(request, timeout=1)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await written(stack, [SUMMARIZE + "dull", TRANSLATE + "fine"]))[0].num_generated_tokens
