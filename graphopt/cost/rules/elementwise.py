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
    Relu                         max(x, 0)                                          1
    LeakyRelu, PRelu             x < 0, slope * x                                   2
    ThresholdedRelu              x > threshold                                      1
    Elu                          x < 0, alpha * (exp(x) - 1)                        3; 1
    Selu                         gamma * (x > 0, alpha * exp(x) - alpha)            4; 1
    Celu                         max(0, x) + min(0, alpha * (exp(x/alpha) - 1))     6; 1
    Sigmoid                      1 / (1 + exp(-x))                                  3; 1
    HardSigmoid                  max(0, min(1, alpha * x + beta))                   4
    HardSwish                    x * HardSigmoid(x)                                 5
    Swish, QuickGelu             x * sigmoid(alpha * x)                             5; 1
    SwiGLU                       Swish(a) * b                                       6; 1
    Mish                         x * tanh(log(1 + exp(x)))                          2; 3
    Softplus                     log(exp(x) + 1)                                    1; 2
    Softsign                     x / (1 + |x|)                                      3
    Shrink                       x < -lambd, x + bias, x > lambd, x - bias          4
    Gelu                         0.5 * x * (1 + erf(x / sqrt(2)))                   4; 1
    Gelu by tanh, FastGelu       0.5 * x * (1 + tanh(c * (x + 0.044715 * x*x*x)))   8; 1
    BiasGelu                     Gelu(x + bias)                                     5; 1
    BiasSplitGelu                (x1 + b1) * Gelu(x2 + b2)                          7; 1
    ScaledSiLU                   z = scale * x, z * sigmoid(z)                      5; 1
    ComplexMul                   6 per complex number, which is two elements        3
    GatedAdd                     x + y * gate                                       2

Dropout is the identity at inference. Where, Cast and the like move data.
"""

from __future__ import annotations

from graphopt.cost.operator import MOVE, VIEW, Operator, Rule, Work
from graphopt.cost.rules.formulas import SIGMOID, Count, fixed, is_given

_UNARY = {
    (1, 0): "Abs Neg Reciprocal Floor Ceil Round Not BitwiseNot IsNaN Relu ThresholdedRelu",
    (2, 0): "Sign LeakyRelu",
    (3, 0): "Softsign",
    (4, 0): "HardSigmoid Shrink",
    (5, 0): "HardSwish",
    (0, 1): "Exp Log Sqrt Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Tanh Asinh Acosh Atanh",
    (3, 1): "Elu Sigmoid",
    (4, 1): "Selu",
    (5, 1): "Swish",
    (6, 1): "Celu",
    (1, 2): "Softplus",
    (2, 3): "Mish",
}
_BINARY = {
    (1, 0): "Add Sub Mul Div Mod And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual "
    "BitShift BitwiseAnd BitwiseOr BitwiseXor",
    (2, 0): "PRelu",
    (6, 1): "SwiGLU",
}
# Operators of opset 1 that ONNX dropped and ONNX Runtime still runs: Affine and ImageScaler are
# x * scale + bias, ScaledTanh is alpha * tanh(beta * x), ParametricSoftplus is
# alpha * log(exp(beta * x) + 1).
_DROPPED = {
    (1, 0): "Scale",
    (2, 0): "Affine ImageScaler",
    (2, 1): "ScaledTanh",
    (3, 2): "ParametricSoftplus",
}
_MICROSOFT = {
    (2, 0): "GatedAdd",
    (3, 0): "ComplexMul ComplexMulConj",
    (4, 1): "Gelu",
    (5, 1): "BiasGelu QuickGelu ScaledSiLU",
    (7, 1): "BiasSplitGelu",
}


def _per_element(elementwise: int, transcendentals: int) -> Count:
    def count(node: Operator) -> Work:
        size = node.output().size
        return Work(elementwise=elementwise * size, transcendentals=transcendentals * size)

    return count


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
    """One transcendental per element; a known exponent 2 or 3 is one or two multiplications."""
    size = node.output().size
    exponent = node.input(1).elements
    if exponent in ((2,), (3,)):
        return Work(elementwise=(1 if exponent == (2,) else 2) * size)
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
    return _per_element(8 if node.text("approximate", "none") == "tanh" else 4, 1)(node)


def fast_gelu(node: Operator) -> Work:
    """Gelu by tanh, of x + bias where there is a bias."""
    return _per_element(8 + node.has_input(1), 1)(node)


def convert_like(node: Operator) -> Work:
    """CastLike: the second input is there for its type alone."""
    return Work(reads=node.input().bytes)


def dropout(node: Operator) -> Work:
    """The identity; a mask is written where somebody wants it."""
    return Work(reads=0, writes=node.output(1).bytes) if node.has_output(1) else VIEW


def bias_dropout(node: Operator) -> Work:
    """The bias is added, and the residual where there is one."""
    return Work(elementwise=(1 + node.has_input(2)) * node.output().size)


def bias_add(node: Operator) -> Work:
    """The bias is added, and what is skipped where there is some."""
    return Work(elementwise=(1 + node.has_input(2)) * node.output().size)


def linear_attention_gate(node: Operator) -> Work:
    """Decay: scale * Softplus(a + bias), 3; 2. Sigmoid(b) where it is wanted."""
    size = node.output().size
    gates = node.output(1).size if node.has_output(1) else 0
    return Work(
        elementwise=3 * size + SIGMOID[0] * gates,
        transcendentals=2 * size + SIGMOID[1] * gates,
    )


RULES = (
    *_rules("", _UNARY),
    *_rules("", _BINARY),
    *_rules("", _DROPPED),
    *_rules("com.microsoft", _MICROSOFT),
    *fixed("", MOVE, "Where Cast"),
    *(Rule("", op_type, variadic) for op_type in ("Sum", "Max", "Min", "Mean")),
    Rule("", "CastLike", convert_like),
    Rule("", "Pow", power),
    Rule("", "Clip", clip),
    Rule("", "IsInf", is_infinite),
    Rule("", "Gelu", gelu),
    Rule("", "Dropout", dropout),
    Rule("com.microsoft", "FastGelu", fast_gelu),
    Rule("com.microsoft", "BiasAdd", bias_add),
    Rule("com.microsoft", "BiasDropout", bias_dropout),
    Rule("com.microsoft", "BitmaskBiasDropout", bias_dropout),
    Rule("com.microsoft", "BitmaskDropout", dropout),
    Rule("com.microsoft", "LinearAttentionGate", linear_attention_gate),
)
