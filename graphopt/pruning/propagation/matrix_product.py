"""Products: y[..., m, n] = sum over k of a[..., m, k] * b[..., k, n], and Gemm.

Index k goes from both factors at once and leaves y as it is; m and n go with y. Batch axes are
broadcast. Where the batch is part of an axis that is cut up elsewhere, it is the heads.
"""

from __future__ import annotations

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.activation import broadcast
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Rule, standard


def relate_product(
    place: Place, a: Tensor, b: Tensor, y: Tensor, a_input: int, b_input: int
) -> None:
    """Relate the axes of a (batched) matrix product."""
    if not a.rank or not b.rank:
        raise NotUnderstood("has a factor without axes")
    contracted = b.rank - 2 if b.rank > 1 else 0
    place.tie(a, a.rank - 1, b, contracted)
    last = y.rank
    if b.rank > 1:
        last -= 1
        place.tie(b, b.rank - 1, y, last)
        place.weight(b_input, b.rank - 1, Role.PRODUCER)
    if a.rank > 1:
        last -= 1
        place.tie(a, a.rank - 2, y, last)
        place.weight(a_input, a.rank - 2, Role.PRODUCER)
    place.weight(a_input, a.rank - 1, Role.CONSUMER)
    place.weight(b_input, contracted, Role.CONSUMER)
    for tensor in (a, b):
        for axis in range(tensor.rank - 2):
            target = last - (tensor.rank - 2) + axis
            if target < 0:
                raise NotUnderstood("has shapes that do not fit together")
            if tensor.sizes[axis] == 1 and y.sizes[target] != 1:
                place.ignore(tensor, axis)
                continue
            place.tie(tensor, axis, y, target)
            if tensor.sizes[axis] > 1:
                place.prefer(tensor, axis)
    for index, tensor in ((a_input, a), (b_input, b)):
        if tensor.rank > 2 and tensor.parameter:
            for axis in range(tensor.rank - 2):
                # Each matrix of a stack both makes and takes its own part.
                place.weight(index, axis, Role.VECTOR)


def _relate_matmul(place: Place) -> None:
    relate_product(place, place.input(0), place.input(1), place.output(), 0, 1)


def _relate_matmul_integer(place: Place) -> None:
    """MatMulInteger: a, b, a_zero_point, b_zero_point."""
    y = place.output()
    relate_product(place, place.input(0), place.input(1), y, 0, 1)
    _per_column(place, 3, y)


def _relate_linear_matmul(place: Place) -> None:
    """QLinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero."""
    y = place.output()
    relate_product(place, place.input(0), place.input(3), y, 0, 3)
    for index in (4, 5):
        _per_column(place, index, y)


def _per_column(place: Place, index: int, y: Tensor) -> None:
    vector = place.optional(index)
    if vector is not None and vector.rank == 1 and vector.sizes[0] > 1:
        place.tie(vector, 0, y, y.rank - 1)
        place.weight(index, 0, Role.VECTOR)


def _relate_gemm(place: Place) -> None:
    a, b, y = place.input(0), place.input(1), place.output()
    if a.rank != 2 or b.rank != 2:
        raise NotUnderstood("has factors that are no matrices")
    a_outer, a_inner = (1, 0) if place.integer("transA", 0) else (0, 1)
    b_inner, b_outer = (1, 0) if place.integer("transB", 0) else (0, 1)
    place.tie(a, a_inner, b, b_inner)
    place.tie(a, a_outer, y, 0)
    place.tie(b, b_outer, y, 1)
    for index, outer, inner in ((0, a_outer, a_inner), (1, b_outer, b_inner)):
        place.weight(index, outer, Role.PRODUCER)
        place.weight(index, inner, Role.CONSUMER)
    bias = place.optional(2)
    if bias is not None:
        broadcast(place, bias, y)
        for axis, size in enumerate(bias.sizes):
            if size > 1:
                place.weight(2, axis, Role.VECTOR)


MATRIX_PRODUCT_RULES = {
    **standard(("MatMul",), Rule(_relate_matmul)),
    **standard(("MatMulInteger",), Rule(_relate_matmul_integer)),
    **standard(("QLinearMatMul",), Rule(_relate_linear_matmul)),
    **standard(("Gemm",), Rule(_relate_gemm)),
}
