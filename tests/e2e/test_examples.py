"""Every example runs against a model that was shipped from small data: it asks, and prints answers."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from examples import (
    classify,
    customer_service_answers,
    customer_service_chat,
    customer_service_intents,
    finance_news,
    recommendations,
    summaries,
    translation,
    writing,
)
from examples.stack import Conch

EXAMPLES: list[tuple[ModuleType, str]] = [
    (classify, "text-classification"),
    (customer_service_intents, "text-classification"),
    (finance_news, "token-classification"),
    (customer_service_answers, "question-answering"),
    (recommendations, "feature-extraction"),
    (translation, "text2text-generation"),
    (summaries, "text2text-generation"),
    (writing, "text-generation"),
    (customer_service_chat, "text-generation"),
]


@pytest.mark.parametrize(("example", "task"), EXAMPLES, ids=[m.__name__.split(".")[-1] for m, _ in EXAMPLES])
def test_an_example_runs_through_the_real_gateway(
    example: ModuleType,
    task: str,
    ship: Callable[[str], Path],
    conch: Conch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ship(task)
    example.main(conch.gateway, f"held-out-{task}")
    assert capsys.readouterr().out.strip()
