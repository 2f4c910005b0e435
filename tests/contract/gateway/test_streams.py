"""Generate and Chat: what an engine is asked, what callers are answered, and who may ask."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from conch.v1 import inference_pb2, job_pb2, models_pb2
from tests.contract.fake_generation import Ask, FakeGeneration, Wrote, default
from tests.contract.fake_triton import FakeTriton
from tests.contract.gateway.calls import refusal, until
from tests.contract.gateway.stack import Stack, gateway
from tests.contract.gateway.streaming import chat, generate, listening, read, text_of
from tests.contract.generators import publish_generator
from tests.contract.versions import publish, route

Sampling = inference_pb2.SamplingOptions


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FakeGeneration]:
    async with listening(repository=tmp_path / "staged") as fake:
        yield fake


@pytest.fixture
async def stack(tmp_path: Path, engine: FakeGeneration) -> AsyncIterator[Stack]:
    publish_generator(tmp_path / "repository", 1)
    async with gateway(tmp_path, engine.address, max_text_bytes=1000) as started:
        await started.set_route(route("stories", v1=1))
        engine.asks.clear()
        yield started


def seconds(duration: Duration) -> float:
    return duration.ToMicroseconds() / 1e6


async def test_a_prompt_is_continued_piece_by_piece(stack: Stack, engine: FakeGeneration) -> None:
    responses = await read(generate(stack, "one two three"))
    assert [r.piece.text for r in responses] == ["three ", "two ", "one ", ""]
    assert [r.piece.finish_reason for r in responses] == [0, 0, 0, inference_pb2.FINISH_REASON_STOP]


async def test_the_first_piece_says_who_answers_and_the_last_what_it_took(stack: Stack) -> None:
    first, *middle, last = await read(generate(stack, "one two three"))
    served_by = first.served_by
    assert (served_by.model, served_by.version) == ("stories", 1)
    assert (served_by.runtime, served_by.precision) == (job_pb2.RUNTIME_OPENVINO, job_pb2.PRECISION_FP32)
    assert served_by.artifact_digest
    assert last.served_by == served_by
    assert not any(r.HasField("served_by") or r.HasField("timings") for r in middle)
    assert not first.HasField("timings")
    assert not first.piece.HasField("usage")
    usage = last.piece.usage
    assert (usage.num_prompt_tokens, usage.num_generated_tokens) == (3, 3)
    assert 0 < seconds(last.timings.first_piece) <= seconds(last.timings.total)


async def test_an_engine_is_asked_by_the_contract_of_tritons_vllm_backend(
    stack: Stack, engine: FakeGeneration
) -> None:
    await read(generate(stack, "one two", sampling=Sampling(temperature=0.5, seed=7, max_tokens=9)))
    (ask,) = engine.asks
    assert (ask.model, ask.version, ask.prompt) == ("stories", "1", "one two")
    assert ask.parameters == {"temperature": 0.5, "seed": 7, "max_tokens": 9}
    assert ask.switches == {
        "stream": True,
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    assert ask.id.startswith("conch-")
    assert ask.metadata["triton_grpc_error"] == "true"


async def test_a_text_as_long_as_it_may_be_ends_with_length(stack: Stack) -> None:
    responses = await read(generate(stack, "one two three", sampling=Sampling(max_tokens=2)))
    assert text_of(responses) == "three two "
    assert responses[-1].piece.finish_reason == inference_pb2.FINISH_REASON_LENGTH
    assert responses[-1].piece.usage.num_generated_tokens == 2


async def test_an_engine_that_tells_its_end_apart_is_read_to_it(stack: Stack, engine: FakeGeneration) -> None:
    engine.ends_apart = True
    assert text_of(await read(generate(stack, "one two"))) == "two one "
    await engine.until(lambda: not engine.running)
    assert not engine.num_cancelled


async def test_no_piece_but_the_last_is_empty(stack: Stack, engine: FakeGeneration) -> None:
    engine.script = lambda ask: [Wrote("", 2), "a", Wrote("", 1), "b"]
    responses = await read(generate(stack))
    assert [r.piece.text for r in responses] == ["a", "b", ""]
    assert responses[-1].piece.usage.num_generated_tokens == 5


async def test_log_probabilities_name_the_chosen_token_and_the_likeliest(
    stack: Stack, engine: FakeGeneration
) -> None:
    likely = {"logprob": -0.5, "rank": 1, "decoded_token": "x"}
    other = {"logprob": -1.5, "rank": 2, "decoded_token": "y"}
    chosen = {"logprob": -3.0, "rank": 7, "decoded_token": "z"}
    hidden = {"5": {"logprob": -0.1, "rank": 1, "decoded_token": "\ufffd"}}
    engine.script = lambda ask: [
        Wrote("", logprobs=[hidden]),
        Wrote("z", logprobs=[{"9": chosen, "1": likely, "2": other}]),
    ]
    first, last = await read(generate(stack, sampling=Sampling(num_logprobs=2)))
    assert engine.asks[-1].parameters["logprobs"] == 2
    assert engine.asks[-1].switches["return_logprobs"]
    unseen, seen = first.piece.logprobs
    assert (unseen.token, unseen.logprob) == ("\ufffd", pytest.approx(-0.1))
    assert (seen.token, seen.logprob) == ("z", -3.0)
    assert [(a.token, a.logprob) for a in seen.alternatives] == [("x", -0.5), ("y", -1.5)]
    assert not last.piece.logprobs


async def test_a_conversation_is_answered_by_the_models_template(
    stack: Stack, engine: FakeGeneration
) -> None:
    first, *_, last = await read(chat(stack, ("system", "be brief"), ("user", "hello there")))
    assert engine.asks[-1].prompt == "system: be brief user: hello there assistant:"
    assert first.piece.text == "assistant: "
    assert last.served_by.model == "stories"


async def test_a_model_without_a_chat_template_says_so(tmp_path: Path, engine: FakeGeneration) -> None:
    publish_generator(tmp_path / "repository", 1, chat_template="")
    async with gateway(tmp_path, engine.address) as stack:
        await stack.set_route(route("stories", v1=1))
        code, _, details = await refusal(read(chat(stack, ("user", "hello"))))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert details["ErrorInfo"].reason == "NO_CHAT_TEMPLATE"
        assert text_of(await read(generate(stack, "one two"))) == "two one "


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (lambda s: generate(s, ""), "prompt"),
        (lambda s: generate(s, " \n"), "prompt"),
        (lambda s: generate(s, "x" * 1001), "prompt"),
        (lambda s: generate(s, "a " * 63), "prompt"),
        (lambda s: generate(s, model=""), "model"),
        (lambda s: generate(s, sampling=Sampling(temperature=-1)), "sampling.temperature"),
        (lambda s: generate(s, sampling=Sampling(json_schema="{")), "sampling.json_schema"),
        (lambda s: chat(s), "messages"),
        (lambda s: chat(s, *[("user", "a")] * 1001), "messages"),
        (lambda s: chat(s, ("user", "a"), ("user", " ")), "messages[1].content"),
        (lambda s: chat(s, ("user", "x" * 501), ("user", "x" * 501)), "messages"),
        (lambda s: chat(s, ("user", "a"), ("robot", "b")), "messages[1].role"),
        (lambda s: chat(s, ("user", "a"), ("assistant", "b")), "messages[1].role"),
        (lambda s: chat(s, ("user", "a"), ("system", "b"), ("user", "c")), "messages"),
        (lambda s: chat(s, ("user", "a"), sampling=Sampling(stop=[""])), "sampling.stop[0]"),
    ],
)
async def test_what_can_never_succeed_is_refused_by_field_before_triton_hears_of_it(
    stack: Stack, engine: FakeGeneration, ask: Any, field: str
) -> None:
    code, _, details = await refusal(read(ask(stack)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in details["BadRequest"].field_violations] == [field]
    assert not engine.asks


async def test_what_the_engine_refuses_names_the_callers_field(stack: Stack, engine: FakeGeneration) -> None:
    engine.fail(grpc.StatusCode.INVALID_ARGUMENT, "structured_outputs: no such keyword: if")
    schema = '{"if": {"type": "string"}}'
    code, message, details = await refusal(read(generate(stack, sampling=Sampling(json_schema=schema))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message == "sampling.json_schema: no such keyword: if"
    assert details["ErrorInfo"].reason == "ENGINE_REFUSED"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, "[request id: conch-1] unexpected inference input 'stream'"),
        (grpc.StatusCode.INTERNAL, "Error generating stream: secret"),
    ],
)
async def test_what_only_a_bug_can_cause_is_internal_and_leaks_nothing(
    stack: Stack, engine: FakeGeneration, code: grpc.StatusCode, words: str
) -> None:
    engine.fail(code, words)
    found, message, _ = await refusal(read(generate(stack)))
    assert (found, message) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_a_model_of_another_task_says_what_it_answers(tmp_path: Path, triton: FakeTriton) -> None:
    publish(tmp_path / "repository", 1)
    async with gateway(tmp_path, triton.address) as stack:
        await stack.set_route(route(v1=1))
        code, message, details = await refusal(read(generate(stack, model="sentiment")))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message.startswith("sentiment answers text-classification (Classify")
    assert message.endswith("not Generate")
    assert details["ErrorInfo"].reason == "OTHER_TASK"


async def test_a_generator_does_not_classify(stack: Stack) -> None:
    request = inference_pb2.ClassifyRequest(model="stories", texts=["a"])
    code, message, _ = await refusal(stack.inference.Classify(request, timeout=10))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert message == "stories answers text-generation (Generate, Chat), not Classify"


async def test_an_unknown_model_is_not_found(stack: Stack) -> None:
    code, _, _ = await refusal(read(generate(stack, model="poems")))
    assert code is grpc.StatusCode.NOT_FOUND


async def test_a_version_is_proven_by_its_golden_texts_all_at_once(
    tmp_path: Path, engine: FakeGeneration
) -> None:
    publish_generator(tmp_path / "repository", 1)
    most_at_once = 0

    def script(ask: Ask) -> Sequence[str]:
        nonlocal most_at_once
        most_at_once = max(most_at_once, len(engine.running))
        return default(ask)

    engine.script = script
    async with gateway(tmp_path, engine.address) as stack:
        await stack.set_route(route("stories", v1=1))
    assert [ask.parameters for ask in engine.asks] == [{"temperature": 0.0, "max_tokens": 32}] * 4
    assert most_at_once > 1


async def test_a_version_is_proven_however_few_streams_it_may_have(
    tmp_path: Path, engine: FakeGeneration
) -> None:
    publish_generator(tmp_path / "repository", 1)
    async with gateway(tmp_path, engine.address, max_streams=1, queue_streams=0) as stack:
        await stack.set_route(route("stories", v1=1))
        assert text_of(await read(generate(stack, "one two"))) == "two one "


async def test_a_version_that_writes_other_texts_never_serves(tmp_path: Path, engine: FakeGeneration) -> None:
    publish_generator(tmp_path / "repository", 1, ending="amen")
    async with gateway(tmp_path, engine.address) as stack:
        code, message, _ = await refusal(stack.set_route(route("stories", v1=1)))
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "text_mismatch_rate on its golden examples is 1, more than 0" in message
        version = models_pb2.GetVersionRequest(model="stories", version=1)
        state = (await stack.models.GetVersion(version)).version.state
        assert state == models_pb2.Version.STATE_FAILED


async def test_a_certificate_without_a_limit_on_texts_proves_nothing(
    tmp_path: Path, engine: FakeGeneration
) -> None:
    publish_generator(tmp_path / "repository", 1, figure="perplexity_increase")
    async with gateway(tmp_path, engine.address) as stack:
        _, message, _ = await refusal(stack.set_route(route("stories", v1=1)))
        assert "its certificate sets no limit to text_mismatch_rate" in message


async def test_a_backend_that_lacks_an_output_is_refused(tmp_path: Path, engine: FakeGeneration) -> None:
    del engine.outputs["num_output_tokens"]
    publish_generator(tmp_path / "repository", 1)
    async with gateway(tmp_path, engine.address) as stack:
        _, message, _ = await refusal(stack.set_route(route("stories", v1=1)))
        assert "does not give the outputs num_output_tokens" in message


async def test_streams_are_counted(stack: Stack, engine: FakeGeneration) -> None:
    await read(generate(stack, "one two three"))
    labels = {"rpc": "Generate", "model": "stories", "version": "1"}
    value = stack.metrics.registry.get_sample_value
    assert value("conch_stream_pieces_total", labels) == 4
    assert value("conch_stream_tokens_total", {**labels, "kind": "prompt"}) == 3
    assert value("conch_stream_tokens_total", {**labels, "kind": "generated"}) == 3
    for stage in ("queue", "first_piece", "total"):
        assert value("conch_stream_seconds_count", {**labels, "stage": stage}) == 1
    # An answer may be here before its end is told.
    await until(lambda: value("conch_rpcs_total", {"rpc": "InferenceService/Generate", "code": "OK"}) == 1)
