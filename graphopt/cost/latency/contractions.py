"""Kernel classes that multiply and add: convolutions, matrix products, recurrent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.cost.latency.operation import (
    BLOCK,
    Dims,
    Kernel,
    Operation,
    UnknownShapeError,
    flag,
    log2,
)

INTEGER_PRODUCTS = (
    "QGemm",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
)

_KEPT_WEIGHTS = 2.0**19  # bytes: half of a core's own cache
_FEW_CHANNELS = 4  # of an image

# Where the second matrix of a product stands among a node's inputs.
_SECOND_MATRIX = {"QLinearMatMul": 3, "QGemm": 3}


def convolution(operation: Operation) -> Kernel:
    """Conv, FusedConv and QLinearConv: which algorithm runs decides the class."""
    integer = operation.op_type == "QLinearConv"
    weight = operation.input(3 if integer else 1)
    domain = operation.node.domain
    last = domain == "com.ms.internal.nhwc" or operation.int("channels_last", 0) == 1
    out = operation.output
    spatial = out.dims[1:-1] if last else out.dims[2:]
    filters, depth, *window = weight.dims
    group = operation.int("group", 1)
    channels = depth * group
    rows = out.dims[0] * math.prod(spatial[:-1])
    taps = math.prod(window)
    strides = operation.ints("strides", [1] * len(window))
    read = operation.input(0).dims[1:-1] if last else operation.input(0).dims[2:]
    flops = 2.0 * filters * depth * taps * rows * spatial[-1]
    # What the kernel computes: where a tap falls on padding there is nothing to multiply.
    inside = _taps_inside(operation, read, spatial, window)
    worked = (
        2.0 * filters * depth * out.dims[0] * inside if domain == "com.microsoft.nchwc" else flops
    )
    dilated = any(step > 1 for step in operation.ints("dilations", [1]))
    depthwise = depth == 1 and group > 1
    blocked = domain == "com.microsoft.nchwc"
    data = operation.input(0)
    features = [
        log2(rows),
        log2(spatial[-1]),
        log2(filters / group if not depthwise else 1),
        log2(channels / group if not depthwise else group),
        log2(taps),
        log2(math.prod(strides)),
        log2(-(-filters // (4 * BLOCK)) * 4 * BLOCK / filters),
        log2(data.bytes + out.bytes),
        flag(dilated),
    ]
    if blocked:
        if depthwise:
            kind = "Conv, depthwise (NCHWc)"
        elif channels < BLOCK:
            kind = "Conv, few channels (NCHWc)"
        elif taps == 1:
            kind = "Conv, pointwise (NCHWc)"
        else:
            kind = "Conv, spatial (NCHWc)"
        added = len(operation.inputs) > 3 and operation.inputs[3] is not None
        features += [flag(added), flag(_is_costly_activation(operation)), log2(group)]
    else:
        name = "QLinearConv" if integer else "Conv"
        kind = f"{name}, matrix product"
        if depthwise:
            kind = f"{name}, depthwise"
        elif group > 1:
            kind = f"{name}, grouped"
        elif channels <= _FEW_CHANNELS and len(window) > 1:
            kind = f"{name}, few channels"
        features += [
            flag(not weight.constant),
            flag(taps == 1 and math.prod(strides) == 1),
            log2(group),
            flag(last),
            flag(len(window) == 1),
            log2(max(window[-1], 1)),
            _idle_lanes(depth if not depthwise else group),
            _idle_lanes(filters / group if not depthwise else group),
        ]
    terms = (
        1.0,
        worked,
        data.bytes + out.bytes,
        # Weights stream past each row of the output; or patches are laid out as a matrix.
        weight.bytes * rows * _lost(filters, depth, taps)
        if blocked
        else float(depth * group * taps * rows * spatial[-1]),
        float(rows * math.ceil(filters / BLOCK)),
    )
    return Kernel(kind, tuple(features), terms, flops, operation.bytes, integer)


def _idle_lanes(channels: float) -> float:
    """How much larger a number of channels is once it fills whole vectors, as a logarithm."""
    return log2(math.ceil(channels / BLOCK) * BLOCK / channels)


def _lost(filters: int, depth: int, taps: int) -> float:
    """The share of the weights of one set of filters that its cache does not keep.

    For each row of the output the kernel goes through the weights of up to four blocks of filters.
    """
    size = 4.0 * min(filters, 4 * BLOCK) * depth * taps
    return max(1 - _KEPT_WEIGHTS / size, 0.0)


def _taps_inside(operation: Operation, read: Dims, made: Dims, window: Sequence[int]) -> float:
    """For a convolution on one channel, how many pairs of tap and output fall on the data."""
    rank = len(window)
    strides = operation.ints("strides", [1] * rank)
    dilations = operation.ints("dilations", [1] * rank)
    pads = operation.ints("pads", [0] * (2 * rank))
    inside = 1.0
    for axis, taps in enumerate(window):
        valid = 0
        for tap in range(taps):
            first = tap * dilations[axis] - pads[axis]
            # Outputs o with 0 <= o * stride + first < size.
            lowest = max(-(first // strides[axis]), 0)
            highest = min((read[axis] - 1 - first) // strides[axis], made[axis] - 1)
            valid += max(highest - lowest + 1, 0)
        inside *= valid
    return inside


def _is_costly_activation(operation: Operation) -> bool:
    return operation.node.attributes.get_string("activation", "") in ("Sigmoid", "Tanh")


def transposed_convolution(operation: Operation) -> Kernel:
    """ConvTranspose."""
    data, weight, out = operation.input(0), operation.input(1), operation.output
    macs = data.size * math.prod(weight.dims[1:])
    features = (
        log2(data.size / data.dims[1]),
        log2(data.dims[1]),
        log2(out.dims[1]),
        log2(math.prod(weight.dims[2:])),
        log2(operation.int("group", 1)),
        log2(math.prod(operation.ints("strides", [1]))),
    )
    terms = (1.0, 2.0 * macs, operation.bytes)
    return Kernel("ConvTranspose", features, terms, 2.0 * macs, operation.bytes)


def product(operation: Operation) -> Kernel:
    """Gemm and MatMul in all their spellings."""
    integer = operation.op_type in INTEGER_PRODUCTS
    a = operation.input(0)
    b = operation.input(_SECOND_MATRIX.get(operation.op_type, 1))
    transposed_a = operation.int("transA", 0)
    transposed_b = operation.int("transB", 0)
    left = a.dims if len(a.dims) > 1 else (1, *a.dims)
    right = b.dims if len(b.dims) > 1 else (*b.dims, 1)
    depth, columns = (right[-1], right[-2]) if transposed_b else (right[-2], right[-1])
    rows = left[-1] if transposed_a else left[-2]
    batch = max(math.prod(left[:-2]), math.prod(right[:-2]))
    if len(right) == 2 or math.prod(right[:-2]) == 1:
        # One matrix for the whole batch: ONNX Runtime makes one product of it.
        rows, batch = rows * batch, 1
    packed = b.constant
    if operation.op_type in ("MatMul", "Gemm", "FusedMatMul", "FusedGemm"):
        kind = "MatMul, constant" if packed else "MatMul, batched"
    else:
        kind = operation.op_type
    flops = 2.0 * batch * rows * columns * depth
    features = (
        log2(rows),
        log2(columns),
        log2(depth),
        log2(batch),
        flag(rows == 1),
        log2(-(-columns // 64) * 64 / columns),
        flag(transposed_b),
        flag(transposed_a),
        flag(packed),
    )
    terms = (
        1.0,
        flops,
        a.bytes + operation.output.bytes,
        b.bytes,
        float(batch),
    )
    return Kernel(kind, features, terms, flops, operation.bytes, integer)


def einsum(operation: Operation) -> Kernel:
    """Einsum: every index once is the work of the one product that most of them come down to."""
    left, _, right = operation.node.attributes.get_string("equation", "").partition("->")
    sizes: dict[str, int] = {}
    for tensor, letters in zip(operation.inputs, left.replace(" ", "").split(","), strict=False):
        if tensor is None or "." in letters:
            raise UnknownShapeError
        sizes.update(zip(letters, tensor.dims, strict=True))
    whole = math.prod(sizes.values())
    summed = math.prod(size for letter, size in sizes.items() if letter not in right)
    flops = 2.0 * whole
    features = (log2(whole), log2(summed), log2(operation.output.size), log2(operation.bytes))
    return Kernel("Einsum", features, (1.0, flops, operation.bytes), flops, operation.bytes)


def recurrent(operation: Operation) -> Kernel:
    """LSTM, GRU and RNN: a small product at each step."""
    data, weight, recurrence = (operation.input(index) for index in range(3))
    steps, batch = data.dims[0], data.dims[1]
    hidden = recurrence.dims[-1]
    macs = steps * batch * (weight.size + recurrence.size)
    features = (
        log2(steps),
        log2(batch),
        log2(hidden),
        log2(data.dims[2]),
        log2(weight.dims[0]),
    )
    # The weights are read again at every step.
    again = steps * (weight.bytes + recurrence.bytes)
    terms = (
        1.0,
        2.0 * macs,
        again,
        float(steps),
        float(steps * hidden * weight.dims[0]),
    )
    return Kernel(operation.op_type, features, terms, 2.0 * macs, operation.bytes)
