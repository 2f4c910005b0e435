"""The examples of text generation run against a fake gateway."""

import pytest

from conch.testing import FakeGateway
from examples import customer_service_chat, writing


def test_the_writing_assistant_goes_on_with_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        writing.main(gateway.address)
    printed = capsys.readouterr().out
    assert printed.startswith(writing.BEGINNING)
    assert len(printed) > len(writing.BEGINNING) + 10


def test_each_question_is_asked_with_all_that_was_said_before(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        customer_service_chat.main(gateway.address)
        first, second = (call.request for call in gateway.calls)
    assert [message.role for message in first.messages] == ["system", "user"]
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "user"]
    assert f"service:  {second.messages[2].content}\n" in capsys.readouterr().out


@pytest.mark.parametrize("example", [writing, customer_service_chat])
def test_the_examples_say_what_went_wrong(example: object) -> None:
    with FakeGateway(models={}) as gateway, pytest.raises(SystemExit, match="NOT_FOUND MODEL_NOT_FOUND"):
        example.main(gateway.address)  # type: ignore[attr-defined]
