"""Quantizing, dequantizing, and what is computed on quantized elements one by one.

    operator                per element
    QuantizeLinear          divide, round, bound twice, add the zero point if given    5 (or 4)
    DequantizeLinear        subtract the zero point if given, multiply                 2 (or 1)
    DynamicQuantizeLinear   n elements: n - 1 comparisons each for minimum and maximum,
                            9 for scale and zero point, then 5n                        7n + 7
    QLinear...              its inputs dequantized, the operator itself, its output quantized

    where scale = (max(0, max(x)) - min(0, min(x))) / 255 and
    zero point = bounded(round(0 - min / scale)) take 2 + 2 and 2 + 3 operations.

A kernel with a table of all 256 results (of QLinearSigmoid, QLinearLeakyRelu) computes less:
what counts is the formula. Converting a type counts nothing.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Tensor, Work
from graphopt.cost.quantity import Number, product, total
from graphopt.cost.rules.activation import activation
from graphopt.cost.rules.formulas import bytes_of, combining, normalized, softmax, split_at

REQUANTIZATION = 5
"""Per element: scale, round, add a zero point, bound from both sides."""


def dynamic_range_steps(size: Number) -> Number:
    """Elementwise operations that bring `size` floats to 8 bits by their own range."""
    return 2 * combining(size, 1) + 9 + REQUANTIZATION * size


def quantize(node: Operator) -> Work:
    """`QuantizeLinear`: x, scale, zero point; per tensor, axis or block."""
    return Work(elementwise=node.output().size * _quantized(node, 2))


def dequantize(node: Operator) -> Work:
    """`DequantizeLinear`: x, scale, zero point."""
    return Work(elementwise=node.output().size * (1 + node.has_input(2)))


def dynamic_quantize(node: Operator) -> Work:
    """`DynamicQuantizeLinear`: quantizes by the range of its input."""
    return Work(elementwise=dynamic_range_steps(node.input().size))


def quantized_binary(node: Operator) -> Work:
    """`QLinearAdd`, `QLinearMul`: A, B and C, each with scale and zero point."""
    steps = 1 + _quantized(node, 7)
    return Work(
        elementwise=total((_centred(node, 0), _centred(node, 3), node.output().size * steps))
    )


def quantized_sigmoid(node: Operator) -> Work:
    """`QLinearSigmoid`."""
    return _quantized_function(node, "Sigmoid")


def quantized_leaky_relu(node: Operator) -> Work:
    """`QLinearLeakyRelu`."""
    return _quantized_function(node, "LeakyRelu")


def quantized_embedding(node: Operator) -> Work:
    """`QEmbedLayerNormalization`: rows of 8-bit tables, added up and normalized in floats."""
    output, rows = node.output().size, node.input().size
    hidden = node.output().dims[-1]
    tables = 2 + node.has_input(4)
    steps, roots = normalized(output, rows, centred=True, shift=True)
    elementwise = output * (2 * tables + tables - 1) + steps + 4 * hidden
    if node.has_input(7):
        elementwise = elementwise + combining(rows, node.input().dims[0])
    picked = tables * bytes_of(node.input(2), output)
    ids = [node.input(index).bytes for index in (0, 1, 5, 6, 7) if node.has_input(index)]
    return Work(elementwise=elementwise, transcendentals=roots, reads=total((picked, *ids)))


def quantized_softmax(node: Operator) -> Work:
    """`QLinearSoftmax`: from opset 13 on over one axis, before over all from `axis` on."""
    dims = node.output().dims
    axis = node.integer("axis", -1) % len(dims)
    axes = (axis,) if node.integer("opset", 13) >= 13 else range(axis, len(dims))
    elementwise, exponentials = softmax(*split_at(dims, axes))
    return Work(
        elementwise=_centred(node, 0) + elementwise + node.output().size * _quantized(node, 4),
        transcendentals=exponentials,
    )


def quantized_concatenation(node: Operator) -> Work:
    """`QLinearConcat`: scale and zero point of Y, then each input with both."""
    inputs = (_centred(node, index) for index in range(2, len(node.inputs), 3))
    return Work(elementwise=total((*inputs, node.output().size * _quantized(node, 1))))


def quantized_average_pooling(node: Operator) -> Work:
    """`QLinearAveragePool`: for a window of k elements k - 1 additions and a division."""
    window = product(node.integers("kernel_shape") or ())
    size = node.output().size
    return Work(elementwise=_centred(node, 0) + size * (window + _quantized(node, 4)))


def quantized_mean(node: Operator) -> Work:
    """`QLinearGlobalAveragePool`: additions and a division per output."""
    size, output = node.input().size, node.output().size
    mean = combining(size, output) + output
    return Work(elementwise=_centred(node, 0) + mean + output * _quantized(node, 4))


def quantized_choice(node: Operator) -> Work:
    """`QLinearWhere`: condition, X and Y with scale and zero point; both are dequantized."""
    steps = _quantized(node, 8)
    return Work(
        elementwise=total((_centred(node, 1), _centred(node, 4), node.output().size * steps))
    )


def quantized_gather(node: Operator) -> Work:
    """`GatherBlockQuantized`: reads what it picks, with scales, and dequantizes it."""
    data, indices, output = node.input(), node.input(1), node.output()
    parts = [data, node.input(2)] + ([node.input(3)] if node.has_input(3) else [])
    axis = node.integer("gather_axis", 0)
    picked = (bytes_of(part, indices.size * _slice(part, axis)) for part in parts)
    return Work(elementwise=2 * output.size, reads=total((indices.bytes, *picked)))


def _slice(tensor: Tensor, axis: int) -> Number:
    """How many elements lie at one position of an axis."""
    dims = tensor.dims
    axis %= max(1, len(dims))
    return product(dims[:axis] + dims[axis + 1 :])


def _centred(node: Operator, value: int) -> Number:
    """Dequantizing an input that its scale and zero point follow."""
    return node.input(value).size * (1 + node.has_input(value + 2))


def _quantized(node: Operator, zero_point: int) -> int:
    """Quantizing one element, whose zero point is the input at that index."""
    return REQUANTIZATION - 1 + node.has_input(zero_point)


def _quantized_function(node: Operator, name: str) -> Work:
    """X, its scale and zero point, the output's scale and zero point."""
    size = node.output().size
    function = activation(name)
    return Work(
        elementwise=_centred(node, 0) + size * (function.elementwise + _quantized(node, 4)),
        transcendentals=size * function.transcendentals,
    )


