"""What of a model is counted, and how often: control flow, functions, sharing, modules, notes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import graphopt
from graphopt.cost import Cost, Operator, Quantity, Rule, Work, estimate_cost
from graphopt.graph import ir

HEADER = '<ir_version: 8, opset_import: ["" : 17]>\n'


def cost_of(text: str, **options: Any) -> Cost:
    return estimate_cost(onnx.parser.parse_model(HEADER + text), **options)


MATMUL = """
agraph (float[batch, 4] x, float[4, 8] w) => (float[batch, 8] y) { y = MatMul(x, w) }
"""


def test_a_free_dim_stays_a_symbol_and_is_evaluated() -> None:
    cost = cost_of(MATMUL)
    assert str(cost.total.macs) == "32*batch"
    assert str(cost.total.flops) == "64*batch"
    assert cost.symbols == ("batch",)
    at = cost.at({"batch": 5})
    assert (at.total.macs, at.total.bytes_written, at.symbols) == (160, 5 * 8 * 4, ())
    assert at == cost_of(MATMUL, dims={"batch": 5})
    assert cost_of(MATMUL, dims={"batch": 5}).total == at.total


def test_an_open_dim_gets_the_name_of_its_place() -> None:
    cost = cost_of("agraph (float[?, 4] x) => (float[?, 4] y) { y = Relu(x) }")
    assert str(cost.total.flops) == "4*x[0]"
    assert cost.at({"x[0]": 3}).total.flops == 12


LOOP = """
agraph (int64 n, float[4, 4] x) => (float[4, 4] y) {
  go = Constant <value = bool {1}> ()
  COUNT
  y = Loop (trips, go, x) <body = body (int64 i, bool c, float[4, 4] s) => (bool d, float[4, 4] t)
    { d = Identity (c)
      t = MatMul (s, s) }>
}
"""


def test_a_loop_counts_its_body_once_for_each_iteration() -> None:
    cost = cost_of(LOOP.replace("COUNT", "trips = Constant <value = int64 {7}> ()"))
    assert cost.total.macs == 7 * 64
    assert not cost.notes
    (product,) = [row for row in cost.by_node if row.op_type == "MatMul"]
    assert product.executions == 7


def test_an_unknown_trip_count_is_a_free_dim() -> None:
    cost = cost_of(LOOP.replace("COUNT", "trips = Identity (n)"))
    (name,) = cost.symbols
    assert name.startswith("trips(")
    assert cost.at({name: 3}).total.macs == 3 * 64
    assert any("unknown" in note for note in cost.notes)


def test_a_condition_of_its_own_makes_the_trip_count_a_bound() -> None:
    text = LOOP.replace("COUNT", "trips = Constant <value = int64 {7}> ()").replace(
        "d = Identity (c)", "total = ReduceSum <keepdims = 0> (s)\n d = IsNaN (total)"
    )
    cost = cost_of(text)
    assert [row.executions for row in cost.by_node if row.op_type == "MatMul"] == [7]
    assert any("may end earlier" in note for note in cost.notes)


def test_a_while_loop_is_not_taken_for_its_endless_limit() -> None:
    cost = cost_of(LOOP.replace("COUNT", f"trips = Constant <value = int64 {{{2**63 - 1}}}> ()"))
    assert len(cost.symbols) == 1


def test_a_scan_runs_over_its_axis() -> None:
    cost = cost_of("""
    agraph (float[4] s, float[steps, 4] x) => (float[4] y, float[steps, 4] z) {
      y, z = Scan <num_scan_inputs = 1,
        body = body (float[4] a, float[4] b) => (float[4] c, float[4] d) {
          c = Add (a, b)
          d = Identity (c) }> (s, x)
    }""")
    assert str(cost.total.flops) == "4*steps"


IF = """
agraph (bool b, float[2, 4] x) => (float[2, 2] y) {
  CONDITION
  y = If (c) <
    then_branch = big () => (float[2, 2] p) { t = Transpose <perm = [1, 0]> (x)
      p = MatMul (x, t) },
    else_branch = small () => (float[2, 2] q) {
      one = Constant <value_ints = [0]> ()
      two = Constant <value_ints = [2]> ()
      axis = Constant <value_ints = [1]> ()
      q = Slice (x, one, two, axis) }>
}
"""


@pytest.mark.parametrize(
    ("condition", "macs"),
    [
        ("c = Identity (b)", 16),
        ("c = Constant <value = bool {1}> ()", 16),
        ("c = Constant <value = bool {0}> ()", 0),
    ],
)
def test_an_if_counts_one_branch(condition: str, macs: int) -> None:
    cost = cost_of(IF.replace("CONDITION", condition))
    assert cost.total.macs == macs
    runs = {row.op_type: row.executions for row in cost.by_node}
    assert runs["MatMul"] == (1 if macs else 0)
    assert runs["Slice"] == (0 if macs else 1)


def test_a_function_counts_as_its_body_for_each_call() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    agraph (float[2, 4] x, float[4, 4] w) => (float[2, 4] y) {
      a = mine.twice (x, w)
      y = mine.twice (a, w)
    }
    <domain: "mine", opset_import: ["" : 17]>
    twice (p, q) => (r) { s = MatMul (p, q)
      r = MatMul (s, q) }
    """)
    cost = estimate_cost(model)
    assert cost.total.macs == 4 * 2 * 4 * 4
    assert not cost.uncounted


