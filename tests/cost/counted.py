"""Scalars that count what is done with them, and plain loops over them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tests.cost.brute_force_tally import Tally

Row = list[Any]
"""A group of counted scalars: a line, a window, a channel."""


tally = Tally()
"""Where counted scalars count."""


def _counting(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def method(self: Counted, other: Any = None) -> Any:
        tally.elementwise += 1
        return Counted(operation(self.value, getattr(other, "value", other)))

    return method


class Counted:
    """A number or truth value that counts each operation on it."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    __add__ = _counting(lambda a, b: a + b)
    __radd__ = _counting(lambda a, b: b + a)
    __sub__ = _counting(lambda a, b: a - b)
    __rsub__ = _counting(lambda a, b: b - a)
    __mul__ = _counting(lambda a, b: a * b)
    __rmul__ = _counting(lambda a, b: b * a)
    __truediv__ = _counting(lambda a, b: a / b)
    __rtruediv__ = _counting(lambda a, b: b / a)
    __mod__ = _counting(lambda a, b: a % b)
    __lshift__ = _counting(lambda a, b: a << b)
    __rshift__ = _counting(lambda a, b: a >> b)
    __and__ = _counting(lambda a, b: a & b)
    __or__ = _counting(lambda a, b: a | b)
    __xor__ = _counting(lambda a, b: a ^ b)
    __lt__ = _counting(lambda a, b: a < b)
    __le__ = _counting(lambda a, b: a <= b)
    __gt__ = _counting(lambda a, b: a > b)
    __ge__ = _counting(lambda a, b: a >= b)
    __eq__ = _counting(lambda a, b: a == b)
    __ne__ = _counting(lambda a, b: a != b)
    __hash__ = None
    __neg__ = _counting(lambda a, _: -a)
    __abs__ = _counting(lambda a, _: abs(a))
    __floor__ = _counting(lambda a, _: math.floor(a))
    __ceil__ = _counting(lambda a, _: math.ceil(a))
    __round__ = _counting(lambda a, _: round(a))
    __invert__ = _counting(lambda a, _: not a if isinstance(a, bool) else ~a)


def _transcendental(function: Callable[..., float]) -> Callable[..., Counted]:
    def counted(*arguments: Any) -> Counted:
        tally.transcendentals += 1
        return Counted(function(*(getattr(a, "value", a) for a in arguments)))

    return counted


exp = _transcendental(math.exp)
log = _transcendental(math.log)
sqrt = _transcendental(math.sqrt)
tanh = _transcendental(math.tanh)
erf = _transcendental(math.erf)
sin = _transcendental(math.sin)
cos = _transcendental(math.cos)
tan = _transcendental(math.tan)
asin = _transcendental(math.asin)
acos = _transcendental(math.acos)
atan = _transcendental(math.atan)
sinh = _transcendental(math.sinh)
cosh = _transcendental(math.cosh)
asinh = _transcendental(math.asinh)
acosh = _transcendental(math.acosh)
atanh = _transcendental(math.atanh)
power = _transcendental(math.pow)


def accumulate(total: Counted, a: Any, b: Any) -> Counted:
    """total + a * b, one multiply-accumulate."""
    tally.macs += 1
    return Counted(total.value + getattr(a, "value", a) * getattr(b, "value", b))


def choose(condition: Any, a: Any, b: Any) -> Any:
    """One of two that have both been computed: no operation."""
    return a if getattr(condition, "value", condition) else b


def larger(a: Counted, b: Any) -> Any:
    return choose(a > b, a, b)


def smaller(a: Counted, b: Any) -> Any:
    return choose(a < b, a, b)


def summed(values: Sequence[Counted]) -> Counted:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def mean(values: Sequence[Counted]) -> Counted:
    return summed(values) / len(values)


def largest(values: Sequence[Counted]) -> Counted:
    result = values[0]
    for value in values[1:]:
        result = larger(result, value)
    return result


def each(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """A loop over all elements, broadcast to one another; inputs left out are not passed."""

    def loop(*arrays: np.ndarray) -> np.ndarray:
        spread = np.broadcast_arrays(*arrays)
        result = np.empty(spread[0].shape, object)
        for index in np.ndindex(result.shape):
            result[index] = function(*(array[index] for array in spread))
        return result

    return loop


def rows(
    x: np.ndarray, axes: Iterable[int], function: Callable[[list[Any]], Any], *, keep: bool = True
) -> np.ndarray:
    """Apply `function` to each group of elements along `axes`; a number, or one per element."""
    axes = tuple(axes)
    moved = np.moveaxis(x, axes, range(-len(axes), 0))
    outer = moved.shape[: x.ndim - len(axes)]
    flat = moved.reshape(*outer, -1)
    done = {index: function(list(flat[index])) for index in np.ndindex(outer)}
    if isinstance(next(iter(done.values())), list):
        result = np.empty(flat.shape, object)
        for index, values in done.items():
            result[index] = values
        return np.moveaxis(result.reshape(moved.shape), range(-len(axes), 0), axes)
    reduced = np.empty(outer, object)
    for index, value in done.items():
        reduced[index] = value
    return np.expand_dims(reduced, axes) if keep else reduced


def along(axes: Sequence[int], function: Callable[[Row], Any], **options: Any) -> Any:
    """A loop over the first input alone; further ones say axes."""
    return lambda x, *_: rows(x, axes, function, **options)


def absolute(values: Row) -> Row:
    return [abs(v) for v in values]


def squares(values: Row) -> Row:
    return [v * v for v in values]


def argument_of_largest(values: Row) -> Any:
    best, place = values[0], 0
    for index, value in enumerate(values[1:], 1):
        better = value > best
        best, place = choose(better, value, best), choose(better, index, place)
    return Counted(place)


def counted(array: np.ndarray) -> np.ndarray:
    """The same numbers as counted scalars; truth values and small whole numbers likewise."""
    result = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        result[index] = Counted(array[index].item())
    return result


def plain(array: Any) -> np.ndarray:
    """Back to numbers."""
    return np.vectorize(lambda x: getattr(x, "value", x), otypes=[float])(np.asarray(array))
