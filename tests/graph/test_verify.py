"""verify finds what is wrong, names the node, and finds nothing where nothing is wrong."""

import time

import numpy as np
import onnx
import pytest
from graph_models import chain, linear, parse

from graphopt.graph import all_nodes, ir, load, subgraphs, verify
from graphopt.graph.verify import Problem

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def problems(body, header=None):
    """What verify says of a text whose names are right."""
    model = load(parse(body, header) if header else parse(body))
    return [str(problem) for problem in verify(model)]


def opset(version, more=""):
    return f'<ir_version: 8, opset_import: ["" : {version}{more}]>'


@pytest.mark.parametrize(
    ("body", "header", "wanted"),
    [
        (
            "g (float[2] x) => (float[2] y) { y = Relux (x) }",
            opset(17),
            "Relux that makes 'y' has an operator that opset 17 does not define",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Gelu (x) }",
            opset(19),
            "Gelu that makes 'y' has an operator that opset 19 does not define",
        ),
        (
            "g (float[1,1,2,2] x, float[4] s) => (y) { y = Upsample (x, s) }",
            opset(10),
            "Upsample that makes 'y' has an operator that opset 10 no longer has",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = ai.onnx.ml.Relu (x) }",
            opset(17, ', "ai.onnx.ml" : 3'),
            "Relu that makes 'y' has an operator that ai.onnx.ml 3 does not define",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = far.Thing (x) }",
            opset(17),
            "Thing that makes 'y' is of domain 'far', which is not imported",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Add (x) }",
            opset(17),
            "Add that makes 'y' has 1 inputs, its operator takes 2",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Relu (x, x) }",
            opset(17),
            "Relu that makes 'y' has 2 inputs, its operator takes 1",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Concat <axis = 0> () }",
            opset(17),
            "Concat that makes 'y' has 0 inputs, its operator takes at least 1",
        ),
        (
            "g (float[2] x) => (float[2] y) { y, z = Relu (x) }",
            opset(17),
            "Relu that makes 'y' has 2 outputs, its operator takes 1",
        ),
        (
            'g (float[2] x) => (float[2] y) { y = Add ("", x) }',
            opset(17),
            "Add that makes 'y' leaves out input 'A', which its operator requires",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Relu <alpha = 1.0> (x) }",
            opset(17),
            "Relu that makes 'y' has attribute 'alpha', which its operator does not have",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Softmax <axis = 1.0> (x) }",
            opset(17),
            "Softmax that makes 'y' has attribute 'axis' of type FLOAT, not INT",
        ),
        (
            "g (float[2] x) => (float[2] y) { y = Cast (x) }",
            opset(17),
            "Cast that makes 'y' lacks attribute 'to'",
        ),
        (
            "g (float[2] x, int64[2] i) => (float[2] y) { y = Add (x, i) }",
            opset(17),
            (
                "Add that makes 'y' has input 'i' of type tensor(int64) where tensor(float)"
                " is required"
            ),
        ),
        (
            "g (string[2] x) => (string[2] y) { y = Relu (x) }",
            opset(17),
            (
                "Relu that makes 'y' has input 'x' of type tensor(string), which its operator"
                " does not take"
            ),
        ),
        (
            "g (float[2] x) => (int64[2] y) { y = Relu (x) }",
            opset(17),
            (
                "Relu that makes 'y' has output 'y' of type tensor(int64) where tensor(float)"
                " is required"
            ),
        ),
        (
            "g (float[2] x) => (float[1] y) { y = Shape (x) }",
            opset(17),
            (
                "Shape that makes 'y' has output 'y' of type tensor(float), which its operator"
                " does not take"
            ),
        ),
        (
            # The type of h is not declared: it is that of x.
            "g (float[2] x, double[2] d) => (y) { h = Neg (x) y = Mul (h, d) }",
            opset(17),
            (
                "Mul that makes 'y' has input 'd' of type tensor(double) where tensor(float)"
                " is required"
            ),
        ),
        (
            "g (float[2] x) => (y) { s = Shape (x) y = Add (x, s) }",
            opset(17),
            (
                "Add that makes 'y' has input 's' of type tensor(int64) where tensor(float)"
                " is required"
            ),
        ),
        (
            (
                "g (float[2] x, bool c) => (float[2] y) { a = Relu (x) y = If (c) <"
                "then_branch = t () => (float[2] a) { a = Neg (x) },"
                "else_branch = e () => (float[2] b) { b = Nag (x) }> }"
            ),
            opset(17),
            "Neg that makes 'a' makes 'a', which a graph around it has already",
        ),
        (
            (
                "g (float[2] x, bool c) => (float[2] y) { y = If (c) <"
                "then_branch = t () => (float[2] a) { a = Nag (x) },"
                "else_branch = e () => (float[2] b) { b = Neg (x) }> }"
            ),
            opset(17),
            "Nag that makes 'a' has an operator that opset 17 does not define",
        ),
    ],
)
def test_a_wrong_node(body, header, wanted):
    assert problems(body, header)[0] == wanted


