"""The parts on their own: the cut is the optimum, the bounds hold, rounding is right."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import from_text, ir
from graphopt.precision import BFLOAT16, FLOAT16, format_named, kernels_of
from graphopt.precision.clusters import flow_of
from graphopt.precision.flow import Cluster, Flow
from graphopt.precision.intervals import Intervals
from graphopt.precision.placement import choose
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes
from tests.precision.traps import TRAPS


def casts_of(flow: Flow, half: dict[Cluster, bool]) -> int:
    """Casts of a placement, counted without the cut: one for each tensor read in the other type."""
    count = 0
    for tensor in flow.tensors:
        if tensor.producer is None:
            continue
        made = half.get(tensor.producer.root(), False)
        readers = [half.get(use.cluster.root(), False) for use in tensor.uses if use.cluster]
        count += any(reader != made for reader in readers)
    return count


@pytest.mark.parametrize("trap", TRAPS, ids=[trap.name for trap in TRAPS])
@pytest.mark.parametrize("blocked", range(3))
def test_no_other_placement_takes_fewer_casts(trap: object, blocked: int) -> None:
    model = trap.model()  # type: ignore[attr-defined]
    infer_shapes(model)
    flow = flow_of(model, FLOAT16)
    free = [cluster for cluster in flow.clusters if cluster.nodes]
    for cluster in flow.clusters:
        if cluster.boundary:
            cluster.keep_float("kept")
    for cluster in free[blocked::3]:
        cluster.keep_float("for the test")
    chosen = choose(flow)
    assert not any(chosen[cluster] for cluster in flow.clusters if cluster.float_reason)
    open_clusters = [cluster for cluster in flow.clusters if cluster.float_reason is None]
    heavy = [
        cluster
        for cluster in open_clusters
        if any(node.op_type in ("Gemm", "MatMul", "LSTM") for node in cluster.nodes)
    ]
    assert all(chosen[cluster] for cluster in heavy)
    best = casts_of(flow, chosen)
    others = [cluster for cluster in open_clusters if cluster not in heavy]
    for labels in itertools.product((False, True), repeat=min(len(others), 8)):
        placement = {**chosen, **dict(zip(others, labels, strict=False))}
        assert casts_of(flow, placement) >= best


def test_bounds_hold_on_random_inputs() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,6,6] x) => (float[2,2,2,2] y)
<float[2,3,3,3] w = {...}, float[2] b = {0.5,-1.0}, float low = {-2.0}, float high = {3.0},
 float two = {2.0}, float half = {0.5}, int64[2] axes = {2, 3}> {
  c = Clip(x, low, high)
  d = Conv(c, w, b)
  e = Tanh(d)
  f = Sub(e, two)
  g1 = Mul(f, f)
  h = Div(g1, two)
  i = Exp(f)
  j = Pow(h, half)
  k = Max(i, j)
  l = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(k)
  m = ReduceSum<keepdims = 1>(l, axes)
  n = Neg(m)
  o = Abs(n)
  p = Sqrt(o)
  q = Sigmoid(p)
  r = Add(l, q)
  s = MaxPool<kernel_shape = [3, 3]>(r)
  y = Relu(s)
}""".replace("{...}", "{" + ", ".join(f"{n:.3f}" for n in np.linspace(-1, 1, 54)) + "}")
    model = from_text(text)
    infer_shapes(model)
    intervals = Intervals(model)
    names = [node.outputs[0].name for node in model.graph]
    session = Session(model, outputs=[name for name in names if name], threads=1)
    for seed in range(4):
        x = np.random.default_rng(seed).standard_normal((2, 3, 6, 6)).astype(np.float32) * 3
        found = session.run({"x": x})
        for node in model.graph:
            bound = intervals.of(node.outputs[0])
            values = found[node.outputs[0].name or ""]
            slack = 1e-4 * max(1.0, bound.magnitude)
            assert bound.is_bounded, node.op_type
            assert bound.low - slack <= values.min(), node.op_type
            assert values.max() <= bound.high + slack, node.op_type


def test_rounding_is_to_nearest_even_and_clamps_on_request() -> None:
    array = np.array([2049.0, 2051.0, 1e6, -np.inf, 1e-9], np.float32)
    assert FLOAT16.rounded(array).tolist() == [2048.0, 2052.0, np.inf, -np.inf, 0.0]
    clamped = FLOAT16.cast(array, limit=65504.0).astype(np.float32)
    assert clamped.tolist()[2:4] == [65504.0, -np.inf]
    assert BFLOAT16.rounded(np.array([257.0], np.float32)).tolist() == [256.0]
    assert FLOAT16.largest == np.finfo(np.float16).max
    assert FLOAT16.dtype == ir.DataType.FLOAT16


def test_unknown_names_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="fp16 or bf16"):
        format_named("fp8")
    with pytest.raises(UsageError, match="cuda"):
        kernels_of("cudnn")
