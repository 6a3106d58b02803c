"""Multiply once where several weights multiply one value, as query, key and value do.

    MatMul(x, u) + a, MatMul(x, v), MatMul(x, w) + c
        ->  Split(MatMul(x, [u v w]) + [a 0 c], sizes, the last axis)
    Gemm(x, u, a), Gemm(x, v, b)     ->  Split(Gemm(x, [u v], [a b]), sizes, axis = 1)

An activation that all of them end with goes ahead of the Split. The weights are matrices and
constants, with equal attributes and types. Declined where a weight is used elsewhere too, where a
bias of Gemm is not one constant number for each output, and where the rank of the product is not
known. Whether it pays depends on the sizes and on what else the runtime would make of the products.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Pass,
    Promise,
    Rewriter,
    constant_array,
    constant_tensor,
    ir,
    known_shape,
)
from graphopt_passes.operands import given
from graphopt_passes.parallel import (
    attribute_key,
    merge_groups,
    only_reader,
    row,
    split_again,
    used_here_only,
)

_GEMM: dict[str, object] = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}


class MergeParallelProducts(Pass):
    """Multiply once where several weights multiply one value."""

    name = "merge-parallel-products"
    promise = Promise.EQUIVALENT

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Merge the products of each value."""
        merge_groups(model, journal, _key, _merge)


def _key(node: ir.Node) -> Hashable | None:
    if node.op_type not in ("MatMul", "Gemm"):
        return None
    data, weight = node.inputs[:2]
    tensor = None if weight is None else constant_tensor(weight)
    if data is None or tensor is None or tensor.shape.rank() != 2:
        return None
    settings = attribute_key(node, _GEMM if node.op_type == "Gemm" else {})
    return None if settings is None else (node.op_type, data, tensor.dtype, settings)


def _merge(nodes: Sequence[ir.Node], rewriter: Rewriter) -> None:
    first = nodes[0]
    shape = known_shape(first.outputs[0])
    if shape is None:
        raise NotApplicable("the rank of the product is not known")
    axis = 0 if first.attributes.get_int("transB", 0) else 1
    weights = [weight for node in nodes if (weight := node.inputs[1]) is not None]
    arrays = [array for weight in weights if (array := constant_array(weight)) is not None]
    sizes = [array.shape[axis] for array in arrays]
    if first.op_type == "Gemm":
        branches = [[node] for node in nodes]
        biases = [given(node, 2) for node in nodes]
        held = [bias for bias in biases if bias is not None]
    else:
        branches, biases = _with_biases(nodes, sizes)
        held = []
    used_here_only([*weights, *held], nodes)
    rows = [row(bias, size, arrays[0].dtype) for bias, size in zip(biases, sizes, strict=True)]
    inputs = [first.inputs[0], rewriter.initializer(np.concatenate(arrays, axis), "weights")]
    bias = None
    if any(bias is not None for bias in biases):
        bias = rewriter.initializer(np.concatenate(rows), "biases")
    if first.op_type == "Gemm" and bias is not None:
        inputs.append(bias)
    whole = rewriter.node(first.op_type, inputs, first.attributes.values())
    if first.op_type == "MatMul" and bias is not None:
        whole = rewriter.node("Add", [whole.outputs[0], bias])
    split_again(rewriter, whole, branches, sizes, len(shape) - 1)


def _with_biases(
    nodes: Sequence[ir.Node], sizes: Sequence[int]
) -> tuple[list[list[ir.Node]], list[ir.Value | None]]:
    """The products, each with the addition behind it that is a bias, and the biases."""
    branches, biases = [], []
    for node, size in zip(nodes, sizes, strict=True):
        reader, bias = only_reader(node), None
        if reader is not None and reader.op_type == "Add" and not reader.domain:
            other = reader.inputs[reader.inputs[0] is node.outputs[0]]
            tensor = None if other is None else constant_tensor(other)
            # Of a lower rank than the product, or it would raise that.
            if tensor is not None and list(tensor.shape.numpy()) in ([size], [1], []):
                bias = other
        branches.append([node] if reader is None or bias is None else [node, reader])
        biases.append(bias)
    return branches, biases
