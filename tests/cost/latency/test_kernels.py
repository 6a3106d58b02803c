"""Kernel classes: which class a node has, its work against counting by brute force."""

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from graphopt.cost.latency.kernels import kernels
from graphopt.cost.latency.operation import Kernel
from graphopt.graph import ir


def _kernel(op_type: str, inputs, outputs, constants=(), domain: str = "", **attributes) -> Kernel:
    """The kernel of a model of one node; shapes by name, constants are the inputs that are."""
    node = helper.make_node(op_type, list(inputs), list(outputs), domain=domain, **attributes)
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in {**inputs, **outputs}.items()
    }
    weights = [
        onnx.numpy_helper.from_array(np.zeros(inputs[name], np.float32), name) for name in constants
    ]
    graph = helper.make_graph(
        [node],
        "one",
        [infos[name] for name in inputs if name not in constants],
        [infos[name] for name in outputs],
        weights,
    )
    model = ir.serde.deserialize_model(helper.make_model(graph))
    ((_, kernel),) = kernels(model)
    return kernel


@pytest.mark.parametrize(
    ("weight", "group", "expected"),
    [
        ((64, 32, 1, 1), 1, "Conv, pointwise (NCHWc)"),
        ((64, 32, 3, 3), 1, "Conv, spatial (NCHWc)"),
        ((32, 1, 3, 3), 32, "Conv, depthwise (NCHWc)"),
    ],
)
def test_blocked_convolutions(weight, group, expected) -> None:
    inputs = {"x": (1, 32, 10, 10), "w": weight}
    outputs = {"y": (1, weight[0], 10, 10)}
    pad = weight[2] // 2
    found = _kernel(
        "Conv", inputs, outputs, ("w",), "com.microsoft.nchwc", group=group, pads=[pad] * 4
    )
    assert found.kind == expected
    assert found.flops == 2 * 100 * weight[0] * weight[1] * weight[2] * weight[3]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 5])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_taps_on_padding_are_no_work(stride, dilation, pad) -> None:
    size, taps, channels = 11, 3, 16
    made = (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
    found = _kernel(
        "Conv",
        {"x": (1, channels, size, size), "w": (channels, channels, taps, taps)},
        {"y": (1, channels, made, made)},
        ("w",),
        "com.microsoft.nchwc",
        pads=[pad] * 4,
        strides=[stride] * 2,
        dilations=[dilation] * 2,
    )
    counted = 0
    for row, column, up, left in itertools.product(
        range(made), range(made), range(taps), range(taps)
    ):
        i = row * stride - pad + up * dilation
        j = column * stride - pad + left * dilation
        counted += 0 <= i < size and 0 <= j < size
    assert found.terms[1] == 2 * counted * channels * channels


def test_a_constant_matrix_is_packed() -> None:
    shapes = {"a": (1, 8, 16), "b": (16, 4)}
    made = {"y": (1, 8, 4)}
    assert _kernel("MatMul", shapes, made, ("b",)).kind == "MatMul, constant"
    assert _kernel("MatMul", shapes, made).kind == "MatMul, batched"
    assert _kernel("MatMul", shapes, made).flops == 2 * 8 * 16 * 4


def test_a_row_and_a_column_are_stretched_in_other_runs() -> None:
    rows, columns = 6, 50
    made = {"y": (rows, columns)}
    row = _kernel("Add", {"a": (rows, columns), "b": (columns,)}, made)
    column = _kernel("Add", {"a": (rows, columns), "b": (rows, 1)}, made)
    whole = _kernel("Add", {"a": (rows, columns), "b": (rows, columns)}, made)
    # The third term counts the runs.
    assert row.terms[2] == rows
    assert column.terms[2] == rows
    assert whole.terms[2] == 1
    assert len({row.features, column.features, whole.features}) == 3


def test_an_unknown_operator_has_its_bytes() -> None:
    found = _kernel("Strange", {"a": (10, 10)}, {"y": (10,)}, domain="some.where")
    assert found.flops == 0
    assert found.bytes == 4 * 110


def test_a_node_without_a_shape_is_no_failure() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    ((_, kernel),) = kernels(ir.serde.deserialize_model(helper.make_model(graph)))
    assert kernel.kind == "Relu of unknown shape"
