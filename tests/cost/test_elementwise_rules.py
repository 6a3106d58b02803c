"""Elementwise operators: rules against loops that do the operator and count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphopt.cost import estimate_cost
from tests.cost.counted import (
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    choose,
    cos,
    cosh,
    each,
    erf,
    exp,
    larger,
    largest,
    log,
    mean,
    power,
    sin,
    sinh,
    smaller,
    sqrt,
    summed,
    tan,
    tanh,
)
from tests.cost.one_node import MICROSOFT, Case, check

random = np.random.default_rng(7)
X = random.normal(size=(2, 3, 4)).astype(np.float32)
Y = random.normal(size=(3, 1)).astype(np.float32) + 3
Z = random.normal(size=(2, 3, 4)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.5)
INTEGERS = random.integers(1, 9, (2, 3, 4)).astype(np.int64)
UNSIGNED = INTEGERS.astype(np.uint32)
TRUTHS = X > 0
VECTOR = random.normal(size=4).astype(np.float32)
INFINITE = np.array([[1, np.inf], [-np.inf, 0]], np.float32)
SMALL = random.uniform(-0.9, 0.9, (2, 3, 4)).astype(np.float32)
IMAGE = random.normal(size=(2, 3, 2, 2)).astype(np.float32)
LOW, HIGH = np.array(-0.5, np.float32), np.array(0.5, np.float32)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def hard_sigmoid(x: Any) -> Any:
    return larger(smaller(1 / 6 * x + 0.5, 1), 0)


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def gelu_by_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def shrink(x: Any) -> Any:
    low, high, below, above = x < -0.3, x > 0.3, x + 0.1, x - 0.1
    return choose(low, below, choose(high, above, 0))


def celu(x: Any) -> Any:
    return larger(x, 0) + smaller(0.7 * (exp(x / 0.7) - 1), 0)


def selu(x: Any) -> Any:
    alpha, gamma = 1.6732632, 1.0507010
    return gamma * choose(x > 0, x, alpha * exp(x) - alpha)


def parametric_softplus(x: Any) -> Any:
    return 0.7 * log(exp(0.4 * x) + 1)


def image_scaled(x: Any) -> Any:
    bias = np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1)
    return each(lambda v, b: v * 1.5 + b)(x, bias)


def linear_attention_gate(a: Any, shift: Any, scale: Any, b: Any = None) -> Any:
    decay = each(lambda v, t, s: s * log(exp(v + t) + 1))(a, shift, scale)
    return decay if b is None else (decay, each(sigmoid)(b))


UNARY = [
    Case("Abs", each(abs), [X]),
    Case("Neg", each(lambda x: -x), [X]),
    Case("Reciprocal", each(lambda x: 1 / x), [POSITIVE]),
    Case("Floor", each(math.floor), [X]),
    Case("Ceil", each(math.ceil), [X]),
    Case("Round", each(round), [X]),
    Case("Not", each(lambda x: ~x), [TRUTHS]),
    Case("IsNaN", each(lambda x: x != x), [X]),
    Case("IsInf", each(lambda x: (x == math.inf) | (x == -math.inf)), [INFINITE]),
    Case("IsInf", each(lambda x: x == math.inf), [INFINITE], {"detect_negative": 0}, label="one"),
    Case("Sign", each(lambda x: choose(x > 0, 1, choose(x < 0, -1, 0))), [X]),
    Case("Exp", each(exp), [X]),
    Case("Log", each(log), [POSITIVE]),
    Case("Sqrt", each(sqrt), [POSITIVE]),
    Case("Tanh", each(tanh), [X]),
    Case("Erf", each(erf), [X]),
    Case("Cos", each(cos), [X]),
    Case("Sin", each(sin), [X]),
    Case("Tan", each(tan), [X]),
    Case("Asin", each(asin), [SMALL]),
    Case("Acos", each(acos), [SMALL]),
    Case("Atan", each(atan), [X]),
    Case("Sinh", each(sinh), [X]),
    Case("Cosh", each(cosh), [X]),
    Case("Asinh", each(asinh), [X]),
    Case("Acosh", each(acosh), [POSITIVE + 1]),
    Case("Atanh", each(atanh), [SMALL]),
    Case("BitwiseNot", each(lambda x: ~x), [INTEGERS]),
    Case("Relu", each(lambda x: larger(x, 0)), [X]),
    Case("LeakyRelu", each(lambda x: choose(x < 0, 0.1 * x, x)), [X], {"alpha": 0.1}),
    Case("ThresholdedRelu", each(lambda x: choose(x > 0.5, x, 0)), [X], {"alpha": 0.5}),
    Case("Elu", each(lambda x: choose(x < 0, 0.7 * (exp(x) - 1), x)), [X], {"alpha": 0.7}),
    Case("Selu", each(selu), [X]),
    Case("Celu", each(celu), [X], {"alpha": 0.7}),
    Case("Sigmoid", each(sigmoid), [X]),
    Case("HardSigmoid", each(hard_sigmoid), [X], {"alpha": 1 / 6}),
    Case("HardSwish", each(lambda x: x * hard_sigmoid(x)), [X]),
    Case("Swish", each(lambda x: x * sigmoid(0.7 * x)), [X], {"alpha": 0.7}, opset=24),
    Case("Mish", each(lambda x: x * tanh(log(1 + exp(x)))), [X]),
    Case("Softplus", each(lambda x: log(exp(x) + 1)), [X]),
    Case("Softsign", each(lambda x: x / (1 + abs(x))), [X]),
    Case("Shrink", each(shrink), [X], {"lambd": 0.3, "bias": 0.1}),
    Case("Gelu", each(gelu), [X]),
    Case("Gelu", each(gelu_by_tanh), [X], {"approximate": "tanh"}, label="tanh"),
    Case("Clip", each(lambda x, a, b: smaller(larger(x, a), b)), [X, LOW, HIGH]),
    Case("Clip", lambda x, _, b: each(smaller)(x, b), [X, None, HIGH], label="high"),
    Case("Clip", each(lambda x: larger(x, -0.5)), [X], {"min": -0.5}, opset=10, label="opset10"),
    Case("Where", each(choose), [TRUTHS, X, Z]),
    Case("Cast", each(lambda x: x), [INTEGERS], {"to": 1}),
    Case(
        "CastLike",
        lambda x, _: x,
        [INTEGERS, LOW],
    ),
    Case("Dropout", each(lambda x: x), [X]),
]
BINARY = [
    Case("Add", each(lambda a, b: a + b), [X, Y]),
    Case("Sub", each(lambda a, b: a - b), [Y, X]),
    Case("Mul", each(lambda a, b: a * b), [X, Z]),
    Case("Div", each(lambda a, b: a / b), [X, Y]),
    Case("Mod", each(lambda a, b: a % b), [INTEGERS, INTEGERS[:, :1] + 1]),
    Case("Pow", each(power), [POSITIVE, Y]),
    Case("Pow", each(lambda a, _: a * a), [X, np.array([2])], constants=(1,), label="square"),
    Case(
        "Pow",
        each(lambda a, _: a * a),
        [X, np.full(4, 2, np.float32)],
        constants=(1,),
        label="square by a vector",
    ),
    Case(
        "Pow",
        each(power),
        [POSITIVE, np.array([2, 2, 3, 2], np.float32)],
        constants=(1,),
        label="several",
    ),
    Case("Pow", each(lambda a, _: a * a * a), [X, np.array(3)], constants=(1,), label="cube"),
    Case("PRelu", each(lambda x, slope: choose(x < 0, slope * x, x)), [X, Y]),
    Case("Greater", each(lambda a, b: a > b), [X, Z]),
    Case("GreaterOrEqual", each(lambda a, b: a >= b), [X, Z]),
    Case("Less", each(lambda a, b: a < b), [X, Z]),
    Case("LessOrEqual", each(lambda a, b: a <= b), [X, Z]),
    Case("Equal", each(lambda a, b: a == b), [INTEGERS, INTEGERS[0]]),
    Case("And", each(lambda a, b: a & b), [TRUTHS, TRUTHS[:1]]),
    Case("Or", each(lambda a, b: a | b), [TRUTHS, TRUTHS[:1]]),
    Case("Xor", each(lambda a, b: a ^ b), [TRUTHS, TRUTHS[:1]]),
    Case("BitwiseOr", each(lambda a, b: a | b), [INTEGERS, INTEGERS[:1]]),
    Case("BitwiseAnd", each(lambda a, b: a & b), [INTEGERS, INTEGERS[:1]]),
    Case("BitwiseXor", each(lambda a, b: a ^ b), [INTEGERS, INTEGERS[:1]]),
    Case(
        "SwiGLU",
        each(lambda a, b: a * sigmoid(0.7 * a) * b),
        [X, Z],
        {"alpha": 0.7},
        opset=28,
        reference=True,
    ),
    Case("BitShift", each(lambda a, b: a << b), [UNSIGNED, UNSIGNED], {"direction": "LEFT"}),
    Case("Sum", each(lambda *v: summed(v)), [X, Y, Z]),
    Case("Mean", each(lambda *v: mean(v)), [X, Y, Z]),
    Case("Max", each(lambda *v: largest(v)), [X, Y, Z]),
    Case("Min", each(lambda a, b: smaller(a, b)), [X, Y]),
    Case("Max", each(lambda x: x), [X], label="of one"),
]
DROPPED = [
    Case("Affine", each(lambda x: 1.5 * x + 0.5), [X], {"alpha": 1.5, "beta": 0.5}, opset=9),
    Case("Scale", each(lambda x: 1.5 * x), [X], {"scale": 1.5}, opset=9),
    Case("ImageScaler", image_scaled, [IMAGE], {"scale": 1.5, "bias": [0.1, 0.2, 0.3]}, opset=9),
    Case(
        "ScaledTanh", each(lambda x: 1.5 * tanh(0.5 * x)), [X], {"alpha": 1.5, "beta": 0.5}, opset=9
    ),
    Case(
        "ParametricSoftplus", each(parametric_softplus), [X], {"alpha": 0.7, "beta": 0.4}, opset=9
    ),
]
FUSED = [
    Case("GatedAdd", each(lambda x, y, g: x + y * g), [X, Z, X[..., :1]], domain=MICROSOFT),
    Case(
        "ScaledSiLU",
        each(lambda x: silu(0.7 * x)),
        [X],
        {"alpha": 0.7},
        domain=MICROSOFT,
    ),
    Case("LinearAttentionGate", linear_attention_gate, [X, VECTOR, -VECTOR], domain=MICROSOFT),
    Case(
        "LinearAttentionGate",
        linear_attention_gate,
        [X, VECTOR, -VECTOR, Z],
        domain=MICROSOFT,
        outputs=2,
        label="beta",
    ),
    Case("Gelu", each(gelu), [X], domain=MICROSOFT, label="microsoft"),
    Case("FastGelu", each(gelu_by_tanh), [X], domain=MICROSOFT),
    Case(
        "FastGelu",
        each(lambda x, b: gelu_by_tanh(x + b)),
        [X, VECTOR],
        domain=MICROSOFT,
        label="bias",
    ),
    Case("BiasGelu", each(lambda x, b: gelu(x + b)), [X, VECTOR], domain=MICROSOFT),
    Case(
        "QuickGelu",
        each(lambda x: x * sigmoid(1.5 * x)),
        [X],
        {"alpha": 1.5},
        domain=MICROSOFT,
    ),
]


@pytest.mark.parametrize("case", [*UNARY, *BINARY, *DROPPED, *FUSED], ids=str)
def test_the_rule_counts_what_a_loop_does(case: Case) -> None:
    check(case)


def test_a_view_moves_nothing_and_a_copy_everything() -> None:
    assert check(UNARY[-1]).reads == 0
    cast = check(UNARY[-3])
    assert (cast.reads, cast.writes) == (INTEGERS.nbytes, X.nbytes)


def test_a_broadcast_input_is_read_once() -> None:
    added = check(BINARY[0])
    assert (added.reads, added.writes) == (X.nbytes + Y.nbytes, X.nbytes)


@pytest.mark.parametrize(
    ("training", "noted"), [(None, False), (False, False), (True, True)], ids=str
)
def test_a_dropout_that_trains_is_noted(training: bool | None, noted: bool) -> None:
    inputs = [X, None, None] if training is None else [X, LOW + 1, np.array(training)]
    case = Case("Dropout", None, inputs, constants=(1, 2))
    (row,) = estimate_cost(case.model()).by_node
    assert bool(row.note) == noted
