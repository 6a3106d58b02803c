"""Bounds on values that follow from constants and operators alone, whatever the inputs.

    Sigmoid(x) in [0, 1]      Clip(x, a, b) in [a, b]      a + b in [a0 + b0, a1 + b1]
    W x in [-s, s],  s = max |x| * max over rows of sum |W|            (Moore 1966)

A bound is a promise, not a prediction: behind a few convolutions it is far above what is ever
reached. `tight` says that only operators were met which reach their bounds when their inputs
reach theirs, so that a tight bound beyond the range is to be taken seriously.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_tensor, ir, nested_graphs
from graphopt.graph.constants import constant_array
from graphopt.precision.operators import MOVEMENT
from graphopt.shapes import known_shape, symbolic_value

_LARGE_CONSTANT = 1 << 22


@dataclass(frozen=True)
class Interval:
    """All values of a tensor lie in [low, high]; NaN apart."""

    low: float = -math.inf
    high: float = math.inf
    tight: bool = True

    @property
    def magnitude(self) -> float:
        """The largest magnitude possible."""
        return max(abs(self.low), abs(self.high))

    @property
    def is_bounded(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.magnitude)


ANYTHING = Interval()
_UNIT = Interval(0.0, 1.0)
_SIGNED_UNIT = Interval(-1.0, 1.0)


class Intervals:
    """Bounds of the values of a model, from one walk over it."""

    def __init__(self, model: ir.Model) -> None:
        self._known: dict[ir.Value, Interval] = {}
        for graph in nested_graphs(model.graph):
            for node in graph:
                self._read(node)

    def of(self, value: ir.Value | None) -> Interval:
        """The bound of a value; everything where nothing is known."""
        if value is None:
            return ANYTHING
        found = self._known.get(value)
        if found is None:
            found = self._known[value] = _of_source(value)
        return found

    def _read(self, node: ir.Node) -> None:
        if node.domain != "" or not node.outputs or constant_tensor(node.outputs[0]) is not None:
            return
        if node.op_type in MOVEMENT:
            bound = self.of(node.inputs[0])
            if node.op_type == "Trilu":
                bound = _hull([bound, Interval(0.0, 0.0)])
        else:
            rule = _RULES.get(node.op_type)
            if rule is None:
                return
            with np.errstate(all="ignore"):
                bound = rule(node, [self.of(value) for value in node.inputs])
        if math.isnan(bound.low) or math.isnan(bound.high):
            return
        for value in node.outputs:
            self._known[value] = bound


def _of_source(value: ir.Value) -> Interval:
    tensor = constant_tensor(value)
    if tensor is not None and tensor.dtype != ir.DataType.STRING:
        array = constant_array(value, _LARGE_CONSTANT)
        if array is None or not array.size or array.dtype.kind not in "fiub":
            return ANYTHING
        finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if not finite.size:
            return ANYTHING
        return Interval(float(finite.min()), float(finite.max()))
    if value.dtype == ir.DataType.BOOL:
        return _UNIT
    entries = symbolic_value(value)
    if entries is not None and all(isinstance(entry, int) for entry in entries.flat):
        numbers = [int(entry) for entry in entries.flat]
        if numbers:
            return Interval(float(min(numbers)), float(max(numbers)))
    return ANYTHING


Rule = Callable[[ir.Node, list[Interval]], Interval]


def _hull(parts: Iterable[Interval]) -> Interval:
    held = list(parts)
    if not held:
        return ANYTHING
    return Interval(
        min(part.low for part in held),
        max(part.high for part in held),
        all(part.tight for part in held),
    )


def _product(first: float, second: float) -> float:
    return 0.0 if first == 0 or second == 0 else first * second


def _corners(
    operate: Callable[[float, float], float], first: Interval, second: Interval
) -> Interval:
    ends = [operate(a, b) for a in (first.low, first.high) for b in (second.low, second.high)]
    return Interval(min(ends), max(ends), first.tight and second.tight)


def _add(_: ir.Node, given: list[Interval]) -> Interval:
    low = sum(part.low for part in given)
    return Interval(low, sum(p.high for p in given), all(p.tight for p in given))


def _subtract(_: ir.Node, given: list[Interval]) -> Interval:
    first, second = given[:2]
    return Interval(first.low - second.high, first.high - second.low, first.tight and second.tight)


def _multiply(node: ir.Node, given: list[Interval]) -> Interval:
    bound = _corners(_product, given[0], given[1])
    if node.inputs[0] is node.inputs[1]:
        return Interval(0.0 if bound.low < 0 else bound.low, bound.high, bound.tight)
    return bound


def _divide(_: ir.Node, given: list[Interval]) -> Interval:
    divisor = given[1]
    if divisor.low <= 0 <= divisor.high:
        return ANYTHING
    inverse = Interval(1 / divisor.high, 1 / divisor.low, divisor.tight)
    return _corners(_product, given[0], inverse)


def _monotone(function: Callable[[float], float]) -> Rule:
    def rule(_: ir.Node, given: list[Interval]) -> Interval:
        try:
            return Interval(function(given[0].low), function(given[0].high), given[0].tight)
        except (OverflowError, ValueError):
            return ANYTHING

    return rule


def _exponential(number: float) -> float:
    try:
        return math.exp(number)
    except OverflowError:
        return math.inf


def _absolute(_: ir.Node, given: list[Interval]) -> Interval:
    bound = given[0]
    low = 0.0 if bound.low <= 0 <= bound.high else min(abs(bound.low), abs(bound.high))
    return Interval(low, bound.magnitude, bound.tight)


def _clip(node: ir.Node, given: list[Interval]) -> Interval:
    low, high = -math.inf, math.inf
    if len(given) > 1 and node.inputs[1] is not None:
        low = given[1].low
    if len(given) > 2 and node.inputs[2] is not None:
        high = given[2].high
    if "min" in node.attributes:
        low = node.attributes["min"].as_float()
    if "max" in node.attributes:
        high = node.attributes["max"].as_float()
    # A limit alone does not say that it is reached.
    tight = given[0].tight and given[0].is_bounded
    return Interval(max(given[0].low, low), min(given[0].high, high), tight)


def _modulo(_: ir.Node, given: list[Interval]) -> Interval:
    dividend, divisor = given[:2]
    reach = divisor.magnitude
    low = -reach if dividend.low < 0 or divisor.low < 0 else 0.0
    return Interval(low, reach, False)


def _power(_: ir.Node, given: list[Interval]) -> Interval:
    base, exponent = given[:2]
    if exponent.low != exponent.high:
        return ANYTHING
    try:
        if exponent.low == 2:
            top = base.magnitude**2
            return Interval(0.0, top, base.tight)
        if base.low >= 0 and exponent.low > 0:
            return Interval(base.low**exponent.low, base.high**exponent.low, base.tight)
    except OverflowError:
        return ANYTHING
    return ANYTHING


def _cast(node: ir.Node, given: list[Interval]) -> Interval:
    to = node.attributes.get_int("to", 0)
    if to == ir.DataType.BOOL:
        return _UNIT
    source = node.inputs[0]
    if source is not None and source.dtype == ir.DataType.BOOL:
        return _UNIT
    return given[0]


def _window_mean(_: ir.Node, given: list[Interval]) -> Interval:
    bound = _hull([given[0], Interval(0.0, 0.0)])  # padding counts as zeros
    return Interval(bound.low, bound.high, False)


def _mean(_: ir.Node, given: list[Interval]) -> Interval:
    return Interval(given[0].low, given[0].high, False)


def _sum(node: ir.Node, given: list[Interval]) -> Interval:
    count = reduced_elements(node)
    if count is None:
        return ANYTHING
    bound = given[0]
    return Interval(_product(bound.low, count), _product(bound.high, count), False)


def reduced_elements(node: ir.Node) -> float | None:
    """How many elements go into one element of a reduction's output; None where unknown."""
    source, made = node.inputs[0], node.outputs[0]
    sizes = []
    for value in (source, made):
        shape = None if value is None else known_shape(value)
        if shape is None or not all(isinstance(dim, int) for dim in shape.dims):
            return None
        sizes.append(math.prod(dim for dim in shape.dims if isinstance(dim, int)))
    return sizes[0] / sizes[1] if sizes[1] else None