def test_problems_name_the_node():
    model = load(linear())
    model.graph.node(1).op_type = "Nonsense"
    assert verify(model) == [
        Problem("Nonsense 'positive' has an operator that opset 17 does not define", "positive")
    ]


@pytest.mark.parametrize(
    "body",
    [
        "g (float[2] x) => (float[2] x) { }",
        "g (float[2] x) => (float[2] y, float[2] y) { y = Relu (x) }",
        "g (float[2] x) => (float[2] y) { y = Clip (x) }",
        'g (float[2] x, float m) => (float[2] y) { y = Clip (x, "", m) }',
        "g (float[2] x) => (float[2] y) { y = Relu <__note = 1> (x) }",
        "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }",
        # A name of an inner graph may come again, in another graph and after it.
        (
            "g (float[2] x, bool c) => (float[2] y) { y = If (c) <"
            "then_branch = t () => (float[2] y) { a = Neg (x) y = Neg (a) },"
            "else_branch = e () => (float[2] y) { a = Abs (x) y = Neg (a) }> }"
        ),
        (
            "g (float[2] x, bool c) => (float[2] z) { y = If (c) <"
            "then_branch = t () => (float[2] a) { a = Neg (x) },"
            "else_branch = e () => (float[2] b) { b = Neg (x) }> a = Relu (x) z = Add (a, y) }"
        ),
        # The inputs of a loop's body may have names that exist outside.
        (
            "g (float[2] x, bool c, int64 n) => (float[2] y) { y = Loop (n, c, x) <"
            "body = b (int64 n, bool c, float[2] x) => (bool d, float[2] a)"
            " { d = Identity (c) a = Neg (x) }> }"
        ),
        # What a body returns at each turn may be one value twice.
        (
            "g (float[2] x, bool c, int64 n) => (float[2] y, z) { y, z = Loop (n, c, x) <"
            "body = b (int64 i, bool d, float[2] a) => (bool d, float[2] p, float[2] p)"
            " { p = Neg (a) }> }"
        ),
    ],
)
def test_a_right_graph(body):
    assert problems(body) == []


def test_operators_of_onnx_runtime_are_left_alone():
    header = opset(15, ', "com.microsoft" : 1')
    body = """g (float[2, 4] x, float[4] s) => (y) {
        h = SimplifiedLayerNormalization <axis = -1, epsilon = 1e-5> (x, s)
        y = com.microsoft.FastGelu (h)
    }"""
    assert problems(body, header) == []


FUNCTIONS = """<opset_import: ["" : 17, "local" : 1], domain: "local">
twice <k> (a, b) => (c) { d = Constant <value_float : float = @k> () c = Mul (a, d) }
<opset_import: ["" : 17], domain: "local">
plain (a) => (c) { %s }
"""


@pytest.mark.parametrize(
    ("call", "body", "wanted"),
    [
        ("local.twice <k = 2.0> (x, x)", "c = Neg (a)", None),
        ("local.twice (x)", "c = Neg (a)", None),
        (
            "local.twice (x, x, x)",
            "c = Neg (a)",
            "twice that makes 'y' has 3 inputs, its function takes 2",
        ),
        (
            "local.plain <q = 1> (x)",
            "c = Neg (a)",
            "plain that makes 'y' has attribute 'q', which its function does not have",
        ),
        (
            "local.plain (x)",
            "c = Nag (a)",
            "function plain: Nag that makes 'c' has an operator that opset 17 does not define",
        ),
        (
            "local.plain (x)",
            "c = local.twice (a)",
            "function plain: twice that makes 'c' is of domain 'local', which is not imported",
        ),
        ("local.unknown (x)", "c = Neg (a)", None),
    ],
)
def test_functions(call, body, wanted):
    found = problems(
        f"g (float[2] x) => (float[2] y) {{ y = {call} }}\n{FUNCTIONS % body}",
        opset(17, ', "local" : 1'),
    )
    assert found == ([wanted] if wanted else [])


def test_a_function_may_stand_in_for_a_standard_operator():
    text = (
        "g (float[2] x) => (float[2] y) { y = Relu <odd = 1> (x) }\n"
        '<opset_import: ["" : 17], domain: "">\n'
        "Relu <odd> (a) => (c) { c = Neg (a) }"
    )
    assert problems(text) == []


def test_functions_that_call_themselves():
    text = (
        "g (float[2] x) => (float[2] y) { y = d.f (x) }\n"
        '<opset_import: ["" : 17, "d" : 1], domain: "d">\nf (a) => (c) { c = d.h (a) }\n'
        '<opset_import: ["" : 17, "d" : 1], domain: "d">\nh (a) => (c) { c = d.f (a) }'
    )
    assert problems(text, opset(17, ', "d" : 1')) == ["functions call themselves: h <- f <- h"]


def test_a_missing_overload():
    model = load(linear())
    model.graph.node(1).overload = "special"
    assert [str(p) for p in verify(model)] == [
        "Relu 'positive' calls overload 'special', which no function has"
    ]


# What a pass may do to a model in memory.


def branches():
    return load(
        parse(
            "g (float[2] x, bool c) => (float[2] y) { h = Relu (x) y = If (c) <"
            "then_branch = t () => (float[2] p) { p = Neg (h) },"
            "else_branch = e () => (float[2] q) { q = Abs (h) }> }"
        )
    )


