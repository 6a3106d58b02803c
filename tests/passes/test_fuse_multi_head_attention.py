"""MultiHeadAttention with every kind of mask that exporters write, beside its parts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import graphopt
from graphopt.graph import load
from graphopt.runtime import Session

SPELLED = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[B,4,S,8] q, float[B,4,T,8] k, float[B,4,T,8] v, float[%s] mask) => (float[B,4,S,8] y)
<float c = {0.3535}>
{
    t = Transpose <perm = [0, 1, 3, 2]> (k)
    s = MatMul (q, t)
    d = Mul (s, c)
    m = Add (d, mask)
    p = Softmax <axis = -1> (m)
    y = MatMul (p, v)
}
"""
SIZES = {"1": 1, "4": 4, "B": 2, "S": 5, "T": 7}


@pytest.mark.parametrize("optimized", [False, True])
@pytest.mark.parametrize("shape", ["T", "S,T", "B,1,1,T", "B,1,S,T", "1,4,S,T", "B,4,1,T"])
def test_masks_mean_what_they_meant(shape: str, optimized: bool) -> None:
    model = onnx.parser.parse_model(SPELLED % shape)
    fused = graphopt.optimize(model, passes="fuse-multi-head-attention").model
    assert "MultiHeadAttention" in [node.op_type for node in fused.graph.node]
    before, after = (Session(load(one), optimized=optimized) for one in (model, fused))
    random = np.random.default_rng(0)
    dims = [SIZES[dim] for dim in shape.split(",")]
    for masked in (-np.inf, float(np.finfo(np.float32).min), -1e9, -1e4):
        for whole_row in (False, True):
            mask = np.where(random.random(dims) < 0.4, masked, 0).astype(np.float32)
            mask[..., 0] = 0
            if whole_row:
                mask[(0,) * (len(dims) - 1)] = masked
            feed = {
                name: random.standard_normal((2, 4, SIZES[length], 8)).astype(np.float32)
                for name, length in (("q", "S"), ("k", "T"), ("v", "T"))
            }
            feed["mask"] = mask
            expected, actual = before.run(feed)["y"], after.run(feed)["y"]
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
