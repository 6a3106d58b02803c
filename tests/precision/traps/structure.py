"""Subgraphs, functions, sequences, and the ends of the model."""

from __future__ import annotations

import numpy as np

from tests.precision.traps.trap import Trap, matrix, normal, opset

STRUCTURE: tuple[Trap, ...] = (
    Trap(
        "branches-capture",
        opset()
        + f"""g (bool c, float[3,8] x) => (float[3,4] y) <{matrix("w", 8, 4)}> {{
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
        opset()
        + f"""g (float[2,4] x) => (float[2,4] y)
<{matrix("w", 4, 4)}, int64 three = {{3}}, bool yes = {{1}}> {{
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
        opset()
        + f"""g (float[5,2,4] xs) => (float[2,4] h, float[5,2,4] ys)
<{matrix("w", 4, 4)}, float[2,4] zero = {{0,0,0,0,0,0,0,0}}> {{
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
        f"""g (float[3,8] x) => (float[3,4] y) <{matrix("w", 8, 4)}> {{
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
        opset()
        + f"""g (float[3,8] x) => (float[3,4] p, float[3,4] y)
<{matrix("w", 8, 4)}, {matrix("v", 4, 4)}> {{
  p = MatMul(x, w)
  y = MatMul(p, v)
}}""",
        {"x": normal(3, 8)},
        3,
    ),
    Trap(
        "output-is-input",
        opset()
        + f"""g (float[3,8] x) => (float[3,8] x, float[3,4] y) <{matrix("w", 8, 4)}> {{
  y = MatMul(x, w)
}}""",
        {"x": normal(3, 8)},
        2,
    ),
    Trap(
        "sequence",
        opset()
        + f"""g (float[2,8] x) => (float[4,4] y) <{matrix("w", 8, 4)}> {{
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
        opset(18)
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  o = Optional(p)
  q = OptionalGetElement(o)
  y = Tanh(q)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "branches-in-a-loop",
        opset()
        + f"""g (float[2,4] x, bool c) => (float[2,4] y)
<{matrix("w", 4, 4)}, int64 three = {{3}}, bool yes = {{1}}> {{
  k = MatMul(x, w)
  y = Loop(three, yes, x) <body = step (int64 i, bool go, float[2,4] s)
    => (bool on, float[2,4] n) {{
    on = Identity(go)
    n = If(c) <
      then_branch = t () => (float[2,4] a) {{
        q = MatMul(s, w)
        a = Add(q, k)
      }},
      else_branch = e () => (float[2,4] b) {{ b = Sub(s, k) }}
    >
  }}>
}}""",
        {"x": normal(2, 4), "c": np.array(True)},
        2,
    ),
    Trap(
        "branch-with-constants",
        opset()
        + f"""g (float[2,8] x, bool c) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = If(c) <
    then_branch = t () => (float[2,4] a) <float k = {{2.0}}> {{ a = Mul(p, k) }},
    else_branch = e () => (float[2,4] b) <float m = {{70000.0}}> {{ b = Div(p, m) }}
  >
}}""",
        {"x": normal(2, 8), "c": np.array(True)},
        2,
        frozenset({"Div"}),
    ),
    Trap(
        "counter-in-a-loop",
        opset()
        + f"""g (float[2,4] x) => (float[2,4] y, float z)
<{matrix("w", 4, 4)}, int64 n = {{3000}}, bool yes = {{1}},
 float zero = {{0.0}}, float one = {{1.0}}> {{
  y, z = Loop(n, yes, x, zero) <body = step (int64 i, bool go, float[2,4] s, float t)
    => (bool on, float[2,4] m, float u) {{
    on = Identity(go)
    a = MatMul(s, w)
    m = Tanh(a)
    u = Add(t, one)
  }}>
}}""",
        {"x": normal(2, 4)},
        2,
        frozenset({"Add"}),
    ),
    Trap(
        "sequence-in-a-loop",
        opset()
        + f"""g (float[2,8] x) => (float[6,4] y)
<{matrix("w", 8, 4)}, int64 n = {{3}}, bool yes = {{1}}> {{
  p = MatMul(x, w)
  e = SequenceEmpty()
  s = Loop(n, yes, e) <body = step (int64 i, bool go, seq(float[]) q)
    => (bool on, seq(float[]) r) {{
    on = Identity(go)
    r = SequenceInsert(q, p)
  }}>
  y = ConcatFromSequence<axis = 0>(s)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "sequence-goes-out",
        opset()
        + f"""g (float[2,8] x) => (seq(float[1,4]) s) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  s = SplitToSequence<axis = 0>(p)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "sequence-map",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  s = SplitToSequence<axis = 0>(x)
  t = SequenceMap<body = each (float[1,8] v) => (float[1,4] o) {{ o = MatMul(v, w) }}>(s)
  y = ConcatFromSequence<axis = 0>(t)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "functions-in-functions",
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'
        f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = local.outer(p)
}}
<domain: "local", opset_import: ["" : 17, "local" : 1]>
outer (v) => (o) {{
  c = Constant<value_float = 2.0>()
  q = Mul(v, c)
  o = local.inner(q)
}}
<domain: "local", opset_import: ["" : 17]>
inner (v) => (o) {{ o = Tanh(v) }}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "function-of-another-opset",
        '<ir_version: 8, opset_import: ["" : 17, "local" : 1]>\n'
        f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}> {{
  p = MatMul(x, w)
  y = local.choice(p)
}}
<domain: "local", opset_import: ["" : 13]>
choice (v) => (o) {{ o = Softmax<axis = 1>(v) }}""",
        {"x": normal(2, 8)},
        2,
        frozenset({"choice"}),
    ),
    Trap(
        "weight-goes-out",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y, float[8,4] w) <{matrix("w", 8, 4)}> {{
  y = MatMul(x, w)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
    Trap(
        "float-output-used-inside",
        opset()
        + f"""g (float eight) => (float[N] r, float[4] y)
<{matrix("w", 8, 4)}, float zero = {{0.0}}, float one = {{1.0}}> {{
  r = Range(zero, eight, one)
  y = MatMul(r, w)
}}""",
        {"eight": np.array(8.0, np.float32)},
        2,
        frozenset({"Range"}),
    ),
    Trap(
        "read-twice",
        opset()
        + f"""g (float[2,8] x) => (float[2,4] y) <{matrix("w", 8, 4)}, {matrix("v", 8, 4)}> {{
  p = MatMul(x, w)
  q = MatMul(x, v)
  r = Mul(p, p)
  y = Add(r, q)
}}""",
        {"x": normal(2, 8)},
        2,
    ),
)