_MICROSOFT = "com.microsoft"

RULES = (
    Rule("", "QuantizeLinear", quantize),
    Rule("", "DequantizeLinear", dequantize),
    Rule("", "DynamicQuantizeLinear", dynamic_quantize),
    Rule(_MICROSOFT, "QuantizeLinear", quantize),
    Rule(_MICROSOFT, "DequantizeLinear", dequantize),
    Rule(_MICROSOFT, "QLinearAdd", quantized_binary),
    Rule(_MICROSOFT, "QLinearMul", quantized_binary),
    Rule(_MICROSOFT, "QLinearSigmoid", quantized_sigmoid),
    Rule(_MICROSOFT, "QLinearLeakyRelu", quantized_leaky_relu),
    Rule(_MICROSOFT, "QLinearSoftmax", quantized_softmax),
    Rule(_MICROSOFT, "QLinearConcat", quantized_concatenation),
    Rule(_MICROSOFT, "QLinearAveragePool", quantized_average_pooling),
    Rule(_MICROSOFT, "QLinearGlobalAveragePool", quantized_mean),
    Rule(_MICROSOFT, "QLinearWhere", quantized_choice),
    Rule(_MICROSOFT, "QEmbedLayerNormalization", quantized_embedding),
    Rule(_MICROSOFT, "GatherBlockQuantized", quantized_gather),
)
