"""A value that only a tensor of one rank can stand for has that rank, and no other value has."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

import graphopt
from graphopt.graph import load
from graphopt.shapes import infer_shapes, known_shape

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
asks (float[N, 4, T] x) => (RESULT)
<int64 one = {1}, int64 two = {2}, int64 three = {3}, int64[1] last = {2}, int64[1] middle = {1},
 int64[1] first = {0}>
{
    shape = Shape (x)
    frames = Gather (shape, two)
    single = Equal (frames, one)
    v = If (single) <
        then_branch = t1 () => (float[N, 4] p) { p = Squeeze (x, last) },
        else_branch = e1 () => (float[N, 4, T] q) { q = Identity (x) }
    >
    vs = Shape (v)
    rank = Size (vs)
    flat = Equal (rank, two)
    not = Not (flat)
    w = If (not) <
        then_branch = t2 () => (float[A, B, C, D] r) { r = Unsqueeze (v, middle) },
        else_branch = e2 () => (float[N, 4] s) { s = Identity (v) }
    >
"""
RECURRENT = """
    u = Unsqueeze (w, first)
    y, y_h, y_c = LSTM <hidden_size = 2> (u, weight, recurrence)
    result = Squeeze (y_h, first)
"""


def model(body: str, result: str = "float[N, 2] result") -> onnx.ModelProto:
    made = onnx.parser.parse_model(f"{HEAD}{body}}}".replace("RESULT", result))
    random = np.random.default_rng(0)
    for name, shape in (("weight", (1, 8, 4)), ("recurrence", (1, 8, 2)), ("kernel", (3, 4, 1))):
        data = random.normal(size=shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(data, name))
    return made


def rank_of(made: onnx.ModelProto, name: str) -> int | None:
    inferred = load(made)
    infer_shapes(inferred)
    found = next(v for node in inferred.graph for v in node.outputs if v.name == name)
    shape = known_shape(found)
    return None if shape is None else len(shape)


def run(made: onnx.ModelProto, batch: int, frames: int) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(made.SerializeToString(), options)
    x = np.random.default_rng(batch).normal(size=(batch, 4, frames)).astype(np.float32)
    return list(session.run(None, {"x": x}))


def optimized(made: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    result = graphopt.optimize(made)
    assert result.ok
    return result.model, result.report.after.nodes


def test_an_lstm_says_which_branch_was_taken() -> None:
    made = model(RECURRENT)
    assert rank_of(made, "w") == 2
    assert rank_of(made, "v") == 2
    after, count = optimized(made)
    assert [node.op_type for node in after.graph.node].count("If") == 1
    assert count < 12
    for batch in (1, 3):
        np.testing.assert_allclose(run(after, batch, 1)[0], run(made, batch, 1)[0], rtol=1e-5)
    for each in (made, after):
        with pytest.raises(Exception, match="must have 3 dimensions"):
            run(each, 2, 3)


def test_a_convolution_asks_for_the_rank_of_its_weights() -> None:
    body = """
        u = Unsqueeze (w, last)
        result = Conv (u, kernel)
    """
    made = model(body, "float[N, 3, 1] result")
    assert (rank_of(made, "u"), rank_of(made, "w"), rank_of(made, "v")) == (3, 2, 2)
    after, _ = optimized(made)
    np.testing.assert_allclose(run(after, 2, 1)[0], run(made, 2, 1)[0], rtol=1e-5)


def test_what_takes_every_rank_asks_for_none() -> None:
    # Both branches are taken by legal inputs here, and what the branches declare of their own
    # outputs is no claim about what they read.
    made = model("result = ReduceSum <keepdims = 0> (w)", "float result")
    assert rank_of(made, "w") is None
    assert rank_of(made, "v") is None
    after, _ = optimized(made)
    for frames in (1, 3):
        np.testing.assert_allclose(run(after, 2, frames)[0], run(made, 2, frames)[0], rtol=1e-5)


def test_a_node_that_may_not_run_asks_for_nothing() -> None:
    body = """
        c = If (single) <
            then_branch = t3 () => (float[1, 2, 2] h) {
                u = Unsqueeze (w, first)
                y, h, y_c = LSTM <hidden_size = 2> (u, weight, recurrence)
            },
            else_branch = e3 () => (float[A, B, C] i) { i = Identity (w) }
        >
        result = ReduceSum <keepdims = 0> (c)
    """
    made = model(body, "float result")
    assert rank_of(made, "w") is None
    assert rank_of(made, "v") is None
    after, _ = optimized(made)
    for frames in (1, 3):
        np.testing.assert_allclose(run(after, 2, frames)[0], run(made, 2, frames)[0], rtol=1e-5)


def test_a_node_that_a_runtime_may_drop_asks_for_nothing() -> None:
    unread = RECURRENT.replace("result", "unread")
    made = model(f"{unread}result = ReduceSum <keepdims = 0> (w)", "float result")
    assert rank_of(made, "w") is None
    assert rank_of(made, "v") is None


def test_axes_that_are_not_known_end_the_chain() -> None:
    body = """
        axes = Slice (shape, first, middle, first)
        u = Unsqueeze (w, axes)
        y, y_h, y_c = LSTM <hidden_size = 2> (u, weight, recurrence)
        result = Squeeze (y_h, first)
    """
    made = model(body)
    assert rank_of(made, "u") == 3
    assert rank_of(made, "w") is None


@pytest.mark.parametrize("axes", ["{0, 0}", "{0, -4}"])
def test_axes_that_may_be_one_are_not_counted(axes: str) -> None:
    """ONNX Runtime takes an axis away once, however often it is named."""
    made = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N] x, int64[K] s) => (float[A, B, C] y, int64 rank)
        <int64[2] axes = {axes}, float[2, 3, 1] kernel = {{1, 2, 3, 4, 5, 6}}>
        {{
            v = Reshape (x, s)
            q = Squeeze (v, axes)
            y = Conv (q, kernel)
            shape = Shape (v)
            rank = Size (shape)
        }}
    """)
    assert rank_of(made, "v") is None
    feed = {"x": np.arange(12, dtype=np.float32), "s": np.array([1, 1, 3, 4], np.int64)}
    if axes == "{0, 0}":
        feed["s"] = np.array([1, 1, 3, 4], np.int64)
    result = graphopt.optimize(made, check="off")
    for each in (made, result.model):
        session = onnxruntime.InferenceSession(each.SerializeToString())
        assert session.run(["rank"], feed)[0] == 4
