"""Fold a constant factor into the weight of the matrix product or convolution beside it.

    MatMul(x, w) * c                       ->  MatMul(x, w*c)
    (MatMul(x, w) + b) * c                 ->  MatMul(x, w*c) + b*c
    Transpose(Reshape(MatMul(x, w))) * c   ->  Transpose(Reshape(MatMul(x, w*c)))    one number c
    MatMul(x * c, w), Gemm(x * c, w)       ->  MatMul(x, c*w)
    Conv(x * c, w)                         ->  Conv(x, c*w)

and the same for a division. `c` is one number, or varies along the columns of the product or the
channels of the input. Products of weights are rounded once. (What follows a Conv or a Gemm is
folded by fuse-conv-batchnorm.)

Declined where a value between is used elsewhere, where another node uses the weight too, which
would have to be stored twice, where a parameter is not constant, and where `c` may stretch
what it multiplies; and where `c` is the half of a Gelu or the scale of a normalization, which
runtimes know only as a whole.
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
    ir,
    known_shape,
    op,
    variable,
)
from graphopt_passes.input_channels import by_input_channel
from graphopt_passes.movement import is_movement
from graphopt_passes.operands import no_references, rank
from graphopt_passes.parameters import integer, parameter
from graphopt_passes.scaled_weights import rounded, scaled

_LONGEST = 6
"""Nodes that only move data between a product and its factor."""

_GELU_FACTOR = 0.5
_GATES = ("Erf", "Tanh")

_FACTOR = constant("factor")


class FoldScales(RewritePass):
    """Fold constant factors into the weights of products and convolutions."""

    name = "fold-scales"
    promise = Promise.EQUIVALENT
    patterns = (
        op(
            ("MatMul", "Gemm", "Conv"),
            op("Mul", variable("data"), _FACTOR, commutative=True, label="scaling"),
        ),
        op(
            ("MatMul", "Gemm", "Conv"),
            op("Div", variable("data"), _FACTOR, label="scaling"),
        ),
        op("Mul", variable("made"), _FACTOR, commutative=True),
        op("Div", variable("made"), _FACTOR),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Multiply the weight instead of the data."""
        root, factor = match.root, match.value("factor")
        if root.op_type in ("Mul", "Div"):
            _fold_behind(root, match.value("made"), factor, rewriter)
        else:
            _fold_ahead(root, match.node("scaling"), match.value("data"), factor, rewriter)


def _fold_behind(root: ir.Node, made: ir.Value, factor: ir.Value, rewriter: Rewriter) -> None:
    """Fold a factor into the product that it multiplies."""
    last = made
    for _ in range(_LONGEST):
        producer = _only_use(last)
        if producer is None or not is_movement(producer) or producer.inputs[0] is None:
            break
        last = producer.inputs[0]
    product = addition = _only_use(last)
    bias: ir.Value | None = None
    if addition is not None and addition.op_type == "Add" and addition.domain == "":
        for place in (0, 1):
            side = addition.inputs[place]
            found = None if side is None else _only_use(side)
            if found is not None and found.op_type == "MatMul":
                product, bias = found, addition.inputs[1 - place]
    if product is None or product.op_type != "MatMul" or product.domain != "":
        return
    factors = _factors(root, factor)
    if last is not made and factors.size != 1:
        raise NotApplicable("the factor is not one number, and data is moved before it")
    weight_value = product.inputs[1]
    weight = _own_weight(product)
    columns = weight.shape[-1]
    factors = _along_last(factors, columns, product.outputs[0])
    across = np.broadcast_to(factors, (columns,)).reshape((1,) * (weight.ndim - 1) + (columns,))
    name = (weight_value.name if weight_value is not None else None) or "weight"
    offset = None if bias is None else _scaled_bias(bias, factors, last)
    inputs = [product.inputs[0], rewriter.initializer(scaled(weight, across), name)]
    result = rewriter.node("MatMul", inputs).outputs[0]
    result.type, result.shape = product.outputs[0].type, known_shape(product.outputs[0])
    sources = [root, product]
    if offset is not None and bias is not None and addition is not None:
        sources.append(addition)
        value = rewriter.initializer(offset, bias.name or "bias")
        result = rewriter.node("Add", [result, value]).outputs[0]
    rewriter.stand_for(sources)
    if last is made:
        rewriter.replace(root, result)
        return
    target = last.producer()
    if target is None:
        raise NotApplicable("the product is not in this graph")
    if root.outputs[0].is_graph_output():
        raise NotApplicable(f"graph output '{root.outputs[0].name}' would be moved data")
    rewriter.replace(target, result)
    rewriter.replace(root, made)


