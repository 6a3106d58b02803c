"""Small models that converters to half precision get wrong, one situation each.

Each has the input it is tried on, the number of Casts of a conversion made by hand (with
float32 inputs and outputs), and the op types that have to stay float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphopt.graph import from_text, ir

Feed = dict[str, Any]


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Normal numbers that depend on the shape and the seed alone."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return (values * scale).astype(np.float32)


@dataclass(frozen=True)
class Trap:
    """One situation.

    Attributes:
        name: what it is called.
        text: the model, in ONNX text.
        feed: the input it is tried on.
        casts: Casts of the best conversion known.
        float32: op types that have to stay float32.
        loads: whether ONNX Runtime runs the model on a CPU.
        agrees: whether its kernels there, which round less than half does, agree too. In a row
            that is masked throughout only the rounding makes all scores equal.
    """

    name: str
    text: str
    feed: Feed
    casts: int
    float32: frozenset[str] = field(default_factory=frozenset)
    loads: bool = True
    agrees: bool = True

    def model(self) -> ir.Model:
        """A new copy of the model."""
        return from_text(self.text)


def _opset(version: int = 17, ir_version: int = 8) -> str:
    return f'<ir_version: {ir_version}, opset_import: ["" : {version}]>\n'


def _matrix(name: str, rows: int, columns: int, scale: float = 0.25) -> str:
    numbers = normal(rows, columns, scale=scale, seed=sum(map(ord, name))).reshape(-1)
    listed = ", ".join(f"{number:.5f}" for number in numbers)
    return f"float[{rows},{columns}] {name} = {{{listed}}}"


TRAPS: tuple[Trap, ...] = (
    Trap(
        "resize-scales",
        _opset()
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
        _opset()
        + f"""g (float[4,8] x) => (float[8,4] y)
<{_matrix("v", 8, 8)}, {_matrix("w", 8, 4)}, float[2] scales = {{2.0, 1.0}}> {{
  a = MatMul(x, v)
  b = Resize<mode = "nearest">(a, , scales)
  y = MatMul(b, w)
}}""",
        {"x": normal(4, 8)},
        2,
    ),
    Trap(
        "range",
        _opset()
        + f"""g (float[3,8] x) => (float[3,4] y)
