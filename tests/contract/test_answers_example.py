"""The example of question answering runs against a fake gateway."""

import pytest

from conch.testing import FakeGateway
from examples import customer_service_answers as example


def test_each_question_gets_a_span_with_its_sentence_or_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    first, last = example.QUESTIONS[0], example.QUESTIONS[-1]
    with FakeGateway() as gateway:
        gateway.answer(first, "30")
        gateway.answer(last, "")
        example.main(gateway.address)
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == list(example.QUESTIONS)
    assert lines[1].startswith("  30  0.900  ...Orders can be returned within 30 days of delivery.")
    assert lines[-1].startswith("  a person will answer that")


def test_the_example_says_what_went_wrong() -> None:
    with FakeGateway(models={}) as gateway, pytest.raises(SystemExit, match="NOT_FOUND MODEL_NOT_FOUND"):
        example.main(gateway.address)


@pytest.mark.parametrize("span", ["30", "Refunds are paid", "Gift cards cannot be returned", "25 euros"])
def test_a_span_is_shown_in_its_sentence(span: str) -> None:
    start = example.POLICY.index(span)
    sentence = example._sentence(start, start + len(span))
    assert span in sentence
    assert sentence in example.POLICY
    assert sentence.count(".") == 1
    assert sentence[0].isupper()
