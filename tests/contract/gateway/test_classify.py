"""Classify over real sockets: right answers, and a readable refusal for everything else."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from conch.v1 import inference_pb2, job_pb2
from examples.assets import minilm
from services.tasks.encoding import Encoder, pad
from services.tasks.scores import softmax
from tests.contract.fake_triton import FakeTriton, sum_logits
from tests.contract.gateway.calls import CLASSIFY, refusal, request, until
from tests.contract.gateway.stack import Stack, gateway
from tests.contract.versions import LABELS, MAX_LENGTH, publish, route

WORDS = "a film the of and dull bright never quite again story told well badly acted scene by".split()


@pytest.fixture
async def stack(tmp_path: Path, triton: FakeTriton) -> AsyncIterator[Stack]:
    publish(tmp_path / "repository", 1)
    async with gateway(tmp_path, triton.address) as started:
        await started.set_route(route(v1=1))
        triton.calls.clear()
        yield started


async def bad_field(stack: Stack, asked: inference_pb2.ClassifyRequest) -> tuple[str, str]:
    """Returns field and reason of the INVALID_ARGUMENT that a request gets."""
    code, _, details = await refusal(stack.inference.Classify(asked, timeout=30))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    bad: Any = details["BadRequest"]
    return bad.field_violations[0].field, bad.field_violations[0].reason


async def test_a_text_gets_all_labels_with_scores_best_first(stack: Stack) -> None:
    answer = await stack.inference.Classify(request("a fine film"), timeout=20)
    tokens = Encoder.from_file(minilm() / "tokenizer.json", MAX_LENGTH).encode(["a fine film"])
    inputs = pad(tokens, len(tokens[0]), 0)
    scores = softmax(sum_logits(inputs["input_ids"], inputs["attention_mask"]))[0]
    best = np.argsort(-scores, kind="stable")
    (classification,) = answer.classifications
    assert [label.label for label in classification.labels] == [LABELS[i] for i in best]
    assert [label.score for label in classification.labels] == pytest.approx([scores[i] for i in best])


async def test_an_answer_says_who_gave_it_and_where_the_time_went(stack: Stack) -> None:
    answer = await stack.inference.Classify(request("a fine film"), timeout=20)
    served = answer.served_by
    assert (served.model, served.version, served.uncertified) == ("sentiment", 1, False)
    assert (served.precision, served.runtime) == (job_pb2.PRECISION_FP32, job_pb2.RUNTIME_ONNXRUNTIME)
    assert len(served.artifact_digest) == 64
    timings = answer.timings
    parts = [timings.tokenize, timings.queue, timings.infer, timings.decode]
    assert all(part.ToMicroseconds() >= 0 for part in parts)
    assert timings.infer.ToMicroseconds() > 0
    assert timings.total.ToMicroseconds() >= timings.infer.ToMicroseconds()


async def test_top_k_bounds_the_labels_and_more_than_there_are_means_all(stack: Stack) -> None:
    for top_k, expected in ((1, 1), (2, 2), (0, 3), (99, 3)):
        answer = await stack.inference.Classify(request("a fine film", top_k=top_k), timeout=20)
        assert len(answer.classifications[0].labels) == expected


async def test_a_text_beyond_the_models_length_is_cut_and_says_so(stack: Stack) -> None:
    answer = await stack.inference.Classify(request("word " * 100, "short"), timeout=20)
    long, short = (c.tokens for c in answer.classifications)
    assert (long.num_tokens, long.truncated) == (MAX_LENGTH, True)
    assert (short.num_tokens, short.truncated) == (3, False)


async def test_pairs_are_read_as_pairs(stack: Stack) -> None:
    alone = await stack.inference.Classify(request("a film"), timeout=20)
    paired = await stack.inference.Classify(request("a film", text_pairs=["is dull"]), timeout=20)
    assert paired.classifications[0].tokens.num_tokens == alone.classifications[0].tokens.num_tokens + 3


async def test_mixed_lengths_at_once_get_exactly_the_answers_of_one_by_one(
    stack: Stack, triton: FakeTriton
) -> None:
    chance = random.Random(1)
    asked = [
        request(
            *(
                " ".join(chance.choices(WORDS, k=chance.randint(1, 60)))
                for _ in range(chance.choice([1, 1, 3]))
            )
        )
        for _ in range(120)
    ]
    one_by_one = [(await stack.inference.Classify(r, timeout=20)).classifications for r in asked]
    num_calls = len(triton.calls)
    at_once = await asyncio.gather(*(stack.inference.Classify(r, timeout=60) for r in asked))
    assert [list(a.classifications) for a in at_once] == [list(c) for c in one_by_one]
    assert len(triton.calls) - num_calls < num_calls / 2, "nothing was batched"


async def test_an_empty_text_is_refused_by_its_place(stack: Stack) -> None:
    assert await bad_field(stack, request("fine", "fine", "")) == ("texts[2]", "EMPTY_TEXT")
    assert await bad_field(stack, request("\n \t")) == ("texts[0]", "EMPTY_TEXT")


async def test_an_empty_second_text_is_refused_by_its_place(stack: Stack) -> None:
    assert await bad_field(stack, request("a", "b", text_pairs=["c", " "])) == ("text_pairs[1]", "EMPTY_TEXT")


async def test_no_texts_are_refused(stack: Stack) -> None:
    assert await bad_field(stack, request()) == ("texts", "NO_TEXTS")


async def test_too_many_texts_are_refused(stack: Stack) -> None:
    assert await bad_field(stack, request(*["x"] * 257)) == ("texts", "TOO_MANY_TEXTS")


async def test_pairs_must_be_as_many_as_texts(stack: Stack) -> None:
    assert await bad_field(stack, request("a", "b", text_pairs=["c"])) == ("text_pairs", "PAIRS_MISMATCH")


async def test_a_request_without_a_model_is_refused(stack: Stack) -> None:
    assert await bad_field(stack, request("a", model="")) == ("model", "NO_MODEL")


async def test_a_text_of_10_mb_is_refused_with_a_sentence_and_not_by_the_transport(stack: Stack) -> None:
    assert await bad_field(stack, request("fine", "x" * 10_000_000)) == ("texts[1]", "TEXT_TOO_LONG")


async def test_the_limit_counts_bytes_and_not_characters(stack: Stack) -> None:
    assert await bad_field(stack, request("ü" * (600 << 10))) == ("texts[0]", "TEXT_TOO_LONG")


async def test_a_text_at_the_limit_is_answered(stack: Stack) -> None:
    answer = await stack.inference.Classify(request("good " * ((1 << 20) // 5)), timeout=30)
    assert answer.classifications[0].tokens.truncated


async def test_bytes_that_are_no_utf8_are_the_callers_fault(stack: Stack) -> None:
    call = stack.channel.unary_unary(CLASSIFY)
    good = request("fine").SerializeToString()
    code, message, details = await refusal(call(good.replace(b"fine", b"fi\xff\xfe"), timeout=20))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "UTF-8" in message
    assert "BadRequest" in details


async def test_an_unknown_model_or_version_is_not_found(stack: Stack) -> None:
    for asked in (request("a", model="nobody"), request("a", version=7)):
        code, message, details = await refusal(stack.inference.Classify(asked, timeout=20))
        assert code is grpc.StatusCode.NOT_FOUND
        assert "sentiment" in message
        assert "ErrorInfo" in details


async def test_a_triton_with_empty_outputs_is_our_fault_and_leaks_nothing(
    stack: Stack, triton: FakeTriton
) -> None:
    triton.empty_outputs = True
    code, message, _ = await refusal(stack.inference.Classify(request("a"), timeout=20))
    assert (code, message) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_one_text_that_triton_refuses_harms_no_other(stack: Stack, triton: FakeTriton) -> None:
    bad = Encoder.from_file(minilm() / "tokenizer.json", MAX_LENGTH).encode(["poison"])[0].input_ids[1]
    triton.refuse = lambda ids: "poisoned" if (ids == bad).any() else ""
    calls = [stack.inference.Classify(request(t), timeout=20) for t in ("a", "poison", "b", "c")]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(a, grpc.aio.AioRpcError) for a in answers] == [False, True, False, False]
    error: Any = answers[1]
    assert error.code() is grpc.StatusCode.INTERNAL


async def test_a_call_counts_by_stage_outcome_and_batch(stack: Stack) -> None:
    await stack.inference.Classify(request("a fine film"), timeout=20)
    await refusal(stack.inference.Classify(request(""), timeout=20))
    value = stack.metrics.registry.get_sample_value
    version = {"rpc": "Classify", "model": "sentiment", "version": "1"}
    for stage in ("tokenize", "queue", "infer", "decode", "total"):
        assert value("conch_stage_seconds_count", {"stage": stage, **version}) == 1
    rpc = "InferenceService/Classify"
    for code in ("OK", "INVALID_ARGUMENT"):
        await until(lambda code=code: value("conch_rpcs_total", {"rpc": rpc, "code": code}) == 1)  # type: ignore[misc]
    assert value("conch_batch_texts_count", {"model": "sentiment", "version": "1"}) >= 1
    assert value("conch_queue_tokens", {"model": "sentiment", "version": "1"}) == 0


async def test_an_answer_that_is_no_number_is_our_fault_and_never_sent(
    stack: Stack, triton: FakeTriton
) -> None:
    def broken(ids: Any, mask: Any) -> Any:
        logits = sum_logits(ids, mask)
        # The text of the greater ids alone is answered with NaN.
        logits[ids.max(axis=1) > 20_000] = np.nan
        return logits

    triton.logits = broken
    code, message, _ = await refusal(stack.inference.Classify(request("zebras"), timeout=20))
    assert (code, message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert (await stack.inference.Classify(request("a"), timeout=20)).classifications


async def test_a_request_in_too_many_windows_is_refused_by_its_texts(
    tmp_path: Path, triton: FakeTriton
) -> None:
    publish(tmp_path / "repository", 1)
    async with gateway(tmp_path, triton.address, max_windows=2) as stack:
        await stack.set_route(route(v1=1))
        assert await bad_field(stack, request("a", "b", "c")) == ("texts", "TOO_MANY_WINDOWS")
        assert (await stack.inference.Classify(request("a", "b"), timeout=20)).classifications
