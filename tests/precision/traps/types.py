"""Types that operators, attributes and names tie down."""

from __future__ import annotations

import numpy as np

from tests.precision.traps.trap import Trap, matrix, normal, opset

TYPES: tuple[Trap, ...] = (
    Trap(
        "resize-scales",
        opset()
        + """g (float[1,2,4,4] x) => (float[1,2,8,8] y)
<float[4] scales = {1.0, 1.0, 2.0, 2.0}, float[0] roi = {}> {
  a = Relu(x)
  b = Resize<mode = "nearest">(a, roi, scales)
  y = Sigmoid(b)
}""",
        {"x": normal(1, 2, 4, 4)},
        0,  # nothing here is worth a Cast
    ),
    Trap(
        "resize-between-products",
        opset()
        + f"""g (float[4,8] x) => (float[8,4] y)
<{matrix("v", 8, 8)}, {matrix("w", 8, 4)}, float[2] scales = {{2.0, 1.0}}> {{
  a = MatMul(x, v)
  b = Resize<mode = "nearest">(a, , scales)
  y = MatMul(b, w)
}}""",
        {"x": normal(4, 8)},
        2,
    ),
    Trap(
        "range",
        opset()
        + f"""g (float[3,8] x) => (float[3,4] y)
<{matrix("w", 8, 4)}, float zero = {{0.0}}, float four = {{4.0}}, float one = {{1.0}}> {{
  p = MatMul(x, w)
  r = Range(zero, four, one)
  y = Add(p, r)
}}""",
        {"x": normal(3, 8)},
        3,
        frozenset({"Range"}),
    ),
    Trap(
        "cast-to-float",
        opset()
        + f"""g (int64[3,8] x) => (float[3,4] y) <{matrix("w", 8, 4)}> {{
  a = Cast<to = 1>(x)
  y = MatMul(a, w)
}}""",
        {"x": np.arange(24, dtype=np.int64).reshape(3, 8) % 5},
        2,  # the model's own, and the output's
    ),
    Trap(
        "constant-of-shape",
        opset()
        + f"""g (float[N,8] x) => (float[N,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  s = Shape(p)
  ones = ConstantOfShape<value = float[1] {{1.5}}>(s)
  y = Mul(p, ones)
}}""",
        {"x": normal(3, 8)},
        2,
    ),
    Trap(
        "constant-value-float",
        opset()
        + f"""g (float[3,8] x) => (float[3,4] y) <{matrix("w", 8, 4)}> {{
  c = Constant<value_float = 0.5>()
  d = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()
  p = MatMul(x, w)
  q = Mul(p, c)
  y = Add(q, d)
}}""",
        {"x": normal(3, 8)},
        2,
    ),
    Trap(
        "random-dtype",
        opset()
        + f"""g (float[3,8] x) => (float[3,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  n = RandomNormal<dtype = 1, shape = [3, 4], seed = 3.0, scale = 0.00001>()
  y = Add(p, n)
}}""",
        {"x": normal(3, 8)},
        3,
        frozenset({"RandomNormal"}),
    ),
    Trap(
        "shared-constant",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y, float[8] r)
<{matrix("w", 8, 4)}, float one = {{1.0}}, float zero = {{0.0}}, float eight = {{8.0}}> {{
  p = MatMul(x, w)
  y = Add(p, one)
  r = Range(zero, eight, one)
}}""",
        {"x": normal(2, 8)},
        2,
        frozenset({"Range"}),
    ),
    Trap(
        "half-already",
        opset()
        + f"""g (float16[2,8] x) => (float16[2,4] y) <{matrix("w", 8, 4)}> {{
  a = Cast<to = 1>(x)
  p = MatMul(a, w)
  q = Relu(p)
  y = Cast<to = 10>(q)
}}""",
        {"x": normal(2, 8).astype(np.float16)},
        1,  # the one that makes the output: its name is the interface's
    ),
    Trap(
        "double",
        opset()
        + f"""g (double[2,8] x) => (double[2,4] y) <{matrix("w", 8, 4)}> {{
  a = Cast<to = 1>(x)
  p = MatMul(a, w)
  y = Cast<to = 11>(p)
}}""",
        {"x": normal(2, 8).astype(np.float64)},
        3,
    ),
    Trap(
        "qdq-before-19",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float scale = {{0.02}}, int8 zero = {{0}}> {{
  p = MatMul(x, w)
  q = QuantizeLinear(p, scale, zero)
  d = DequantizeLinear(q, scale, zero)
  y = Relu(d)
}}""",
        {"x": normal(2, 8)},
        2,
        frozenset({"QuantizeLinear", "DequantizeLinear"}),
    ),
    Trap(
        "unnamed-and-colliding",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, {matrix("x_half", 8, 8)}> {{
  p_half = MatMul(x, x_half)
  y = MatMul(p_half, w)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "lstm-lengths",
        opset()
        + """g (float[3,2,4] x, int32[2] lengths) => (float[3,1,2,2] y)
<float[1,8,4] w = {...}, float[1,8,2] r = {...}> {
  y = LSTM<hidden_size = 2>(x, w, r, , lengths)
}""".replace(
            "float[1,8,4] w = {...}, float[1,8,2] r = {...}",
            "float[1,8,4] w = {"
            + ", ".join(f"{n:.4f}" for n in normal(32, scale=0.3))
            + "}, float[1,8,2] r = {"
            + ", ".join(f"{n:.4f}" for n in normal(16, scale=0.3))
            + "}",
        ),
        {"x": normal(3, 2, 4), "lengths": np.array([3, 2], np.int32)},
        2,
    ),
    Trap(
        "eye-like",
        opset()
        + f"""g (float[4,8] x) => (float[4,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  e = EyeLike(p)
  y = Add(p, e)
}}""",
        {"x": normal(4, 8)},
        2,
        frozenset({"EyeLike"}),
    ),
    Trap(
        "upsample",
        opset(9, 4)
        + f"""g (float[1,2,4,4] x) => (float[1,2,8,8] y)
<{matrix("w", 4, 4)}, float[4] scales = {{1.0, 1.0, 2.0, 2.0}}> {{
  p = MatMul(x, w)
  y = Upsample<mode = "nearest">(p, scales)
}}""",
        {"x": normal(1, 2, 4, 4)},
        2,
    ),
    Trap(
        "computed-scales",
        opset()
        + f"""g (float[1,2,4,4] x, float[4] factor) => (float[1,2,R,C] y)
<{matrix("w", 4, 4)}, float[4] scales = {{1.0, 1.0, 1.5, 1.5}}> {{
  p = MatMul(x, w)
  s = Mul(scales, factor)
  y = Resize<mode = "linear">(p, , s)
}}""",
        {"x": normal(1, 2, 4, 4), "factor": np.ones(4, np.float32)},
        2,
        frozenset({"Mul"}),
    ),
    Trap(
        "non-max-suppression",
        opset()
        + """g (float[1,6,4] b, float[1,1,6] s) => (int64[N,3] y)
<int64 most = {3}, float overlap = {0.5}, float least = {0.1}> {
  y = NonMaxSuppression(b, s, most, overlap, least)
}""",
        {"b": np.abs(normal(1, 6, 4)), "s": normal(1, 1, 6)},
        0,
        frozenset({"NonMaxSuppression"}),
    ),
    Trap(
        "cast-like",
        opset()
        + f"""g (float[2,8] x, int64[2,4] i) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  c = CastLike(i, p)
  y = Add(c, p)
}}""",
        {"x": normal(2, 8), "i": np.arange(8).reshape(2, 4)},
        2,
    ),
    Trap(
        "float8-between",
        opset(19, 9)
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  c = Cast<to = 17, saturate = 1>(p)
  y = Cast<to = 1>(c)
}}""",
        {"x": normal(2, 8)},
        3,  # two are the model's own
    ),
    Trap(
        "down-and-up",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}, {matrix("v", 4, 4)}> {{
  p = MatMul(x, w)
  h = Cast<to = 10>(p)
  f = Cast<to = 1>(h)
  y = MatMul(f, v)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "one-hot",
        opset()
        + f"""g (int64[3] i) => (float[3,4] y)
<{matrix("w", 8, 4)}, int64 depth = {{8}}, float[2] values = {{0.0, 1.0}}> {{
  o = OneHot(i, depth, values)
  y = MatMul(o, w)
}}""",
        {"i": np.array([1, 2, 3])},
        1,
    ),
    Trap(
        "nothing-to-compute",
        opset()
        + f"""g (float[0,8] x) => (float[0,4] y)
<{matrix("w", 8, 4)}, float[0,4] none = {{}}> {{
  p = MatMul(x, w)
  y = Concat<axis = 0>(p, none)
}}""",
        {"x": np.zeros((0, 8), np.float32)},
        2,
    ),
    Trap(
        "weight-in-both",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y, float[8,4] z)
<{matrix("w", 8, 4)}, float million = {{1000000.0}}> {{
  y = MatMul(x, w)
  z = Mul(w, million)
}}""",
        {"x": normal(2, 8)},
        2,
        frozenset({"Mul"}),
    ),
    Trap(
        "custom-operator",
        '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>\n'
        f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}, {matrix("v", 4, 4)}> {{
  p = MatMul(x, w)
  u = custom.Unknown(p)
  q = Add(u, p)
  y = MatMul(q, v)
}}""",
        {"x": normal(2, 8)},
        4,  # what Add is given first may be anything, so it stays
        frozenset({"Add"}),
        loads=False,
    ),
    Trap(
        "runtime-operators",
        '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
        f"""g (float[2,8] x) => (float[2,4] y)
<{matrix("w", 8, 4)}, float[4] b = {{1.0, 2.0, 3.0, 4.0}}> {{
  p = MatMul(x, w)
  q = com.microsoft.BiasGelu(p, b)
  y = com.microsoft.QuickGelu(q)
}}""",
        {"x": normal(2, 8)},
        2,  # nothing tells the type of q
        frozenset({"BiasGelu", "QuickGelu"}),
    ),
)
