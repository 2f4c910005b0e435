"""The examples of translations and summaries run against a fake gateway."""

from types import ModuleType

import pytest

from conch.testing import FakeGateway
from examples import summaries, translation


def test_each_text_is_translated_greedily_and_by_beams(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        gateway.answer(translation.TEXTS[0], "Symbole zur Fehlersuche")
        translation.main(gateway.address)
        asked = [call.request.options.num_beams for call in gateway.calls]
    lines = capsys.readouterr().out.splitlines()
    assert lines[::3] == list(translation.TEXTS)
    assert lines[1].startswith("  greedy: Symbole zur Fehlersuche  (")
    assert lines[2].startswith("  beams:  Symbole zur Fehlersuche  (")
    assert asked == [1, 4]


def test_each_text_gets_a_title(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeGateway() as gateway:
        gateway.answer(summaries.TEXTS[1], "download pages")
        summaries.main(gateway.address)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * len(summaries.TEXTS)
    assert lines[3] == "  download pages"


@pytest.mark.parametrize("example", [translation, summaries])
def test_the_example_says_what_went_wrong(example: ModuleType) -> None:
    with FakeGateway(models={}) as gateway, pytest.raises(SystemExit, match="NOT_FOUND MODEL_NOT_FOUND"):
        example.main(gateway.address)
