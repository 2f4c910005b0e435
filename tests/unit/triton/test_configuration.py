"""How the backends read config.pbtxt and hold it against the graph."""

import pytest

from services.triton.backends import configuration
from services.triton.backends.configuration import Tensor

IDS = Tensor("ids", "TYPE_INT64", (-1, -1))
LOGITS = Tensor("logits", "TYPE_FP32", (-1, 3))


def config(
    *, ids: dict[str, object] | None = None, batch: int = 8, **parameters: str
) -> configuration.Config:
    entry = {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1]} | (ids or {})
    return {
        "max_batch_size": batch,
        "input": [entry],
        "output": [{"name": "logits", "data_type": "TYPE_FP32", "dims": [3]}],
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def test_a_config_that_fits_passes() -> None:
    configuration.check(config(), [IDS], [LOGITS])


def test_without_a_batch_size_the_batch_stands_in_the_dims() -> None:
    unbatched = config(ids={"dims": [-1, -1]}, batch=0)
    unbatched["output"][0]["dims"] = [-1, 3]
    configuration.check(unbatched, [IDS], [LOGITS])


def test_a_dynamic_extent_fits_any_and_any_fits_it() -> None:
    configuration.check(config(), [IDS], [Tensor("logits", "TYPE_FP32", (-1, -1))])


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        ({"name": "tokens"}, r"no input 'tokens', only \['ids'\]; the graph's input 'ids' is missing"),
        ({"data_type": "TYPE_INT32"}, "input 'ids' is TYPE_INT64, not TYPE_INT32"),
        ({"dims": [-1, -1]}, r"input 'ids' is \[-1, -1\], not \[-1, -1, -1\]"),
    ],
)
def test_what_differs_is_said(ids: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        configuration.check(config(ids=ids), [IDS], [LOGITS])


def test_a_fixed_extent_that_differs_is_said() -> None:
    with pytest.raises(ValueError, match=r"output 'logits' is \[-1, 5\], not \[-1, 3\]"):
        configuration.check(config(), [IDS], [Tensor("logits", "TYPE_FP32", (-1, 5))])


def test_a_dtype_that_cannot_be_carried_is_refused() -> None:
    half = config(ids={"data_type": "TYPE_BF16"})
    with pytest.raises(ValueError, match="cannot carry bfloat16"):
        configuration.check(half, [Tensor("ids", "TYPE_BF16", (-1, -1))], [LOGITS])


def test_numbers_and_switches_are_read_as_the_official_backends_spell_them() -> None:
    given = config(intra_op_thread_count="2", enable_mem_arena="0")
    assert configuration.integer(given, "intra_op_thread_count") == 2
    assert configuration.integer(given, "inter_op_thread_count") == 0
    assert configuration.switch(given, "enable_mem_arena", default=True) is False
    assert configuration.switch(given, "enable_mem_pattern", default=True) is True


@pytest.mark.parametrize("value", ["two", "-1", "1.5", ""])
def test_a_thread_count_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="parameter intra_op_thread_count must be a whole number"):
        configuration.integer(config(intra_op_thread_count=value), "intra_op_thread_count")


def test_a_switch_that_is_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="parameter enable_mem_arena must be true or false"):
        configuration.switch(config(enable_mem_arena="maybe"), "enable_mem_arena", default=True)
