"""Make the shape operand of a node constant where what is not known of it need not be.

    Reshape(x[N,17,64], [N, 17, 8, 8])  ->  Reshape(x, [0, 17, 8, 8])    0 copies the dim of x
    Reshape(x[N,4,7], [N*4, 7])         ->  Reshape(x, [-1, 7])
    Expand(x[N,1], [N, 3])              ->  Expand(x, [1, 3])
    Slice(x[N,5], ends=[N, 3])          ->  Slice(x, ends=[2^63-1, 3])

So a model exported with a dynamic batch loses its shape arithmetic as one with a fixed batch
does: nothing reads it any more.

    0   only where the target has, at the same place, the very dim that the input has there
    -1  only for one dim, and only where every other dim is certainly not 0: of an empty tensor
        [0, 17, -1] does not say which size is meant

An unknown dim is never taken for equal to another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_tensor,
    ir,
    known_shape,
    op,
    same_dim,
    symbolic_value,
    variable,
)

_END = np.iinfo(np.int64).max

Dim = int | ir.SymbolicDim


class FoldReshapeTargets(RewritePass):
    """Make the shape operand of a node constant where what is not known of it need not be."""

    name = "fold-reshape-targets"
    promise = Promise.EXACT
    patterns = (
        op("Reshape", variable("data"), variable("dims", where=lambda v: not _is_fixed(v))),
        op("Expand", variable("data"), variable("dims", where=lambda v: not _is_fixed(v))),
        op(
            "Slice",
            variable("data"),
            variable(),
            variable("dims", where=lambda v: not _is_fixed(v)),
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Give the node a constant operand, or say why it needs what it has."""
        node, operand, data = match.root, match.value("dims"), match.value("data")
        dims = symbolic_value(operand)
        if dims is None or dims.ndim != 1:
            raise NotApplicable(f"nothing is known of '{operand.name}'")
        shape = known_shape(data)
        if shape is None:
            raise NotApplicable(f"the rank of '{data.name}' is not known")
        attributes = dict(node.attributes)
        match node.op_type:
            case "Reshape":
                if "allowzero" in attributes and attributes["allowzero"].is_ref():
                    raise NotApplicable("'allowzero' is a parameter of the function")
                literal_zero = bool(node.attributes.get_int("allowzero", 0))
                fixed = _reshape_target(list(dims), list(shape), literal_zero=literal_zero)
                if literal_zero and fixed.count(0) > list(dims).count(0):
                    del attributes["allowzero"]
            case "Expand":
                fixed = _expand_target(list(dims), list(shape))
            case _:
                fixed = _slice_ends(node, list(dims), list(shape))
        # int32 is allowed for Slice alone, and as large an end as it holds serves as well.
        dtype = np.int32 if operand.dtype == ir.DataType.INT32 else np.int64
        array = np.minimum(fixed, np.iinfo(dtype).max).astype(dtype)
        target = rewriter.initializer(array, f"{operand.name}_fixed")
        inputs = list(node.inputs)
        # The data may be the same value as the operand, so it is its place that counts.
        inputs[2 if node.op_type == "Slice" else 1] = target
        made = rewriter.node(node.op_type, inputs, attributes)
        rewriter.replace(node, made, f"{node.op_type} by {fixed}")


def _is_fixed(value: ir.Value) -> bool:
    return constant_tensor(value) is not None


def _equal_at(shape: Sequence[Dim], index: int, dim: Dim) -> bool:
    return 0 <= index < len(shape) and same_dim(shape[index], dim)


def _reshape_target(dims: list[Dim], shape: list[Dim], *, literal_zero: bool) -> list[int]:
    fixed: list[int] = []
    open_places: list[int] = []
    for place, dim in enumerate(dims):
        copied = shape[place] if place < len(shape) else None
        if dim == 0 and not literal_zero and isinstance(copied, int):
            fixed.append(copied)
        elif isinstance(dim, int):
            fixed.append(dim)
        elif _equal_at(shape, place, dim):
            fixed.append(0)
        else:
            open_places.append(place)
            fixed.append(-1)
    if fixed.count(-1) > 1:
        raise NotApplicable(f"more than one dim of the target is not known: {_text(dims)}")
    if open_places and any(dim == 0 for dim in fixed):
        raise NotApplicable(f"a dim beside the unknown one may be 0: {_text(dims)}")
    if (
        literal_zero
        and any(isinstance(dim, int) and dim == 0 for dim in dims)
        and any(
            dim == 0 and not isinstance(known, int) for dim, known in zip(fixed, dims, strict=True)
        )
    ):
        raise NotApplicable("a 0 in the target means an empty dim, so none can mean a copy")
    return fixed


def _expand_target(dims: list[Dim], shape: list[Dim]) -> list[int]:
    fixed = []
    for place, dim in enumerate(dims):
        if isinstance(dim, int):
            fixed.append(dim)
        elif _equal_at(shape, len(shape) - len(dims) + place, dim):
            fixed.append(1)
        else:
            raise NotApplicable(f"it makes a dim that the input does not have: {_text(dims)}")
    return fixed


def _slice_ends(node: ir.Node, ends: list[Dim], shape: list[Dim]) -> list[int]:
    axes = _integers(node, 3, list(range(len(ends))))
    steps = _integers(node, 4, [1] * len(ends))
    fixed = []
    for axis, step, end in zip(axes, steps, ends, strict=True):
        if isinstance(end, int):
            fixed.append(end)
        elif step > 0 and _equal_at(shape, axis + len(shape) if axis < 0 else axis, end):
            fixed.append(_END)
        else:
            raise NotApplicable(f"an end is not that of the axis: {_text(ends)}")
    return fixed


def _integers(node: ir.Node, position: int, default: list[int]) -> list[int]:
    value = node.inputs[position] if position < len(node.inputs) else None
    if value is None:
        return default
    known = symbolic_value(value)
    if known is None or not all(isinstance(item, int) for item in known.flat):
        raise NotApplicable(f"'{value.name}' is not known")
    return [int(item) for item in known.flat]


def _text(dims: Sequence[Dim]) -> str:
    return (
        "["
        + ", ".join(str(dim) if isinstance(dim, int) else dim.value or "?" for dim in dims)
        + "]"
    )
