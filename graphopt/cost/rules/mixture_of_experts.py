"""Mixtures of experts: each token goes through k of E layers, which its router chooses.

    fc1, fc2, fc3    inter * hidden MACs each, for each of the k experts; fc1 is twice as wide
                     where it holds both halves of a SwiGLU
    choosing         a softmax over E, k scans of E, and with normalized weights 2k - 1
    adding up        (2k - 1) * hidden

Which experts are chosen is data, so the decoding of quantized weights is not counted.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.rules.activation import activation
from graphopt.cost.rules.formulas import is_given, softmax


def mixture_of_experts(node: Operator) -> Work:
    """`MoE`: input, router, then weights and bias of fc1, fc2 and fc3."""
    return _mixture(node, first=(2, 3), second=(4, 5), third=(6, 7))


def quantized_mixture_of_experts(node: Operator) -> Work:
    """`QMoE`: weights, scales and bias of each layer."""
    return _mixture(node, first=(2, 4), second=(5, 7), third=(8, 10))


def _mixture(
    node: Operator, first: tuple[int, int], second: tuple[int, int], third: tuple[int, int]
) -> Work:
    """Each layer is (weights, bias); the weights are (experts, outputs, packed inputs)."""
    tokens, experts = node.input(1).dims
    hidden = node.input().dims[-1]
    chosen = node.integer("k", 1)
    name = node.text("activation_type", "relu")
    wide = node.input(first[0]).dims[1]
    split = node.has_input(third[0])
    inner = wide // 2 if name == "swiglu" and not split else wide
    runs = tokens * chosen
    if name == "swiglu":  # g * sigmoid(alpha * g) * (l + beta), both bounded before
        elementwise, transcendentals = 7 + 3 * is_given(node, "swiglu_limit"), 1
    else:
        function = activation(name)
        # With a third layer the activation of the first is multiplied with it.
        elementwise = function.elementwise + split
        transcendentals = function.transcendentals
    biases = wide * node.has_input(first[1]) + hidden * node.has_input(second[1])
    if split:
        biases = biases + inner * node.has_input(third[1])
    scores, exponentials = softmax(tokens, experts)
    choosing = tokens * chosen * experts
    if node.integer("normalize_routing_weights", 0):
        choosing = choosing + tokens * (2 * chosen - 1)
    return Work(
        macs=runs * hidden * (wide + inner + (inner if split else 0)),
        elementwise=runs * (inner * elementwise + biases)
        + tokens * (2 * chosen - 1) * hidden
        + scores
        + choosing,
        transcendentals=runs * inner * transcendentals + exponentials,
        note="which experts run is data: the decoding of their weights is not counted"
        if node.op_type == "QMoE"
        else "",
    )


_MICROSOFT = "com.microsoft"

RULES = (
    Rule(_MICROSOFT, "MoE", mixture_of_experts),
    Rule(_MICROSOFT, "QMoE", quantized_mixture_of_experts),
)
