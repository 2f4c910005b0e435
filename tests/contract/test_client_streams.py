"""Generate and Chat through both clients: pieces, errors before and in the middle, and letting go."""

import asyncio
import gc
import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from conch.client import AsyncConch, Conch, text_of
from conch.errors import Cancelled, DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from conch.testing import FakeGateway
from conch.v1 import inference_pb2

GONE = Unavailable("Triton went", reason="TRITON_UNAVAILABLE", retry_after_seconds=1)
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as fake:
        fake.answer("Once", " upon a time")
        fake.answer("Hello?", "Hello yourself")
        yield fake


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Conch]:
    with Conch(gateway.address) as conch:
        yield conch


def test_a_text_comes_in_pieces_and_the_last_says_why_it_ended(client: Conch) -> None:
    first, *_, last = responses = list(client.generate("Once", model="stories"))
    assert [r.piece.text for r in responses] == [" upon", " a", " time", ""]
    assert (first.served_by.model, last.served_by.model) == ("stories", "stories")
    assert last.piece.finish_reason == inference_pb2.FINISH_REASON_STOP
    assert (last.piece.usage.num_generated_tokens, last.HasField("timings")) == (4, True)


async def test_asyncio_gets_the_same_pieces(gateway: FakeGateway, client: Conch) -> None:
    async with AsyncConch(gateway.address) as conch:
        responses = [response async for response in conch.generate("Once", model="stories")]
    assert responses == list(client.generate("Once", model="stories"))


async def test_text_of_joins_the_pieces(gateway: FakeGateway, client: Conch) -> None:
    assert text_of(client.generate("Once", model="m")) == " upon a time"
    async with AsyncConch(gateway.address) as conch:
        assert await text_of(conch.chat(TALK, model="m")) == "Hello yourself"


def test_a_conversation_arrives_in_order(gateway: FakeGateway, client: Conch) -> None:
    said = inference_pb2.ChatMessage(role="user", content="Hello?")
    assert text_of(client.chat([TALK[0], said], model="m", version=2)) == "Hello yourself"
    assert [(m.role, m.content) for m in gateway.calls[0].request.messages] == [
        ("system", "Be brief."),
        ("user", "Hello?"),
    ]


def test_every_option_arrives(gateway: FakeGateway, client: Conch) -> None:
    options: dict[str, Any] = {
        "temperature": 0.0,
        "top_k": 40,
        "top_p": 0.5,
        "min_p": 0.25,
        "repetition_penalty": 1.5,
        "seed": 0,
        "stop": ["\n"],
        "max_tokens": 5,
        "min_tokens": 1,
        "num_logprobs": 0,
    }
    text_of(client.generate("Once", model="m", json_schema={"type": "object"}, **options))
    sampling = gateway.calls[0].request.sampling
    assert {name: getattr(sampling, name) for name in options} == options
    assert all(sampling.HasField(name) for name in ("temperature", "seed", "num_logprobs"))
    assert json.loads(sampling.json_schema) == {"type": "object"}


def test_stop_strings_and_the_most_tokens_end_the_text(client: Conch) -> None:
    assert text_of(client.generate("Once", model="m", stop=[" time"])) == " upon a"
    *pieces, last = client.generate("Once", model="m", max_tokens=2)
    assert "".join(r.piece.text for r in pieces) == " upon a"
    assert last.piece.finish_reason == inference_pb2.FINISH_REASON_LENGTH


def test_logprobs_come_with_their_pieces(client: Conch) -> None:
    first, *_ = client.generate("Once", model="m", num_logprobs=2)
    (logprob,) = first.piece.logprobs
    assert (logprob.token, len(logprob.alternatives)) == (" upon", 2)
    assert logprob.logprob <= 0


def test_the_same_prompt_gets_the_same_text_and_another_seed_another(client: Conch) -> None:
    one, again, other = (text_of(client.generate("New", model="m", seed=seed)) for seed in (1, 1, 2))
    assert one == again != other


def test_an_error_in_the_middle_leaves_what_came_and_is_not_retried(
    gateway: FakeGateway, client: Conch
) -> None:
    gateway.fail_after(2, GONE)
    texts: list[str] = []
    with pytest.raises(Unavailable) as caught:
        texts.extend(response.piece.text for response in client.generate("Once", model="m"))
    assert texts == [" upon", " a"]
    assert (caught.value.reason, caught.value.retry_after_seconds) == ("TRITON_UNAVAILABLE", 1)
    assert len(gateway.calls) == 1


async def test_asyncio_gets_the_error_in_the_middle_too(gateway: FakeGateway) -> None:
    gateway.fail_after(1, GONE)
    async with AsyncConch(gateway.address) as conch:
        stream = conch.generate("Once", model="m")
        assert (await anext(stream)).piece.text == " upon"
        with pytest.raises(Unavailable, match="Triton went"):
            await anext(stream)


def test_a_stream_that_has_not_begun_is_retried(gateway: FakeGateway, client: Conch) -> None:
    gateway.fail(GONE, times=2)
    assert text_of(client.generate("Once", model="m")) == " upon a time"
    assert len(gateway.calls) == 3


