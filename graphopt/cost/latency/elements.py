"""Kernel classes that compute on each element, each row or each window."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphopt.cost.latency.operation import (
    Dims,
    Kernel,
    Operation,
    flag,
    log2,
)

_PRICE = 4.0  # additions that an evaluation of exp, erf, tanh costs, about
_SPELLED_BINARY = {"QLinearAdd": 3, "QLinearMul": 3}  # where the second operand stands
_SCALED = ("QuantizeLinear", "DequantizeLinear")
_ONE_AXIS = ("ArgMax", "ArgMin")
_TRANSCENDENTAL = frozenset(
    (
        "Exp",
        "Log",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Gelu",
        "QuickGelu",
        "FastGelu",
        "BiasGelu",
        "Softplus",
        "Elu",
        "Mish",
        "Sin",
        "Cos",
        "HardSwish",
    )
)


def binary(operation: Operation) -> Kernel:
    """Elementwise on two tensors: the time depends on how one is stretched to the other."""
    second = _SPELLED_BINARY.get(operation.op_type, 1)
    a, b, out = operation.input(0), operation.input(second), operation.output
    small = min(a, b, key=lambda tensor: tensor.size)
    run = _uniform_run(small.dims, out.dims)
    stretched = small.size != out.size
    features = (
        log2(out.size),
        log2(run),
        flag(not stretched),
        flag(small.size == 1),
        flag(stretched and small.size > 1 and small.dims[-1] == 1),
        flag(out.itemsize == 8),
        flag(a.size != out.size and b.size != out.size),
    )
    costly = 8.0 if operation.op_type == "Pow" else 1.0
    terms = (1.0, operation.bytes, out.size / run, float(out.size))
    return Kernel(operation.op_type, features, terms, costly * out.size, operation.bytes)


def _uniform_run(small: Dims, large: Dims) -> int:
    """Elements in a row of the output for which the stretched tensor moves, or stands, alike."""
    aligned = (1,) * (len(large) - len(small)) + small
    run = 1
    moves: bool | None = None
    for left, right in zip(reversed(aligned), reversed(large), strict=True):
        if moves is None:
            moves = left == right
        # ONNX Runtime takes axes of size 1 for moving ones if the innermost axis is such a one:
        # of a column and a scalar it makes as many runs as there are rows.
        if (left != right) if moves else (left != 1):
            break
        run *= right
    return run


def unary(operation: Operation) -> Kernel:
    """Elementwise on one tensor, quantization included."""
    out = operation.output
    costly = operation.op_type in _TRANSCENDENTAL
    constant = operation.input(0).constant
    scale = operation.inputs[1] if operation.op_type in _SCALED else None
    axes = 1 if scale is None else scale.size
    run = out.size
    if axes > 1:
        axis = operation.int("axis", 1) % len(out.dims)
        run = math.prod(out.dims[axis + 1 :])
    elif operation.op_type == "BiasGelu":
        run = out.dims[-1]  # one call for each row
    features = (
        log2(out.size),
        flag(out.itemsize == 1),
        flag(out.itemsize == 8),
        flag(operation.input(0).itemsize == 1),
        flag(operation.input(0).itemsize == 8),
        flag(constant),
        log2(axes),
        log2(run) if run < out.size else 0.0,
        flag(operation.op_type == "BiasGelu"),
    )
    flops = out.size * (_PRICE if costly else 1.0)
    terms = (1.0, operation.bytes, float(out.size), float(axes), out.size / run)
    kind = "Gelu" if operation.op_type == "BiasGelu" else operation.op_type
    return Kernel(kind, features, terms, flops, operation.bytes)


def rows(operation: Operation) -> Kernel:
    """Softmax, normalizations: one pass after the other over each row."""
    data = operation.input(0)
    rank = len(data.dims)
    axis = operation.int("axis", -1) % rank
    inner = math.prod(data.dims[axis:])
    moved = operation.op_type == "Softmax" and axis != rank - 1
    if operation.op_type == "Softmax":
        inner = data.dims[axis]
    if operation.op_type in ("InstanceNormalization", "GroupNorm", "BatchNormalization"):
        inner = math.prod(data.dims[2:])
    features = (log2(data.size / inner), log2(inner), flag(moved))
    terms = (1.0, operation.bytes, data.size / inner)
    return Kernel(operation.op_type, features, terms, 4.0 * data.size, operation.bytes)


def reduction(operation: Operation) -> Kernel:
    """Reductions, and the searches along an axis."""
    data, out = operation.input(0), operation.output
    kept = 1
    # Elements after the last reduced axis: 1 where rows are reduced, which is the fast way.
    if operation.op_type in _ONE_AXIS:
        kept = math.prod(data.dims[operation.int("axis", 0) % len(data.dims) + 1 :])
    elif len(operation.inputs) > 1 or operation.node.attributes.get_ints("axes"):
        axes = _axes(operation, len(data.dims))
        kept = math.prod(data.dims[max(axes) + 1 :]) if axes else 1
    features = (log2(data.size), log2(out.size), log2(kept), flag(data.itemsize == 8))
    # A search goes from one element to the next, however far away that is; sums do not.
    strided = float(data.size) if kept > 1 and operation.op_type in _ONE_AXIS else 0.0
    terms = (1.0, operation.bytes, float(out.size), strided)
    return Kernel(operation.op_type, features, terms, float(data.size), operation.bytes)


def _axes(operation: Operation, rank: int) -> list[int]:
    given: Sequence[int] = operation.ints("axes", ())
    value = operation.node.inputs[1] if len(operation.node.inputs) > 1 else None
    if value is not None and value.const_value is not None:
        given = [int(axis) for axis in value.const_value.numpy().reshape(-1)]
    return [axis % rank for axis in given]


def pool(operation: Operation) -> Kernel:
    """Pools over a window, or over everything."""
    data, out = operation.input(0), operation.output
    taps = max(math.prod(operation.ints("kernel_shape", ())), 1)
    whole = "Global" in operation.op_type
    if whole:
        taps = data.size // max(out.size, 1)
    blocked = operation.node.domain == "com.microsoft.nchwc"
    kind = f"{operation.op_type} (NCHWc)" if blocked else operation.op_type
    if data.itemsize == 1:
        kind += ", 8 bits"
    features = (
        log2(out.size),
        log2(taps),
        log2(math.prod(operation.ints("strides", [1]))),
        log2(out.dims[-1]),
        flag(operation.int("channels_last", 0)),
    )
    terms = (1.0, operation.bytes, float(out.size * taps), float(out.size))
    return Kernel(kind, features, terms, float(out.size * taps), operation.bytes)


def resize(operation: Operation) -> Kernel:
    """Resize and Upsample, by their interpolation."""
    data, out = operation.input(0), operation.output
    mode = operation.node.attributes.get_string("mode", "nearest")
    features = (log2(out.size), log2(data.size), log2(out.dims[-1]), flag(data.itemsize == 1))
    domain = " (NCHWc)" if operation.node.domain == "com.microsoft.nchwc" else ""
    kind = f"{operation.op_type}{domain}, {mode}"
    terms = (1.0, operation.bytes, float(out.size))
    return Kernel(kind, features, terms, 4.0 * out.size, operation.bytes)