def _linear(node: ir.Node, given: list[Interval]) -> Interval:
    """A product with a constant matrix: rows of absolute sums, and the bias."""
    if not given[0].is_bounded or len(node.inputs) < 2:
        return ANYTHING
    weight = constant_array(node.inputs[1], _LARGE_CONSTANT)
    if weight is None or weight.ndim < 2:
        return ANYTHING
    if node.op_type == "Conv":
        axes: tuple[int, ...] = tuple(range(1, weight.ndim))
    elif node.op_type == "Gemm":
        axes = (1,) if node.attributes.get_int("transB", 0) else (0,)
    else:
        axes = (weight.ndim - 2,)
    total = float(np.abs(weight).sum(axis=axes, dtype=np.float64).max(initial=0.0))
    total *= given[0].magnitude * abs(node.attributes.get_float("alpha", 1.0) or 1.0)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = given[2].magnitude * abs(node.attributes.get_float("beta", 1.0) or 1.0)
        total += bias
    return Interval(-total, total, False) if math.isfinite(total) else ANYTHING


def _pad(_: ir.Node, given: list[Interval]) -> Interval:
    filled = given[2] if len(given) > 2 and given[2] is not ANYTHING else Interval(0.0, 0.0)
    return _hull([given[0], filled])


def _constant(bound: Interval) -> Rule:
    return lambda _, __: bound


