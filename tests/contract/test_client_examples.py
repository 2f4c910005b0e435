"""The client's examples and the code of docs/client.md run against a fake gateway."""

import re
from pathlib import Path

import pytest

from conch.testing import FakeGateway
from examples import classify, classify_async

PAGE = Path(__file__).parents[2] / "docs" / "client.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_example_prints_a_label_for_each_text(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        gateway.answer(classify.TEXTS[0], {"positive": 0.9, "negative": 0.1})
        classify.main(gateway.address)
    assert capsys.readouterr().out.startswith(f"positive  0.900  {classify.TEXTS[0]}\n")


def test_the_example_says_what_went_wrong() -> None:
    with FakeGateway(models={}) as gateway, pytest.raises(SystemExit, match="NOT_FOUND MODEL_NOT_FOUND"):
        classify.main(gateway.address)


async def test_the_asyncio_example_asks_for_every_text(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        await classify_async.main(gateway.address)
    assert len(capsys.readouterr().out.splitlines()) == len(gateway.calls) == len(classify_async.TEXTS)


@pytest.mark.parametrize("block", blocks())
def test_the_pages_code_runs(block: str) -> None:
    with FakeGateway() as gateway:
        names: dict[str, object] = {"__name__": "page"}
        exec(block.replace("conch-gateway:50051", gateway.address), names)
        for name, value in names.items():
            if name.startswith("test_") and callable(value):
                value()


def test_the_page_has_code() -> None:
    assert len(blocks()) >= 4