def test_pieces_are_not_held_back(gateway: FakeGateway, client: Conch) -> None:
    gateway.delay(0.3)
    started = time.monotonic()
    stream = client.generate("Once", model="m")
    next(stream)
    first = time.monotonic() - started
    text_of(stream)
    assert first < (time.monotonic() - started) / 2


LEAVING: dict[str, Callable[[Any], Any]] = {
    "break": lambda stream: next(iter(stream)),
    "islice": lambda stream: list(islice(stream, 1)),
    "with": lambda stream: stream.__exit__(None, None, None),
    "cancel": lambda stream: stream.cancel(),
    "close": lambda stream: stream.close(),
}


@pytest.mark.parametrize("leave", LEAVING)
def test_leaving_a_stream_cancels_the_call_at_the_gateway(
    gateway: FakeGateway, client: Conch, leave: str
) -> None:
    gateway.delay(0.2)
    stream = client.generate("Once", model="m")
    next(stream)
    LEAVING[leave](stream)
    assert gateway.calls[0].cancelled.wait(10)
    with pytest.raises(Cancelled):
        next(stream)


def test_a_stream_that_is_forgotten_is_cancelled(gateway: FakeGateway, client: Conch) -> None:
    gateway.delay(30)
    stream = client.generate("Once", model="m", timeout_seconds=60)
    _until(lambda: len(gateway.calls) == 1)
    del stream
    gc.collect()
    assert gateway.calls[0].cancelled.wait(10)


async def test_breaking_out_of_an_async_loop_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.delay(0.2)
    async with AsyncConch(gateway.address) as conch:
        async for _ in conch.generate("Once", model="m"):
            break
        assert await asyncio.to_thread(gateway.calls[0].cancelled.wait, 10)


async def test_cancelling_the_task_cancels_the_stream(gateway: FakeGateway) -> None:
    gateway.delay(30)
    async with AsyncConch(gateway.address) as conch:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(text_of(conch.generate("Once", model="m")), timeout=0.5)
        assert await asyncio.to_thread(gateway.calls[0].cancelled.wait, 10)


async def test_the_end_of_an_async_with_block_cancels_the_call(gateway: FakeGateway) -> None:
    gateway.delay(0.2)
    async with AsyncConch(gateway.address) as conch:
        async with conch.generate("Once", model="m") as stream:
            await anext(stream)
        assert await asyncio.to_thread(gateway.calls[0].cancelled.wait, 10)


def test_a_finished_stream_was_not_cancelled(gateway: FakeGateway, client: Conch) -> None:
    with client.generate("Once", model="m") as stream:
        text_of(stream)
    assert list(stream) == []
    assert not gateway.calls[0].cancelled.wait(0.2)


def test_the_deadline_is_for_the_whole_stream(gateway: FakeGateway, client: Conch) -> None:
    gateway.delay(0.4)
    with pytest.raises(DeadlineExceeded):
        text_of(client.generate("Once", model="m", timeout_seconds=0.9))


REFUSED: list[tuple[str, Callable[[Conch], Any]]] = [
    ("prompt", lambda c: c.generate(" ", model="m")),
    ("sampling.temperature", lambda c: c.generate("a", model="m", temperature=-1)),
    ("sampling.top_p", lambda c: c.generate("a", model="m", top_p=0)),
    ("sampling.min_p", lambda c: c.generate("a", model="m", min_p=1)),
    ("sampling.repetition_penalty", lambda c: c.generate("a", model="m", repetition_penalty=0)),
    ("sampling.max_tokens", lambda c: c.generate("a", model="m", max_tokens=0)),
    ("sampling.min_tokens", lambda c: c.generate("a", model="m", max_tokens=1, min_tokens=2)),
    ("sampling.num_logprobs", lambda c: c.generate("a", model="m", num_logprobs=21)),
    ("sampling.stop[0]", lambda c: c.generate("a", model="m", stop=[""])),
    ("sampling.json_schema", lambda c: c.generate("a", model="m", json_schema="[1]")),
    ("messages", lambda c: c.chat([], model="m")),
    ("messages[0].role", lambda c: c.chat([{"role": "assistant", "content": "a"}], model="m")),
    ("messages[0].role", lambda c: c.chat([{"role": "me", "content": "a"}], model="m")),
    ("messages[0].content", lambda c: c.chat([{"role": "user", "content": ""}], model="m")),
]


@pytest.mark.parametrize(("field", "ask"), REFUSED)
def test_the_fake_refuses_what_the_contract_forbids(
    client: Conch, field: str, ask: Callable[[Conch], Any]
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        list(ask(client))
    assert [violation.field for violation in caught.value.field_violations] == [field]


def test_an_unknown_model_ends_the_stream_at_once() -> None:
    with FakeGateway(models={}) as gateway, Conch(gateway.address) as conch, pytest.raises(NotFound):
        next(conch.generate("Once", model="m"))


def test_one_text_where_a_list_belongs_is_refused_at_once(client: Conch) -> None:
    with pytest.raises(TypeError, match="messages is a list"):
        client.chat("Hello?", model="m")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="stop is a list"):
        client.generate("Once", model="m", stop="\n")


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
