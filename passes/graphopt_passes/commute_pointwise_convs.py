"""Convolve 1x1 on the side of a resize or an average where there is less to compute.

    Conv1x1(Resize(x), W, b)       ->  Resize(Conv1x1(x, W, b))         where the image grows
    AveragePool(Conv1x1(x, W, b))  ->  Conv1x1(AveragePool(x), W, b)    where it shrinks

A 1x1 convolution mixes the channels of one place, a resize or an average the places of one channel
with weights that sum to one: either comes first, and the bias goes through. An average that counts
its padding sums to less at the border, so it goes past a convolution without a bias only.

With m = C_in * C_out / group multiplications, and s places made and r read by the resize or average
for each place of its input, the orders cost

    convolution first:  m + 8 * (r + s) * C_out
    convolution behind: m * s + 8 * r * C_in

A read is taken to last as long as 8 multiplications; s * C_out is the activation behind, which
runtimes compute within a convolution, but not within a resize. Declined where less than a fifth is
saved, where the window is larger than 1x1, strided or padded, where sizes are computed, and where a
resize crops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    static_shape,
    variable,
)
from graphopt_passes.operands import given, no_references, rank

_RESIZES = ("Resize", "Upsample")
_SAMPLERS = (*_RESIZES, "AveragePool", "GlobalAveragePool")
_READ = 8
_LEAST_SAVING = 1.25
_MOST_SIZES = 16
_SIZES = 3
_TAPS = {"nearest": 1, "linear": 2, "cubic": 4}


@dataclass(frozen=True)
class _Sampling:
    """A resize or an average: places made, and read, for each place of the input."""

    made: float
    read: float
    sums_to_one: bool = True


class CommutePointwiseConvs(RewritePass):
    """Convolve 1x1 on the side of a resize or an average where there is less to compute."""

    name = "commute-pointwise-convs"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Conv", op(_SAMPLERS, variable("x"), label="sampler"), label="conv"),
        op(_SAMPLERS, op("Conv", variable("x"), label="conv"), label="sampler"),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Change the order, or say what it depends on."""
        conv, sampler = match.node("conv"), match.node("sampler")
        made, read = _channels(conv)
        group = conv.attributes.get_int("group", 1)
        sampling = _sampling(sampler)
        if given(conv, 2) is not None and not sampling.sums_to_one:
            raise NotApplicable("the average counts its padding, and a bias would not go through")
        multiplications = made * read / group
        convolved_first = multiplications + _READ * (sampling.read + sampling.made) * made
        sampled_first = multiplications * sampling.made + _READ * sampling.read * read
        grows = match.root is conv
        costs = (sampled_first, convolved_first)
        now, then = costs if grows else costs[::-1]
        if now < _LEAST_SAVING * then:
            raise NotApplicable("it would not save a fifth of the work")
        x = match.value("x")
        if grows:
            first = rewriter.node("Conv", [x, *conv.inputs[1:]], conv.attributes.values())
            second = _sample(first.outputs[0], sampler, made, rewriter)
        else:
            first = _sample(x, sampler, read, rewriter)
            inputs = [first.outputs[0], *conv.inputs[1:]]
            second = rewriter.node("Conv", inputs, conv.attributes.values())
        rewriter.replace(match.root, second)


def _channels(conv: ir.Node) -> tuple[int, int]:
    """Channels that a 1x1 convolution makes, and that it reads."""
    no_references(conv)
    weight = given(conv, 1)
    shape = None if weight is None else static_shape(weight)
    if shape is None:
        raise NotApplicable("the shape of the weight is not known")
    attributes = conv.attributes
    if max(shape[2:], default=1) > 1:
        raise NotApplicable("the window is larger than 1x1")
    if max(attributes.get_ints("strides", [1])) > 1 or any(attributes.get_ints("pads", [0])):
        raise NotApplicable("the convolution has strides or pads")
    return shape[0], shape[1] * attributes.get_int("group", 1)


def _sampling(node: ir.Node) -> _Sampling:
    no_references(node)
    attributes = node.attributes
    if node.op_type == "GlobalAveragePool":
        return _Sampling(0.0, 1.0)
    if node.op_type == "AveragePool":
        return _average(node)
    if attributes.get_string("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        raise NotApplicable("the resize crops, and what lies outside is no mean")
    if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotApplicable("the resize keeps the aspect ratio")
    scales = _scales(node)
    mode = attributes.get_string("mode", "nearest")
    if mode not in _TAPS:
        raise NotApplicable(f"'{mode}' is no way to resize")
    taps = _TAPS[mode]
    made = math.prod(scales)
    return _Sampling(made, made * math.prod(taps for scale in scales if scale != 1))


def _average(node: ir.Node) -> _Sampling:
    attributes = node.attributes
    padded = (
        any(attributes.get_ints("pads", [0]))
        or attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
        or attributes.get_int("ceil_mode", 0) != 0
    )
    counted = attributes.get_int("count_include_pad", 0) != 0
    made = 1 / math.prod(attributes.get_ints("strides", [1]))
    read = made * math.prod(attributes.get_ints("kernel_shape", [1]))
    return _Sampling(made, read, not (padded and counted))


def _scales(node: ir.Node) -> list[float]:
    """By how much a resize enlarges each axis behind the channels."""
    attributes = node.attributes
    x = given(node, 0)
    shape = None if x is None else known_shape(x)
    if shape is None:
        raise NotApplicable("the rank of what is resized is not known")
    sizes = _sizes(node)
    held = sizes if sizes is not None else given(node, _scales_index(node))
    numbers = None if held is None else constant_array(held, _MOST_SIZES)
    if numbers is None:
        raise NotApplicable("the sizes of the resize are computed")
    axes = attributes.get_ints("axes", range(len(shape)))
    if len(numbers) != len(axes):
        raise NotApplicable("the resize does not name a size for each axis")
    scales = [1.0] * len(shape)
    for axis, number in zip(axes, numbers.tolist(), strict=True):
        if sizes is None:
            scales[axis] = number
            continue
        size = shape[axis]
        if not isinstance(size, int):
            raise NotApplicable("by how much the resize enlarges is not known")
        scales[axis] = number / size
    if scales[0] != 1 or scales[1] != 1:
        raise NotApplicable("the resize mixes channels or samples")
    return scales[2:]


def _scales_index(node: ir.Node) -> int:
    """Before opset 11 there was no region of interest."""
    return 1 if node.op_type == "Upsample" or len(node.inputs) == 2 else 2


def _sizes(node: ir.Node) -> ir.Value | None:
    return given(node, _SIZES) if node.op_type == "Resize" else None


def _sample(x: ir.Value, like: ir.Node, channels: int, rewriter: Rewriter) -> ir.Node:
    """The same resize or average of `x`, which has this many channels."""
    inputs = [x, *like.inputs[1:]]
    sizes = _sizes(like)
    resized = given(like, 0)
    count = None if resized is None else rank(resized)
    if sizes is not None and count is not None:
        numbers = np.array(constant_array(sizes))
        of_channels = [axis % count == 1 for axis in like.attributes.get_ints("axes", range(count))]
        if any(of_channels):
            numbers[of_channels] = channels
            inputs[_SIZES] = rewriter.initializer(numbers, "sizes")
    return rewriter.node(like.op_type, inputs, like.attributes.values())
