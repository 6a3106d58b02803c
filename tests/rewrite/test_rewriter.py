"""What a rewrite leaves in the model: nodes, names, constants, origin; and nothing if given up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphopt.graph import from_text, ir, to_text
from graphopt.graph.verify import verify
from graphopt.rewrite import (
    Journal,
    Match,
    NotApplicable,
    Pattern,
    Rewriter,
    op,
    rewrite_until_stable,
    variable,
)
from graphopt.rewrite.rewriter import ORIGIN_KEY, PASS_KEY, is_removable

HEAD = '<ir_version: 8, opset_import: ["" : 17, "custom" : 1]>\n'
RewriteFunction = Callable[[Match, Rewriter], None]


def model(text: str) -> ir.Model:
    built = from_text(HEAD + text)
    for node in built.graph:
        node.name = f"node_{node.outputs[0].name}"
    return built


def rewrite(built: ir.Model, pattern: Pattern, function: RewriteFunction) -> Journal:
    journal = Journal("test-pass")
    rewrite_until_stable(built, [pattern], function, journal)
    assert verify(built) == []
    return journal


def op_types(graph: ir.Graph) -> list[str]:
    return [node.op_type for node in graph]


def to_swish(match: Match, rewriter: Rewriter) -> None:
    rewriter.replace(match.root, rewriter.node("HardSwish", [match.value("x")]))


SWISH = op("Mul", variable("x"), op("Sigmoid", variable("x")), commutative=True)


def test_the_new_node_takes_name_and_place_of_the_old_tensor() -> None:
    built = model(
        "g (float[3] x) => (float[3] z) { a = Sigmoid (x) y = Mul (x, a) b = Neg (y) z = Exp (b) }"
    )
    journal = rewrite(built, SWISH, to_swish)
    assert op_types(built.graph) == ["HardSwish", "Neg", "Exp"]
    assert built.graph[0].outputs[0].name == "y"
    assert [entry.detail for entry in journal.rewrites] == ["Sigmoid + Mul -> HardSwish"]
    assert [entry.site for entry in journal.rewrites] == ["Mul node_y -> y"]


def test_a_graph_output_keeps_name_type_and_shape() -> None:
    built = model("g (float[N] x) => (float[M] y) { a = Sigmoid (x) y = Mul (x, a) }")
    declared = built.graph.outputs[0]
    before = (declared.name, declared.type, declared.shape)
    rewrite(built, SWISH, to_swish)
    (output,) = built.graph.outputs
    assert output.producer() is built.graph[0]
    assert (output.name, output.type, output.shape) == before


def test_a_value_that_stands_for_an_output_takes_its_name() -> None:
    built = model("g (float[N] x) => (float[N] y) { a = Neg (x) b = Neg (a) c = Exp (x) "
                  "d = Abs (c) e = Neg (d) y = Neg (e) }")  # fmt: skip
    rewrite(built, op("Neg", op("Neg", variable("x"))), cancel)
    assert op_types(built.graph) == ["Exp", "Abs"]
    assert built.graph.outputs[0].name == "y"


def cancel(match: Match, rewriter: Rewriter) -> None:
    rewriter.replace(match.root, match.value("x"))


CANCEL = op("Neg", op("Neg", variable("x")))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(float[3] x) => (float[3] y) { a = Neg (x) y = Neg (a) }", "'y' would be an input"),
        (
            (
                "(float[3] x) => (float[3] y, float[3] z) <float[3] w = {1, 2, 3}>"
                "{ a = Neg (w) y = Neg (a) z = Exp (x) }"
            ),
            "'y' would be a constant",
        ),
        (
            "(float[3] x) => (float[3] y, float[3] z) { z = Exp (x) a = Neg (z) y = Neg (a) }",
            "'y' and 'z' are both graph outputs",
        ),
    ],
)
def test_an_output_that_would_lose_its_name(text: str, reason: str) -> None:
    built = model("g " + text)
    before = to_text(built)
    journal = rewrite(built, CANCEL, cancel)
    assert to_text(built) == before
    assert [reason in decline.reason for decline in journal.declined] == [True]


def test_a_value_that_is_an_output_twice() -> None:
    built = model("g (float[3] x) => (float[3] y) { z = Exp (x) a = Neg (z) y = Neg (a) }")
    built.graph.outputs.append(built.graph.outputs[0])
    journal = Journal("test-pass")
    rewrite_until_stable(built, [CANCEL], cancel, journal)
    assert [decline.reason for decline in journal.declined] == ["'y' is a graph output twice"]


def test_a_new_node_may_be_two_outputs() -> None:
    built = model("g (float[3] x) => (float[3] y) { a = Sigmoid (x) y = Mul (x, a) }")
    built.graph.outputs.append(built.graph.outputs[0])
    rewrite_until_stable(built, [SWISH], to_swish, Journal("test-pass"))
    assert [output.producer() for output in built.graph.outputs] == [built.graph[0]] * 2


def test_many_outputs_are_all_found() -> None:
    lines = "".join(f"a{i} = Exp (x) b{i} = Neg (a{i}) y{i} = Neg (b{i}) " for i in range(20))
    outputs = ", ".join(f"float[3] y{i}" for i in range(20))
    built = model(f"g (float[3] x) => ({outputs}) {{ {lines} }}")
    # Somebody else changes the outputs while the rewriter remembers where they are.
    moved = False

    def move_and_cancel(match: Match, rewriter: Rewriter) -> None:
        nonlocal moved
        cancel(match, rewriter)
        if not moved:
            built.graph.outputs[:] = list(reversed(built.graph.outputs))
            moved = True

    rewrite(built, CANCEL, move_and_cancel)
    assert [output.name for output in built.graph.outputs] == [f"y{i}" for i in reversed(range(20))]
    assert op_types(built.graph) == ["Exp"] * 20


def test_an_output_in_use_cannot_be_left_out() -> None:
    built = model(
        "g (float[4] x) => (float[2] y, float[2] z) { a, b = Split <axis = 0> (x) "
        "y = Neg (a) z = Neg (b) }"
    )

    def first_only(match: Match, rewriter: Rewriter) -> None:
        new = rewriter.node("Split", match.root.inputs, match.root.attributes.values(), outputs=2)
        rewriter.replace(match.root, [new.outputs[0]])

    before = to_text(built)
    journal = rewrite(built, op("Split"), first_only)
    assert to_text(built) == before
    assert [decline.reason for decline in journal.declined] == ["output 'b' is in use"]


def test_a_node_made_without_the_rewriter_is_inserted_too() -> None:
    built = model("g (float[3] x) => (float[3] y) { a = Sigmoid (x) y = Mul (x, a) }")
    rewrite(
        built,
        SWISH,
        lambda match, rewriter: rewriter.replace(
            match.root, ir.Node("", "HardSwish", [match.value("x")])
        ),
    )
    assert op_types(built.graph) == ["HardSwish"]


# Origin


def test_origin_names_all_matched_nodes_and_the_pass() -> None:
    built = model("g (float[3] x) => (float[3] y) { a = Sigmoid (x) y = Mul (x, a) }")
    built.graph[0].metadata_props["scope"] = "block1"
    built.graph[1].metadata_props.update(scope="block2", line="7")
    rewrite(built, SWISH, to_swish)
    (new,) = built.graph
    assert new.name == "node_y"
    assert new.metadata_props == {
        "scope": "block2",  # the root's, where the sources differ
        "line": "7",
        ORIGIN_KEY: "node_y, node_a",
        PASS_KEY: "test-pass",
    }


def test_origin_survives_a_second_rewrite() -> None:
    built = model("g (float[3] x) => (float[3] y) { a = Sigmoid (x) b = Mul (x, a) y = Neg (b) }")
    rewrite(built, SWISH, to_swish)
    rewrite(
        built,
        op("Neg", op("HardSwish", variable("x"))),
        lambda match, rewriter: rewriter.replace(
            match.root, rewriter.node("Exp", [match.value("x")])
        ),
    )
    assert built.graph[0].metadata_props[ORIGIN_KEY] == "node_y, node_b, node_a"


def test_origin_of_nodes_without_names() -> None:
    built = model("g (float[3] x) => (float[3] y) { a = Sigmoid (x) y = Mul (x, a) }")
    for node in built.graph:
        node.name = ""
    rewrite(built, SWISH, to_swish)
    assert built.graph[0].metadata_props[ORIGIN_KEY] == "Mul:y, Sigmoid:a"


def two_nodes(match: Match, rewriter: Rewriter) -> None:
    inner = rewriter.node("Abs", [match.value("x")])
    rewriter.replace(match.root, rewriter.node("Sqrt", inner.outputs))


def test_several_new_nodes_have_names_of_their_own() -> None:
    built = model("g (float[3] x) => (float[3] y, float[3] z) { y = Exp (x) z = Exp (y) }")
    rewrite(built, op("Exp", variable("x")), two_nodes)
    assert op_types(built.graph) == ["Abs", "Sqrt", "Abs", "Sqrt"]
    names = [node.name for node in built.graph]
    assert len(set(names)) == 4
    assert names[1::2] == ["node_y", "node_z"]
    values = [node.outputs[0].name for node in built.graph]
    assert values[1::2] == ["y", "z"]
    assert len(set(values)) == 4


# Constants


def add_bias(match: Match, rewriter: Rewriter) -> None:
    bias = rewriter.initializer(np.ones(3, np.float32), "bias")
    rewriter.replace(match.root, rewriter.node("Add", [match.value("x"), bias]))


def test_a_constant_becomes_an_initializer_with_a_free_name() -> None:
    built = model(
        "g (float[3] x) => (float[3] y) <float[3] bias = {1, 2, 3}> "
        "{ bias_1 = Add (x, bias) a = Neg (bias_1) y = Neg (a) }"
    )
    # Both Negs become Adds; `bias` and `bias_1` are taken.
    rewrite(built, op("Neg", variable("x")), add_bias)
    assert list(built.graph.initializers) == ["bias", "bias_2", "bias_3"]
    for value in built.graph.initializers.values():
        assert value.const_value is not None
        assert value.const_value.name == value.name


def test_a_constant_stands_in_the_subgraph_that_needs_it() -> None:
    built = model(
        "g (bool c, float[3] x) => (float[3] y) { y = If (c) <"
        "then_branch = t () => (float[3] y1) { y1 = Neg (x) },"
        "else_branch = e () => (float[3] y2) { y2 = Abs (x) }> }"
    )
    rewrite(built, op("Neg", variable("x")), add_bias)
    branch = built.graph[0].attributes["then_branch"].as_graph()
    assert list(branch.initializers) == ["bias"]
    assert list(built.graph.initializers) == []


def test_a_function_gets_a_constant_node() -> None:
    built = model(
        "g (float[3] x) => (float[3] y) { y = custom.f (x) }"
        '<domain: "custom", opset_import: ["" : 17]> f (v) => (w) { w = Neg (v) }'
    )
    rewrite(built, op("Neg", variable("x")), add_bias)
    (function,) = built.functions.values()
    assert op_types(function.graph) == ["Constant", "Add"]
    assert function.outputs[0].name == "w"
    assert function.graph[0].metadata_props[PASS_KEY] == "test-pass"


def test_a_tensor_of_another_is_not_renamed() -> None:
    built = model("g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Add (x, w) }")
    shared = built.graph.initializers["w"].const_value
    nameless = ir.tensor(np.zeros(3, np.float32))

    def subtract(match: Match, rewriter: Rewriter) -> None:
        assert shared is not None
        first = rewriter.initializer(shared, "first")
        second = rewriter.initializer(nameless, "second")
        inner = rewriter.node("Sub", [match.value("x"), first])
        rewriter.replace(match.root, rewriter.node("Sub", [inner.outputs[0], second]))

    rewrite(built, op("Add", variable("x")), subtract)
    assert shared is not None
    assert (shared.name, nameless.name) == ("w", None)
    assert list(built.graph.initializers) == ["first", "second"]


# Removal


def test_what_only_the_match_used_goes_with_it() -> None:
    built = model(
        "g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> "
        "{ a = Exp (w) b = Add (x, a) y = Neg (b) }"
    )
    rewrite(
        built,
        op("Neg", op("Add", variable("x"))),
        lambda match, rewriter: rewriter.replace(
            match.root, rewriter.node("Abs", [match.value("x")])
        ),
    )
    assert op_types(built.graph) == ["Abs"]
    assert list(built.graph.initializers) == []


def test_what_others_use_stays() -> None:
    built = model(
        "g (float[3] x, float[3] d) => (float[3] y, float[3] z, float[3] w) "
        "<float[3] w = {1, 2, 3}, float[3] d = {1, 2, 3}> "
        "{ a = Exp (x) l = custom.Log (x) b = Sum (a, w, d, l) y = Neg (b) z = Abs (a) }"
    )
    rewrite(
        built,
        op("Neg", op("Sum")),
        lambda match, rewriter: rewriter.replace(
            match.root, rewriter.node("Abs", [built.graph.inputs[0]])
        ),
    )
    # `w` is an output, `d` an input, and a custom op may have an effect.
    assert op_types(built.graph) == ["Exp", "Log", "Abs", "Abs"]
    assert sorted(built.graph.initializers) == ["d", "w"]


def test_removing_an_if_frees_what_its_branches_capture() -> None:
    built = model(
        "g (bool c, float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { a = Exp (x) b = If (c) <"
        "then_branch = t () => (float[3] y1) { y1 = Add (a, w) },"
        "else_branch = e () => (float[3] y2) { y2 = Abs (x) }> y = Neg (b) }"
    )
    rewrite(
        built,
        op("Neg", op("If")),
        lambda match, rewriter: rewriter.replace(
            match.root, rewriter.node("Log", [built.graph.inputs[1]])
        ),
    )
    assert op_types(built.graph) == ["Log"]
    assert list(built.graph.initializers) == []
    assert [usage.node.op_type for usage in built.graph.inputs[1].uses()] == ["Log"]


def test_uses_in_subgraphs_are_redirected() -> None:
    built = model(
        "g (bool c, float[3] x) => (float[3] y) { e = Exp (x) a = Neg (e) b = Neg (a) y = If (c) <"
        "then_branch = t () => (float[3] y1) { y1 = Log (b) },"
        "else_branch = e () => (float[3] y2) { y2 = Abs (b) }> }"
    )
    rewrite(built, CANCEL, cancel)
    assert op_types(built.graph) == ["Exp", "If"]
    assert {usage.node.op_type for usage in built.graph[0].outputs[0].uses()} == {"Log", "Abs"}


@pytest.mark.parametrize(
    ("node", "removable"), [("y = Exp (x)", False), ("y = Neg (x) a = Exp (x)", True),
                            ("y = Neg (x) a = custom.Exp (x)", False)]
)  # fmt: skip
def test_removable(node: str, removable: bool) -> None:
    built = model(f"g (float[3] x) => (float[3] y) {{ {node} }}")
    (candidate,) = [entry for entry in built.graph if entry.op_type == "Exp"]
    assert is_removable(candidate) is removable


# Giving up


def test_a_rewrite_that_is_given_up_leaves_nothing_behind() -> None:
    built = model("g (float[3] x) => (float[3] y, float[3] z) { y = Neg (x) z = Exp (x) }")
    before = to_text(built)
    names = []

    def give_up(match: Match, rewriter: Rewriter) -> None:
        bias = rewriter.initializer(np.ones(3, np.float32), "bias")
        names.append(bias.name)
        rewriter.node("Add", [match.value("x"), bias])
        raise NotApplicable("on second thoughts")

    journal = rewrite(built, op(("Neg", "Exp"), variable("x")), give_up)
    assert to_text(built) == before
    assert {usage.node.op_type for usage in built.graph.inputs[0].uses()} == {"Neg", "Exp"}
    assert names == ["bias", "bias"]
    assert [(entry.site, entry.reason) for entry in journal.declined] == [
        ("Neg node_y -> y", "on second thoughts"),
        ("Exp node_z -> z", "on second thoughts"),
    ]


def test_a_rewrite_that_replaces_nothing_leaves_nothing_behind() -> None:
    built = model("g (float[3] x) => (float[3] y) { y = Neg (x) }")
    before = to_text(built)

    def forget(match: Match, rewriter: Rewriter) -> None:
        rewriter.node("Exp", [rewriter.initializer(np.ones(3, np.float32), "bias")])

    journal = rewrite(built, op("Neg"), forget)
    assert to_text(built) == before
    assert (journal.rewrites, journal.declined) == ([], [])
    assert len(built.graph.inputs[0].uses()) == 1


def test_giving_up_after_a_change_is_an_error() -> None:
    built = model("g (float[3] x) => (float[3] y) { y = Neg (x) }")

    def too_late(match: Match, rewriter: Rewriter) -> None:
        rewriter.replace(match.root, rewriter.node("Exp", [match.value("x")]))
        raise NotApplicable("too late")

    with pytest.raises(RuntimeError, match="after it had changed the model"):
        rewrite_until_stable(built, [op("Neg", variable("x"))], too_late, Journal("test-pass"))
