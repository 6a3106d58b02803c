"""What a pattern matches, what it binds, and what it says where it may not be replaced."""

from __future__ import annotations

import pytest

from graphopt.graph import from_text, ir
from graphopt.rewrite import (
    Match,
    NotApplicable,
    Pattern,
    constant,
    match,
    maybe,
    one_of,
    op,
    variable,
)
from graphopt.rewrite.pattern import depth, roots

HEAD = '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>\n'


def model(text: str) -> ir.Model:
    return from_text(HEAD + text)


def node_of(graph: ir.Graph, output: str) -> ir.Node:
    return next(node for node in graph if any(value.name == output for value in node.outputs))


def match_at(text: str, output: str, pattern: Pattern) -> Match | None:
    return match(pattern, node_of(model(text).graph, output))


ONE = "g (float[3] x, float[3] z) => (float[3] y) { %s }"


def test_nested_ops_bind_nodes_and_values() -> None:
    pattern = op("Exp", op("Add", variable("left"), variable("right"), label="sum"), label="top")
    found = match_at(ONE % "a = Add (x, z) y = Exp (a)", "y", pattern)
    assert found is not None
    assert found.node("sum").op_type == "Add"
    assert found.node("top") is found.root
    assert [found.value("left").name, found.value("right").name] == ["x", "z"]
    assert [node.op_type for node in found.matched] == ["Exp", "Add"]


@pytest.mark.parametrize("other", ["a = Sub (x, z)", "a = custom.Add (x, z)"])
def test_another_op_or_domain_does_not_match(other: str) -> None:
    assert match_at(ONE % f"{other} y = Exp (a)", "y", op("Exp", op("Add"))) is None


def test_a_domain_can_be_asked_for() -> None:
    pattern = op("Exp", op("Add", domain="custom"))
    assert match_at(ONE % "a = custom.Add (x, z) y = Exp (a)", "y", pattern) is not None


def test_several_op_types() -> None:
    pattern = op(("Exp", "Log"), label="either")
    for name in ("Exp", "Log"):
        found = match_at(ONE % f"y = {name} (x)", "y", pattern)
        assert found is not None
        assert found.node("either").op_type == name
    assert match_at(ONE % "y = Neg (x)", "y", pattern) is None


def test_commutative_matches_both_orders() -> None:
    text = ONE % "a = Sigmoid (x) y = Mul (%s)"
    ordered = op("Mul", variable("x"), op("Sigmoid", variable("x")))
    either = op("Mul", variable("x"), op("Sigmoid", variable("x")), commutative=True)
    assert match_at(text % "x, a", "y", ordered) is not None
    assert match_at(text % "a, x", "y", ordered) is None
    for order in ("x, a", "a, x"):
        found = match_at(text % order, "y", either)
        assert found is not None
        assert found.value("x").name == "x"


def test_commutative_below_the_root_backtracks() -> None:
    # The Add matches in its first order, but then `x` is not what the Sigmoid takes.
    pattern = op(
        "Mul",
        op("Add", variable("x"), variable("other"), commutative=True),
        op("Sigmoid", variable("x")),
    )
    found = match_at(ONE % "a = Add (z, x) b = Sigmoid (x) y = Mul (a, b)", "y", pattern)
    assert found is not None
    assert found.value("other").name == "z"


def test_a_label_that_stands_twice_is_one_value() -> None:
    pattern = op("Add", variable("x"), variable("x"))
    assert match_at(ONE % "y = Add (x, x)", "y", pattern) is not None
    assert match_at(ONE % "y = Add (x, z)", "y", pattern) is None


def test_a_label_that_stands_twice_is_one_node() -> None:
    pattern = op("Add", op("Exp", label="e"), op("Exp", label="e"))
    assert match_at(ONE % "a = Exp (x) y = Add (a, a)", "y", pattern) is not None
    assert match_at(ONE % "a = Exp (x) b = Exp (x) y = Add (a, b)", "y", pattern) is None


