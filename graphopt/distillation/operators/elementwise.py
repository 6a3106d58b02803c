"""Operators that work on each element by itself, or along one axis."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch.nn import functional

from graphopt.distillation.operators.call import Call, Form

_SOFTMAX_BY_AXIS = 13


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Form:
    return lambda call: function(call.tensor(0))


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Form:
    return lambda call: function(call.tensor(0), call.tensor(1))


def _variadic(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Form:
    return lambda call: functools.reduce(
        function, [value for value in call.inputs if value is not None]
    )


def _div(call: Call) -> torch.Tensor:
    first, second = call.tensor(0), call.tensor(1)
    if first.is_floating_point():
        return first / second
    return torch.div(first, second, rounding_mode="trunc")


def _pow(call: Call) -> torch.Tensor:
    return torch.pow(call.tensor(0), call.tensor(1)).to(call.tensor(0).dtype)


def _clip(call: Call) -> torch.Tensor:
    low, high = call.attribute("min"), call.attribute("max")
    first, second = call.optional(1), call.optional(2)
    low = low if first is None else first.item()
    high = high if second is None else second.item()
    value = call.tensor(0)
    return value if low is None and high is None else torch.clamp(value, low, high)


def _gelu(call: Call) -> torch.Tensor:
    kind = call.attribute("approximate", "none")
    return functional.gelu(call.tensor(0), approximate=kind)


def _hard_sigmoid(call: Call) -> torch.Tensor:
    slope, offset = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    return torch.clamp(call.tensor(0) * slope + offset, 0.0, 1.0)


def _along_axis(function: Callable[..., torch.Tensor]) -> Form:
    def form(call: Call) -> torch.Tensor:
        value = call.tensor(0)
        if call.opset >= _SOFTMAX_BY_AXIS:
            return function(value, dim=call.attribute("axis", -1))
        # Before opset 13 all axes from this one on are one.
        axis = call.attribute("axis", 1) % value.ndim
        flat = value.reshape(*value.shape[:axis], -1)
        return function(flat, dim=-1).reshape(value.shape)

    return form


def _prelu(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    return torch.where(value < 0, value * call.tensor(1), value)


FORMS: dict[str, Form] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Div": _div,
    "Dropout": _unary(lambda value: value),
    "Elu": lambda call: functional.elu(call.tensor(0), call.attribute("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda value: value),
    "LeakyRelu": lambda call: functional.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _along_axis(torch.log_softmax),
    "Max": _variadic(torch.maximum),
    "Min": _variadic(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _unary(torch.round),
    "Selu": _unary(functional.selu),
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Softmax": _along_axis(torch.softmax),
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _variadic(torch.add),
    "Tanh": _unary(torch.tanh),
    "Where": lambda call: torch.where(call.tensor(0).bool(), call.tensor(1), call.tensor(2)),
}
# Selu's constants and Softplus's threshold are ONNX's defaults; another alpha is rare, and the
# comparison with ONNX Runtime before training would show it.
