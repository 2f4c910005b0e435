"""Generate and Chat through the gateway, over the real Triton and its engine: a tiny random Llama."""

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from conch.v1 import inference_pb2, job_pb2
from services.converter import ir_export
from tests.contract.gateway.calls import refusal, until
from tests.contract.gateway.stack import NOT_SERVING, SERVING, Stack, gateway
from tests.contract.gateway.streaming import chat, generate, read, text_of
from tests.contract.generators import publish_generator
from tests.contract.versions import route
from tests.integration.generation_models import checkpoint, config, reference
from tests.integration.triton import RunningTriton, free_port, started

Sampling = inference_pb2.SamplingOptions
WINDOW = 2048
PROMPTS = ("The quick brown fox", "Once upon a time", "It was the best of times", "Call me")
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "sure": {"type": "boolean"}},
    "required": ["mood", "sure"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Model:
    """A checkpoint, its IR, and what it writes after PROMPTS."""

    folder: Path
    ir: Path
    golden: dict[str, str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    from transformers import AutoTokenizer

    home = tmp_path_factory.mktemp("stories")
    folder = checkpoint("llama", home / "llama", window=WINDOW)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    golden = {
        prompt: tokenizer.decode(reference(folder, prompt, max_new_tokens=32), skip_special_tokens=True)
        for prompt in PROMPTS
    }
    return Model(folder, ir_export.export(folder, home / "ir"), golden)


@dataclass(frozen=True)
class Served:
    """The gateway over a Triton of its own, and what the engine says of itself."""

    stack: Stack
    triton: RunningTriton
    metrics_port: int

    def rows(self) -> float:
        """Returns how many texts the engine is writing, and how many wait there."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as page:
            found = re.findall(r"^conch_generation_rows_\w+\{.*\} (\S+)$", page.read().decode(), re.M)
        assert found, "the engine tells its load"
        return sum(map(float, found))

    async def until_rows(self, *, busy: bool) -> None:
        """Returns once the engine works on something, or on nothing."""
        async with asyncio.timeout(20):
            while bool(await asyncio.to_thread(self.rows)) is not busy:  # noqa: ASYNC110  # a scraped metric
                await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningTriton, int]]:
    home, port = tmp_path_factory.mktemp("triton"), free_port()
    with started(home, variables={"CONCH_TRITON_METRICS_PORT": str(port)}) as running:
        yield running, port


@pytest.fixture(scope="module")
async def served(triton: tuple[RunningTriton, int], model: Model) -> AsyncIterator[Served]:
    running, port = triton
    home = running.repository.parent
    publish_generator(
        home / "repository", 1, ir=model.ir, golden=model.golden, config=config(), max_length=WINDOW
    )
    async with gateway(home, running.address) as stack:
        await stack.set_route(route("stories", v1=1))
        yield Served(stack, running, port)


async def test_a_version_is_proven_by_what_transformers_writes(served: Served, model: Model) -> None:
    responses = await asyncio.gather(
        *(
            read(generate(served.stack, prompt, sampling=Sampling(temperature=0, max_tokens=32)))
            for prompt in PROMPTS
        )
    )
    assert [text_of(found) for found in responses] == [model.golden[prompt] for prompt in PROMPTS]
    last = responses[0][-1]
    assert last.piece.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    assert last.piece.usage.num_generated_tokens == 32
    assert last.piece.usage.num_prompt_tokens == 4
    assert last.served_by.runtime == job_pb2.RUNTIME_OPENVINO
    assert len(responses[0]) > 8


async def test_the_same_seed_writes_the_same_text_and_others_others(served: Served) -> None:
    def ask(seed: int) -> Any:
        return read(generate(served.stack, sampling=Sampling(seed=seed, max_tokens=16)))

    one, same, other = await asyncio.gather(ask(7), ask(7), ask(8))
    assert text_of(one) == text_of(same) != text_of(other)


async def test_a_text_satisfies_the_schema_that_was_asked_for(served: Served) -> None:
    sampling = Sampling(seed=3, json_schema=json.dumps(SCHEMA))
    found = await read(generate(served.stack, sampling=sampling))
    assert set(json.loads(text_of(found))) == {"mood", "sure"}
    assert found[-1].piece.finish_reason == inference_pb2.FINISH_REASON_STOP


async def test_a_schema_that_the_engine_cannot_hold_is_the_callers_fault(served: Served) -> None:
    schema = '{"type": "object", "unevaluatedProperties": false, "patternProperties": {"(": {}}}'
    code, message, _ = await refusal(read(generate(served.stack, sampling=Sampling(json_schema=schema))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("sampling.json_schema: ")
    assert text_of(await read(generate(served.stack, sampling=Sampling(max_tokens=3, seed=1))))


async def test_log_probabilities_are_those_of_the_pieces_tokens(served: Served) -> None:
    sampling = Sampling(temperature=0, max_tokens=6, num_logprobs=3)
    responses = await read(generate(served.stack, sampling=sampling))
    tokens = [token for response in responses for token in response.piece.logprobs]
    assert len(tokens) == responses[-1].piece.usage.num_generated_tokens == 6
    for token in tokens:
        assert len(token.alternatives) == 3
        assert token.logprob == token.alternatives[0].logprob <= 0  # greedy: the likeliest is chosen
    assert "".join(token.token for token in tokens) == text_of(responses)


async def test_a_conversation_is_answered(served: Served) -> None:
    found = await read(
        chat(served.stack, ("user", "Who are you?"), sampling=Sampling(max_tokens=4, temperature=0))
    )
    prompt = "user: Who are you? assistant:"
    same = await read(generate(served.stack, prompt, sampling=Sampling(max_tokens=4, temperature=0)))
    assert text_of(found) == text_of(same)


async def test_a_caller_who_leaves_frees_the_engine(served: Served) -> None:
    call = generate(served.stack, sampling=Sampling(max_tokens=2000, seed=1))
    await call.read()
    await served.until_rows(busy=True)
    call.cancel()
    await served.until_rows(busy=False)


async def test_a_deadline_in_the_middle_frees_the_engine(served: Served) -> None:
    call = generate(served.stack, sampling=Sampling(max_tokens=2000, seed=1), seconds=1.0)
    assert await call.read()
    code, _, _ = await refusal(read(call))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await served.until_rows(busy=False)


async def test_many_streams_at_once_are_each_what_they_are_alone(served: Served) -> None:
    def ask(n: int) -> Any:
        return read(generate(served.stack, f"Number {n}", sampling=Sampling(temperature=0, max_tokens=8)))

    together = [text_of(found) for found in await asyncio.gather(*(ask(n) for n in range(24)))]
    assert together == [text_of(await ask(n)) for n in range(24)]


async def test_a_hundred_streams_that_are_left_leave_the_engine_idle_and_whole(served: Served) -> None:
    async def leave(n: int) -> None:
        call = generate(served.stack, f"Number {n}", sampling=Sampling(max_tokens=1000, seed=n))
        await (call.read() if n % 2 else asyncio.sleep(0.01))
        call.cancel()

    await asyncio.gather(*(leave(n) for n in range(100)))
    await served.until_rows(busy=False)
    value = served.stack.metrics.registry.get_sample_value
    await until(lambda: value("conch_streams_inflight", {"model": "stories", "version": "1"}) == 0)
    assert text_of(await read(generate(served.stack, sampling=Sampling(max_tokens=3, seed=1))))


async def test_golden_texts_of_other_weights_are_refused(served: Served, model: Model) -> None:
    golden = dict.fromkeys(PROMPTS, "something else")
    home = served.stack.home
    publish_generator(home / "repository", 2, ir=model.ir, golden=golden, config=config(), max_length=WINDOW)
    code, message, _ = await refusal(served.stack.set_route(route("stories", v2=1)))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "text_mismatch_rate on its golden examples is 1" in message
    assert (await read(generate(served.stack)))[0].served_by.version == 1


async def test_a_triton_that_is_killed_in_the_middle_is_unavailable_and_comes_back(
    tmp_path: Path, model: Model
) -> None:
    home, port = tmp_path, free_port()
    publish_generator(
        home / "repository", 1, ir=model.ir, golden=model.golden, config=config(), max_length=WINDOW
    )
    with started(home, port=port) as first:
        async with gateway(home, first.address) as stack:
            await stack.set_route(route("stories", v1=1))
            call = generate(stack, sampling=Sampling(max_tokens=2000, seed=1))
            assert await call.read()
            first.process.kill()
            code, _, details = await refusal(read(call))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "RetryInfo" in details
            first.process.wait()
            await stack.until_health("stories@1", NOT_SERVING)
            with started(home, port=port):
                await stack.until_health("stories@1", SERVING, seconds=60)
                found = await read(generate(stack, sampling=Sampling(max_tokens=3, seed=1)))
                assert text_of(found)
