"""Convolve once where convolutions of one value are added, as the branches of RepVGG are.

    Conv(x, U, a) + Conv(x, V, b)                  ->  Conv(x, U + V at its place in U, a + b)
    Conv(x, U, a) + BatchNormalization(x)          ->  Conv(x, U + k at its middle, a + B - mean*k)
                                                       k = scale / sqrt(var + epsilon)

The window of V lies inside that of U, wherever the pads put it: a 1x1 convolution in the middle of
a 3x3 one. The weights are added in float64 and rounded once. So there is always less to compute.
Declined where strides or groups differ, where V's window leaves U's, where a dilation is above 1,
where a parameter is not a constant, and in training mode.
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
    ir,
    op,
    variable,
)
from graphopt_passes.affine import batchnorm_affine
from graphopt_passes.operands import no_references
from graphopt_passes.parameters import integer, optional_input, parameter
from graphopt_passes.scaled_weights import rounded

_X = variable("x")


@dataclass(frozen=True)
class _Window:
    """A convolution in numbers: its weight and bias in float64, and how it lies on the input."""

    weight: np.ndarray
    bias: np.ndarray
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    strides: tuple[int, ...]
    group: int


class MergeSummedConvs(RewritePass):
    """Convolve once where convolutions of one value are added."""

    name = "merge-summed-convs"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Add", op("Conv", _X, label="conv"), op("Conv", _X, label="other")),
        op(
            "Add",
            op("Conv", _X, label="conv"),
            op("BatchNormalization", _X, label="norm"),
            commutative=True,
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Add the smaller window to the larger one, or say why it does not fit."""
        conv = match.node("conv")
        large = _window(conv)
        if "norm" in match.nodes:
            small = _normalization(match.node("norm"), large)
        else:
            small = _window(match.node("other"))
            if math.prod(small.weight.shape[2:]) > math.prod(large.weight.shape[2:]):
                large, small = small, large
                conv = match.node("other")
        if large.strides != small.strides or large.group != small.group:
            raise NotApplicable("strides or groups differ")
        if large.weight.shape[:2] != small.weight.shape[:2]:
            raise NotApplicable("one of them is broadcast")
        place = [slice(None), slice(None)]
        sizes = zip(large.weight.shape[2:], small.weight.shape[2:], strict=True)
        for axis, (size, inner) in enumerate(sizes):
            begin = large.begins[axis] - small.begins[axis]
            if not 0 <= begin <= size - inner or (
                large.ends[axis] - small.ends[axis] != size - inner - begin
            ):
                raise NotApplicable("one window does not lie inside the other")
            place.append(slice(begin, begin + inner))
        total = large.weight.copy()
        total[tuple(place)] += small.weight
        dtype = parameter(conv.inputs[1], "the weight").dtype
        summed, bias = rounded(total, dtype), rounded(large.bias + small.bias, dtype)
        if not np.isfinite(summed).all() or not np.isfinite(bias).all():
            raise NotApplicable(f"a sum overflows {dtype.name}")
        inputs = [match.value("x"), rewriter.initializer(summed, "weight")]
        if bias.any():
            inputs.append(rewriter.initializer(bias, "bias"))
        rewriter.replace(match.root, rewriter.node("Conv", inputs, conv.attributes.values()))


def _window(conv: ir.Node) -> _Window:
    no_references(conv)
    weight = parameter(conv.inputs[1], "the weight").astype(np.float64)
    given_bias = optional_input(conv, 2)
    bias = np.zeros(len(weight)) if given_bias is None else parameter(given_bias, "the bias")
    count = weight.ndim - 2
    attributes = conv.attributes
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise NotApplicable("pads depend on the size of the input")
    if max(attributes.get_ints("dilations", [1])) > 1:
        raise NotApplicable("a window is dilated")
    pads = tuple(attributes.get_ints("pads", [0] * (2 * count)))
    return _Window(
        weight,
        bias.astype(np.float64),
        pads[:count],
        pads[count:],
        tuple(attributes.get_ints("strides", [1] * count)),
        integer(conv, "group", 1),
    )


def _normalization(norm: ir.Node, like: _Window) -> _Window:
    """BatchNormalization as the 1x1 convolution that it is: a factor on the diagonal."""
    affine = batchnorm_affine(norm)
    channels, inner = like.weight.shape[:2]
    count = like.weight.ndim - 2
    if len(affine.factor) != channels or channels != inner * like.group:
        raise NotApplicable("the convolution changes the number of channels")
    weight = np.zeros((channels, inner, *([1] * count)))
    diagonal = np.arange(channels)
    weight[diagonal, diagonal % inner] = affine.factor.reshape(-1, *([1] * count))
    none = (0,) * count
    return _Window(weight, affine.offset, none, none, (1,) * count, like.group)
