"""How large a result will be, before it is computed, and what the model loses in exchange.

    growth(n) = bytes(outputs of n) - credit(inputs of n)
    credit(v) = the bytes of the constants that v is made of and nothing else uses

A constant with one consumer is that consumer's credit, and passes on through folded nodes. A
constant with several is shared in proportion to their results, if all of them can be folded and
together stay within the limit; otherwise it remains in the model and is nobody's credit. So the
credits of different results never overlap, and each folded result adds `limit` bytes at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphopt.plugin import constant_tensor, ir, static_shape

from .movement_kernels import MOVEMENT, Inputs, integers

_SMALL = 1024
"""Bytes below which the sharing of a constant is not looked into."""


def planned_elements(node: ir.Node, inputs: Inputs) -> int:
    """An upper bound on the elements of a kernel's outputs, from its inputs; allocates nothing."""
    arrays = [array for array in inputs if array is not None]
    shapes = [array.shape for array in arrays]
    match node.op_type:
        case "ConstantOfShape":
            return int(math.prod(arrays[0].tolist()))
        case "Expand":
            return math.prod(np.broadcast_shapes(shapes[0], tuple(arrays[1].tolist())))
        case "Gather":
            taken = arrays[0].shape[node.attributes.get_int("axis", 0)]
            return arrays[1].size * (arrays[0].size // taken if taken else 0)
        case "Pad":
            pads = integers(node, inputs, "pads", 1) or []
            grown = zip(shapes[0], pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=False)
            return math.prod(max(dim + before + after, 0) for dim, before, after in grown)
        case "Range":
            start, limit, delta = (array.item() for array in arrays)
            return max(0, math.ceil((limit - start) / delta)) if delta else 0
        case "Tile":
            return int(arrays[0].size * math.prod(arrays[1].tolist()))
        case "Shape" | "Size":
            return 8
        case "Slice":
            view = MOVEMENT["Slice"](node, inputs)
            return view.size if isinstance(view, np.ndarray) else sum(a.size for a in arrays)
    if node.op_type not in _JOINING:
        return math.prod(np.broadcast_shapes(*shapes))
    return sum(array.size for array in arrays)


_JOINING = frozenset(
    {
        *("Cast", "Concat", "Flatten", "Identity", "Reshape", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum"),
    }
)
"""Kernels whose outputs hold no more elements than their inputs; the others broadcast."""


def planned_bytes(node: ir.Node, inputs: Inputs | None) -> int | None:
    """The bytes of a node's outputs: from its input arrays, else from inferred shapes.

    None where neither tells.
    """
    if inputs is not None:
        itemsize = max(_itemsize(value) or 8 for value in node.outputs)
        return math.ceil(planned_elements(node, inputs) * itemsize)
    total = 0.0
    for value in node.outputs:
        shape, itemsize_known = static_shape(value), _itemsize(value)
        if not value.name:
            continue
        if shape is None or itemsize_known is None:
            return None
        total += math.prod(shape) * itemsize_known
    return math.ceil(total)


def _itemsize(value: ir.Value) -> float | None:
    dtype = value.dtype
    if dtype is None or dtype in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return None
    return dtype.itemsize


class Credits:
    """What may be given up for each result.

    Attributes:
        limit: the bytes that a result may add.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._of_value: dict[ir.Value, float] = {}
        self._shares: dict[ir.Value, dict[ir.Node, float]] = {}

    def growth(
        self,
        node: ir.Node,
        size: int,
        result_size: Callable[[ir.Node], int | None],
    ) -> float:
        """The bytes that folding `node`, whose outputs have `size`, adds to the model.

        `result_size` tells the same size of other nodes, None where they cannot be folded.
        """
        credit = sum(
            self._credit(value, node, result_size)
            for value in dict.fromkeys(node.inputs)
            if value is not None
        )
        for value in node.outputs:
            self._of_value[value] = credit / len(node.outputs)
        return size - credit

    def _credit(
        self, value: ir.Value, node: ir.Node, result_size: Callable[[ir.Node], int | None]
    ) -> float:
        if value.is_graph_output():
            return 0.0
        whole = self._of_value.get(value)
        if whole is None:
            whole = self._of_value[value] = _constant_bytes(value)
        uses = value.uses()
        if len(uses) == 1:
            return whole
        if whole < _SMALL:
            return 0.0
        if value not in self._shares:
            consumers = list(dict.fromkeys(usage.node for usage in uses))
            self._shares[value] = self._share(whole, consumers, result_size)
        return self._shares[value].get(node, 0.0)

    def _share(
        self,
        whole: float,
        consumers: Sequence[ir.Node],
        result_size: Callable[[ir.Node], int | None],
    ) -> dict[ir.Node, float]:
        sizes: dict[ir.Node, int] = {}
        for consumer in consumers:
            size = result_size(consumer)
            if size is None:
                return {}
            sizes[consumer] = size
        total = sum(sizes.values())
        if not total or total - whole > self.limit:
            return {}
        return {consumer: whole * size / total for consumer, size in sizes.items()}


def _constant_bytes(value: ir.Value) -> float:
    tensor = constant_tensor(value)
    if tensor is None or tensor.dtype == ir.DataType.STRING:
        return 0.0
    return float(tensor.nbytes)
