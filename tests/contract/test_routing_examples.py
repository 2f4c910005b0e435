"""The examples that sort messages and headlines run against a fake gateway."""

import pytest

from conch.testing import FakeGateway
from examples import customer_service_intents as intents
from examples import finance_news as news


def test_a_message_goes_to_the_desk_that_the_model_is_sure_of(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway(labels=intents.DESKS) as gateway:
        gateway.answer(intents.MESSAGES[0], {"delivery": 0.9, "payment": 0.06, "account": 0.04})
        gateway.answer(intents.MESSAGES[-1], {"delivery": 0.4, "payment": 0.3, "account": 0.3})
        intents.main(gateway.address)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"delivery 0.900  {intents.MESSAGES[0]}"
    assert lines[-1] == f"person (delivery?)  {intents.MESSAGES[-1]}"


def test_without_training_the_desks_themselves_are_the_labels() -> None:
    with FakeGateway() as gateway:
        intents.main(gateway.address, "nli", "--zero-shot")
    (call,) = gateway.calls
    assert list(call.request.candidate_labels) == list(intents.DESKS)
    assert call.request.hypothesis_template == "This is about {}."


def test_names_in_headlines_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway(models={"news": 1}, tasks={"news": "token-classification"}) as gateway:
        for headline in news.HEADLINES:
            found = {name: "ORG" for name in ("Volkswagen", "Microsoft") if name in headline}
            gateway.answer(headline, found)
        news.main(gateway.address)
    lines = capsys.readouterr().out.splitlines()
    assert lines[: 2 * len(news.HEADLINES) : 2] == list(news.HEADLINES)
    assert {"2  ORG   Volkswagen", "2  ORG   Microsoft"} <= set(lines)


@pytest.mark.parametrize("example", [intents, news])
def test_an_example_says_what_went_wrong(example: object) -> None:
    with FakeGateway(models={}) as gateway, pytest.raises(SystemExit, match="NOT_FOUND MODEL_NOT_FOUND"):
        example.main(gateway.address)  # type: ignore[attr-defined]
