"""Normalize by the root of the mean square in one operator, from opset 23 on.

    x / sqrt(mean(x^2) + e)                       ->  RMSNormalization(x, 1)
    x * (g / sqrt(mean(x^2) + e))                 ->  RMSNormalization(x, g)
    RMSNormalization(x, g) * k                    ->  RMSNormalization(x, g*k)
    half(RMSNormalization(single(x), 1))          ->  RMSNormalization(x, 1)

The square is Pow(x, 2) or x*x, the division may be a product with the reciprocal or with the power
of -1/2. The mean is taken over the last axis, whose size is known, and kept; `g` and `k` are
constants of that axis. The operator computes the mean of half precision in single precision, and
rounds before it multiplies with `g`: the last line is what it does. Declined below opset 23, for an
empty axis, and for doubles, whose mean it would take in single precision.
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
    one_of,
    op,
    opset_version,
    variable,
)
from graphopt_passes.norm_patterns import inverse, root_of_mean_square, shifted_mean_square
from graphopt_passes.operands import (
    integers,
    is_number,
    keep_rank,
    no_references,
    positive_number,
)
from graphopt_passes.reduced_axes import keeps_dims


def _is_one(value: ir.Value) -> bool:
    array = constant_array(value)
    return array is not None and bool((array == 1).all())


_X = variable("x")
_ROOT = root_of_mean_square(_X, "mean")
_INVERSE = one_of(
    inverse(_ROOT),
    op("Pow", shifted_mean_square(_X, "mean"), constant(where=is_number(-0.5))),
)
_DONE = op("RMSNormalization", _X, constant("done scale"), label="done")


class FuseRmsNormalization(RewritePass):
    """Normalize by the root of the mean square in one operator, from opset 23 on."""

    name = "fuse-rms-normalization"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Div", _X, _ROOT),
        op("Mul", _X, _INVERSE, commutative=True),
        op(
            "Mul",
            _X,
            op("Mul", _INVERSE, constant("scale"), commutative=True),
            commutative=True,
        ),
        op("Mul", _DONE, constant("scale"), commutative=True),
        op(
            "Cast",
            op(
                "RMSNormalization",
                op("Cast", variable("half")),
                constant("done scale", _is_one),
                label="done",
            ),
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the RMSNormalization, or say what is not as it needs it."""
        if opset_version(match.root, rewriter.model) < 23:
            raise NotApplicable("RMSNormalization comes with opset 23")
        data = match.get("half") or match.value("x")
        if data.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            raise NotApplicable(f"'{data.name}' is not of single or half precision")
        shape = known_shape(data)
        size = shape[-1] if shape else None
        if shape is None or not isinstance(size, int):
            raise NotApplicable("the size of the last axis is not known")
        if size == 0:
            raise NotApplicable("ONNX Runtime normalizes no empty axis")
        keep_rank(data, match.root)
        if "done" in match.nodes:
            done = match.node("done")
            no_references(done)
            if done.attributes.get_int("axis", -1) not in (-1, len(shape) - 1):
                raise NotApplicable("the norm is not over the last axis alone")
            if done.attributes.get_int("stash_type", 1) != ir.DataType.FLOAT:
                raise NotApplicable("the mean is not taken in single precision")
            epsilon = done.attributes.get_float("epsilon", 1e-5)
            scale = _of_last_axis(match.value("done scale"), len(shape), size)
        else:
            _over_last_axis(match.node("mean"), len(shape))
            epsilon = positive_number(match.value("epsilon"))
            scale = np.ones(size, np.float32)
        if "half" in match.values and (
            match.root.outputs[0].dtype != data.dtype
            or match.node("done").outputs[0].dtype != ir.DataType.FLOAT
        ):
            raise NotApplicable("the numbers are not made single and half again around the norm")
        with np.errstate(over="ignore", invalid="ignore"):
            if "scale" in match.values:
                scale = scale * _of_last_axis(match.value("scale"), len(shape), size)
            rounded = scale.astype(data.dtype.numpy())
        if not np.isfinite(rounded).all():
            raise NotApplicable("the scale would overflow")
        named = match.get("scale") or match.get("done scale")
        name = "scale" if named is None else named.name or "scale"
        inputs = [data, rewriter.initializer(rounded, name)]
        attributes = {"axis": -1, "epsilon": epsilon}
        rewriter.replace(match.root, rewriter.node("RMSNormalization", inputs, attributes))


def _over_last_axis(mean: ir.Node, rank: int) -> None:
    """Refuse a mean over anything but the last axis, and one that drops it."""
    no_references(mean)
    if not keeps_dims(mean):
        raise NotApplicable("the mean drops its axis")
    if integers(mean, "axes", 1) not in ([-1], [rank - 1]):
        raise NotApplicable("the mean is not taken over the last axis alone")


def _of_last_axis(value: ir.Value, rank: int, size: int) -> np.ndarray:
    """A constant as one number for each place of the last axis, in single precision.

    Raises:
        NotApplicable: it differs along another axis, or would raise the rank.
    """
    array = constant_array(value)
    if array is None:
        raise NotApplicable(f"'{value.name}' is too large a constant")
    if array.ndim <= rank and (array.size == 1 or array.size == size == array.shape[-1]):
        return np.broadcast_to(array.reshape(-1).astype(np.float32), (size,))
    raise NotApplicable(f"'{value.name}' is not one number for each place of the last axis")
