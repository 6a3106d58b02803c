"""Several matrix products in one operator: gated layers, and mixtures of experts.

    MatMulNBitsMlp    gate and up: 2 * rows * K * N MACs, activation(gate) * up
    MatMulNBitsQkv    query, key and value: rows * K * (Nq + 2 * Nkv)
    MoE, QMoE         each token through k experts: k * inter * hidden MACs for each of fc1 (twice
                      as wide where it holds both halves of a SwiGLU), fc2 and fc3

Weights of a few bits are decoded in every run (2 each). Normalizing a row of n first takes 4n + 1
and 1 sqrt, adding what is skipped n. Of a mixture of E experts, choosing takes a softmax over E, k
scans of E, and with normalized weights 2k - 1; adding up the chosen takes (2k - 1) * hidden. Which
experts are chosen is data, so the decoding of their weights is not counted.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.activation import activation
from graphopt.cost.rules.attention_scores import combined
from graphopt.cost.rules.formulas import is_given, softmax


def gated_layer(node: Operator) -> Work:
    """`MatMulNBitsMlp`: A, skip, norm scale, gate's B, scales, bias, up's B, scales, bias."""
    output = node.output().size
    inner, outer = node.input().dims[-1], node.output().dims[-1]
    function = activation(node.text("activation"))
    steps = function.elementwise + 1 + node.has_input(5) + node.has_input(8)
    layer = Work(
        macs=2 * output * inner,
        elementwise=output * steps + 2 * (2 * inner * outer),
        transcendentals=output * function.transcendentals,
    )
    return combined(layer, _normalized(node) if node.has_input(2) else Work())


def attention_projections(node: Operator) -> Work:
    """`MatMulNBitsQkv`: A, skip, norm scale, then B, scales and bias of query, key and value."""
    inner = node.input().dims[-1]
    outputs = [node.output(index) for index in range(3)]
    columns = sum((output.dims[-1] for output in outputs), start=0)
    biases = sum(
        (outputs[index].size for index in range(3) if node.has_input(5 + 3 * index)), start=0
    )
    rows = product(node.input().dims[:-1])
    return combined(
        Work(macs=rows * inner * columns, elementwise=biases + 2 * inner * columns),
        _normalized(node),
    )


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


def _normalized(node: Operator) -> Work:
    """RMS normalization of A, after adding what is skipped."""
    size = node.input().size
    rows = product(node.input().dims[:-1])
    skipped: Number = size if node.has_input(1) else 0
    return Work(elementwise=skipped + 4 * size + rows, transcendentals=rows)


_MICROSOFT = "com.microsoft"

RULES = (
    Rule(_MICROSOFT, "MatMulNBitsMlp", gated_layer),
    Rule(_MICROSOFT, "MatMulNBitsQkv", attention_projections),
    Rule(_MICROSOFT, "MoE", mixture_of_experts),
    Rule(_MICROSOFT, "QMoE", quantized_mixture_of_experts),
)