CLIP = "g (float[3] x, float lo, float hi) => (float[3] y) { y = Clip (%s) }"


@pytest.mark.parametrize(
    ("inputs", "low", "high"),
    [("x", None, None), ("x, lo", "lo", None), ("x, , hi", None, "hi"), ("x, lo, hi", "lo", "hi")],
)
def test_optional_inputs(inputs: str, low: str | None, high: str | None) -> None:
    pattern = op("Clip", variable("x"), maybe(variable("low")), maybe(variable("high")))
    found = match_at(CLIP % inputs, "y", pattern)
    assert found is not None
    bounds = [found.get("low"), found.get("high")]
    assert [bound and bound.name for bound in bounds] == [low, high]


def test_a_required_input_that_is_omitted() -> None:
    pattern = op("Clip", variable("x"), variable("low"))
    assert match_at(CLIP % "x, , hi", "y", pattern) is None
    assert match_at(CLIP % "x", "y", pattern) is None


def test_alternatives_are_tried_in_order() -> None:
    pattern = op("Exp", one_of(op("Neg", variable("x")), op("Abs", variable("x")), variable("x")))
    for inner, name in (("a = Neg (x)", "x"), ("a = Abs (x)", "x"), ("a = Log (x)", "a")):
        found = match_at(ONE % f"{inner} y = Exp (a)", "y", pattern)
        assert found is not None
        assert found.value("x").name == name


def test_alternatives_at_the_root() -> None:
    pattern = one_of(op("Exp", op("Log")), op("Log", op("Exp")))
    assert match_at(ONE % "a = Log (x) y = Exp (a)", "y", pattern) is not None
    assert match_at(ONE % "a = Exp (x) y = Log (a)", "y", pattern) is not None
    assert match_at(ONE % "a = Exp (x) y = Exp (a)", "y", pattern) is None
    assert {name for root in roots(pattern) for name in root.op_types} == {"Exp", "Log"}


def test_attribute_conditions() -> None:
    text = "g (float[2,3] x) => (float[2,3] y) { y = Softmax %s (x) }"
    one = op("Softmax", attributes={"axis": 1})
    absent_or_last = op("Softmax", attributes={"axis": lambda axis: axis is None or axis == -1})
    assert match_at(text % "<axis = 1>", "y", one) is not None
    assert match_at(text % "<axis = 0>", "y", one) is None
    assert match_at(text % "", "y", one) is None
    assert match_at(text % "", "y", absent_or_last) is not None
    assert match_at(text % "<axis = 0>", "y", absent_or_last) is None


def test_an_attribute_that_is_a_parameter_of_a_function_is_unknown() -> None:
    built = model(
        "g (float[2,3] x) => (float[2,3] y) { y = custom.f <axis = 1> (x) }"
        '<domain: "custom", opset_import: ["" : 17]>'
        "f <axis> (v) => (w) { w = Softmax <axis : int = @axis> (v) }"
    )
    (function,) = built.functions.values()
    anything = op("Softmax", attributes={"axis": lambda axis: True})
    assert match(anything, node_of(function.graph, "w")) is None
    assert match(op("Softmax"), node_of(function.graph, "w")) is not None


def test_constants() -> None:
    pattern = op("Add", variable("x"), constant("c"))
    weights = "<float[3] w = {1, 2, 3}> "
    text = "g (float[3] x%s) => (float[3] y) %s{ %s }"
    assert match_at(text % ("", weights, "y = Add (x, w)"), "y", pattern) is not None
    node = "c = Constant <value_float = 1.0> () y = Add (x, c)"
    assert match_at(text % ("", "", node), "y", pattern) is not None
    assert match_at(text % ("", "", "a = Exp (x) y = Add (x, a)"), "y", pattern) is None
    # An initializer that is an input too is a default, which the caller may override.
    assert match_at(text % (", float[3] w", weights, "y = Add (x, w)"), "y", pattern) is None


