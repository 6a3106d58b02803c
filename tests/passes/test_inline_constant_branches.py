"""inline-constant-branches: what golden cases cannot show."""

import time

import numpy as np
from graphopt_passes.inline_constant_branches import InlineConstantBranches

from graphopt.graph import from_text, patient_collector, to_text, verify
from graphopt.plugin import Journal
from graphopt.runtime import Session
from graphopt.shapes import infer_shapes

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def inlined(text, **journal):
    model = from_text(text)
    infer_shapes(model)
    record = Journal("inline-constant-branches", **journal)
    InlineConstantBranches().run(model, record)
    assert verify(model) == []
    return model, record


def test_one_value_returned_twice_keeps_both_output_names():
    # No golden case: ONNX Runtime 1.31 gives zeros for the first of the two.
    model, _ = inlined(
        f"""{HEADER} g (float[2] x) => (float[2] y, float[2] z) <bool c = {{1}}> {{
          y, z = If(c) <then_branch = t () => (float[2] a, float[2] a) {{
            a = Neg(x)
          }}, else_branch = e () => (float[2] b, float[2] d) {{
            b = Abs(x)
            d = Exp(x)
          }}>
        }}"""
    )
    assert [node.op_type for node in model.graph] == ["Neg", "Identity"]
    x = np.array([1, -2], np.float32)
    results = Session(model).run({"x": x})
    assert list(results) == ["y", "z"]
    for value in results.values():
        np.testing.assert_array_equal(value, -x)


def test_nodes_keep_their_names_and_metadata():
    text = f"""{HEADER} g (float[2] x) => (float[2] y) <bool c = {{1}}> {{
      y = If(c) <then_branch = t () => (float[2] a) {{
        a = Neg(x)
      }}, else_branch = e () => (float[2] b) {{
        b = Abs(x)
      }}>
    }}"""
    model = from_text(text)
    infer_shapes(model)
    (node,) = model.graph
    (negation,) = node.attributes["then_branch"].as_graph()
    negation.name, negation.metadata_props["line"] = "encoder/neg", "model.py:7"
    InlineConstantBranches().run(model, Journal("inline-constant-branches"))
    (kept,) = model.graph
    assert (kept.name, kept.metadata_props["line"]) == ("encoder/neg", "model.py:7")


def test_a_site_that_is_left_out_stays():
    branches = """<then_branch = t () => (float[2] a) {
        a = Neg(x)
      }, else_branch = e () => (float[2] b) {
        b = Abs(x)
      }>"""
    second = branches.replace("a = ", "p = ").replace("] a)", "] p)")
    model, record = inlined(
        f"""{HEADER} g (float[2] x) => (float[2] y, float[2] z) <bool c = {{1}}> {{
          y = If(c) {branches}
          z = If(c) {second}
        }}""",
        skip=frozenset({"If -> y"}),
    )
    assert [node.op_type for node in model.graph] == ["If", "Neg"]
    assert [rewrite.site for rewrite in record.rewrites] == ["If -> z"]


def nested(depth):
    """`depth` Ifs, each in the then-branch of the one around it, with a node beside it."""
    inner = "b0 = Neg(x)"
    for level in range(1, depth + 1):
        inner = (
            f"n{level} = Abs(x)\n b{level} = If(c) <then_branch = t () => (float[2] b{level - 1}) "
            f"{{ {inner} }}, else_branch = e () => (float[2] e{level}) {{ e{level} = Exp(x) }}>"
        )
    return f"{HEADER} g (float[2] x) => (float[2] b{depth}) <bool c = {{1}}> {{ {inner} }}"


def test_deep_nesting_is_inlined_to_the_ground():
    model, record = inlined(nested(30))
    assert len(record.rewrites) == 30
    assert {node.op_type for node in model.graph} == {"Abs", "Neg"}


def test_the_cost_grows_linearly():
    def seconds(count):
        branches = "".join(
            f"""y{i + 1} = If(c) <then_branch = t () => (float[2] a) {{
                n = Neg(y{i})
                a = Abs(n)
            }}, else_branch = e () => (float[2] a) {{
                n = Abs(y{i})
                a = Neg(n)
            }}>\n"""
            for i in range(count)
        )
        model = from_text(
            f"{HEADER} g (float[2] y0) => (float[2] y{count}) <bool c = {{1}}> {{ {branches} }}"
        )
        # As the pipeline runs a pass: else what other tests left in memory counts too.
        with patient_collector():
            start = time.process_time()
            InlineConstantBranches().run(model, Journal("inline-constant-branches"))
            assert len(model.graph) == 2 * count
            return time.process_time() - start

    assert seconds(1000) < 20 * seconds(100) + 0.1


def test_the_same_model_gives_the_same_text():
    assert to_text(inlined(nested(3))[0]) == to_text(inlined(nested(3))[0])
