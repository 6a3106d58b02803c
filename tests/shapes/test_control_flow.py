"""Branches, loops, scans and functions: what holds in every run and iteration."""

import time

import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser

from graphopt.graph import ir
from graphopt.shapes import (
    infer_shapes,
    symbolic_value,
)
from tests.shapes.reading import inferred, parsed, shapes, values


def test_branches_see_outside_and_are_joined() -> None:
    model = inferred(
        """g (float[N,4] x, bool c) => (float[?,?] y, float[?,?] z) {
            s = Shape (x)
            y = If (c) <
                then_branch = t () => (float[?,?] a) { a = Relu (x) },
                else_branch = e () => (float[?,?] b) {
                    axes = Constant <value_ints=[0]> ()
                    n = Gather (s, axes)
                    two = Constant <value_ints=[4]> ()
                    to = Concat <axis=0> (n, two)
                    zeros = ConstantOfShape (to)
                    b = Identity (zeros)
                }>
            z = If (c) <
                then_branch = t2 () => (float[?,?] a2) { a2 = Relu (x) },
                else_branch = e2 () => (float[?,?] b2) { b2 = Concat <axis=0> (x, x) }>
        }"""
    )
    found = shapes(model)
    assert found["b"] == found["y"] == "[N,4]"
    assert found["b2"] == "[2*N,4]"
    assert found["z"] == "[None,4]"


def test_a_known_condition_takes_its_branch() -> None:
    model = inferred(
        """g (float[N,1,4] x) => (float[?] y) {
            r = Size (x)
            s = Shape (x)
            k = Size (s)
            three = Constant <value_int=3> ()
            c = Equal (k, three)
            y = If (c) <
                then_branch = t () => (float[?,?] a) {
                    axes = Constant <value_ints=[1]> ()
                    a = Squeeze (x, axes)
                },
                else_branch = e () => (float[?,?,?] b) { b = Identity (x) }>
        }"""
    )
    assert shapes(model)["y"] == "[N,4]"


def test_a_branch_that_never_runs_may_contradict() -> None:
    model = inferred(
        """g (float[N,5] x, bool c) => (float[?,?] y) {
            y = If (c) <
                then_branch = t () => (float[?,?] a) {
                    axes = Constant <value_ints=[1]> ()
                    a = Squeeze (x, axes)
                },
                else_branch = e () => (float[?,?] b) { b = Identity (x) }>
        }"""
    )
    assert shapes(model)["b"] == "[N,5]"


LOOP = """g (float[N,4] x, int64 trips) => (float[?,?] same, float[?,?] grown, float[?,?,?] rows) {
    yes = Constant <value = bool {1}> ()
    same, grown, count, rows = Loop (trips, yes, x, x, trips) <
        body = b (int64 i, bool go, float[N,4] a, float[N,4] g, int64 k)
            => (bool more, float[?,?] a2, float[?,?] g2, int64 k2, float[?,?] row) {
            more = Identity (go)
            half = Relu (a)
            a2 = Add (half, x)
            g2 = Concat <axis=0> (g, x)
            inside = Relu (g)
            one = Constant <value_int=1> ()
            k2 = Add (k, one)
            row = Relu (a)
        }>
}"""


def test_a_loop_keeps_what_is_invariant_only() -> None:
    model = inferred(LOOP)
    found = shapes(model)
    assert found["a"] == found["a2"] == found["same"] == "[N,4]"
    assert found["g"] == found["inside"] == found["g2"] == found["grown"] == "[None,4]"
    assert found["rows"] == "[None,N,4]"
    assert symbolic_value(values(model)["k2"]) is None


def test_numbers_carried_by_a_loop_are_unknown() -> None:
    model = inferred(
        """g (int64 trips) => (int64 last, float[?] f) {
            yes = Constant <value = bool {1}> ()
            zero = Constant <value_ints=[3]> ()
            last = Loop (trips, yes, zero) <
                body = b (int64 i, bool go, int64[1] k) => (bool more, int64[1] k2) {
                    more = Identity (go)
                    one = Constant <value_ints=[1]> ()
                    k2 = Add (k, one)
                }>
            f = ConstantOfShape (last)
        }"""
    )
    assert shapes(model)["f"] == "[None]"


def test_scan() -> None:
    model = inferred(
        """g (float[T,B,3] x, float[B,3] h0) => (float[?,?] h, float[?,?,?] ys) {
            h, ys = Scan <num_scan_inputs=1,
                body = b (float[?,?] s, float[?,?] v) => (float[?,?] s2, float[?,?] o) {
                    s2 = Add (s, v)
                    o = Concat <axis=1> (s2, v)
                }> (h0, x)
        }"""
    )
    assert shapes(model)["h"] == "[B,3]"
    assert shapes(model)["ys"] == "[T,B,6]"


FUNCTION = """
<domain: "local", opset_import: ["": 17]>
double <k> (v) => (w) {
    s = Shape (v)
    inner = Concat <axis: int = @k> (v, v)
    w = Relu (inner)
}
"""


def test_functions_are_followed_and_their_bodies_hold_for_every_call() -> None:
    model = inferred(
        """g (float[N,4] x, float[N,6] y) => (float[?,?] a, float[?,?] b) {
            a = local.double <k=0> (x)
            b = local.double <k=1> (y)
            c = local.double <k=0> (x)
        }"""
        + FUNCTION
    )
    found = shapes(model)
    assert (found["a"], found["b"], found["c"]) == ("[2*N,4]", "[N,12]", "[2*N,4]")
    assert found["v"] == "[N,None]"
    assert found["inner"] == "[None,None]"
    assert values(model)["w"].dtype == ir.DataType.FLOAT


def test_a_function_may_shadow_an_operator() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4] x) => (float[?,?] y) { y = Relu (x) }
        <domain: "", opset_import: ["": 17]>
        Relu (v) => (w) { w = Concat <axis=1> (v, v) }"""
    )
    loaded = ir.from_proto(model)
    infer_shapes(loaded)
    assert shapes(loaded)["y"] == "[N,8]"


def test_functions_that_multiply_end() -> None:
    functions = "".join(
        f"""<domain: "local", opset_import: ["": 17, "local": 1]>
        f{i} (v) => (w) {{ a = local.f{i + 1} (v)  b = Concat <axis=0> (a, v)
                           w = local.f{i + 1} (b) }}"""
        for i in range(40)
    )
    functions += '<domain: "local", opset_import: ["": 17]> f40 (v) => (w) { w = Relu (v) }'
    model = parsed("g (float[N] x) => (float[?] y) { y = local.f0 (x) }" + functions)
    started = time.process_time()
    infer_shapes(model)
    assert time.process_time() - started < 20