def test_conditions_on_values() -> None:
    scalar = constant("c", where=lambda value: value.const_value is not None and not value.shape)
    pattern = op("Add", variable("x"), scalar)
    text = "g (float[3] x) => (float[3] y) <%s = {1}> { y = Add (x, w) }"
    assert match_at(text % "float w", "y", pattern) is not None
    assert match_at(text % "float[1] w", "y", pattern) is None


def test_the_output_that_is_used_counts() -> None:
    text = "g (float[4] x) => (float[2] y) { a, b = Split <axis = 0> (x) y = Exp (%s) }"
    first, second = op("Exp", op("Split")), op("Exp", op("Split", output=1))
    assert match_at(text % "a", "y", first) is not None
    assert match_at(text % "b", "y", first) is None
    assert match_at(text % "b", "y", second) is not None


TWO = "g (float[3] x) => (%s) { %s }"


def test_another_consumer_is_an_obstacle() -> None:
    text = TWO % ("float[3] y, float[3] z", "a = Neg (x) y = Exp (a) z = Log (a)")
    with pytest.raises(NotApplicable, match="Neg output 'a' has another consumer"):
        match_at(text, "y", op("Exp", op("Neg")))
    assert match_at(text, "y", op("Exp", op("Neg", shared=True))) is not None


def test_a_consumer_in_a_subgraph_is_an_obstacle() -> None:
    text = TWO % (
        "float[3] y, float[3] z",
        """a = Neg (x)
        y = Exp (a)
        b = ReduceMax <keepdims = 0> (x)
        c = Cast <to = 9> (b)
        z = If (c) <then_branch = t () => (float[3] z1) { z1 = Log (a) },
                    else_branch = e () => (float[3] z2) { z2 = Abs (x) }>""",
    )
    with pytest.raises(NotApplicable, match="Neg output 'a' has another consumer"):
        match_at(text, "y", op("Exp", op("Neg")))


def test_a_graph_output_is_an_obstacle() -> None:
    text = TWO % ("float[3] y, float[3] a", "a = Neg (x) y = Exp (a)")
    with pytest.raises(NotApplicable, match="Neg output 'a' is a graph output"):
        match_at(text, "y", op("Exp", op("Neg")))


def test_an_unused_second_output_that_is_a_graph_output_is_an_obstacle() -> None:
    text = "g (float[4] x) => (float[2] y, float[2] b) { a, b = Split <axis = 0> (x) y = Exp (a) }"
    with pytest.raises(NotApplicable, match="Split output 'b' is a graph output"):
        match_at(text, "y", op("Exp", op("Split")))


def test_a_node_of_the_enclosing_graph_is_an_obstacle() -> None:
    built = model(
        "g (bool c, float[3] x) => (float[3] y) { a = Neg (x) y = If (c) <"
        "then_branch = t () => (float[3] y1) { y1 = Exp (a) },"
        "else_branch = e () => (float[3] y2) { y2 = Abs (x) }> }"
    )
    branch = node_of(built.graph, "y").attributes["then_branch"].as_graph()
    exp = node_of(branch, "y1")
    with pytest.raises(NotApplicable, match="Neg stands in an enclosing graph"):
        match(op("Exp", op("Neg")), exp)
    found = match(op("Exp", op("Neg", variable("x"), shared=True)), exp)
    assert found is not None
    assert found.value("x").name == "x"


def test_an_inner_node_used_twice_within_the_match_is_no_obstacle() -> None:
    pattern = op("Mul", op("Neg", label="n"), op("Exp", op("Neg", label="n")))
    text = TWO % ("float[3] y", "a = Neg (x) b = Exp (a) y = Mul (a, b)")
    assert match_at(text, "y", pattern) is not None


def test_depth() -> None:
    assert depth(op("Exp")) == 1
    assert depth(op("Exp", maybe(one_of(op("Log", op("Neg")), variable())))) == 3


def test_a_pattern_must_begin_with_an_op() -> None:
    with pytest.raises(TypeError, match="not Variable"):
        roots(one_of(op("Exp"), variable("x")))
