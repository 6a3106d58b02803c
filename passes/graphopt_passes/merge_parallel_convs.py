"""Convolve once where several weights of one window convolve one value.

    Conv(x, u, a), Conv(x, v)     ->  Split(Conv(x, [u v], [a 0]), sizes, axis = 1)

as the heads of an Inception block and the beginning of a residual one do. An activation that all
of them end with goes ahead of the Split. Windows, strides, pads and dilations are equal, and there
are no groups; the weights are constants. Declined where a weight or bias is used elsewhere too, and
where a bias is no constant. Whether it pays depends on the sizes, and on how the runtime lays out
the data.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from graphopt.plugin import (
    Journal,
    Pass,
    Promise,
    Rewriter,
    constant_array,
    constant_tensor,
    ir,
)
from graphopt_passes.operands import given
from graphopt_passes.parallel import (
    attribute_key,
    merge_groups,
    row,
    split_again,
    used_here_only,
)


class MergeParallelConvs(Pass):
    """Convolve once where several weights of one window convolve one value."""

    name = "merge-parallel-convs"
    promise = Promise.EQUIVALENT

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Merge the convolutions of each value."""
        merge_groups(model, journal, _key, _merge)


def _key(node: ir.Node) -> Hashable | None:
    if node.op_type != "Conv":
        return None
    data, weight = node.inputs[:2]
    tensor = None if weight is None else constant_tensor(weight)
    if data is None or tensor is None:
        return None
    window = tuple(tensor.shape.numpy()[2:])
    ones, zeros = (1,) * len(window), (0,) * (2 * len(window))
    defaults = {
        "auto_pad": "NOTSET", "dilations": ones, "group": 1, "pads": zeros, "strides": ones,
    }  # fmt: skip
    settings = attribute_key(node, defaults)
    group = node.attributes.get("group")
    if settings is None or (group is not None and group.as_int() != 1):
        return None
    return (data, tensor.dtype, window, settings)


def _merge(nodes: Sequence[ir.Node], rewriter: Rewriter) -> None:
    first = nodes[0]
    weights = [weight for node in nodes if (weight := node.inputs[1]) is not None]
    biases = [given(node, 2) for node in nodes]
    used_here_only([*weights, *(bias for bias in biases if bias is not None)], nodes)
    arrays = [array for weight in weights if (array := constant_array(weight)) is not None]
    sizes = [len(array) for array in arrays]
    rows = [row(bias, size, arrays[0].dtype) for bias, size in zip(biases, sizes, strict=True)]
    inputs = [first.inputs[0], rewriter.initializer(np.concatenate(arrays), "weights")]
    if any(bias is not None for bias in biases):
        inputs.append(rewriter.initializer(np.concatenate(rows), "biases"))
    whole = rewriter.node("Conv", inputs, first.attributes.values())
    split_again(rewriter, whole, [[node] for node in nodes], sizes, 1)