<{_matrix("w", 8, 4)}, float zero = {{0.0}}, float four = {{4.0}}, float one = {{1.0}}> {{
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
        _opset()
        + f"""g (int64[3,8] x) => (float[3,4] y) <{_matrix("w", 8, 4)}> {{
  a = Cast<to = 1>(x)
  y = MatMul(a, w)
}}""",
        {"x": np.arange(24, dtype=np.int64).reshape(3, 8) % 5},
        2,  # the model's own, and the output's
    ),
    Trap(
        "constant-of-shape",
        _opset()
        + f"""g (float[N,8] x) => (float[N,4] y) <{_matrix("w", 8, 4)}> {{
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
        _opset()
        + f"""g (float[3,8] x) => (float[3,4] y) <{_matrix("w", 8, 4)}> {{
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
        _opset()
        + f"""g (float[3,8] x) => (float[3,4] y) <{_matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  n = RandomNormal<dtype = 1, shape = [3, 4], seed = 3.0, scale = 0.00001>()
  y = Add(p, n)
}}""",
        {"x": normal(3, 8)},
        3,
        frozenset({"RandomNormal"}),
    ),
    Trap(
        "branches-capture",
        _opset()
        + f"""g (bool c, float[3,8] x) => (float[3,4] y) <{_matrix("w", 8, 4)}> {{
  a = MatMul(x, w)
  b = If (c) <
    then_branch = then () => (float[3,4] t) {{ t = Mul(a, a) }},
    else_branch = other () => (float[3,4] e) {{ e = Relu(a) }}
  >
  y = Tanh(b)
}}""",
        {"c": np.array(True), "x": normal(3, 8)},
        2,
    ),
    Trap(
        "loop-carried",
        _opset()
        + f"""g (float[2,4] x) => (float[2,4] y)
<{_matrix("w", 4, 4)}, int64 three = {{3}}, bool yes = {{1}}> {{
  y = Loop(three, yes, x) <body = step (int64 i, bool go, float[2,4] s)
    => (bool on, float[2,4] n) {{
    on = Identity(go)
    m = MatMul(s, w)
    n = Tanh(m)
  }}>
}}""",
        {"x": normal(2, 4)},
        2,
    ),
    Trap(
        "scan",
        _opset()
        + f"""g (float[5,2,4] xs) => (float[2,4] h, float[5,2,4] ys)
<{_matrix("w", 4, 4)}, float[2,4] zero = {{0,0,0,0,0,0,0,0}}> {{
  h, ys = Scan<num_scan_inputs = 1, body = step (float[2,4] s, float[2,4] x)
    => (float[2,4] n, float[2,4] o) {{
    m = MatMul(x, w)
    t = Add(m, s)
    n = Tanh(t)
    o = Relu(n)
  }}>(zero, xs)
}}""",
        {"xs": normal(5, 2, 4)},
        3,
    ),
    Trap(
        "functions",
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'
        f"""g (float[3,8] x) => (float[3,4] y) <{_matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = local.swish(p)
}}
<domain: "local", opset_import: ["" : 17]>
swish (v) => (o) {{
  s = Sigmoid(v)
  o = Mul(v, s)
}}""",
        {"x": normal(3, 8)},
        2,
    ),
    Trap(
        "output-used-inside",
        _opset()
        + f"""g (float[3,8] x) => (float[3,4] p, float[3,4] y)
<{_matrix("w", 8, 4)}, {_matrix("v", 4, 4)}> {{
  p = MatMul(x, w)
  y = MatMul(p, v)
}}""",
        {"x": normal(3, 8)},
        3,
    ),
    Trap(
        "output-is-input",
        _opset()
        + f"""g (float[3,8] x) => (float[3,8] x, float[3,4] y) <{_matrix("w", 8, 4)}> {{
  y = MatMul(x, w)
}}""",
        {"x": normal(3, 8)},
        2,
        loads=False,
    ),
    Trap(
        "shared-constant",
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y, float[8] r)
<{_matrix("w", 8, 4)}, float one = {{1.0}}, float zero = {{0.0}}, float eight = {{8.0}}> {{
  p = MatMul(x, w)
  y = Add(p, one)
  r = Range(zero, eight, one)
}}""",
        {"x": normal(2, 8)},
        2,
        frozenset({"Range"}),
    ),
    Trap(
        "sum-overflows",
        _opset()
        + f"""g (float[1,8,64,64] x) => (float[1,8] y) <{_matrix("w", 8, 8)}> {{
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
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{_matrix("w", 8, 4)}, float two = {{2.0}}, float million = {{1000000.0}}> {{
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
        _opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{_matrix("v", 8, 8)}, {_matrix("w", 8, 4)}, float two = {{2.0}}, float eps = {{0.00001}}> {{
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
        _opset()
        + f"""g (float[2,8] x, bool[2,2] keep) => (float[2,8] y)
<{_matrix("w", 8, 8)}, float low = {{-1000000000.0}}, float zero = {{0.0}}> {{
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
        _opset()
        + f"""g (float[2,8] x, int64[1,2] keep) => (float[2,8] y)
<{_matrix("w", 8, 8)}, float low = {{-3.4028235e38}}, float one = {{1.0}}> {{
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
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{_matrix("w", 8, 4)}, float million = {{1000000.0}}> {{
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
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{_matrix("w", 8, 4)}, float low = {{-1000000.0}}, float high = {{1000000.0}}> {{
  p = MatMul(x, w)
  y = Clip(p, low, high)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "epsilon-vanishes",
        _opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{_matrix("v", 8, 8)}, {_matrix("w", 8, 4)}, float eps = {{0.000000000001}}> {{
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
        _opset()
        + f"""g (float[4,8] x) => (float[4,4] y)
<{_matrix("v", 8, 8)}, {_matrix("w", 8, 4)},
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
        "positions",
        _opset()
        + f"""g (float[1,3000] x) => (float[3000,4] y)
<{_matrix("w", 1, 4)}, int64 zero = {{0}}, int64 one = {{1}}, int64[1] column = {{1}},
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
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y, int64[2,4] i)
<{_matrix("w", 8, 4)}, float scale = {{1000.0}}> {{
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
        "half-already",
        _opset()
        + f"""g (float16[2,8] x) => (float16[2,4] y) <{_matrix("w", 8, 4)}> {{
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
        _opset()
        + f"""g (double[2,8] x) => (double[2,4] y) <{_matrix("w", 8, 4)}> {{
  a = Cast<to = 1>(x)
  p = MatMul(a, w)
  y = Cast<to = 11>(p)
}}""",
        {"x": normal(2, 8).astype(np.float64)},
        3,
    ),
    Trap(
        "sequence",
        _opset()
        + f"""g (float[2,8] x) => (float[4,4] y) <{_matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  q = Relu(p)
  s = SequenceConstruct(p, q)
  y = ConcatFromSequence<axis = 0>(s)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "optional",
        _opset(18)
        + f"""g (float[2,8] x) => (float[2,4] y) <{_matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  o = Optional(p)
  q = OptionalGetElement(o)
  y = Tanh(q)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "qdq-before-19",
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{_matrix("w", 8, 4)}, float scale = {{0.02}}, int8 zero = {{0}}> {{
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
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{_matrix("w", 8, 4)}, {_matrix("x_half", 8, 8)}> {{
  p_half = MatMul(x, x_half)
  y = MatMul(p_half, w)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "overflow-into-tanh",
        _opset()
        + f"""g (float[2,8] x) => (float[2,4] y)
<{_matrix("w", 8, 4)}, float cube = {{0.044715}}> {{
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
        _opset()
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
        _opset()
        + f"""g (float[6,8] x) => (int64[6] y) <{_matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = ArgMax<axis = 1, keepdims = 0>(p)
}}""",
        {"x": normal(6, 8)},
        1,
    ),
    Trap(
        "lstm-lengths",
        _opset()
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
)
