"""Normalize in one operator, from opset 17 on.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) * g      ->  LayerNormalization(x, g)
    LayerNormalization(x, g) + b                             ->  LayerNormalization(x, g, b)
    x*k + (b - mean(x)*k), k = g / sqrt(var + e)             ->  LayerNormalization(x, g, b)

The square is Pow(d, 2) or d*d, the division may be a product with the reciprocal. The means are
taken over the last axes, which are kept; `g` and `b` are constants of the shape of these axes.
Declined below opset 17, where the means are taken over other or empty axes, and where a value
between is used elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.plugin import (
    Match,
    NotApplicable,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_array,
    constant_tensor,
    ir,
    known_shape,
    op,
    opset_version,
    variable,
)
from graphopt_passes.norm_patterns import at_once, quotient, root_of_mean_square
from graphopt_passes.operands import given, integers, keep_rank, positive_number

_FLOATING = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

_X = variable("x")
_MEAN = op("ReduceMean", _X, label="mean")
_CENTRED = op("Sub", _X, _MEAN)
_DEVIATION = root_of_mean_square(_CENTRED, "variance")


class FuseLayerNormalization(RewritePass):
    """Normalize in one operator, from opset 17 on."""

    name = "fuse-layer-normalization"
    promise = Promise.EQUIVALENT
    patterns = (
        op("Mul", quotient(_CENTRED, _DEVIATION), constant("scale"), commutative=True),
        at_once(_X, _MEAN, _DEVIATION),
        op(
            "Add",
            op("LayerNormalization", _X, variable("scale"), label="done"),
            constant("bias"),
            commutative=True,
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the LayerNormalization, or say what is not as it needs it."""
        if opset_version(match.root, rewriter.model) < 17:
            raise NotApplicable("LayerNormalization comes with opset 17")
        data = match.value("x")
        if data.dtype not in _FLOATING:
            raise NotApplicable(f"the type of '{data.name}' is not floating")
        shape = known_shape(data)
        if shape is None:
            raise NotApplicable(f"the rank of '{data.name}' is not known")
        keep_rank(data, match.root)
        if "done" in match.nodes:
            done = match.node("done")
            if given(done, 2) is not None:
                raise NotApplicable("LayerNormalization has a bias already")
            if len(done.outputs) > 1:
                raise NotApplicable("LayerNormalization's statistics are used")
            attributes: dict[str, object] = dict(done.attributes)
            axis = done.attributes.get_int("axis", -1)
        else:
            axis = _first_axis(match.node("mean"), len(shape))
            if _first_axis(match.node("variance"), len(shape)) != axis:
                raise NotApplicable("mean and variance are taken over different axes")
            epsilon = positive_number(match.value("epsilon"))
            attributes = {"axis": axis - len(shape), "epsilon": epsilon}
        normalized = list(shape)[axis % len(shape) :]
        if 0 in normalized:
            raise NotApplicable("ONNX Runtime normalizes no empty axes")
        inputs = [data, _fitting(match.value("scale"), normalized, rewriter)]
        if "bias" in match.values:
            inputs.append(_fitting(match.value("bias"), normalized, rewriter))
        rewriter.replace(match.root, rewriter.node("LayerNormalization", inputs, attributes))


def _first_axis(mean: ir.Node, rank: int) -> int:
    """The first of the axes that a ReduceMean takes, which have to be the last of all."""
    if not mean.attributes.get_int("keepdims", 1):
        raise NotApplicable("the mean drops its axes")
    axes = sorted(axis % rank for axis in integers(mean, "axes", 1) or range(rank))
    if axes != list(range(axes[0], rank)):
        raise NotApplicable("the mean is not taken over the last axes")
    return axes[0]


def _fitting(
    value: ir.Value, normalized: Sequence[int | ir.SymbolicDim], rewriter: Rewriter
) -> ir.Value:
    """The constant in the very shape of the axes that are normalized."""
    tensor = constant_tensor(value)
    if tensor is None:
        raise NotApplicable(f"'{value.name}' is not a constant")
    given_shape = [int(dim) for dim in tensor.shape.numpy()]
    if given_shape == list(normalized):
        return value
    extra = len(given_shape) - len(normalized)
    if extra > 0 and given_shape[extra:] == list(normalized) and set(given_shape[:extra]) == {1}:
        # The rank of the result must stay what the data's is.
        array = constant_array(value)
        if array is not None:
            return rewriter.initializer(array.reshape(given_shape[extra:]), value.name or "scale")
    raise NotApplicable(f"'{value.name}' does not have the shape of the axes that are normalized")
