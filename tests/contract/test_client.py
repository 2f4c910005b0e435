"""The client against a real server on a real socket, sync and asyncio."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import conch.client
import conch.errors
import conch.testing
from conch.client import AsyncConch, Conch
from conch.errors import (
    ConchError,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from conch.testing import FakeGateway


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as fake:
        yield fake


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Conch]:
    with Conch(gateway.address) as conch:
        yield conch


def test_classify_returns_the_contracts_own_message(client: Conch) -> None:
    answer = client.classify(["great film", "dull"], model="sentiment")
    assert len(answer.classifications) == 2
    assert sum(label.score for label in answer.classifications[0].labels) == pytest.approx(1)
    assert (answer.served_by.model, answer.served_by.version) == ("sentiment", 1)


def test_every_argument_arrives(gateway: FakeGateway, client: Conch) -> None:
    client.classify(["a"], model="m", version=7, top_k=1, text_pairs=["b"])
    request = gateway.calls[0].request
    assert (request.model, request.version, request.top_k) == ("m", 7, 1)
    assert (list(request.texts), list(request.text_pairs)) == (["a"], ["b"])


async def test_the_asyncio_client_gives_the_same_answer(gateway: FakeGateway, client: Conch) -> None:
    async with AsyncConch(gateway.address) as conch:
        answer = await conch.classify(["great film"], model="sentiment")
    assert answer == client.classify(["great film"], model="sentiment")


def test_a_call_without_a_deadline_of_its_own_carries_the_clients(
    gateway: FakeGateway, client: Conch
) -> None:
    client.classify(["a"], model="m")
    remaining = gateway.calls[0].time_remaining_seconds
    assert remaining is not None
    assert remaining == pytest.approx(30, abs=5)


async def test_a_deadline_given_with_the_call_arrives(gateway: FakeGateway) -> None:
    async with AsyncConch(gateway.address, timeout_seconds=30) as conch:
        await conch.classify(["a"], model="m", timeout_seconds=4)
    remaining = gateway.calls[0].time_remaining_seconds
    assert remaining is not None
    assert remaining == pytest.approx(4, abs=1)  # a busy machine is slow, and gRPC rounds up


def test_metadata_goes_with_every_call(gateway: FakeGateway) -> None:
    with Conch(gateway.address, metadata=[("x-team", "orders")]) as conch:
        conch.classify(["a"], model="m")
    assert gateway.calls[0].metadata["x-team"] == "orders"


def test_unavailable_is_retried_until_it_answers(gateway: FakeGateway, client: Conch) -> None:
    gateway.fail(Unavailable("loading", reason="MODEL_LOADING"), times=2)
    assert client.classify(["a"], model="m").classifications
    assert len(gateway.calls) == 3


async def test_the_asyncio_client_retries_too(gateway: FakeGateway) -> None:
    gateway.fail(Unavailable("loading", reason="MODEL_LOADING"))
    async with AsyncConch(gateway.address) as conch:
        assert (await conch.classify(["a"], model="m")).classifications
    assert len(gateway.calls) == 2


def test_retries_end_with_unavailable_and_its_retry_hint(gateway: FakeGateway) -> None:
    gateway.fail(Unavailable("loading", reason="MODEL_LOADING", retry_after_seconds=2.5), times=100)
    with Conch(gateway.address) as conch, pytest.raises(Unavailable) as caught:
        conch.classify(["a"], model="m")
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("MODEL_LOADING", 2.5)
    assert len(gateway.calls) == 5


def test_large_requests_are_retried_as_well(gateway: FakeGateway, client: Conch) -> None:
    gateway.fail(Unavailable("loading", reason="MODEL_LOADING"))
    assert client.classify(["a" * 900_000], model="m").classifications
    assert len(gateway.calls) == 2


@pytest.mark.parametrize("kind", [NotFound, FailedPrecondition, ResourceExhausted])
def test_what_a_retry_cannot_mend_is_sent_once(
    gateway: FakeGateway, client: Conch, kind: type[ConchError]
) -> None:
    gateway.fail(kind("no", reason="SOME_REASON"))
    with pytest.raises(kind) as caught:
        client.classify(["a"], model="m")
    assert (caught.value.message, caught.value.reason) == ("no", "SOME_REASON")
    assert caught.value.code is kind.default_code
    assert len(gateway.calls) == 1


def test_a_bad_request_names_each_field(client: Conch) -> None:
    with pytest.raises(InvalidArgument) as caught:
        client.classify(["fine", ""], model="", text_pairs=["one"])
    fields = [violation.field for violation in caught.value.field_violations]
    assert fields == ["model", "texts[1]", "text_pairs"]
    assert FieldViolation("model", "is required") in caught.value.field_violations


async def test_the_asyncio_client_raises_the_same_errors(gateway: FakeGateway) -> None:
    async with AsyncConch(gateway.address) as conch:
        with pytest.raises(InvalidArgument) as caught:
            await conch.classify([], model="m")
    assert caught.value.field_violations[0].field == "texts"


def test_a_slow_answer_is_deadline_exceeded(gateway: FakeGateway, client: Conch) -> None:
    gateway.delay(30)
    with pytest.raises(DeadlineExceeded):
        client.classify(["a"], model="m", timeout_seconds=0.2)


async def test_cancelling_the_task_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.delay(30)
    async with AsyncConch(gateway.address) as conch:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(conch.classify(["a"], model="m"), timeout=0.2)


def test_nobody_listening_is_unavailable() -> None:
    with Conch("127.0.0.1:1", timeout_seconds=10) as conch, pytest.raises(Unavailable) as caught:
        conch.classify(["a"], model="m")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def test_one_client_serves_many_threads(client: Conch) -> None:
    def ask(i: int) -> str:
        return client.classify([f"text {i}"], model="m").classifications[0].labels[0].label

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(64)))
    assert together == [ask(i) for i in range(64)]


def test_one_text_instead_of_a_list_is_refused_at_once(client: Conch) -> None:
    with pytest.raises(TypeError, match="list of texts"):
        client.classify("great film", model="m")


def test_a_timeout_of_zero_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="timeout_seconds"):
        Conch("127.0.0.1:1", timeout_seconds=0)


def test_answers_can_be_set_for_a_text(gateway: FakeGateway, client: Conch) -> None:
    gateway.answer("so so", {"neutral": 0.7, "positive": 0.2, "negative": 0.1})
    labels = client.classify(["so so"], model="m", top_k=2).classifications[0].labels
    assert [label.label for label in labels] == ["neutral", "positive"]


def test_a_fake_with_models_knows_no_others() -> None:
    with FakeGateway(models={"sentiment": 4}) as gateway, Conch(gateway.address) as conch:
        assert conch.classify(["a"], model="sentiment").served_by.version == 4
        with pytest.raises(NotFound):
            conch.classify(["a"], model="topics")
        with pytest.raises(NotFound):
            conch.classify(["a"], model="sentiment", version=5)


def test_every_status_has_its_class() -> None:
    for kind in ConchError.__subclasses__():
        status = conch.testing.to_status(kind("m", reason="R", retry_after_seconds=1))
        again = conch.errors.from_status(status)
        assert type(again) is kind
        assert (again.reason, again.retry_after_seconds) == ("R", 1)


def test_the_client_works_where_the_services_libraries_are_missing() -> None:
    missing = ["services", "pydantic", "numpy", "structlog", "grpc_status", "grpc_health", "grpc_reflection"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing})); import conch.client, conch.testing"
    subprocess.run([sys.executable, "-c", code], check=True)
