"""Rows that join, wait, leave and give their blocks back, over a model that computes nothing."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[3] / "services" / "triton" / "backends" / "openvino_generation"


class FakeModel:
    """Four tokens a block; remembers what each step ran."""

    block_size = 4

    def __init__(self, num_blocks: int = 100) -> None:
        self.num_blocks = num_blocks
        self.steps: list[list[Any]] = []
        self.error: Exception | None = None

    def forward(self, slices: Sequence[Any]) -> np.ndarray[Any, Any]:
        if self.error is not None:
            raise self.error
        for one in slices:
            assert len(one.blocks) * self.block_size >= one.past + len(one.tokens)
        taken = [block for one in slices for block in one.blocks]
        assert len(taken) == len(set(taken)), "two rows share a block"
        self.steps.append(list(slices))
        return np.zeros((len(slices), 3), np.float32)


class FakeWriter:
    """Counts upwards from 1000 and ends after `length` tokens."""

    def __init__(self, length: int = 5) -> None:
        self.length = length
        self.written: list[int] = []
        self.error: Exception | None = None

    def write(self, logits: Any) -> int | None:
        self.written.append(1000 + len(self.written))
        return None if len(self.written) == self.length else self.written[-1]

    def fail(self, error: Exception) -> None:
        self.error = error


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module as it is inside a stub, where its neighbours are no package."""
    pytest.importorskip("openvino")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("engine")


def started(engines: Any, model: FakeModel, *rows: Any, **limits: Any) -> Any:
    engine = engines.Engine(model, **{"max_num_seqs": 4, **limits})
    for row in rows:
        engine.submit(row)
    return engine


def row(engines: Any, *, prompt: int = 3, length: int = 5) -> Any:
    return engines.Row(list(range(prompt)), FakeWriter(length))


def run(engine: Any, *, steps: int = 1000) -> None:
    for _ in range(steps):
        if not engine.wait(0):
            return
        engine.step()
    raise AssertionError("rows are left")


def test_a_row_runs_its_prompt_once_and_then_one_token_a_step(engines: Any) -> None:
    model, one = FakeModel(), row(engines)
    run(started(engines, model, one))
    assert [(list(s.tokens), s.past) for (s,) in model.steps] == [
        ([0, 1, 2], 0),
        ([1000], 3),
        ([1001], 4),
        ([1002], 5),
        ([1003], 6),
    ]


def test_a_row_that_joins_runs_in_the_very_next_step(engines: Any) -> None:
    model, first, second = FakeModel(), row(engines, length=10), row(engines, length=2)
    engine = started(engines, model, first)
    engine.step()
    engine.submit(second)
    engine.step()
    assert len(second.writer.written) == 1
    assert len(first.writer.written) == 2


def test_a_long_prompt_is_cut_so_that_others_have_their_token(engines: Any) -> None:
    model, short, long = FakeModel(), row(engines, length=20), row(engines, prompt=50)
    engine = started(engines, model, short, max_step_tokens=10)
    engine.step()
    engine.submit(long)
    for _ in range(5):
        engine.step()
    assert len(long.writer.written) == 0
    assert len(short.writer.written) == 6
    assert max(sum(len(s.tokens) for s in step) for step in model.steps) == 10


def test_no_more_rows_run_than_there_are_places_and_the_others_wait_in_order(engines: Any) -> None:
    model, rows = FakeModel(), [row(engines, length=4 + i) for i in range(5)]
    engine = started(engines, model, *rows, max_num_seqs=2)
    engine.step()
    assert engine.load() == engines.Load(running=2, waiting=3, used_blocks=2, num_blocks=100)
    begun: list[int] = []
    while engine.wait(0):
        engine.step()
        begun += [i for i, r in enumerate(rows) if r.writer.written and i not in begun]
    assert begun == [0, 1, 2, 3, 4]
    assert max(len(step) for step in model.steps) == 2


def test_a_cancelled_row_is_gone_with_the_next_step(engines: Any) -> None:
    model, gone, other, waiting = FakeModel(), row(engines), row(engines, length=3), row(engines)
    engine = started(engines, model, gone, other, waiting, max_num_seqs=2)
    engine.step()
    gone.cancelled = True
    engine.step()
    assert len(gone.writer.written) == 1
    assert len(waiting.writer.written) == 1
    waiting.cancelled = True
    run(engine)
    assert engine.load().used_blocks == 0


def test_a_full_cache_takes_from_the_latest_and_changes_no_tokens(engines: Any) -> None:
    model, rows = FakeModel(num_blocks=6), [row(engines, prompt=3, length=18) for _ in range(4)]
    engine = started(engines, model, *rows)
    run(engine)
    for each in rows:
        assert each.writer.written == list(range(1000, 1018))
        assert each.tokens == [0, 1, 2, *range(1000, 1017)]
    again = [s for step in model.steps for s in step if s.past == 0 and len(s.tokens) > 3]
    assert again, "nobody had to be computed again"
    assert engine.load().used_blocks == 0


def test_a_model_that_fails_takes_along_the_rows_under_way_alone(engines: Any) -> None:
    model, under_way, waiting = FakeModel(), row(engines), row(engines)
    engine = started(engines, model, under_way, waiting, max_num_seqs=1)
    model.error = RuntimeError("no memory")
    engine.step()
    assert under_way.writer.error is model.error
    model.error = None
    run(engine)
    assert waiting.writer.error is None
    assert len(waiting.writer.written) == 5


def test_a_writer_that_fails_takes_along_its_row_alone(engines: Any) -> None:
    model, good, bad = FakeModel(), row(engines), row(engines)
    bad.writer.write = lambda logits: 1 / 0
    run(started(engines, model, bad, good))
    assert isinstance(bad.writer.error, ZeroDivisionError)
    assert len(good.writer.written) == 5


def test_an_engine_that_stops_tells_all_rows(engines: Any) -> None:
    rows = [row(engines) for _ in range(3)]
    engine = started(engines, FakeModel(), *rows, max_num_seqs=1)
    engine.step()
    engine.stop(RuntimeError("going"))
    assert [str(r.writer.error) for r in rows] == ["going"] * 3
    assert engine.load().used_blocks == 0
