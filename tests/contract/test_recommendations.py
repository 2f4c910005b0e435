"""The example of recommendations runs against a fake gateway."""

import numpy as np
import pytest

from conch.testing import FakeGateway
from examples import recommendations


def test_it_prints_what_is_like_each_item_and_what_answers_a_search_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeGateway(num_dimensions=2) as gateway:
        for place, item in enumerate(recommendations.CATALOGUE):
            angle = place * 0.1
            gateway.answer(item, [float(np.cos(angle)), float(np.sin(angle))])
        gateway.answer("host a website", [1.0, 0.0])
        recommendations.main(gateway.address)
    printed = capsys.readouterr().out
    first, second, third = recommendations.CATALOGUE[:3]
    assert printed.startswith(f"{first}\n  like {second}\n       {third}\n")
    assert f"host a website\n  1.000  {first}\n  0.995  {second}\n" in printed


def test_it_says_what_went_wrong() -> None:
    with FakeGateway(models={}) as gateway, pytest.raises(SystemExit, match="NOT_FOUND MODEL_NOT_FOUND"):
        recommendations.main(gateway.address)


def test_an_item_is_never_like_itself_and_the_nearest_comes_first() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    assert recommendations.similar(vectors, count=2) == [[1, 2], [0, 2], [1, 0]]