def shared_weight() -> onnx.ModelProto:
    weight = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    half = onnx.numpy_helper.from_array(np.ones(4, np.float16), "h")
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="/first/MatMul"),
            helper.make_node("MatMul", ["a", "w"], ["b"], name="/second/MatMul"),
            helper.make_node("Cast", ["h"], ["c"], to=TensorProto.FLOAT, name="/second/Cast"),
            helper.make_node("Add", ["b", "c"], ["y"], name="/second/Add"),
        ],
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [weight, half],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_a_shared_weight_counts_once_in_a_total() -> None:
    cost = estimate_cost(shared_weight())
    assert [row.parameters for row in cost.by_node] == [16, 16, 4, 4]
    assert [row.parameter_bytes for row in cost.by_node] == [64, 64, 8, 8]
    assert cost.total.parameters == 20
    assert cost.parameter_bytes == {"FLOAT": 64, "FLOAT16": 8}
    modules = {group.name: group for group in cost.by_module}
    assert modules["first"].parameters == 16
    assert modules["second"].parameters == 20
    assert modules[""].parameters == 20
    types = {group.name: group for group in cost.by_type}
    assert (types["MatMul"].nodes, types["MatMul"].parameters) == (2, 16)


def test_what_is_made_of_constants_alone_is_settled_before_the_run() -> None:
    cost = estimate_cost(shared_weight())
    cast = next(row for row in cost.by_node if row.op_type == "Cast")
    assert (cast.executions, cast.bytes_read, cast.note) == (0, 0, "settled at load")
    # The Add reads the half weight in its float form: 2 x 4 floats and the 4 of the constant.
    assert cost.by_node[-1].bytes_read == 32 + 16
    assert cost.memory.peak_bytes == 3 * 32
    assert not cost.notes


def test_groups_add_up() -> None:
    cost = estimate_cost(shared_weight())
    for field in ("macs", "flops", "transcendentals", "bytes_read", "bytes_written"):
        whole = getattr(cost.total, field)
        assert sum(getattr(row, field) for row in cost.by_node) == whole
        assert sum(getattr(group, field) for group in cost.by_type) == whole
        assert getattr(cost.by_module[0], field) == whole


def test_a_tensor_that_is_read_twice_by_a_node_is_read_once() -> None:
    cost = cost_of("agraph (float[4] x) => (float[4] y) { y = Mul (x, x) }")
    assert cost.total.bytes_read == 16


def test_what_has_no_rule_is_said_not_hidden() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme", name="f")],
            "custom",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)],
    )
    cost = estimate_cost(model)
    assert [row.name for row in cost.uncounted] == ["f"]
    assert cost.notes == ("1 node is not counted: no rule for com.acme.Frobnicate",)


