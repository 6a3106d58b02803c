"""Convolutions, matrix products, normalizations, pooling and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from graphopt.distillation.operators.call import Call, Form

_CONVOLUTIONS: list[Any] = [functional.conv1d, functional.conv2d, functional.conv3d]
_TRANSPOSED: list[Any] = [
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
]
_MAX_POOLS: list[Any] = [functional.max_pool1d, functional.max_pool2d, functional.max_pool3d]
_AVERAGE_POOLS: list[Any] = [functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d]


def _conv(call: Call) -> torch.Tensor:
    value, weight = call.tensor(0), call.tensor(1)
    rank = weight.ndim - 2
    strides = call.attribute("strides", [1] * rank)
    dilations = call.attribute("dilations", [1] * rank)
    pads = _pads(call, value.shape[2:], weight.shape[2:], strides, dilations)
    value, padding = _padded(value, pads)
    return _CONVOLUTIONS[rank - 1](
        value,
        weight,
        call.optional(2),
        stride=strides,
        padding=padding,
        dilation=dilations,
        groups=call.attribute("group", 1),
    )


def _conv_transpose(call: Call) -> torch.Tensor:
    value, weight = call.tensor(0), call.tensor(1)
    rank = weight.ndim - 2
    if call.attribute("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in call.attributes:
        raise NotImplementedError("ConvTranspose with auto_pad or output_shape")
    pads = call.attribute("pads", [0] * (2 * rank))
    result = _TRANSPOSED[rank - 1](
        value,
        weight,
        call.optional(2),
        stride=call.attribute("strides", [1] * rank),
        output_padding=call.attribute("output_padding", [0] * rank),
        groups=call.attribute("group", 1),
        dilation=call.attribute("dilations", [1] * rank),
    )
    for axis in range(rank):
        length = result.shape[2 + axis] - pads[axis] - pads[rank + axis]
        result = result.narrow(2 + axis, pads[axis], length)
    return result


def _pads(
    call: Call,
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[int]:
    """Pads as ONNX lists them: all begins, then all ends."""
    rank = len(window)
    kind = call.attribute("auto_pad", "NOTSET")
    if kind == "NOTSET":
        return list(call.attribute("pads", [0] * (2 * rank)))
    if kind == "VALID":
        return [0] * (2 * rank)
    begins, ends = [], []
    for size, kernel, stride, dilation in zip(sizes, window, strides, dilations, strict=True):
        count = -(-size // stride)
        total = max((count - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        begins.append(less if kind == "SAME_UPPER" else more)
        ends.append(more if kind == "SAME_UPPER" else less)
    return begins + ends


def _padded(
    value: torch.Tensor, pads: Sequence[int], fill: float = 0.0
) -> tuple[torch.Tensor, list[int]]:
    """The data with the pads that torch's operator cannot take, and those that it can."""
    rank = len(pads) // 2
    if list(pads[:rank]) == list(pads[rank:]):
        return value, list(pads[:rank])
    pairs = [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[rank + axis])]
    return functional.pad(value, pairs, value=fill), [0] * rank


def _gemm(call: Call) -> torch.Tensor:
    first, second = call.tensor(0), call.tensor(1)
    first = first.T if call.attribute("transA", 0) else first
    second = second.T if call.attribute("transB", 0) else second
    result = call.attribute("alpha", 1.0) * (first @ second)
    bias = call.optional(2)
    return result if bias is None else result + call.attribute("beta", 1.0) * bias


def _batch_normalization(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    # ONNX's momentum is the share that stays, torch's the share that is new. One row has no spread.
    several = value.numel() > value.shape[1]
    return functional.batch_norm(
        value,
        call.tensor(3),
        call.tensor(4),
        call.tensor(1),
        call.tensor(2),
        training=call.training and several,
        momentum=1.0 - call.attribute("momentum", 0.9),
        eps=call.attribute("epsilon", 1e-5),
    )


def _instance_normalization(call: Call) -> torch.Tensor:
    return functional.instance_norm(
        call.tensor(0),
        weight=call.tensor(1),
        bias=call.tensor(2),
        eps=call.attribute("epsilon", 1e-5),
    )


def _layer_normalization(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    axis = call.attribute("axis", -1) % value.ndim
    epsilon = call.attribute("epsilon", 1e-5)
    result = functional.layer_norm(value, value.shape[axis:], eps=epsilon) * call.tensor(1)
    bias = call.optional(2)
    return result if bias is None else result + bias


def _max_pool(call: Call) -> torch.Tensor:
    value, window = call.tensor(0), call.attribute("kernel_shape")
    rank = len(window)
    strides = call.attribute("strides", [1] * rank)
    dilations = call.attribute("dilations", [1] * rank)
    pads = _pads(call, value.shape[2:], window, strides, dilations)
    whole = [pad for axis in reversed(range(rank)) for pad in (pads[axis], pads[rank + axis])]
    value = functional.pad(value, whole, value=float("-inf"))
    return _MAX_POOLS[rank - 1](
        value, window, strides, 0, dilations, ceil_mode=bool(call.attribute("ceil_mode", 0))
    )


def _average_pool(call: Call) -> torch.Tensor:
    value, window = call.tensor(0), call.attribute("kernel_shape")
    rank = len(window)
    strides = call.attribute("strides", [1] * rank)
    pads = _pads(call, value.shape[2:], window, strides, [1] * rank)
    counted = bool(call.attribute("count_include_pad", 0))
    if any(pads[axis] != pads[rank + axis] for axis in range(rank)) and not counted:
        raise NotImplementedError("AveragePool with uneven pads that do not count")
    value, padding = _padded(value, pads)
    return _AVERAGE_POOLS[rank - 1](
        value,
        window,
        strides,
        padding,
        ceil_mode=bool(call.attribute("ceil_mode", 0)),
        count_include_pad=counted,
    )


def _resize(call: Call) -> torch.Tensor:
    value = call.tensor(0)
    upsample = call.optional(1) is not None and len(call.inputs) == 2
    mode = call.attribute("mode", "nearest")
    how = call.attribute("coordinate_transformation_mode", "half_pixel")
    how = "asymmetric" if upsample or "scales" in call.attributes else how
    sizes = call.optional(3)
    given = call.optional(1 if upsample else 2)
    scales = call.attribute("scales") if given is None else given.tolist()
    if sizes is not None:
        target = [int(size) for size in sizes.tolist()]
    else:
        target = [int(size * float(s)) for size, s in zip(value.shape, scales or (), strict=True)]
    whole = all(new % old == 0 for new, old in zip(target, value.shape, strict=True))
    if mode == "nearest" and whole:
        return functional.interpolate(value, target[2:], mode="nearest")
    if mode == "linear" and how in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        kind = {1: "linear", 2: "bilinear", 3: "trilinear"}[value.ndim - 2]
        corners = how == "align_corners"
        return functional.interpolate(value, target[2:], mode=kind, align_corners=corners)
    raise NotImplementedError(f"{mode} Resize ({how})")


def _global(function: Any) -> Form:
    def form(call: Call) -> torch.Tensor:
        value = call.tensor(0)
        result: torch.Tensor = function(value, dim=list(range(2, value.ndim)), keepdim=True)
        return result

    return form


FORMS: dict[str, Form] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": lambda call: torch.einsum(
        call.attribute("equation"), *[value for value in call.inputs if value is not None]
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "InstanceNormalization": _instance_normalization,
    "LayerNormalization": _layer_normalization,
    "MatMul": lambda call: call.tensor(0) @ call.tensor(1),
    "MaxPool": _max_pool,
    "Resize": _resize,
    "Upsample": _resize,
}
