"""Groups, what they absorb, what is declined, and which backend says so."""

from __future__ import annotations

import pytest

from graphopt.errors import UsageError
from graphopt.quantization.backends import BACKENDS, Role
from graphopt.quantization.placement import Group, Placement, place

from .quantizing import ORT_CPU, model_of, normal

W = {"w": normal(8, 8, 1, 1)}


def _groups(text: str, backend: str = "ort-cpu", **weights: object) -> dict[str, Group]:
    found = _placed(text, backend, **weights)
    return {group.name: group for group in found.groups}


def _placed(text: str, backend: str = "ort-cpu", **weights: object) -> Placement:
    given = {**W, **weights}
    used = {name: array for name, array in given.items() if name in text}
    return place(model_of(text, used), BACKENDS[backend])  # type: ignore[arg-type]


def test_a_relu_that_others_look_behind_is_not_absorbed() -> None:
    groups = _groups("g (float[1,8,8,8] x) => (y, u) { t = Conv (x, w) y = Relu (t) u = Neg (t) }")
    assert groups["t"].nodes == ("t",)
    assert groups["t"].writes == ("t",)
    outputs = _groups("g (float[1,8,8,8] x) => (y, t) { t = Conv (x, w) y = Relu (t) }")
    assert outputs["t"].nodes == ("t",)


def test_a_clip_whose_bounds_are_computed_is_not_absorbed() -> None:
    groups = _groups("g (float[1,8,8,8] x, float m) => (y) { t = Conv (x, w) y = Clip (t, m) }")
    assert groups["t"].nodes == ("t",)


def test_a_clip_without_zero_is_not_absorbed() -> None:
    groups = _groups(
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w) y = Clip (t, one) }", one=normal() * 0 + 1
    )
    assert groups["t"].nodes == ("t",)


def test_groups_never_share_a_node_and_name_their_tensors() -> None:
    found = _placed(
        """g (float[1,8,8,8] x) => (y) {
            t = Conv (x, w) r = Relu (t) u = Conv (r, w) s = Add (u, r) q = Relu (s)
            y = MaxPool <kernel_shape = [2, 2]> (q)
        }"""
    )
    nodes = [name for group in found.groups for name in group.nodes]
    assert len(nodes) == len(set(nodes))
    assert [group.nodes for group in found.groups] == [("t", "r"), ("u",), ("s", "q"), ("y",)]
    assert found.groups[2].tensors == ("u", "r", "q")
    assert found.ties == {"y": "q"}
    assert found.activations == ("x", "r", "u", "q")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[1,8,8,8] x, float[8,8,1,1] v) => (y) { y = Conv (x, v) }", "not a constant"),
        ("g (float[4,8] x) => (y) { y = Gemm <alpha = 2.0> (x, m) }", "alpha is not 1"),
        ("g (float[4,8] x, float[4,8] c) => (y) { y = Gemm (x, m, c) }", "C is not a constant"),
        ("g (float[1,8,8,8] x) => (y) { y = ConvTranspose (x, w) }", "no integer kernel"),
        ("g (double[4,8] x, double[8,4] z) => (y) { y = MatMul (x, z) }", "double, not float"),
    ],
)
def test_why_a_product_stays_float(text: str, reason: str) -> None:
    found = _placed(text, m=normal(8, 8))
    assert found.groups == ()
    assert reason in found.declined["y"]


def test_integers_for_shapes_are_nothing_to_talk_about() -> None:
    found = _placed(
        "g (float[N,8] x) => (float[M] y) { s = Shape (x) d = Mul (s, s) y = Cast <to = 1> (d) }"
    )
    assert found.declined == {}


def test_excluded_by_name_of_node_or_output() -> None:
    model = model_of("g (float[1,8,8,8] x) => (y) { t = Conv (x, w) y = Conv (t, w) }", W)
    found = place(model, ORT_CPU, nodes_to_exclude=["t"])
    assert [group.name for group in found.groups] == ["y"]
    assert "request" in found.declined["t"]
    with pytest.raises(UsageError, match="'nobody'"):
        place(model, ORT_CPU, nodes_to_exclude=["nobody"])


def test_an_excluded_activation_is_not_absorbed() -> None:
    model = model_of("g (float[1,8,8,8] x) => (y) { t = Conv (x, w) y = Relu (t) }", W)
    found = place(model, ORT_CPU, nodes_to_exclude=["y"])
    assert found.groups[0].nodes == ("t",)


def test_only_some_operators() -> None:
    model = model_of("g (float[1,8,8,8] x) => (y) { t = Conv (x, w) y = Add (t, x) }", W)
    found = place(model, ORT_CPU, op_types_to_quantize=["Conv"])
    assert [group.op_type for group in found.groups] == ["Conv"]
    assert "not among" in found.declined["y"]
    with pytest.raises(UsageError, match="'Tanh'"):
        place(model, ORT_CPU, op_types_to_quantize=["Tanh"])


def test_functions_are_told_of() -> None:
    found = _placed(
        """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[4,8] x, float[8,8] v) => (float[4,8] y) { y = local.f (x, v) }
        <domain: "local", opset_import: ["" : 17]>
        f (a, b) => (c) { c = MatMul (a, b) }"""
    )
    assert "body of a function" in found.declined["c"]


@pytest.mark.parametrize("name", BACKENDS)
def test_the_rules_of_a_backend_are_consistent(name: str) -> None:
    backend = BACKENDS[name]
    assert backend.name == name
    operators = [(rule.domain, rule.op_type) for rule in backend.rules]
    assert len(operators) == len(set(operators))
    for rule in backend.rules:
        assert rule.role is not Role.PRODUCT or rule.operands == (0, 1)
        assert backend.saturates or not rule.saturates


def test_tensorrt_takes_one_side_of_a_residual() -> None:
    groups = _groups(
        "g (float[1,8,8,8] x) => (y) { t = Conv (x, w) s = Add (t, x) y = Relu (s) }", "tensorrt"
    )
    assert groups["t"].nodes == ("t", "s", "y")
    assert [use.node for use in groups["t"].reads] == ["t", "s"]


def test_a_residual_between_two_convolutions_is_of_one_kernel() -> None:
    """A projection shortcut: either could take in the Add, which was in both groups."""
    groups = _groups(
        """g (float[1,8,8,8] x) => (y) {
          t = Conv (x, w) u = Conv (x, w) s = Add (t, u) y = Relu (s) }""",
        "tensorrt",
    )
    assert groups["t"].nodes == ("t", "s", "y")
    assert groups["u"].nodes == ("u",)
    assert groups["u"].writes == ("u",)
