"""The walks cover nested graphs and functions, in one order."""

import pytest
from graph_models import nested, parse

from graphopt.graph import (
    all_graphs,
    all_nodes,
    ir,
    load,
    nested_graphs,
    opset_version,
    outer_values,
    replace_content,
    subgraphs,
    to_bytes,
    verify,
)

TEXT = """g (float[2] x, bool c) => (float[2] y) {
    h = Relu (x)
    y = If (c) <
        then_branch = outer_then () => (float[2] p) {
            p = If (c) <
                then_branch = inner_then () => (float[2] q) { q = Add (h, x) },
                else_branch = inner_else () => (float[2] r) { r = Neg (h) }
            >
        },
        else_branch = outer_else () => (float[2] s) { t = d.f (x)  s = Abs (t) }
    >
}
<opset_import: ["" : 13, "d" : 2], domain: "d">
f (a) => (b) {
    e = Constant <value = bool {1}> ()
    b = If (e) <
        then_branch = function_then () => (u) { u = Exp (a) },
        else_branch = function_else () => (v) { v = Log (a) }
    >
}"""
HEADER = '<ir_version: 8, opset_import: ["" : 17, "d" : 1]>'


@pytest.fixture
def model():
    return load(parse(TEXT, HEADER))


def test_graphs_and_nodes(model):
    names = [graph.name for graph in all_graphs(model)]
    function = names[5]
    assert names == [
        "g",
        "outer_then",
        "inner_then",
        "inner_else",
        "outer_else",
        function,
        "function_then",
        "function_else",
    ]
    operators = " ".join(node.op_type for node in all_nodes(model))
    assert operators == "Relu If If Add Neg f Abs Constant If Exp Log"


def test_subgraphs(model):
    assert subgraphs(model.graph.node(0)) == ()
    assert [g.name for g in subgraphs(model.graph.node(1))] == ["outer_then", "outer_else"]


def test_the_graph_may_change_while_it_is_walked(model):
    for node in all_nodes(model):
        if node.op_type == "Neg":
            new = ir.node("Sin", node.inputs)
            node.graph.insert_before(node, new)
            node.replace_input_with(0, new.outputs[0])
    assert verify(model) == []


def test_outer_values(model):
    assert outer_values(model.graph) == ()
    outer_then, outer_else = subgraphs(model.graph.node(1))
    assert [value.name for value in outer_values(outer_then)] == ["c", "h", "x"]
    assert [value.name for value in outer_values(outer_else)] == ["x"]
    inner_then = subgraphs(outer_then.node(0))[0]
    assert [value.name for value in outer_values(inner_then)] == ["h", "x"]


def test_opset_versions(model):
    versions = {node.op_type: opset_version(node, model) for node in all_nodes(model)}
    assert versions == {
        "Relu": 17,
        "If": 13,  # the last of them is in the function
        "Add": 17,
        "Neg": 17,
        "f": 1,
        "Abs": 17,
        "Constant": 13,
        "Exp": 13,
        "Log": 13,
    }
    assert [opset_version(graph, model) for graph in all_graphs(model)] == [17] * 5 + [13] * 3


def test_a_domain_that_is_not_imported_is_0(model):
    node = ir.node("Thing", [], domain="far")
    model.graph.append(node)
    assert opset_version(node, model) == 0


def test_both_spellings_of_the_default_domain():
    model = load(parse("g (float x) => (float y) { y = Neg (x) }"))
    imports = model.graph.opset_imports
    imports["ai.onnx"] = imports.pop("")
    assert opset_version(model.graph.node(0), model) == 17
    assert verify(model) == []


def test_nesting_does_not_exhaust_the_stack():
    graphs = list(all_graphs(load(nested(31))))
    assert len(graphs) == 2 * 31 + 1
    assert graphs == list(nested_graphs(graphs[0]))


def test_replace_content(model):
    other = load(parse("k (float x) => (float y) { y = Neg (x) }"))
    other.metadata_props["key"] = "value"
    wanted = to_bytes(other)
    model.metadata_props["gone"] = "soon"
    replace_content(model, other)
    assert to_bytes(model) == wanted
