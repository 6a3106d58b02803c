"""Operators that compute, where numpy gives the bits that every runtime gives.

That is integer arithmetic (which wraps around, divides towards zero, and never passes through
floats; runtimes reduce integers in double precision, so sums and products are taken only where
nothing is lost by that), comparisons and logic, and of floating-point arithmetic only what
IEEE 754 rounds correctly: + - * / sqrt. All else is the runtime's, whose bits are its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphopt.plugin import NotApplicable, ir

from .movement_kernels import Array, Inputs, Kernel, Result, axes_of

_Binary = Callable[[Array, Array], Array]


def _arrays(inputs: Inputs) -> list[Array]:
    return [array for array in inputs if array is not None]


def _is_integer(array: Array) -> bool:
    return array.dtype.kind in "iu"


def _is_exact(array: Array) -> bool:
    return array.dtype in (np.float32, np.float64) or _is_integer(array)


def _elementwise(function: Callable[..., Array], accepts: Callable[[Array], bool]) -> Kernel:
    def kernel(node: ir.Node, inputs: Inputs) -> Result:
        arrays = _arrays(inputs)
        if not all(accepts(array) for array in arrays):
            return None
        with np.errstate(all="ignore"):
            return np.asarray(function(*arrays))

    return kernel


def _fold_left(function: _Binary) -> Callable[..., Array]:
    return lambda *arrays: functools.reduce(function, arrays)


def _check_divisor(dividend: Array, divisor: Array) -> None:
    if not divisor.all():
        raise NotApplicable("it divides an integer by zero")
    if dividend.dtype.kind == "i":
        lowest = np.iinfo(dividend.dtype).min
        if np.any((dividend == lowest) & (divisor == -1)):
            raise NotApplicable("its quotient is outside the range of the type")


def _divide(dividend: Array, divisor: Array) -> Array:
    if not _is_integer(dividend):
        return np.asarray(np.divide(dividend, divisor))
    _check_divisor(dividend, divisor)
    floor = np.floor_divide(dividend, divisor)
    inexact = np.not_equal(np.multiply(floor, divisor), dividend)
    return np.asarray(floor + (inexact & ((dividend < 0) != (divisor < 0))).astype(floor.dtype))


def _modulo(node: ir.Node, inputs: Inputs) -> Result:
    dividend, divisor = _arrays(inputs)
    if not _is_integer(dividend):
        return None
    _check_divisor(dividend, divisor)
    function = np.fmod if node.attributes.get_int("fmod", 0) else np.mod
    return np.asarray(function(dividend, divisor))


def _reciprocal(array: Array) -> Array:
    return np.asarray(np.divide(array.dtype.type(1), array))


def _always_exact(data: Array) -> bool:
    return True


def _has_exact_sum(data: Array) -> bool:
    """Whether no partial sum leaves the type, or the integers of the doubles that runtimes use."""
    return bool(abs(data.astype(np.float64)).sum() < _exact_limit(data))


def _has_exact_product(data: Array) -> bool:
    """The same of products."""
    with np.errstate(over="ignore"):
        return bool(np.maximum(abs(data.astype(np.float64)), 1).prod() < _exact_limit(data))


def _exact_limit(data: Array) -> int:
    return min(np.iinfo(data.dtype).max, 2**53)


def _reduce(function: np.ufunc, is_exact: Callable[[Array], bool] = _always_exact) -> Kernel:
    def kernel(node: ir.Node, inputs: Inputs) -> Result:
        data = inputs[0]
        if data is None or not _is_integer(data) or not data.size or not is_exact(data):
            return None
        axes = axes_of(node, inputs, 1, data.ndim)
        if not axes and node.attributes.get_int("noop_with_empty_axes", 0) == 1:
            return data
        keep = bool(node.attributes.get_int("keepdims", 1))
        reduced = axes or tuple(range(data.ndim))
        # Without the dtype numpy would add up small integers in a larger type.
        arguments: dict[str, Any] = {"dtype": data.dtype, "keepdims": keep}
        return np.asarray(function.reduce(data, reduced, **arguments))

    return kernel


def _shape(node: ir.Node, inputs: Inputs) -> Result:
    data = inputs[0]
    if data is None:
        return None
    start = node.attributes.get_int("start", 0)
    end = node.attributes.get_int("end", data.ndim)
    return np.array(data.shape[start:end], np.int64)


def _size(node: ir.Node, inputs: Inputs) -> Result:
    return None if inputs[0] is None else np.array(inputs[0].size, np.int64)


def _range(node: ir.Node, inputs: Inputs) -> Result:
    start, limit, delta = _arrays(inputs)
    if not _is_integer(start):
        return None
    return np.arange(int(start), int(limit), int(delta), dtype=start.dtype)


def _cast(node: ir.Node, inputs: Inputs) -> Result:
    data, target = inputs[0], node.attributes.get_int("to", 0)
    if data is None or target not in _CAST_TARGETS:
        return None
    wanted = ir.DataType(target).numpy()
    source = data.dtype
    if source == wanted:
        return data
    if wanted.kind == "b" or source.kind == "b":
        return data.astype(wanted) if source.kind in "biuf" and wanted.kind in "biuf" else None
    if source.kind in "iu":
        return data.astype(wanted) if wanted.kind in "iu" or wanted.itemsize >= 4 else None
    if wanted.kind in "iu":
        return _truncate(data, wanted)
    if wanted.itemsize >= 4 or source == np.float32:
        with np.errstate(all="ignore"):
            return data.astype(wanted)
    return None  # double to half: some runtimes round twice


def _truncate(data: Array, wanted: np.dtype[Any]) -> Result:
    wide = data.astype(np.float64)
    limits = np.iinfo(wanted)
    whole = np.trunc(wide)
    if not np.all((whole >= float(limits.min)) & (whole < float(limits.max) + 1)):
        raise NotApplicable(f"a value to cast is outside the range of {wanted}")
    return whole.astype(wanted)


_CAST_TARGETS = frozenset(
    ir.DataType[name].value
    for name in (
        *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
        *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16"),
    )
)


def _always(array: Array) -> bool:
    return array.dtype.kind in "biuf"


def _is_float(array: Array) -> bool:
    return array.dtype in (np.float32, np.float64)


ARITHMETIC: Mapping[str, Kernel] = {
    "Abs": _elementwise(np.abs, _is_exact),
    "Add": _elementwise(np.add, _is_exact),
    "And": _elementwise(np.logical_and, _always),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil, _is_float),
    "Div": _elementwise(_divide, _is_exact),
    "Equal": _elementwise(np.equal, _always),
    "Floor": _elementwise(np.floor, _is_float),
    "Greater": _elementwise(np.greater, _always),
    "GreaterOrEqual": _elementwise(np.greater_equal, _always),
    "Less": _elementwise(np.less, _always),
    "LessOrEqual": _elementwise(np.less_equal, _always),
    "Max": _elementwise(_fold_left(np.maximum), _is_integer),
    "Min": _elementwise(_fold_left(np.minimum), _is_integer),
    "Mod": _modulo,
    "Mul": _elementwise(np.multiply, _is_exact),
    "Neg": _elementwise(np.negative, _is_exact),
    "Not": _elementwise(np.logical_not, _always),
    "Or": _elementwise(np.logical_or, _always),
    "Range": _range,
    "Reciprocal": _elementwise(_reciprocal, _is_float),
    "ReduceMax": _reduce(np.maximum),
    "ReduceMin": _reduce(np.minimum),
    "ReduceProd": _reduce(np.multiply, _has_exact_product),
    "ReduceSum": _reduce(np.add, _has_exact_sum),
    "Shape": _shape,
    "Size": _size,
    "Sqrt": _elementwise(np.sqrt, _is_float),
    "Sub": _elementwise(np.subtract, _is_exact),
    "Xor": _elementwise(np.logical_xor, _always),
}
"""Kernels by operator."""
