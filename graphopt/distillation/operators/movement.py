"""Operators that move data, reduce it, or speak of its shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from graphopt.distillation.operators.call import Call, Form
from graphopt.graph import ir

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


def _cast(call: Call) -> torch.Tensor:
    return call.tensor(0).to(torch_type(ir.DataType(call.attribute("to"))))


def torch_type(dtype: ir.DataType) -> torch.dtype:
    """The type of torch that holds an ONNX type.

    Raises:
        NotImplementedError: there is none.
    """
    found = getattr(torch, dtype.name.lower(), None)
    found = {"FLOAT": torch.float32, "DOUBLE": torch.float64}.get(dtype.name, found)
    if not isinstance(found, torch.dtype):
        raise NotImplementedError(f"tensors of {dtype.name}")
    return found


def _reshape(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    shape = call.integers("shape", 1) or []
    if not call.attribute("allowzero", 0):
        shape = [value.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return value.reshape(tuple(shape))


def _flatten(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    axis = call.attribute("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    return value.reshape(int(np.prod(value.shape[:axis])), -1)


def _transpose(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    return value.permute(call.attribute("perm", list(reversed(range(value.ndim)))))


def _squeeze(call: Call) -> torch.Tensor:
    axes = call.integers("axes", 1)
    return call.tensor(0).squeeze() if axes is None else call.tensor(0).squeeze(tuple(axes))


def _unsqueeze(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    axes = call.integers("axes", 1) or []
    rank = value.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _concat(call: Call) -> torch.Tensor:
    values = [value for value in call.inputs if value is not None]
    return torch.cat(values, dim=call.attribute("axis", 1))


def _split(call: Call) -> tuple[torch.Tensor, ...]:
    value, axis = call.tensor(0), call.attribute("axis", 0)
    sizes = call.integers("split", 1)
    if sizes is None:
        return tuple(torch.split(value, -(-value.shape[axis] // call.outputs), dim=axis))
    return tuple(torch.split(value, sizes, dim=axis))


def _slice(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    starts, ends = call.integers("starts", 1) or [], call.integers("ends", 2) or []
    axes = call.integers("axes", 3) or list(range(len(starts)))
    steps = call.integers("steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        taken = range(*slice(start, end, step).indices(value.shape[axis]))
        if step < 0 and end < -value.shape[axis]:
            taken = range(*slice(start, None, step).indices(value.shape[axis]))
        if step == 1:
            value = value.narrow(axis, taken.start, len(taken))
        else:
            value = value.index_select(axis, torch.tensor(list(taken), dtype=torch.int64))
    return value


def _gather(call: Call) -> torch.Tensor:
    value, indices = call.tensor(0), call.tensor(1).long()
    axis = call.attribute("axis", 0) % value.ndim
    indices = torch.where(indices < 0, indices + value.shape[axis], indices)
    taken = value.index_select(axis, indices.reshape(-1))
    return taken.reshape((*value.shape[:axis], *indices.shape, *value.shape[axis + 1 :]))


def _expand(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    shape = torch.broadcast_shapes(value.shape, call.integers("shape", 1) or [])
    return value.expand(shape)


def _pad(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    pads = call.integers("pads", 1) or []
    axes = call.integers("axes", 3) or list(range(len(pads) // 2))
    begins, ends = [0] * value.ndim, [0] * value.ndim
    for place, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[place], pads[len(axes) + place]
    pairs = [pad for axis in reversed(range(value.ndim)) for pad in (begins[axis], ends[axis])]
    while pairs and pairs[-2:] == [0, 0]:  # torch pads some axes at the end only
        del pairs[-2:]
    mode = _PAD_MODES[call.attribute("mode", "constant")]
    filled = call.optional(2)
    fill = call.attribute("value", 0.0) if filled is None else filled.item()
    return functional.pad(value, pairs, mode=mode, value=fill if mode == "constant" else None)


def _shape(call: Call) -> torch.Tensor:
    shape = list(call.tensor(0).shape)[call.attribute("start", 0) : call.attribute("end", None)]
    return torch.tensor(shape, dtype=torch.int64)


def _constant_of_shape(call: Call) -> torch.Tensor:
    given = call.attribute("value")
    fill = torch.zeros(1) if given is None else given.reshape(1)
    return fill.expand(tuple(call.tensor(0).tolist())).clone()


def _range(call: Call) -> torch.Tensor:
    start, limit, delta = (call.tensor(place).item() for place in range(3))
    return torch.arange(start, limit, delta, dtype=call.tensor(0).dtype)


def _depth_to_space(call: Call) -> torch.Tensor:
    value, block = call.tensor(0), call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(value, block)
    n, c, h, w = value.shape
    parts = value.reshape(n, block, block, c // block**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _reduction(function: Any) -> Form:
    def form(call: Call) -> torch.Tensor:
        value = call.tensor(0)
        axes = call.integers("axes", 1)
        if axes is None and call.attribute("noop_with_empty_axes", 0):
            return value
        dims = list(range(value.ndim)) if axes is None else axes
        result: torch.Tensor = function(value, dims, bool(call.attribute("keepdims", 1)))
        return result

    return form


def _arg_max(call: Call) -> torch.Tensor:
    kept = bool(call.attribute("keepdims", 1))
    return call.tensor(0).argmax(call.attribute("axis", 0), keepdim=kept)


FORMS: dict[str, Form] = {
    "ArgMax": _arg_max,
    "Cast": _cast,
    "CastLike": lambda call: call.tensor(0).to(call.tensor(1).dtype),
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "ReduceL2": _reduction(lambda x, dims, keep: x.square().sum(dims, keep).sqrt()),
    "ReduceMax": _reduction(torch.amax),
    "ReduceMean": _reduction(torch.mean),
    "ReduceMin": _reduction(torch.amin),
    "ReduceSum": _reduction(torch.sum),
    "ReduceSumSquare": _reduction(lambda x, dims, keep: x.square().sum(dims, keep)),
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call: torch.tensor(call.tensor(0).numel(), dtype=torch.int64),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda call: call.tensor(0).repeat(call.integers("repeats", 1) or []),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
