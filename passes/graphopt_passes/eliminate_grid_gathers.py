"""Read a table as it is where every index of it is gathered, one after the other.

    i = Reshape(Range(0, N, 1), [N, 1, 1]), j = Reshape(Range(0, M, 1), [1, 1, M])
    GatherND(x, Concat(Unsqueeze(Expand(i)), Unsqueeze(Expand(j)), axis=-1))  ->  Unsqueeze(x, 1)

for x of [N, M], and for any number of axes. So do exports of transformers read an attention mask,
which their code indexes by functions of positions. Axes of x that the grid has in another order
are transposed first.

Declined where the ranges are not known to run over the whole of x in steps of one, where a size is
one for certain, where not every axis is indexed, and where the grid repeats what it gathers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant_array,
    ir,
    known_shape,
    op,
    opset_version,
    same_dim,
    variable,
)
from graphopt_passes.operands import given, integers, no_references

_AXES_ARE_INPUT = 13
_LARGEST = 1 << 16
"""Numbers of a constant that is compared with a range."""


class EliminateGridGathers(RewritePass):
    """Read a table as it is where every index of it is gathered, one after the other."""

    name = "eliminate-grid-gathers"
    promise = Promise.EXACT
    patterns = (op("GatherND", variable("data"), op("Concat", label="indices", shared=True)),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Put the axes of the table where the grid has them."""
        root, indices, data = match.root, match.node("indices"), match.value("data")
        for node in (root, indices):
            no_references(node)
        sizes, grid = known_shape(data), known_shape(root.outputs[0])
        if sizes is None or grid is None:
            raise NotApplicable("the shape of the table or of the grid is not known")
        if root.attributes.get_int("batch_dims", 0) != 0 or len(indices.inputs) != len(sizes):
            raise NotApplicable("not every axis of the table is indexed")
        if indices.attributes.get_int("axis", 0) not in (-1, len(grid)):
            raise NotApplicable("the indices are not put side by side")
        places = [
            _place(value, size, len(grid))
            for value, size in zip(indices.inputs, sizes, strict=True)
        ]
        added = [axis for axis in range(len(grid)) if axis not in places]
        fits = all(same_dim(grid[at], size) for at, size in zip(places, sizes, strict=True))
        if len(set(places)) < len(places) or any(grid[axis] != 1 for axis in added) or not fits:
            raise NotApplicable("the grid repeats what it gathers")
        order = sorted(range(len(places)), key=lambda axis: places[axis])
        if order != list(range(len(places))):
            data = rewriter.node("Transpose", [data], {"perm": order}).outputs[0]
        elif not added:
            rewriter.replace(root, data)
            return
        if added:
            data = _unsqueezed(data, added, root, rewriter)
        rewriter.replace(root, data)


def _place(index: ir.Value | None, size: int | ir.SymbolicDim, axes: int) -> int:
    """Which axis of the grid an index runs along, over all of `size`."""
    column = None if index is None else index.producer()
    if column is None or column.op_type != "Unsqueeze":
        raise NotApplicable("an index is no column")
    if integers(column, "axes", 1) not in ([-1], [axes]):
        raise NotApplicable("an index is no column")
    for value in _read(column.inputs[0]):
        node, shape = value.producer(), known_shape(value)
        if shape is None:
            break
        if node is not None and node.op_type == "Expand":
            continue
        long = [axis for axis, dim in enumerate(shape) if dim != 1]
        if len(long) != 1 or not same_dim(shape[long[0]], size):
            break
        if not _counts_from_zero(value):
            break
        return long[0] + axes - len(shape)
    raise NotApplicable("an index is not known to run over a whole axis")


def _read(value: ir.Value | None) -> Iterator[ir.Value]:
    """A value, and what it repeats or gives other axes of size one, back to where it is made."""
    while value is not None:
        yield value
        node = value.producer()
        if node is None or node.op_type not in ("Expand", "Reshape", "Unsqueeze"):
            return
        value = node.inputs[0]


def _counts_from_zero(value: ir.Value) -> bool:
    """Whether the numbers of a value, all on one axis, are 0, 1, 2, ..."""
    for inner in _read(value):
        numbers = constant_array(inner, _LARGEST)
        if numbers is not None:
            return np.array_equal(numbers.reshape(-1), np.arange(numbers.size))
        node = inner.producer()
        if node is None or node.op_type == "Expand":
            return False
        if node.op_type == "Range":
            return [_number(given(node, index)) for index in (0, 2)] == [0, 1]
    return False


def _number(value: ir.Value | None) -> float | None:
    array = None if value is None else constant_array(value, 1)
    return None if array is None else float(array.reshape(-1)[0])


def _unsqueezed(data: ir.Value, added: list[int], root: ir.Node, rewriter: Rewriter) -> ir.Value:
    if opset_version(root, rewriter.model) < _AXES_ARE_INPUT:
        return rewriter.node("Unsqueeze", [data], {"axes": added}).outputs[0]
    axes = rewriter.initializer(np.array(added, np.int64), "axes")
    return rewriter.node("Unsqueeze", [data, axes]).outputs[0]
