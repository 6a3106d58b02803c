"""Raising a model's operator set before it is optimized."""

from pathlib import Path

import numpy as np
import pytest

import graphopt
from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import from_text, ir, load, raise_opset, save, to_bytes
from graphopt.pipeline import optimization
from graphopt.runtime import Session

# Softmax-11 takes everything from its axis on as one; Squeeze and ReduceMean have attributes.
OLD = """
<ir_version: 6, opset_import: ["" : 11]>
old (float[n, 3, 4] x) => (float[n, 4] y, float[n, 3, 4] p)
<float[4] scale = {1.0, 2.0, 0.5, 1.5}, float[4] shift = {0.1, -0.2, 0.3, 0.0},
 float eps = {1e-5}, float two = {2.0}>
{
    p = Softmax <axis = 1> (x)
    m = ReduceMean <axes = [-1]> (x)
    d = Sub (x, m)
    s = Pow (d, two)
    v = ReduceMean <axes = [-1]> (s)
    e = Add (v, eps)
    r = Sqrt (e)
    q = Div (d, r)
    w = Mul (q, scale)
    n = Add (w, shift)
    l = ReduceMean <axes = [1], keepdims = 1> (n)
    y = Squeeze <axes = [1]> (l)
}
"""


def test_passes_use_what_the_newer_opset_has() -> None:
    old = from_text(OLD)
    kept = graphopt.optimize(old)
    raised = graphopt.optimize(old, target_opset=17)
    assert "LayerNormalization" not in [node.op_type for node in kept.model.graph]
    assert "LayerNormalization" in [node.op_type for node in raised.model.graph]
    assert raised.model.opset_imports[""] == 17
    assert raised.ok
    assert old.opset_imports[""] == 11
    feed = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)}
    expected, found = Session(old).run(feed), Session(raised.model).run(feed)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)


def test_notes_on_the_graph_and_its_inputs_stay() -> None:
    old = from_text(OLD)
    old.graph.metadata_props["made"] = "here"
    old.graph.inputs[0].metadata_props["kind"] = "USER_INPUT"
    raised = raise_opset(old, 17)
    assert raised.graph.metadata_props["made"] == "here"
    assert raised.graph.inputs[0].metadata_props["kind"] == "USER_INPUT"


def test_the_same_opset_changes_nothing() -> None:
    old = from_text(OLD)
    first, second = graphopt.optimize(old), graphopt.optimize(old, target_opset=11)
    assert to_bytes(first.model) == to_bytes(second.model)


@pytest.mark.parametrize(
    ("version", "parts"), [(9, "would lower it"), (999, "from 11 to 999: \\d+ is the newest")]
)
def test_what_cannot_be_raised(version: int, parts: str) -> None:
    with pytest.raises(UsageError, match=parts) as caught:
        graphopt.optimize(from_text(OLD), target_opset=version)
    assert "\n" not in str(caught.value)


def test_a_conversion_that_changes_the_outputs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: ir.Model, version: int) -> ir.Model:
        raised = real(model, version)
        (node,) = [node for node in raised.graph if node.op_type == "Sqrt"]
        node.op_type = "Exp"
        return raised

    real = optimization.raise_opset
    monkeypatch.setattr(optimization, "raise_opset", wrong)
    with pytest.raises(EquivalenceError, match="raising the opset from 11 to 17 changes"):
        graphopt.optimize(from_text(OLD), target_opset=17)


def test_functions_notes_and_free_dims_survive() -> None:
    model = from_text("""
        <ir_version: 8, opset_import: ["" : 13, "loc" : 1]>
        g (float[n, 3] x) => (float[k, l] y) { h = loc.f (x)  y = Softmax (h) }
        <domain: "loc", opset_import: ["" : 13]> f (a) => (b) { b = Relu (a) }
    """)
    for node in model.graph:
        node.metadata_props["module"] = f"net.{node.op_type}"
    raised = raise_opset(model, 15)
    assert [node.op_type for node in raised.graph] == ["Relu", "Softmax"]
    assert raised.graph[1].metadata_props["module"] == "net.Softmax"
    assert str(raised.graph.outputs[0].shape) == "[k,l]"
    assert [node.op_type for node in model.graph] == ["f", "Softmax"]
    assert graphopt.optimize(model, target_opset=15, check="off").model.opset_imports[""] == 15


def test_weights_stay_in_their_file(tmp_path: Path) -> None:
    numbers = ", ".join(["0.5"] * 4096)
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 13]> g (float[2, 64] x) => (float[2, 64] y) '
        f"<float[64, 64] w = {{{numbers}}}> {{ y = MatMul (x, w) }}"
    )
    save(model, tmp_path / "old.onnx", external_data=True)
    raised = raise_opset(load(tmp_path / "old.onnx"), 17)
    assert isinstance(raised.graph.initializers["w"].const_value, ir.ExternalTensor)


def test_a_model_without_operators_of_onnx() -> None:
    model = from_text(
        '<ir_version: 8, opset_import: ["com.microsoft" : 1]> '
        "g (float[2] x) => (float[2] y) { y = com.microsoft.Gelu (x) }"
    )
    with pytest.raises(UsageError, match="no operators of ONNX"):
        raise_opset(model, 17)