def _first(_: ir.Node, given: list[Interval]) -> Interval:
    return given[0]


def _choice(_: ir.Node, given: list[Interval]) -> Interval:
    return _hull(given[1:3])


def _all(_: ir.Node, given: list[Interval]) -> Interval:
    return _hull(given)


def _highest(_: ir.Node, given: list[Interval]) -> Interval:
    tight = all(part.tight for part in given)
    return Interval(max(p.low for p in given), max(p.high for p in given), tight)


def _lowest(_: ir.Node, given: list[Interval]) -> Interval:
    tight = all(part.tight for part in given)
    return Interval(min(p.low for p in given), min(p.high for p in given), tight)


_RULES: dict[str, Rule] = {
    "Abs": _absolute,
    "Add": _add,
    "AveragePool": _window_mean,
    "Cast": _cast,
    "Ceil": _monotone(lambda x: math.ceil(x) if math.isfinite(x) else x),
    "Clip": _clip,
    "Concat": _all,
    "Conv": _linear,
    "Cos": _constant(_SIGNED_UNIT),
    "Div": _divide,
    "Erf": _constant(_SIGNED_UNIT),
    "Exp": _monotone(_exponential),
    "Floor": _monotone(lambda x: math.floor(x) if math.isfinite(x) else x),
    "Gemm": _linear,
    "GlobalAveragePool": _mean,
    "GlobalMaxPool": _first,
    "HardSigmoid": _constant(_UNIT),
    "Hardmax": _constant(_UNIT),
    "Log": _monotone(lambda x: math.log(x) if x > 0 else -math.inf),
    "MatMul": _linear,
    "Max": _highest,
    "MaxPool": _first,
    "Min": _lowest,
    "Mod": _modulo,
    "Mul": _multiply,
    "Neg": lambda _, given: Interval(-given[0].high, -given[0].low, given[0].tight),
    "Pad": _pad,
    "Pow": _power,
    "ReduceMax": _first,
    "ReduceMean": _mean,
    "ReduceMin": _first,
    "ReduceSum": _sum,
    "Relu": _monotone(lambda x: max(x, 0.0)),
    "Resize": _mean,
    "Round": _monotone(lambda x: round(x) if math.isfinite(x) else x),
    "Sigmoid": _constant(_UNIT),
    "Sin": _constant(_SIGNED_UNIT),
    "Softmax": _constant(_UNIT),
    "Softsign": _constant(_SIGNED_UNIT),
    "Sqrt": _monotone(lambda x: math.sqrt(max(x, 0.0))),
    "Sub": _subtract,
    "Sum": _add,
    "Tanh": _constant(_SIGNED_UNIT),
    "Where": _choice,
}
