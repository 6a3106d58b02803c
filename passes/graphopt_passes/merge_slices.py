"""Slice once where a slice is sliced again.

    Slice(Slice(x, axis 2), axis 3)                ->  Slice(x, axes 2 and 3)
    Slice(Slice(x, 2:20:3), 1:4)                   ->  Slice(x, 5:14:3)         the same axis
    Slice(Slice(x[10], -4:-1), ::-1)               ->  Slice(x, 8:5:-1)         the dim is known

On one axis the two ranges are composed exactly where the dim is known, or where neither counts
from the end nor goes backwards. What several Slices read, and nobody else, is merged into each of
them: the corners of a window are cut out at once. Declined where starts, ends, axes or steps are
not constant, and where the ranges of one axis cannot be composed without its dim.
"""

from __future__ import annotations

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    ir,
    known_shape,
    op,
    variable,
)
from graphopt_passes.operands import given, integers, no_references, rank

_END = np.iinfo(np.int64).max
_BEFORE_THE_START = np.iinfo(np.int64).min

_Range = tuple[int, int, int]


class MergeSlices(RewritePass):
    """Slice once where a slice is sliced again."""

    name = "merge-slices"
    promise = Promise.EXACT
    patterns = (
        op("Slice", op("Slice", variable("x"), label="inner")),
        op("Slice", variable("part")),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make one Slice of the two, or say which range is in the way."""
        outer, source = match.root, match.root.inputs[0]
        inner = None if source is None else source.producer()
        if source is None or inner is None or not _is_slice(inner):
            return
        data = inner.inputs[0]
        if data is None:
            return
        if len(list(source.uses())) > 1:
            if not _goes(source):
                return
            rewriter.stand_for([inner, outer])
        ranges = _ranges(inner, data)
        for axis, second in _ranges(outer, data).items():
            first = ranges.get(axis)
            ranges[axis] = second if first is None else _composed(first, second, data, axis)
        axes = sorted(ranges)
        columns = [[ranges[axis][place] for axis in axes] for place in range(3)]
        starts, ends, steps = columns
        if len(outer.inputs) == 1:  # before opset 10 there were only attributes, and no steps
            if steps != [1] * len(steps):
                raise NotApplicable("this opset has no steps")
            attributes = {"starts": starts, "ends": ends, "axes": axes}
            made = rewriter.node("Slice", [data], attributes)
        else:
            operands = {"starts": starts, "ends": ends, "axes": axes}
            if steps != [1] * len(steps):
                operands["steps"] = steps
            constants = [
                rewriter.initializer(np.array(numbers, np.int64), f"slice_{name}")
                for name, numbers in operands.items()
            ]
            made = rewriter.node("Slice", [data, *constants])
        rewriter.replace(outer, made)


def _is_slice(node: ir.Node) -> bool:
    return node.op_type == "Slice" and node.domain in ("", "ai.onnx")


def _goes(part: ir.Value) -> bool:
    """Whether all who read a slice are Slices of constant ranges that may be merged with it."""
    inner = part.producer()
    data = None if inner is None else inner.inputs[0]
    if inner is None or data is None or part.is_graph_output():
        return False
    first = _ranges(inner, data)
    for use in part.uses():
        if use.idx or not _is_slice(use.node) or use.node.graph is not inner.graph:
            return False
        for axis, second in _ranges(use.node, data).items():
            if axis in first:
                _composed(first[axis], second, data, axis)
    return True


def _ranges(node: ir.Node, data: ir.Value) -> dict[int, _Range]:
    """Start, end and step by axis, each axis counted from the front."""
    no_references(node)
    starts, ends = integers(node, "starts", 1), integers(node, "ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise NotApplicable("Slice lacks starts or ends")
    axes = integers(node, "axes", 3)
    steps = integers(node, "steps", 4) if given(node, 4) is not None else None
    count = rank(data)
    ranges: dict[int, _Range] = {}
    for axis, start, end, step in zip(
        range(len(starts)) if axes is None else axes,
        starts,
        ends,
        [1] * len(starts) if steps is None else steps,
        strict=True,
    ):
        if axis < 0 and count is None:
            raise NotApplicable(f"the rank of '{data.name}' is not known")
        place = axis + (count or 0) if axis < 0 else axis
        if place in ranges:
            raise NotApplicable("Slice names an axis twice")
        ranges[place] = (start, end, step)
    return ranges


def _composed(first: _Range, second: _Range, data: ir.Value, axis: int) -> _Range:
    """One range that takes what `second` takes of what `first` takes."""
    shape = known_shape(data)
    dim = shape[axis] if shape is not None and axis < len(shape) else None
    if isinstance(dim, int):
        taken = range(dim)[slice(*first)][slice(*second)]
        if not taken:
            return (0, 0, 1)
        # Behind a backward range that reaches the front there is no end to name but this one.
        end = taken[-1] + (1 if taken.step > 0 else -1)
        return (taken[0], _BEFORE_THE_START if end < 0 else end, taken.step)
    if any(number < 0 for number in (*first, *second)):
        raise NotApplicable(f"axis {axis} of '{data.name}' is not known")
    start, end, step = first
    limit = end if second[1] >= _END // step else min(end, start + second[1] * step)
    return (min(start + second[0] * step, _END), limit, step * second[2])