def test_a_value_that_nothing_makes():
    model = load(linear())
    model.graph.node(1).replace_input_with(0, ir.Value(name="lost"))
    assert [str(p) for p in verify(model)] == ["Relu 'positive' uses 'lost', which nothing makes"]


def test_a_node_that_was_removed_but_is_used():
    model = branches()
    model.graph.remove(model.graph.node(0))
    assert [p.node for p in verify(model)] == ["p", "q"]
    assert all("uses 'h', which nothing makes" in str(p) for p in verify(model))


def test_an_output_that_nothing_makes():
    model = load(linear())
    model.graph.remove(model.graph.node(1))
    assert [str(p) for p in verify(model)] == ["nothing in the graph makes its output 'y'"]


def test_two_values_of_one_name():
    model = load(linear())
    model.graph.node(0).outputs[0].name = "x"
    assert "MatMul 'product' makes 'x', which is made already" in map(str, verify(model))


def test_a_name_that_would_capture_another_value():
    """Written out, the inner node would use the inner h."""
    model = branches()
    inner = subgraphs(model.graph.node(1))[0]
    early = ir.node("Exp", [model.graph.inputs[0]], name="")
    early.outputs[0].name = "h"
    inner.insert_before(inner.node(0), early)
    found = [str(p) for p in verify(model)]
    assert "Exp that makes 'h' makes 'h', which a graph around it has already" in found
    assert "Neg that makes 'p' uses 'h', but that names another value there" in found


def test_a_value_of_a_sibling_graph():
    model = branches()
    first, second = subgraphs(model.graph.node(1))
    second.node(0).replace_input_with(0, first.outputs[0])
    assert [str(p) for p in verify(model)] == ["Abs that makes 'q' uses 'p', which nothing makes"]


def test_nodes_out_of_order():
    model = load(chain(5))
    last = model.graph.node(4)
    model.graph.remove(last)
    model.graph.insert_before(model.graph.node(0), last)
    assert [str(p) for p in verify(model)] == ["Neg 'n4' uses 'v4' before it is made"]


def test_a_cycle_is_told_from_disorder():
    model = load(chain(5))
    model.graph.node(0).replace_input_with(0, model.graph.node(2).outputs[0])
    assert "the nodes form a cycle: Neg 'n1' -> Abs 'n2' -> Relu 'n0' -> Neg 'n1'" in map(
        str, verify(model)
    )


def test_a_cycle_through_a_nested_graph():
    model = branches()
    inner = subgraphs(model.graph.node(1))[0]
    inner.node(0).replace_input_with(0, model.graph.outputs[0])
    assert any("cycle: If that makes 'y' -> If" in str(p) for p in verify(model))


def test_a_graph_that_belongs_to_two_nodes():
    model = branches()
    node = model.graph.node(1)
    node.attributes["else_branch"] = ir.AttrGraph(
        "else_branch", node.attributes["then_branch"].as_graph()
    )
    assert any("belongs to two nodes" in str(p) for p in verify(model))


def test_initializers_against_their_declared_type():
    model = load(linear())
    value = model.graph.initializers["w"]
    value.const_value = ir.tensor(np.zeros((3, 2), np.float16), name="w")
    assert [str(p) for p in verify(model)] == [
        "initializer 'w' has data of type FLOAT16, declared is FLOAT",
        "initializer 'w' has data of shape [3, 2], declared is [2, 3]",
    ]
    value.const_value = None
    assert [str(p) for p in verify(model)] == ["initializer 'w' has no data"]


def test_a_default_may_be_smaller_than_the_symbolic_input_it_is_for():
    proto = linear()
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, ["A", 3]))
    assert verify(load(proto)) == []


def test_a_function_with_an_initializer():
    model = load(
        parse(
            "g (float[2] x) => (float[2] y) { y = d.f (x) }\n"
            '<opset_import: ["" : 17], domain: "d">\nf (a) => (c) { c = Neg (a) }',
            opset(17, ', "d" : 1'),
        )
    )
    (function,) = model.functions.values()
    value = ir.Value(name="w", const_value=ir.tensor([1.0], name="w"))
    function.graph.register_initializer(value)
    assert [str(p) for p in verify(model)] == ["function f: a function cannot hold initializers"]


def test_the_time_is_linear_and_short():
    """The bound is generous: it takes about half a second on an idle machine."""
    model = load(chain(50_000))
    began = time.process_time()
    assert verify(model) == []
    assert time.process_time() - began < 3


def test_every_model_of_the_zoo_is_valid(zoo):
    paths = sorted((zoo / "models").glob("*.onnx"))
    assert len(paths) >= 18
    for path in paths:
        assert verify(load(path)) == [], path.name


def test_verify_changes_nothing():
    model = branches()
    before = [(node, tuple(node.inputs), tuple(node.outputs)) for node in all_nodes(model)]
    verify(model)
    assert [(n, tuple(n.inputs), tuple(n.outputs)) for n in all_nodes(model)] == before
