"""Ops whose spelling depends on the opset: attribute here, input there."""

from collections.abc import Sequence

import numpy as np

from tests.generate.scope import Dims, Result, Scope, Value, fixed, numpy_type


def squeeze(scope: Scope, value: Value, axes: Sequence[int]) -> Value:
    """Squeeze: `axes` is an input from opset 13 on."""
    positive = {axis % value.rank for axis in axes}
    dims = tuple(dim for axis, dim in enumerate(value.dims) if axis not in positive)
    return _with_axes(scope, "Squeeze", value, axes, dims)


def unsqueeze(scope: Scope, value: Value, axes: Sequence[int]) -> Value:
    """Unsqueeze: `axes` (in the result, not negative here) is an input from opset 13 on."""
    dims = list(value.dims)
    for axis in sorted(axes):
        dims.insert(axis, fixed(1)[0])
    return _with_axes(scope, "Unsqueeze", value, axes, tuple(dims))


def _with_axes(scope: Scope, op: str, value: Value, axes: Sequence[int], dims: Dims) -> Value:
    result = Result(value.dtype, dims, value.magnitude, value.exact)
    if scope.opset >= 13:
        return scope.one(op, [value, scope.ints(*axes)], result)
    return scope.one(op, [value], result, axes=list(axes))


def reduce(
    scope: Scope, op: str, value: Value, axes: Sequence[int] | None, keepdims: int, magnitude: float
) -> Value:
    """A reduction: `axes` is an input from opset 13 (ReduceSum) or 18 on; None is all axes."""
    reduced = set(range(value.rank)) if axes is None else {axis % value.rank for axis in axes}
    one = fixed(1)[0]
    dims = tuple(
        one if axis in reduced else dim
        for axis, dim in enumerate(value.dims)
        if keepdims or axis not in reduced
    )
    ranking = op in ("ReduceMax", "ReduceMin")
    result = Result(value.dtype, dims, magnitude, value.exact and ranking)
    if axes is None:
        return scope.one(op, [value], result, keepdims=keepdims)
    if scope.opset >= (13 if op == "ReduceSum" else 18):
        return scope.one(op, [value, scope.ints(*axes)], result, keepdims=keepdims)
    return scope.one(op, [value], result, keepdims=keepdims, axes=list(axes))


def split(scope: Scope, value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """Split: `split` is an input from opset 13 on; without it opset 18 wants num_outputs."""
    results = [
        Result(
            value.dtype,
            tuple(
                fixed(size)[0] if index == axis % value.rank else dim
                for index, dim in enumerate(value.dims)
            ),
            value.magnitude,
            value.exact,
        )
        for size in sizes
    ]
    if len(set(sizes)) == 1 and scope.chance(0.5):
        count = len(sizes) if scope.opset >= 18 else None
        return scope.emit("Split", [value], *results, axis=axis, num_outputs=count)
    if scope.opset >= 13:
        return scope.emit("Split", [value, scope.ints(*sizes)], *results, axis=axis)
    return scope.emit("Split", [value], *results, axis=axis, split=list(sizes))


def dropout(scope: Scope, value: Value) -> Value:
    """Dropout outside training: `ratio` is an input from opset 12 on, and may be omitted."""
    result = Result(value.dtype, value.dims, value.magnitude, value.exact)
    if scope.opset < 12:
        return scope.one("Dropout", [value], result, ratio=0.3)
    ratio = scope.scalar(0.3) if scope.chance(0.5) else None
    training = scope.scalar(False, np.bool_) if scope.chance(0.5) else None
    return scope.one("Dropout", [value, ratio, training], result)


def pad(
    scope: Scope, value: Value, pads: Sequence[tuple[int, int]], mode: str, fill: float = 0.0
) -> Value:
    """Pad (before, after) for each axis; the fill is left out at times when it is zero."""
    dims = tuple(
        tuple(size + before + after for size in dim)
        for dim, (before, after) in zip(value.dims, pads, strict=True)
    )
    amounts = scope.ints(*(p[0] for p in pads), *(p[1] for p in pads))
    constant = None
    if mode == "constant" and (fill or scope.chance(0.5)):
        constant = scope.constant(np.array(fill, numpy_type(value.dtype)))
    return scope.one(
        "Pad",
        [value, amounts, constant],
        Result(value.dtype, dims, max(value.magnitude, abs(fill)), value.exact),
        mode=mode if mode != "constant" or scope.chance(0.3) else None,
    )
