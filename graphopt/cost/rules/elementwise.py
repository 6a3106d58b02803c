"""Operators that do the same to every element, and their fusions.

Per output element, elementwise operations and, after a semicolon, transcendentals. Both sides
of a choice are computed; choosing, converting a type and remembering are no arithmetic.

    a + b, a - b, a * b, a / b, a % b, comparisons, logical and bit operations      1
    Sum, Max, Min of n inputs    n - 1         Mean of n inputs                     n
    Abs, Neg, Reciprocal, Floor, Ceil, Round, Not, BitwiseNot, IsNaN                1
    Sign                         x > 0, x < 0                                       2
    Exp, Log, Sqrt, Erf, trigonometric and hyperbolic functions                     0; 1
    Pow                          0; 1          by the known exponent 2 or 3         1 or 2
    Clip                         1 per bound   IsInf: x = inf or x = -inf           3
    Relu, Sigmoid, Gelu, ...     as `activation` has it
    PRelu                        x < 0, slope * x                                   2
    Shrink                       x < -lambd, x + bias, x > lambd, x - bias          4
    SwiGLU                       Swish(a) * b                                       6; 1
    BiasGelu                     Gelu(x + bias)                                     5; 1
    GatedAdd                     x + y * gate                                       2

Dropout is the identity at inference. Where, Cast and the like move data.
"""

from __future__ import annotations

from graphopt.cost.operator import MOVE, Operator, Rule, Work
from graphopt.cost.rules.activation import SIGMOID, activation
from graphopt.cost.rules.formulas import Count, fixed, is_given

_UNARY = {
    (1, 0): "Abs Neg Reciprocal Floor Ceil Round Not BitwiseNot IsNaN",
    (2, 0): "Sign",
    (4, 0): "Shrink",
    (0, 1): "Exp Log Sqrt Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh",
}
_BINARY = {
    (1, 0): "Add Sub Mul Div Mod And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual "
    "BitShift BitwiseAnd BitwiseOr BitwiseXor",
    (2, 0): "PRelu",
    activation("Swish").with_steps(1): "SwiGLU",
}
# Operators of opset 1 that ONNX dropped and ONNX Runtime still runs: ImageScaler is
# x * scale + bias, by channels.
_DROPPED = {
    (1, 0): "Scale",
    (2, 0): "ImageScaler",
}
_MICROSOFT = {
    (2, 0): "GatedAdd",
    activation("Gelu").with_steps(1): "BiasGelu",
}
_ACTIVATIONS = (
    "Relu LeakyRelu ThresholdedRelu Softsign HardSigmoid HardSwish Tanh Sigmoid Elu Selu Celu "
    "Swish Softplus Mish Affine ScaledTanh ParametricSoftplus"
)


def _per_element(elementwise: int, transcendentals: int) -> Count:
    def count(node: Operator) -> Work:
        size = node.output().size
        return Work(elementwise=elementwise * size, transcendentals=transcendentals * size)

    return count


def _activations(domain: str, op_types: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(domain, op_type, _per_element(*activation(op_type))) for op_type in op_types.split()
    )


def _rules(domain: str, table: dict[tuple[int, int], str]) -> tuple[Rule, ...]:
    return tuple(
        Rule(domain, op_type, _per_element(*operations))
        for operations, op_types in table.items()
        for op_type in op_types.split()
    )


def variadic(node: Operator) -> Work:
    """Sum, Max and Min of n inputs: n - 1 per output element; Mean divides besides."""
    steps = len(node.inputs) - 1 + (node.op_type == "Mean")
    return Work(elementwise=steps * node.output().size)


def power(node: Operator) -> Work:
    """One transcendental per element; by a known 2 or 3 alone, one or two multiplications."""
    size = node.output().size
    exponents = set(node.input(1).elements or ())
    if exponents in ({2}, {3}):
        return Work(elementwise=(1 if exponents == {2} else 2) * size)
    return Work(transcendentals=size)


def clip(node: Operator) -> Work:
    """min(max(x, low), high): one for each bound that is given, as an attribute before opset 11."""
    if node.version < 11:
        bounds = is_given(node, "min") + is_given(node, "max")
    else:
        bounds = node.has_input(1) + node.has_input(2)
    return Work(elementwise=bounds * node.output().size)


def is_infinite(node: Operator) -> Work:
    """One comparison for each sign that is asked for, and an `or` between two."""
    signs = node.integer("detect_positive", 1) + node.integer("detect_negative", 1)
    return Work(elementwise=max(0, 2 * signs - 1) * node.output().size)


def gelu(node: Operator) -> Work:
    """ONNX's Gelu: by erf, or by tanh where `approximate` says so."""
    by_tanh = node.text("approximate", "none") == "tanh"
    return _per_element(*activation("FastGelu" if by_tanh else "Gelu"))(node)


def fast_gelu(node: Operator) -> Work:
    """Gelu by tanh, of x + bias where there is a bias."""
    return _per_element(*activation("FastGelu").with_steps(node.has_input(1)))(node)


def convert_like(node: Operator) -> Work:
    """CastLike: the second input is there for its type alone."""
    return Work(reads=node.input().bytes)


def dropout(node: Operator) -> Work:
    """The identity, as at inference; a mask is written where somebody wants it."""
    training = node.input(2).elements if node.has_input(2) else (0,)
    note = "" if training == (0,) else "counted as at inference, where it does nothing"
    written = node.output(1).bytes if node.has_output(1) else 0
    return Work(reads=0, writes=written, note=note)


def linear_attention_gate(node: Operator) -> Work:
    """Decay: scale * Softplus(a + bias), 3; 2. Sigmoid(b) where it is wanted."""
    steps, functions = activation("Softplus").with_steps(2).times(node.output().size)
    if node.has_output(1):
        more, exponentials = SIGMOID.times(node.output(1).size)
        steps, functions = steps + more, functions + exponentials
    return Work(elementwise=steps, transcendentals=functions)


RULES = (
    *_rules("", _UNARY),
    *_rules("", _BINARY),
    *_rules("", _DROPPED),
    *_rules("com.microsoft", _MICROSOFT),
    *_activations("", _ACTIVATIONS),
    *_activations("com.microsoft", "Gelu QuickGelu ScaledSiLU"),
    *fixed("", MOVE, "Where Cast"),
    *(Rule("", op_type, variadic) for op_type in ("Sum", "Max", "Min", "Mean")),
    Rule("", "CastLike", convert_like),
    Rule("", "Pow", power),
    Rule("", "Clip", clip),
    Rule("", "IsInf", is_infinite),
    Rule("", "Gelu", gelu),
    Rule("", "Dropout", dropout),
    Rule("com.microsoft", "FastGelu", fast_gelu),
    Rule("com.microsoft", "LinearAttentionGate", linear_attention_gate),
)
