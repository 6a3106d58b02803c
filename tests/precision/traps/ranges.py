"""Numbers that half precision cannot hold."""

from __future__ import annotations

import numpy as np

from tests.precision.traps.trap import Trap, matrix, normal, opset

RANGES: tuple[Trap, ...] = (
    Trap(
        "sum-overflows",
        opset()
        + f"""g (float[1,8,64,64] x) => (float[1,8] y) <{matrix("w", 8, 8)}> {{
  a = Transpose<perm = [0, 2, 3, 1]>(x)
  b = MatMul(a, w)
  c = Abs(b)
  y = ReduceSum<keepdims = 0>(c, axes)
}}""".replace(" <float[8,8] w", " <int64[2] axes = {1, 2}, float[8,8] w"),
        {"x": normal(1, 8, 64, 64, scale=100.0)},
        2,
        frozenset({"ReduceSum"}),
    ),
    Trap(
        "power-overflows",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float two = {{2.0}}, float million = {{1000000.0}}> {{
  p = MatMul(x, w)
  q = Pow(p, two)
  y = Div(q, million)
}}""",
        {"x": normal(2, 8, scale=1000.0)},
        2,
        frozenset({"Pow", "Div"}),
    ),
    Trap(
        "decomposed-layernorm",
        opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{matrix("v", 8, 8)}, {matrix("w", 8, 4)}, float two = {{2.0}}, float eps = {{0.00001}}> {{
  a = MatMul(x, v)
  m = ReduceMean<axes = [-1]>(a)
  d = Sub(a, m)
  q = Pow(d, two)
  s = ReduceMean<axes = [-1]>(q)
  e = Add(s, eps)
  r = Sqrt(e)
  n = Div(d, r)
  y = MatMul(n, w)
}}""",
        {"x": normal(4, 8, scale=1000.0)},
        4,  # d down to float32 and the root back to half, and the ends
        frozenset({"Pow", "Add", "Sqrt"}),
    ),
    Trap(
        "mask-in-attention",
        opset()
        + f"""g (float[2,8] x, bool[2,2] keep) => (float[2,8] y)
<{matrix("w", 8, 8)}, float low = {{-1000000000.0}}, float zero = {{0.0}}> {{
  q = MatMul(x, w)
  k = Transpose<perm = [1, 0]>(q)
  s = MatMul(q, k)
  m = Where(keep, zero, low)
  t = Add(s, m)
  p = Softmax<axis = -1>(t)
  y = MatMul(p, q)
}}""",
        {"x": normal(2, 8), "keep": np.array([[True, False], [False, False]])},
        2,
        agrees=False,
    ),
    Trap(
        "mask-by-product",
        opset()
        + f"""g (float[2,8] x, int64[1,2] keep) => (float[2,8] y)
<{matrix("w", 8, 8)}, float low = {{-3.4028235e38}}, float one = {{1.0}}> {{
  q = MatMul(x, w)
  k = Transpose<perm = [1, 0]>(q)
  s = MatMul(q, k)
  f = Cast<to = 1>(keep)
  g = Sub(one, f)
  m = Mul(g, low)
  t = Add(s, m)
  p = Softmax<axis = -1>(t)
  y = MatMul(p, q)
}}""",
        {"x": normal(2, 8), "keep": np.array([[1, 0]])},
        3,  # one is the model's own
    ),
    Trap(
        "large-constant",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float million = {{1000000.0}}> {{
  p = MatMul(x, w)
  q = Mul(p, million)
  y = Tanh(q)
}}""",
        {"x": normal(2, 8)},
        2,
        frozenset({"Mul"}),
    ),
    Trap(
        "clip-limits",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float low = {{-1000000.0}}, float high = {{1000000.0}}> {{
  p = MatMul(x, w)
  y = Clip(p, low, high)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "epsilon-vanishes",
        opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{matrix("v", 8, 8)}, {matrix("w", 8, 4)}, float eps = {{0.000000000001}}> {{
  a = MatMul(x, v)
  n = ReduceL2<axes = [-1]>(a)
  e = Add(n, eps)
  b = Div(a, e)
  y = MatMul(b, w)
}}""",
        {"x": np.concatenate([normal(3, 8), np.zeros((1, 8), np.float32)])},
        4,
        frozenset({"Add"}),
    ),
    Trap(
        "tiny-weights",
        opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{matrix("v", 8, 8)}, {matrix("w", 8, 4)},
 float tiny = {{0.00000001}}, float huge = {{100000000.0}}> {{
  a = MatMul(x, v)
  b = Mul(a, tiny)
  c = Mul(b, huge)
  y = MatMul(c, w)
}}""",
        {"x": normal(4, 8)},
        4,
        frozenset({"Mul"}),
    ),
    Trap(
        "bias-vanishes",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float[4] b = {{0.00000001, -0.00000002, 0.0, 0.00000001}}> {{
  p = Gemm(x, w, b)
  y = Relu(p)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "positions",
        opset()
        + f"""g (float[1,3000] x) => (float[3000,4] y)
<{matrix("w", 1, 4)}, int64 zero = {{0}}, int64 one = {{1}}, int64[1] column = {{1}},
 float third = {{0.333}}> {{
  s = Shape(x)
  n = Gather(s, one)
  r = Range(zero, n, one)
  f = Cast<to = 1>(r)
  g = Unsqueeze(f, column)
  h = Mul(g, third)
  i = Sin(h)
  y = MatMul(i, w)
}}""",
        {"x": normal(1, 3000)},
        3,  # the model's own, one behind Sin, one at the output
        frozenset({"Mul", "Sin"}),
    ),
    Trap(
        "computed-index",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y, int64[2,4] i)
<{matrix("w", 8, 4)}, float scale = {{1000.0}}> {{
  y = MatMul(x, w)
  s = Sigmoid(y)
  t = Mul(s, scale)
  f = Floor(t)
  i = Cast<to = 7>(f)
}}""",
        {"x": normal(2, 8)},
        3,  # the model's own, the input, and y, which the rest reads
        frozenset({"Mul", "Floor"}),
    ),
    Trap(
        "overflow-into-tanh",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float cube = {{0.044715}}> {{
  p = MatMul(x, w)
  a = Mul(p, cube)
  b = Mul(a, p)
  c = Mul(b, p)
  d = Add(p, c)
  y = Tanh(d)
}}""",
        {"x": normal(2, 8, scale=500.0)},
        2,  # infinity saturates like any large number
    ),
    Trap(
        "scale-behind-sum",
        opset()
        + """g (float[2,512] x) => (float[2,4] y)
<float[1,4] w = {1.0, 2.0, 3.0, 4.0}, int64[1] axis = {1}, float n = {0.001953125}> {
  q = Mul(x, x)
  s = ReduceSum(q, axis)
  m = Mul(s, n)
  y = MatMul(m, w)
}""",
        {"x": normal(2, 512, scale=15.0)},
        2,
    ),
    Trap(
        "argmax",
        opset()
        + f"""g (float[6,8] x) => (int64[6] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = ArgMax<axis = 1, keepdims = 0>(p)
}}""",
        {"x": normal(6, 8)},
        1,
    ),
    Trap(
        "attention-logits",
        opset()
        + """g (float[1,4,64] q, float[1,64,4] k, float[1,4,8] v) => (float[1,4,8] y)
<float root = {8.0}> {
  s = MatMul(q, k)
  t = Div(s, root)
  p = Softmax<axis = -1>(t)
  y = MatMul(p, v)
}""",
        {
            "q": normal(1, 4, 64, scale=60.0),
            "k": normal(1, 64, 4, scale=60.0),
            "v": normal(1, 4, 8),
        },
        4,  # the ends alone: the division goes ahead of the product
    ),
    Trap(
        "mean-of-many",
        opset()
        + f"""g (float[1,8,64,64] x) => (float[1,64,64,4] y, float[1,8,1,1] m)
<{matrix("w", 8, 4)}> {{
  m = GlobalAveragePool(x)
  a = Transpose<perm = [0, 2, 3, 1]>(x)
  y = MatMul(a, w)
}}""",
        {"x": np.abs(normal(1, 8, 64, 64, scale=100.0))},
        2,
        frozenset({"GlobalAveragePool"}),
    ),
    Trap(
        "normalization-of-large",
        opset()
        + f"""g (float[2,8,4] x) => (float[2,8,4] y)
<{matrix("w", 4, 4)}, float[8] one = {{1,1,1,1,1,1,1,1}}, float[8] none = {{0,0,0,0,0,0,0,0}}> {{
  p = MatMul(x, w)
  y = InstanceNormalization(p, one, none)
}}""",
        {"x": normal(2, 8, 4, scale=5000.0)},
        2,
        frozenset({"InstanceNormalization"}),
    ),
    Trap(
        "log-of-softmax",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  s = Softmax<axis = -1>(p)
  y = Log(s)
}}""",
        {"x": normal(2, 8, scale=40.0)},
        2,
        frozenset({"Softmax", "Log"}),
    ),
    Trap(
        "log-softmax",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = LogSoftmax<axis = -1>(p)
}}""",
        {"x": normal(2, 8, scale=40.0)},
        2,
    ),
    Trap(
        "gelu-tails",
        opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{matrix("v", 8, 8)}, {matrix("w", 8, 4)},
 float root = {{1.4142135}}, float one = {{1.0}}, float half = {{0.5}}> {{
  a = MatMul(x, v)
  b = Div(a, root)
  c = Erf(b)
  d = Add(c, one)
  e = Mul(a, d)
  f = Mul(e, half)
  y = MatMul(f, w)
}}""",
        {"x": normal(4, 8, scale=8.0)},
        2,
    ),
    Trap(
        "places-of-near-ties",
        opset()
        + """g (float[2,8] x) => (float[2,2] v, int64[2,2] i) <int64[1] k = {2}> {
  v, i = TopK(x, k)
}""",
        {"x": np.array([[1, 1.0001, 1.0002, 0, 0, 0, 0, 0]] * 2, np.float32)},
        0,
        frozenset({"TopK"}),
    ),
)
