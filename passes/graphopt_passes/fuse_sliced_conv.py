"""Convolve with a step what is taken apart by steps first, as the focus stem of YOLO is.

    Conv(Concat(x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2]), W, b)
        ->  Conv(x, V, b, strides and pads = 2 * ...),  V[0::2, 0::2] = W of the first part, ...

for any step, axis by axis, and the parts in any order. There is as much to multiply, and nothing
to copy. Declined where a slice has other limits than the whole axis or is not constant, where not
each part occurs once, where the sizes are not known to be multiples of the steps, and for groups,
dilations and pads that depend on the size of the input.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_array,
    ir,
    known_shape,
    op,
)
from graphopt_passes.operands import given, integers, no_references

_WHOLE = 1 << 30
"""An end that lies behind every axis: exporters write the largest integer."""


class FuseSlicedConv(RewritePass):
    """Convolve with a step what is taken apart by steps first."""

    name = "fuse-sliced-conv"
    promise = Promise.EQUIVALENT
    patterns = (
        op(
            "Conv",
            op("Concat", op("Slice", shared=True), label="concat"),
            constant("weight"),
            label="conv",
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Conv with a step, or say what is not as it needs it."""
        concat, conv = match.node("concat"), match.node("conv")
        inputs = [value for value in concat.inputs if value is not None]
        sources = [value.producer() for value in inputs]
        if len(sources) < 2 or any(node is None or node.op_type != "Slice" for node in sources):
            return  # the usual convolution of what several branches made
        weight = constant_array(match.value("weight"))
        if weight is None or concat.attributes.get_int("axis", 1) != 1:
            raise NotApplicable("the slices are not put together along the channels")
        count = weight.ndim - 2
        attributes = _attributes(conv, count)
        parts = [_part(value, count) for value in inputs]
        data, _, steps = parts[0]
        if any(part[0] is not data or part[2] != steps for part in parts):
            raise NotApplicable("the slices are of several values, or take several steps")
        phases = [part[1] for part in parts]
        # Counted first: a step may be as large as an integer can be.
        if math.prod(steps) != len(parts) or sorted(phases) != list(
            itertools.product(*(range(step) for step in steps))
        ):
            raise NotApplicable("not every part of the value occurs once")
        shape = known_shape(data)
        inner = [] if shape is None else shape[2:]
        if len(inner) != count or any(
            not isinstance(size, int) or size % step
            for size, step in zip(inner, steps, strict=True)
        ):
            # ONNX Runtime puts parts of several sizes together if all but one are empty.
            raise NotApplicable("the sizes are not known to be multiples of the steps")
        blocks = np.split(weight, len(parts), axis=1)
        sizes = [step * size for step, size in zip(steps, weight.shape[2:], strict=True)]
        whole = np.zeros((*blocks[0].shape[:2], *sizes), weight.dtype)
        for phase, block in zip(phases, blocks, strict=True):
            places = [slice(first, None, step) for first, step in zip(phase, steps, strict=True)]
            whole[(slice(None), slice(None), *places)] = block
        stretch = {
            "kernel_shape": list(whole.shape[2:]),
            "strides": _times(attributes["strides"], steps),
            "pads": _times(attributes["pads"], [*steps, *steps]),
        }
        name = match.value("weight").name or "weight"
        operands = [data, rewriter.initializer(whole, name), *conv.inputs[2:]]
        rewriter.replace(match.root, rewriter.node("Conv", operands, stretch))


def _times(numbers: list[int], factors: list[int]) -> list[int]:
    return [number * factor for number, factor in zip(numbers, factors, strict=True)]


def _attributes(conv: ir.Node, count: int) -> dict[str, list[int]]:
    """Strides and pads of a convolution that has nothing else."""
    no_references(conv)
    held = conv.attributes
    if held.get_int("group", 1) != 1 or max(held.get_ints("dilations", [1])) > 1:
        raise NotApplicable("the convolution has groups, or a dilation")
    if held.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise NotApplicable("pads depend on the size of the input")
    return {
        "strides": list(held.get_ints("strides", [1] * count)),
        "pads": list(held.get_ints("pads", [0] * (2 * count))),
    }


def _part(value: ir.Value, count: int) -> tuple[ir.Value, tuple[int, ...], list[int]]:
    """What a chain of slices is taken from, and where it begins and steps on each inner axis.

    Raises:
        NotApplicable: it leaves anything out but what other beginnings have.
    """
    firsts, steps = [0] * count, [1] * count
    node = value.producer()
    while node is not None and node.op_type == "Slice" and not node.domain:
        source = node.inputs[0]
        starts, ends, axes, strides = (
            integers(node, name, index) if given(node, index) is not None else None
            for index, name in enumerate(("starts", "ends", "axes", "steps"), start=1)
        )
        if source is None or starts is None or ends is None or axes is None or strides is None:
            raise NotApplicable("a slice does not name its limits, axes and steps")
        for first, end, axis, step in zip(starts, ends, axes, strides, strict=True):
            inner = axis - 2 if axis >= 0 else count + axis
            if not 0 <= inner < count or end < _WHOLE or not 0 <= first < step:
                raise NotApplicable(
                    "a slice takes less than each place that its step leads to of an axis"
                )
            # The slice nearer to the input comes last in this walk: its step is the inner one.
            firsts[inner] = first + step * firsts[inner]
            steps[inner] *= step
        value, node = source, source.producer()
    if math.prod(steps) < 2:
        raise NotApplicable("a slice takes no steps")
    return value, tuple(firsts), steps