def test_a_stated_shape_is_believed_where_nothing_can_be_derived() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
    agraph (float[batch, 4] x, float[4, 8] w) => (float[batch, 8] z)
      <float[batch, 4] y, float[9, 9] z> {
      y = com.acme.Odd (x)
      z = MatMul (y, w)
    }"""
    model = onnx.parser.parse_model(text)
    assert str(estimate_cost(model).total.macs) == "32*batch"
    assert estimate_cost(model, dims={"batch": 3}).total.macs == 96


def test_a_plugin_brings_rules_for_its_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphopt.cost import rules as registry
    from graphopt.entry_points import Offer

    def frobnicate(node: Operator) -> Work:
        return Work(macs=node.input().size * 3)

    mine = Rule("com.acme", "Frobnicate", frobnicate)
    monkeypatch.setattr(registry, "offered", lambda group: iter([Offer(mine, "acme")]))
    registry.rules.cache_clear()
    try:
        assert registry.rules()["com.acme", "Frobnicate"] is mine
        clash = Rule("", "Conv", frobnicate)
        monkeypatch.setattr(registry, "offered", lambda group: iter([Offer(clash, "acme")]))
        registry.rules.cache_clear()
        with pytest.raises(graphopt.UsageError, match=r"two cost rules are for Conv.*acme"):
            registry.rules()
    finally:
        monkeypatch.undo()
        registry.rules.cache_clear()


def test_a_name_that_two_values_share_does_not_make_one_number_of_them() -> None:
    two = """
    agraph (int64 n, int64 m, float[4, 4] x) => (float[4, 4] y, float[4, 4] z) {
      go = Constant <value = bool {1}> ()
      y = Loop (n, go, x) <body = b (int64 i, bool c, float[4, 4] s) => (bool d, float[4, 4] t)
        { d = Identity (c)
          t = MatMul (s, s) }>
      z = Loop (m, go, x) <body = b (int64 i, bool c, float[4, 4] s) => (bool d, float[4, 4] t)
        { d = Identity (c)
          t = MatMul (s, s) }>
    }"""
    model = onnx.parser.parse_model(HEADER + two)
    for node in model.graph.node:
        if node.op_type == "Loop":
            node.name = "loop"
    cost = estimate_cost(model)
    assert len(cost.symbols) == 2
    first, second = cost.symbols
    assert cost.at({first: 2, second: 5}).total.macs == 7 * 64


def test_a_dim_that_depends_on_data_is_followed() -> None:
    cost = cost_of("""
    agraph (float[8] x) => (float[?, 1] y) {
      n = NonZero (x)
      f = Cast <to = 1> (n)
      t = Transpose <perm = [1, 0]> (f)
      y = Sigmoid (t)
    }""")
    assert cost.symbols == ("n[1]",)
    assert cost.at({"n[1]": 3}).total.transcendentals == 3


def test_two_dims_that_meet_are_taken_for_the_larger() -> None:
    cost = cost_of("agraph (float[A, 4] x, float[B, 4] y) => (float[?, 4] z) { z = Add (x, y) }")
    assert cost.symbols == ("A", "B")
    for a, b in ((3, 3), (1, 5), (5, 1)):
        assert cost.at({"A": a, "B": b}).total.flops == 4 * max(a, b)


def test_branches_that_cannot_be_compared_are_not_claimed_to_be() -> None:
    cost = cost_of("""
    agraph (bool c, float[N] x, float[M] w) => (float y) {
      y = If (c) <
        then_branch = p () => (float a) { a = ReduceSum <keepdims = 0> (x) },
        else_branch = q () => (float b) { b = ReduceSum <keepdims = 0> (w) }>
    }""")
    assert any("depends on the free dims" in note for note in cost.notes)


def test_sizes_are_checked() -> None:
    cost = cost_of(MATMUL)
    with pytest.raises(graphopt.UsageError, match="did you mean 'batch'"):
        cost.at({"bacth": 2})
    for size in (-1, 2.0, True):
        with pytest.raises(graphopt.UsageError, match="integer of at least 0"):
            cost.at({"batch": size})
    assert cost.at({"batch": np.int32(2**30)}).total.macs == 32 * 2**30


def test_a_cost_is_a_value() -> None:
    first, second = cost_of(MATMUL), cost_of(MATMUL)
    assert first == second
    assert hash(first) == hash(second)
    assert pickle.loads(pickle.dumps(first)) == first
    assert len(repr(first)) < 500


def test_rules_can_be_given() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
    agraph (float[2, 4] x) => (float[2, 4] y) { y = com.acme.Rotate (x) }
    """)
    rule = Rule("com.acme", "Rotate", lambda node: Work(elementwise=node.input().size * 3))
    assert estimate_cost(model, rules=[rule]).total.flops == 24
    assert estimate_cost(model).uncounted


def test_weights_may_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        shared_weight(), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    expected = estimate_cost(path)
    (tmp_path / "weights").unlink()
    assert estimate_cost(path) == expected
    with pytest.raises(graphopt.UnreadableModelError, match="missing"):
        graphopt.load(path)


def test_edges_carry_bytes_and_networkx_takes_them() -> None:
    cost = estimate_cost(shared_weight())
    graph = cost.to_networkx()
    assert graph.nodes[0]["macs"] == 32
    assert graph[0][1][0] == {"value": "a", "bytes": 32}
    assert networkx.is_directed_acyclic_graph(graph)


def test_pandas_takes_the_rows_as_they_are() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    cost = estimate_cost(shared_weight())
    frame = pandas.DataFrame(cost.by_node)
    assert frame["macs"].sum() == cost.total.macs
    assert list(frame["module"].unique()) == ["first", "second"]


def test_json_is_json_with_and_without_free_dims() -> None:
    document = json.loads(cost_of(MATMUL).to_json())
    assert document["total"]["macs"] == "32*batch"
    assert document["total"]["intensity"] is None
    assert json.loads(cost_of(MATMUL, dims={"batch": 2}).to_json())["total"]["macs"] == 64


