"""What comes out of the gateway is what the trained model says, for everybody and at any load."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from conch.client import Conch as Client
from conch.v1 import inference_pb2, job_pb2
from examples.stack import Conch, conch_in
from examples.waiting import wait_serving
from tests.e2e.shipped import Shipped


def _held_out(sentiment: Shipped) -> list[str]:
    # Not splitlines(): reviews hold line separators of Unicode that JSON leaves as they are.
    lines = (sentiment.checkpoint / "held_out.jsonl").read_text(encoding="utf-8").strip().split("\n")
    return [json.loads(line)["text"] for line in lines]


def test_labels_equal_a_transformers_pipeline_on_500_held_out_texts(conch: Conch, sentiment: Shipped) -> None:
    from transformers import pipeline

    texts = _held_out(sentiment)[:500]
    assert len(texts) == 500
    classifier = pipeline("text-classification", str(sentiment.checkpoint), top_k=None)
    expected = classifier(texts, truncation=True, max_length=64, batch_size=16)
    with Client(conch.gateway) as client:
        answers = [
            answer
            for start in range(0, 500, 100)
            for answer in client.classify(texts[start : start + 100], model="sentiment").classifications
        ]
    for want, got in zip(expected, answers, strict=True):
        assert got.labels[0].label == want[0]["label"]
        assert {s.label: s.score for s in got.labels} == pytest.approx(
            {s["label"]: s["score"] for s in want}, abs=1e-3
        )


def test_an_answer_says_who_gave_it(conch: Conch, sentiment: Shipped) -> None:
    with Client(conch.gateway) as client:
        answer = client.classify(["What a wonderful, moving film!"], model="sentiment", top_k=1)
    assert len(answer.classifications[0].labels) == 1
    served_by = answer.served_by
    assert (served_by.model, served_by.version, served_by.uncertified) == ("sentiment", 1, False)
    assert (served_by.runtime, served_by.precision) == (job_pb2.RUNTIME_ONNXRUNTIME, job_pb2.PRECISION_FP32)
    assert len(served_by.artifact_digest) == 64


def test_a_text_beyond_the_models_length_is_truncated_and_says_so(conch: Conch, sentiment: Shipped) -> None:
    with Client(conch.gateway) as client:
        tokens = client.classify(["good " * 100], model="sentiment").classifications[0].tokens
    assert (tokens.truncated, tokens.num_tokens) == (True, 64)


def test_concurrent_calls_through_two_gateways_give_the_answers_of_one_by_one_calls(
    conch: Conch, sentiment: Shipped
) -> None:
    texts = _held_out(sentiment)[:120]
    with _second_gateway(conch) as other, Client(conch.gateway) as client, Client(other) as second:
        alone = [client.classify([text], model="sentiment").classifications[0] for text in texts]
        with ThreadPoolExecutor(32) as pool:
            ask = lambda i: (client, second)[i % 2].classify([texts[i // 2]], model="sentiment")  # noqa: E731
            together = list(pool.map(ask, range(2 * len(texts))))
    for i, answer in enumerate(together):
        want, got = alone[i // 2], answer.classifications[0]
        assert [s.label for s in got.labels] == [s.label for s in want.labels]
        # Padding changes the order of float additions, nothing more.
        assert [s.score for s in got.labels] == pytest.approx([s.score for s in want.labels], abs=1e-5)


@contextmanager
def _second_gateway(conch: Conch) -> Iterator[str]:
    """A gateway of its own beside the one that `conch up` started, on the same routes and the same Triton."""
    ports = conch_in(conch.home).environment
    own = {name: ports[name] for name in ("CONCH_GATEWAY_ADDRESS", "CONCH_METRICS_ADDRESS")}
    # A staged copy and a ledger belong to one gateway; this one has its own of the same routes.
    own |= {
        "CONCH_STAGED": str(conch.home / "staged-2"),
        "CONCH_LEDGER_FILE": str(conch.home / "ledger-2.jsonl"),
    }
    with subprocess.Popen(
        [sys.executable, "-m", "services.gateway"], env={**os.environ, **conch.environment, **own}
    ) as process:
        try:
            wait_serving(own["CONCH_GATEWAY_ADDRESS"], "conch.v1.InferenceService/sentiment")
            yield own["CONCH_GATEWAY_ADDRESS"]
        finally:
            process.terminate()


def test_a_call_for_an_unknown_model_or_version_says_what_there_is(conch: Conch, sentiment: Shipped) -> None:
    with grpc.insecure_channel(conch.gateway) as channel:
        classify = channel.unary_unary(
            "/conch.v1.InferenceService/Classify",
            request_serializer=inference_pb2.ClassifyRequest.SerializeToString,
            response_deserializer=inference_pb2.ClassifyResponse.FromString,
        )
        for request in (
            inference_pb2.ClassifyRequest(model="weather", texts=["x"]),
            inference_pb2.ClassifyRequest(model="sentiment", version=9, texts=["x"]),
        ):
            with pytest.raises(grpc.RpcError) as failure:
                classify(request, timeout=10)
            assert failure.value.code() == grpc.StatusCode.NOT_FOUND
            assert "sentiment" in failure.value.details()