def _fold_ahead(
    root: ir.Node, scaling: ir.Node, data: ir.Value, factor: ir.Value, rewriter: Rewriter
) -> None:
    """Fold the factor of an operand into the weight that the operand meets."""
    no_references(root)
    factors = _factors(scaling, factor)
    if factors.size == 1 and factors.item() == _GELU_FACTOR and _is_gated(data):
        raise NotApplicable("the factor belongs to a Gelu, which runtimes fuse as a whole")
    if _is_normalized(data):
        raise NotApplicable("the factor belongs to a normalization, which runtimes fuse")
    weight = _own_weight(root)
    weight_value = root.inputs[1]
    if root.op_type == "Conv":
        shape, size = by_input_channel(root, weight, factors, data, "the factor")
        made = scaled(weight.reshape(size), factors.reshape(shape)).reshape(weight.shape)
    else:
        turned = root.op_type == "Gemm" and integer(root, "transB", 0)
        if root.op_type == "Gemm" and integer(root, "transA", 0) and factors.size != 1:
            raise NotApplicable("Gemm transposes what is multiplied")
        rows = weight.shape[-1] if turned else weight.shape[-2]
        factors = np.broadcast_to(_along_last(factors, rows, data), (rows,))
        places = (1, rows) if turned else (rows, 1)
        made = scaled(weight, factors.reshape((1,) * (weight.ndim - 2) + places))
    name = (weight_value.name if weight_value is not None else None) or "weight"
    inputs = [data, rewriter.initializer(made, name), *root.inputs[2:]]
    rewriter.stand_for([root, scaling])
    rewriter.replace(root, rewriter.node(root.op_type, inputs, root.attributes.values()))


def _is_gated(value: ir.Value) -> bool:
    """Whether a value is x * (1 + erf(...)) or x * (1 + tanh(...))."""
    product = value.producer()
    if product is None or product.op_type != "Mul":
        return False
    sums = [None if side is None else side.producer() for side in product.inputs]
    return any(
        side is not None and (made := side.producer()) is not None and made.op_type in _GATES
        for addition in sums
        if addition is not None and addition.op_type == "Add"
        for side in addition.inputs
    )


def _is_normalized(value: ir.Value) -> bool:
    """Whether a value is x / sqrt(...), however it is written, cast or not."""
    product = value.producer()
    if product is not None and product.op_type == "Cast" and product.inputs[0] is not None:
        product = product.inputs[0].producer()
    if product is None or product.op_type not in ("Mul", "Div"):
        return False
    for side in product.inputs:
        made = None if side is None else side.producer()
        if made is not None and made.op_type in ("Div", "Reciprocal"):
            root = made.inputs[-1]
            made = None if root is None else root.producer()
        if made is not None and made.op_type == "Sqrt":
            return True
    return False


def _only_use(value: ir.Value) -> ir.Node | None:
    """The node that makes a value which one node uses and nothing else."""
    if value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def _factors(node: ir.Node, value: ir.Value) -> np.ndarray:
    """What a Mul multiplies by, or a Div by the inverse of, in float64."""
    array = parameter(value, "the factor")
    if array.dtype.kind in "iu":
        raise NotApplicable("the factor is an integer")
    factors = array.astype(np.float64)
    if node.op_type == "Div":
        if not factors.all():
            raise NotApplicable("the factor divides by zero")
        return np.asarray(1 / factors)
    return factors


def _own_weight(node: ir.Node) -> np.ndarray:
    """The constant weight of a product or convolution, which only this node uses."""
    value = node.inputs[1]
    weight = parameter(value, f"{node.op_type} weight")
    if weight.dtype.kind in "iu" or weight.ndim < 2:
        raise NotApplicable(f"{node.op_type} weight is not a matrix of floats")
    if value is not None and len(value.uses()) > 1:
        raise NotApplicable(f"'{value.name}' is used elsewhere too: it would be stored twice")
    return weight


def _along_last(factors: np.ndarray, size: int, data: ir.Value) -> np.ndarray:
    """The factors as [size] or [1], where they vary along the last axis of `data` at most."""
    shape = known_shape(data)
    if factors.ndim > 1 and (shape is None or factors.ndim > len(shape)):
        raise NotApplicable("the factor may raise the rank")
    if factors.size == 1:
        return factors.reshape(1)
    if factors.size != factors.shape[-1]:
        raise NotApplicable("the factor varies along another axis than the last")
    if factors.size != size or shape is None or not shape or shape[-1] != size:
        raise NotApplicable("the factor may stretch what it multiplies")
    return factors.reshape(-1)


def _scaled_bias(bias: ir.Value, factors: np.ndarray, total: ir.Value) -> np.ndarray:
    """`bias * factors`, where it has no more axes than the sum."""
    array = parameter(bias, "the bias")
    known = rank(total)
    if known is None or array.ndim > known:
        raise NotApplicable("the rank of the sum is not known")
    result = rounded(array.astype(np.float64) * factors, array.dtype)
    if not np.isfinite(result).all():
        raise NotApplicable(f"the scaled bias overflows {array.dtype.name}")
    return result.reshape(result.shape if known else ())