def test_every_source_is_taken_and_none_is_changed(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(HEADER + MATMUL)
    content = proto.SerializeToString(deterministic=True)
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    costs = [estimate_cost(source) for source in (proto, content, path, str(path), model)]
    assert all(cost == costs[0] for cost in costs)
    assert proto.SerializeToString(deterministic=True) == content
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_contradiction_of_shapes_is_an_error() -> None:
    with pytest.raises(graphopt.ShapeError):
        cost_of(MATMUL, input_shapes={"x": (1, 5)})


def test_numbers_of_a_model_without_free_dims_are_ints() -> None:
    cost = cost_of(MATMUL, dims={"batch": 2})
    values = [getattr(row, name) for row in cost.by_node for name in ("macs", "flops")]
    assert not any(isinstance(value, Quantity) for value in values)


@pytest.mark.parametrize(
    ("result", "expected"),
    [(None, "invalid"), (1.5, "invalid"), (-1, "invalid"), ("x", "invalid"), (np.int64(7), 7)],
)
def test_what_a_rule_gives_is_checked(result: Any, expected: Any) -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "com.acme" : 1]>
    agraph (float[2, 4] x) => (float[2, 4] y) { y = com.acme.Odd (x) }
    """)
    cost = estimate_cost(model, rules=[Rule("com.acme", "Odd", lambda node: Work(macs=result))])
    if expected == "invalid":
        assert len(cost.uncounted) == 1
        assert "its rule failed" in cost.notes[0]
    else:
        assert cost.total.macs == expected
        json.loads(cost.to_json())


def test_a_loop_never_runs_a_negative_number_of_times() -> None:
    cost = cost_of(LOOP.replace("COUNT", "trips = Constant <value = int64 {-5}> ()"))
    assert cost.total.macs == 0


def test_a_loop_whose_body_says_stop_runs_once() -> None:
    text = LOOP.replace("COUNT", "trips = Constant <value = int64 {7}> ()").replace(
        "d = Identity (c)", "d = Constant <value = bool {0}> ()"
    )
    assert cost_of(text).total.macs == 64


def test_a_constant_of_a_function_counts_once_for_all_its_calls() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    agraph (float[2] x) => (float[2] y) {
      a = mine.shift (x)
      y = mine.shift (a)
    }
    <domain: "mine", opset_import: ["" : 17]>
    shift (p) => (q) { k = Constant <value = float[2] {1.0, 2.0}> ()
      q = Add (p, k) }
    """)
    assert estimate_cost(model).total.parameters == 2


def test_a_function_that_calls_itself_is_one_line() -> None:
    model = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
    agraph (float[2] x) => (float[2] y) { y = mine.again (x) }
    <domain: "mine", opset_import: ["" : 17, "mine" : 1]>
    again (p) => (q) { q = mine.again (p) }
    """)
    with pytest.raises(graphopt.InvalidModelError):
        estimate_cost(model)


def test_functions_that_multiply_without_end_are_refused() -> None:
    calls = "\n".join(
        f"<domain: 'mine', opset_import: ['' : 17, 'mine' : 1]>\n"
        f"f{n} (p) => (q) {{ r = mine.f{n + 1} (p)\n q = mine.f{n + 1} (r) }}"
        for n in range(30)
    ).replace("'", '"')
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>\n'
        "agraph (float[2] x) => (float[2] y) { y = mine.f0 (x) }\n"
        + calls
        + '\n<domain: "mine", opset_import: ["" : 17]>\nf30 (p) => (q) { q = Relu (p) }'
    )
    with pytest.raises(graphopt.InvalidModelError, match="too many"):
        estimate_cost(model)


def test_values_that_are_no_tensors_take_nothing() -> None:
    scores = helper.make_node(
        "ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_strings=["a", "b"]
    )
    kind = helper.make_map_type_proto(
        TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    model = helper.make_model(
        helper.make_graph(
            [scores],
            "zipmap",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
            [helper.make_value_info("y", helper.make_sequence_type_proto(kind))],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
    )
    assert estimate_cost(model).total.macs == 0


def test_the_dearer_branch_is_told_by_its_operations() -> None:
    cost = cost_of("""
    agraph (bool b, float[100] x) => (float[100] y) {
      c = Identity (b)
      y = If (c) <
        then_branch = p () => (float[100] a) { s = ReduceSum <keepdims = 1> (x)
          t = MatMul (s, s)
          a = Add (x, t) },
        else_branch = q () => (float[100] d) { e = Mul (x, x)
          f = Mul (e, e)
          g = Mul (f, f)
          d = Mul (g, g) }>
    }""")
    runs = {row.op_type: row.executions for row in cost.by_node}
    assert (runs["MatMul"], runs["Mul"]) == (0, 1)
