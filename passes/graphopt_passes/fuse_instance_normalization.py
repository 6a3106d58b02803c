"""Normalize each channel of each image in one operator.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + e)    ->  InstanceNormalization(x, 1, 0)
    x*k + (b - mean(x)*k), k = g / sqrt(var + e)       ->  InstanceNormalization(x, g, b)
    InstanceNormalization(x, g, b) * k                 ->  InstanceNormalization(x, g*k, b*k)
    InstanceNormalization(x, g, b) + k                 ->  InstanceNormalization(x, g, b+k)

The means are taken over all axes behind the channels, which are kept. The square is Pow(d, 2) or
d*d, the division may be a product with the reciprocal. `k` is one number for each channel, or one
for all. Groups of channels that stand in rank 3 are normalized so too: that is how
GroupNormalization is written, and faster in ONNX Runtime than the operator of that name.

Declined where the means are taken over other axes or over one number, where the number of channels
is not known, in rank 3 with a scale for each place of the last axis, which is a LayerNormalization,
and for doubles, which ONNX Runtime does not normalize.
"""

from __future__ import annotations

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
    variable,
)
from graphopt_passes.norm_patterns import at_once, quotient, root_of_mean_square
from graphopt_passes.operands import integers, keep_rank, no_references, positive_number
from graphopt_passes.reduced_axes import keeps_dims

_FLOATING = (ir.DataType.FLOAT, ir.DataType.FLOAT16)

_X = variable("x")
_MEAN = op("ReduceMean", _X, label="mean")
_CENTRED = op("Sub", _X, _MEAN)
_DEVIATION = root_of_mean_square(_CENTRED, "variance")
_DONE = op(
    "InstanceNormalization",
    _X,
    constant("done scale"),
    constant("done bias"),
    label="done",
)


class FuseInstanceNormalization(RewritePass):
    """Normalize each channel of each image in one operator."""

    name = "fuse-instance-normalization"
    promise = Promise.EQUIVALENT
    patterns = (
        quotient(_CENTRED, _DEVIATION),
        at_once(_X, _MEAN, _DEVIATION),
        op("Mul", _DONE, constant("scale"), commutative=True),
        op("Add", _DONE, constant("bias"), commutative=True),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the InstanceNormalization, or say what is not as it needs it."""
        data = match.value("x")
        if data.dtype not in _FLOATING:
            raise NotApplicable(f"'{data.name}' is not of single or half precision")
        shape = known_shape(data)
        if shape is None or len(shape) < 3:
            raise NotApplicable(f"'{data.name}' is not known to have axes behind its channels")
        keep_rank(data, match.root)
        channels = shape[1]
        if not isinstance(channels, int):
            raise NotApplicable("the number of channels is not known")
        if all(size == 1 for size in shape[2:]):
            # x - mean(x) is 0 in parts; runtimes take the mean away behind the scale, and cancel.
            raise NotApplicable("a channel is one number")
        scale, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        if "done" in match.nodes:
            done = match.node("done")
            no_references(done)
            epsilon = done.attributes.get_float("epsilon", 1e-5)
            scale, bias = (_held(match.value(label)) for label in ("done scale", "done bias"))
        else:
            _over_images(match.node("mean"), len(shape))
            _over_images(match.node("variance"), len(shape))
            epsilon = positive_number(match.value("epsilon"))
            if len(shape) == 3 and "scale" not in match.values:
                _refuse_layer_normalization(match.root)
        with np.errstate(over="ignore", invalid="ignore"):
            if "scale" in match.values:
                factor = _per_channel(match.value("scale"), len(shape), channels)
                scale = scale * factor
                bias = bias * factor
            if "bias" in match.values:
                bias = bias + _per_channel(match.value("bias"), len(shape), channels)
            arrays = [array.astype(data.dtype.numpy()) for array in (scale, bias)]
        parameters = []
        for label, rounded in zip(("scale", "bias"), arrays, strict=True):
            if not np.isfinite(rounded).all():
                raise NotApplicable(f"the {label} would overflow")
            named = match.get(label) or match.get(f"done {label}")
            name = label if named is None else named.name or label
            parameters.append(rewriter.initializer(rounded, name))
        made = rewriter.node("InstanceNormalization", [data, *parameters], {"epsilon": epsilon})
        rewriter.replace(match.root, made)


def _over_images(mean: ir.Node, rank: int) -> None:
    """Refuse a mean over anything but all the axes behind the second, and one that drops them."""
    no_references(mean)
    if not keeps_dims(mean):
        raise NotApplicable("the mean drops its axes")
    if sorted(axis % rank for axis in integers(mean, "axes", 1) or ()) != list(range(2, rank)):
        raise NotApplicable("the mean is not taken over all axes behind the channels")


def _refuse_layer_normalization(root: ir.Node) -> None:
    """Leave it where a constant of the last axis follows: a runtime makes one operator of that."""
    for use in root.outputs[0].uses():
        if use.node.op_type == "Mul":
            other = use.node.inputs[1 - use.idx]
            shape = None if other is None else known_shape(other)
            if shape and shape[-1] != 1:
                raise NotApplicable("each place of the last axis is scaled: a LayerNormalization")


def _held(value: ir.Value) -> np.ndarray:
    array = constant_array(value)
    if array is None:
        raise NotApplicable(f"'{value.name}' is too large a constant")
    return array.astype(np.float32)


def _per_channel(value: ir.Value, rank: int, channels: int) -> np.ndarray:
    """A constant as one number for each channel, in single precision.

    Raises:
        NotApplicable: it differs along another axis, or would raise the rank.
    """
    array = _held(value)
    if array.ndim <= rank:
        full = array.reshape((1,) * (rank - array.ndim) + array.shape)
        if full.size == 1 or (full.size == channels and full.shape[1] == channels):
            return np.broadcast_to(full.reshape(-1), (channels,))
    raise NotApplicable(f"'{value.name}' is not one number for each channel")
