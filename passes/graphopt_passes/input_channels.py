"""Lays out what a Conv's input is multiplied by, or has added, so that it meets the weight."""

from __future__ import annotations

import numpy as np

from graphopt.plugin import NotApplicable, ir, known_shape
from graphopt_passes.parameters import integer


def by_input_channel(
    conv: ir.Node, weight: np.ndarray, constant: np.ndarray, data: ir.Value, what: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes in which a constant meets the weight: [groups, outputs, inputs, window].

    Args:
        conv: the convolution.
        weight: its weight.
        constant: one number, or one for each channel of `data`.
        data: what the constant is combined with before the convolution reads it.
        what: the constant in words, for the reason.

    Returns:
        The shape for the constant, and the one for the weight.

    Raises:
        NotApplicable: the constant varies along another axis, or may enlarge the data.
    """
    groups = integer(conv, "group", 1)
    size = (groups, weight.shape[0] // groups, *weight.shape[1:])
    shape = known_shape(data)
    # What has fewer axes than the convolution reads leaves that to the data.
    known = constant.ndim < weight.ndim or (shape is not None and len(shape) == weight.ndim)
    if constant.ndim > weight.ndim or not known:
        raise NotApplicable(f"{what} raises the rank")
    if constant.size == 1:
        return (1,) * len(size), size
    channels = groups * weight.shape[1]
    full = (1,) * (weight.ndim - constant.ndim) + constant.shape
    if full != (1, channels, *[1] * (weight.ndim - 2)):
        raise NotApplicable(f"{what} varies along another axis than the channels")
    if shape is None or len(shape) != weight.ndim or shape[1] != channels:
        raise NotApplicable(f"{what} may stretch what it is combined with")
    return (groups, 1, weight.shape[1], *[1] * (weight.ndim - 2)), size
