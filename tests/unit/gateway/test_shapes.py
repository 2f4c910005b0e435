from services.gateway.settings import GatewaySettings
from services.gateway.shapes import Shapes

ONNX = Shapes.of(GatewaySettings(), "onnxruntime", 256)
OPENVINO = Shapes.of(GatewaySettings(), "openvino", 256)


def test_the_models_own_maximum_is_the_longest_length() -> None:
    assert ONNX.lengths[-1] == 256
    assert Shapes.of(GatewaySettings(), "onnxruntime", 100).lengths[-2:] == (96, 100)


def test_a_text_is_padded_to_the_next_length() -> None:
    assert [ONNX.length_of(n) for n in (1, 8, 9, 256, 999)] == [8, 8, 16, 256, 256]


def test_a_call_stays_within_the_token_budget_but_takes_one_row_always() -> None:
    shapes = Shapes.of(GatewaySettings(token_budget=200), "onnxruntime", 256)
    assert (shapes.capacity(64), shapes.capacity(256)) == (3, 1)


def test_onnxruntime_gets_exactly_the_rows_that_there_are() -> None:
    assert ONNX.fit_rows(5, 128) == (5, 5)


def test_openvino_rows_are_padded_where_that_is_cheaper_than_another_call() -> None:
    assert OPENVINO.fit_rows(5, 16) == (5, 6)


def test_openvino_rows_are_cut_where_padding_costs_more_than_another_call() -> None:
    assert OPENVINO.fit_rows(5, 256) == (4, 4)


def test_every_shape_worth_warming_fits_the_budget() -> None:
    for shapes in (ONNX, OPENVINO):
        assert shapes.all()
        assert all(rows * length <= shapes.token_budget or rows == 1 for rows, length in shapes.all())
