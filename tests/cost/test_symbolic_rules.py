"""Counts in free dims, evaluated at three settings, are the counts of the fixed shapes."""

from __future__ import annotations

import onnx
import pytest

from graphopt.cost import Quantity, estimate_cost

SETTINGS = (
    {"batch": 1, "seq": 7, "side": 12},
    {"batch": 3, "seq": 16, "side": 32},
    {"batch": 8, "seq": 101, "side": 50},
)
TOKENS, IMAGES = "float[batch, seq, 6] x", "float[batch, 4, side, side] x"
CONSTANTS = """
one = Constant <value_int = 1> ()
first = Constant <value_ints = [1]> ()
second = Constant <value_ints = [2]> ()
both = Constant <value_ints = [0, 2]> ()
some = Constant <value_ints = [0, 5, 2]> ()
pads = Constant <value_ints = [0, 0, 1, 2, 0, 0, 3, -1]> ()
four = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
six = Constant <value_floats = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]> ()
twice = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
"""
MODELS = [
    (TOKENS, "y = Sigmoid (x)"),
    (TOKENS, "y = Add (x, six)"),
    (TOKENS, "y = Softmax <axis = 1> (x)"),
    (TOKENS, "y = LogSoftmax (x)"),
    (TOKENS, "y = ReduceMean (x, first)"),
    (TOKENS, "y = ReduceLogSumExp (x, both)"),
    (TOKENS, "y = ArgMax <axis = 1, keepdims = 0> (x)"),
    (TOKENS, "y = CumSum (x, one)"),
    (TOKENS, "y = Transpose <perm = [2, 0, 1]> (x)"),
    (TOKENS, "y = Concat <axis = 1> (x, x)"),
    (TOKENS, "y, z = Split <axis = 2, num_outputs = 2> (x)"),
    (TOKENS, "y = Gather <axis = 2> (x, some)"),
    (TOKENS, "y, z = TopK <axis = 2> (x, second)"),
    (TOKENS, "y = Slice (x, first, second, second)"),
    (TOKENS, "y = LayerNormalization (x, six, six)"),
    (IMAGES, "y = InstanceNormalization (x, four, four)"),
    (IMAGES, "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)"),
    (IMAGES, "y = AveragePool <kernel_shape = [2, 2], strides = [2, 1]> (x)"),
    (IMAGES, "y = GlobalAveragePool (x)"),
    (IMAGES, "y = Pad (x, pads)"),
    (IMAGES, 'y = Resize <mode = "linear"> (x, , twice)'),
    (IMAGES, "y = Resize (x, , twice)"),
    (IMAGES, "y = DepthToSpace <blocksize = 2> (x)"),
    (IMAGES, "y = LpNormalization <axis = 1> (x)"),
]


@pytest.mark.parametrize(("text", "body"), MODELS, ids=[body for _, body in MODELS])
def test_a_count_in_free_dims_is_right_at_every_size(text: str, body: str) -> None:
    outputs = "(y, z)" if "y, z" in body else "(y)"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 18]> g ({text}) => {outputs} {{ {CONSTANTS} {body} }}'
    )
    cost = estimate_cost(model)
    assert not cost.uncounted, cost.notes
    assert isinstance(cost.total.bytes_written, Quantity)
    for sizes in SETTINGS:
        used = {name: size for name, size in sizes.items() if name in text}
        evaluated, fixed = cost.at(used), estimate_cost(model, dims=used)
        assert evaluated.by_node == fixed.by_node
        assert evaluated.total == fixed.total
