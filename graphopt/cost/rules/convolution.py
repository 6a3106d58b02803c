"""Convolutions, as multiply-accumulates of the taps of a kernel.

Written for two spatial axes; it is the same for any number of them. Biases, added inputs and
activations are one step per output element.

    operator        MACs
    Conv            N * OC * OH * OW * (IC / group) * KH * KW
    ConvTranspose   N * IC * IH * IW * (OC / group) * KH * KW
    DeformConv      as Conv
    CausalConv...   N * C * L * K (one kernel per channel)

Taps on padding count, as if it were stored: frameworks and papers count so, and so do kernels
that copy windows. A transposed convolution spreads each *input* element over a kernel: with
the output's size instead, a stride of s counts s * s times too much. Taps that its `pads`
crop count as well.

A quantized convolution takes the zero point off each input element once (1), and turns each
32-bit sum into the output's scale: multiply, round, add the zero point, bound twice (5). The
weights' zero points are worked off at load.

Deformable convolution reads between the grid points. For n spatial axes, each tap of each
output position and offset group takes n additions to the location, n floors, n fractions, n
complements and (n - 1) * 2**n products for the weights of the 2**n neighbours; then each
channel takes 2**n products and 2**n - 1 additions, and one product more under a mask.

ONNX Runtime's blocked layout (`com.microsoft.nchwc`) pads channels to whole blocks. The shapes
in its models include that padding, so the count is of what is computed.
"""

from __future__ import annotations

from graphopt.cost.operator import Operator, Rule, Work
from graphopt.cost.quantity import Number, product
from graphopt.cost.rules.activation import activation
from graphopt.cost.rules.quantization import REQUANTIZATION


def convolution(node: Operator) -> Work:
    """`Conv`: X, W, B; with `FusedConv` and the blocked `Conv` also an added input."""
    output = node.output().size
    added = sum(node.has_input(index) for index in (2, 3))
    function = activation(node.text("activation"))
    return Work(
        macs=output * _kernel(node, 1),
        elementwise=output * (function.elementwise + added),
        transcendentals=output * function.transcendentals,
    )


def transposed_convolution(node: Operator) -> Work:
    """`ConvTranspose`: X, W of shape (IC, OC / group, kernel...), B."""
    return _transposed(node, bias=2)


def transposed_convolution_with_dynamic_pads(node: Operator) -> Work:
    """`ConvTransposeWithDynamicPads`: X, W, pads, B."""
    return _transposed(node, bias=3)


def integer_convolution(node: Operator) -> Work:
    """`ConvInteger`: x, w and their zero points, into 32-bit sums."""
    centred = node.input().size if node.has_input(2) else 0
    return Work(macs=node.output().size * _kernel(node, 1), elementwise=centred)


def quantized_convolution(node: Operator) -> Work:
    """`QLinearConv`: x, w, y, each with scale and zero point, then the bias."""
    output = node.output().size
    per_output = REQUANTIZATION + node.has_input(8)
    return Work(
        macs=output * _kernel(node, 3),
        elementwise=node.input().size + output * per_output,
    )


def deformable_convolution(node: Operator) -> Work:
    """`DeformConv`: X, W, offset (N, groups * taps * n, OH, OW), B, mask."""
    data, weights, offset = node.input(), node.input(1), node.input(2)
    axes = len(weights.dims) - 2
    places = product(offset.dims[2:])
    output = data.dims[0] * weights.dims[0] * places
    neighbours: int = 2**axes
    per_location = 4 * axes + (axes - 1) * neighbours
    per_value = 2 * neighbours - 1 + node.has_input(4)
    values = data.dims[0] * data.dims[1] * product(weights.dims[2:]) * places
    sampling = offset.size // axes * per_location + values * per_value
    return Work(
        macs=output * _kernel(node, 1),
        elementwise=sampling + output * node.has_input(3),
    )


def causal_convolution(node: Operator) -> Work:
    """`CausalConvWithState`: one kernel per channel over the past; input, weight, bias, state."""
    output = node.output().size
    name = node.text("activation", "none")
    function = activation("silu" if name == "swish" else name)  # two names of one function here
    return Work(
        macs=output * _kernel(node, 1),
        elementwise=output * (function.elementwise + node.has_input(2)),
        transcendentals=output * function.transcendentals,
    )


def _transposed(node: Operator, bias: int) -> Work:
    return Work(
        macs=node.input().size * _kernel(node, 1),
        elementwise=node.output().size if node.has_input(bias) else 0,
    )


def _kernel(node: Operator, weights: int) -> Number:
    """The taps behind one element: channels of a group times the kernel's size."""
    return product(node.input(weights).dims[1:])


_MICROSOFT = "com.microsoft"

RULES = (
    Rule("", "Conv", convolution),
    Rule("", "ConvTranspose", transposed_convolution),
    Rule("", "ConvInteger", integer_convolution),
    Rule("", "QLinearConv", quantized_convolution),
    Rule("", "DeformConv", deformable_convolution),
    Rule("", "CausalConvWithState", causal_convolution),
    Rule(_MICROSOFT, "CausalConvWithState", causal_convolution),
    Rule(_MICROSOFT, "FusedConv", convolution),
    Rule(_MICROSOFT, "NhwcFusedConv", convolution),
    Rule(_MICROSOFT, "QLinearConv", quantized_convolution),
    Rule(
        _MICROSOFT,
        "ConvTransposeWithDynamicPads",
        transposed_convolution_with_dynamic_pads,
    ),
    Rule("com.microsoft.nchwc", "Conv", convolution),
)
