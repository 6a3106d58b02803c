"""Operators that move data: the same elements in other places, whatever their type.

A kernel gets the node and its input arrays (None for an omitted input) and returns the output,
or the list of outputs, or None where this form of the operator is left to the runtime. Which
form stands before it is read off the node itself: an attribute where it has one (the old
opsets), an input otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from graphopt.plugin import ir

Array = np.ndarray
Inputs = Sequence[Array | None]
Result = Array | list[Array] | None
Kernel = Callable[[ir.Node, Inputs], Result]


def integers(node: ir.Node, inputs: Inputs, name: str, position: int) -> list[int] | None:
    """A list of integers given as attribute `name`, else as an input; None where absent."""
    if name in node.attributes:
        return list(node.attributes[name].as_ints())
    array = inputs[position] if position < len(inputs) else None
    return None if array is None else [int(item) for item in array.reshape(-1)]


def axes_of(node: ir.Node, inputs: Inputs, position: int, rank: int) -> tuple[int, ...] | None:
    """The `axes` of a node, counted from the front; None where absent."""
    axes = integers(node, inputs, "axes", position)
    if axes is None:
        return None
    return tuple(axis + rank if axis < 0 else axis for axis in axes)


def target_shape(node: ir.Node, inputs: Inputs) -> tuple[int, ...]:
    """The shape that a Reshape gives to its input."""
    data = _present(inputs, 0)
    target = integers(node, inputs, "shape", 1) or []
    if not node.attributes.get_int("allowzero", 0):
        target = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(target)]
    return tuple(target)


def _present(inputs: Inputs, position: int) -> Array:
    array = inputs[position]
    if array is None:
        raise ValueError(f"input {position} is omitted")
    return array


def _identity(node: ir.Node, inputs: Inputs) -> Result:
    return _present(inputs, 0)


def _reshape(node: ir.Node, inputs: Inputs) -> Result:
    return _present(inputs, 0).reshape(target_shape(node, inputs))


def _flatten(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    axis = node.attributes.get_int("axis", 1)
    axis = axis + data.ndim if axis < 0 else axis
    return data.reshape(math.prod(data.shape[:axis]), math.prod(data.shape[axis:]))


def _squeeze(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    axes = axes_of(node, inputs, 1, data.ndim)
    # An empty list means all axes of size 1 to some, and none to others.
    return None if axes == () else np.squeeze(data, axes)


def _unsqueeze(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    axes = integers(node, inputs, "axes", 1)
    return None if axes is None else np.expand_dims(data, tuple(axes))


def _transpose(node: ir.Node, inputs: Inputs) -> Result:
    return _present(inputs, 0).transpose(integers(node, (), "perm", 0))


def _concat(node: ir.Node, inputs: Inputs) -> Result:
    arrays = [array for array in inputs if array is not None]
    return np.concatenate(arrays, node.attributes.get_int("axis", 1))


def _slice(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    starts = integers(node, inputs, "starts", 1)
    ends = integers(node, inputs, "ends", 2)
    if starts is None or ends is None:
        return None
    axes = axes_of(node, inputs, 3, data.ndim) or tuple(range(len(starts)))
    steps = integers(node, inputs, "steps", 4) or [1] * len(starts)
    index = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _gather(node: ir.Node, inputs: Inputs) -> Result:
    data, indices = _present(inputs, 0), _present(inputs, 1)
    return np.take(data, indices, axis=node.attributes.get_int("axis", 0))


def _split(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    axis = node.attributes.get_int("axis", 0)
    sizes = integers(node, inputs, "split", 1)
    if sizes is None:
        chunk = -(-data.shape[axis] // len(node.outputs))
        cuts = [chunk * (i + 1) for i in range(len(node.outputs) - 1)]
    elif sum(sizes) != data.shape[axis]:
        raise ValueError("the sizes do not add up to the dim")
    else:
        cuts = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return np.split(data, cuts, axis)


def _expand(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    shape = np.broadcast_shapes(data.shape, tuple(_present(inputs, 1).tolist()))
    return np.broadcast_to(data, shape)


def _tile(node: ir.Node, inputs: Inputs) -> Result:
    return np.tile(_present(inputs, 0), _present(inputs, 1).tolist())


def _pad(node: ir.Node, inputs: Inputs) -> Result:
    data = _present(inputs, 0)
    pads = integers(node, inputs, "pads", 1)
    mode = node.attributes.get_string("mode", "constant")
    if pads is None or min(pads, default=0) < 0 or mode != "constant" or len(inputs) > 3:
        return None
    fill = inputs[2] if len(inputs) > 2 else None
    value = node.attributes.get_float("value", 0.0) if fill is None else fill.reshape(())
    widths = list(zip(pads[: data.ndim], pads[data.ndim :], strict=True))
    return np.pad(data, widths, constant_values=np.asarray(value).astype(data.dtype))


def _where(node: ir.Node, inputs: Inputs) -> Result:
    condition, first, second = (_present(inputs, i) for i in range(3))
    return np.where(condition, first, second)


def _constant_of_shape(node: ir.Node, inputs: Inputs) -> Result:
    tensor = node.attributes.get_tensor("value")
    value = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
    return np.broadcast_to(value.reshape(()), tuple(_present(inputs, 0).tolist()))


MOVEMENT: dict[str, Kernel] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
"""Kernels by operator."""
