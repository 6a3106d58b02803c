"""Kernel classes that move data, and compute nothing."""

from __future__ import annotations

import math

from graphopt.cost.latency.operation import (
    BLOCK,
    Dims,
    Kernel,
    Operation,
    flag,
    log2,
)

_LINE = 64  # bytes


def transpose(operation: Operation) -> Kernel:
    """Transpose: what counts is how long the runs are that stay together."""
    data = operation.input(0)
    rank = len(data.dims)
    order = list(operation.ints("perm", range(rank)[::-1]))
    # Axes of size 1 do not matter, and neighbours that stay neighbours are one axis.
    order = [axis for axis in order if data.dims[axis] != 1]
    groups: list[list[int]] = []
    for axis in order:
        skipped = range(groups[-1][-1] + 1, axis) if groups else ()
        together = groups and axis > groups[-1][-1] and all(data.dims[i] == 1 for i in skipped)
        if together:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    sizes = [math.prod(data.dims[axis] for axis in group) for group in groups]
    if len(groups) <= 1:
        return Kernel(
            "Transpose, copy", (log2(data.bytes),), (1.0, data.bytes), 0.0, operation.bytes
        )
    last = max(range(len(groups)), key=lambda index: groups[index][0])
    stays = last == len(groups) - 1
    features = (
        log2(data.size),
        log2(sizes[-1]),
        log2(sizes[last]),
        flag(stays),
        log2(data.itemsize),
        float(len(groups)),
        # Threads that write to one line of the cache wait for one another.
        flag(sizes[-1] * data.itemsize % _LINE),
        log2(math.prod(sizes[: next((i for i, g in enumerate(groups) if g[0] != i), 0)])),
    )
    terms = (1.0, operation.bytes, data.size / (sizes[-1] if stays else 1))
    return Kernel("Transpose", features, terms, 0.0, operation.bytes)


def reorder(operation: Operation) -> Kernel:
    """Between ONNX's layout and blocks of channels."""
    data, out = operation.input(0), operation.output
    last = operation.int("channels_last", 0) == 1
    channels = out.dims[-1] if last and operation.op_type == "ReorderOutput" else out.dims[1]
    features = (log2(data.size / channels), log2(channels), flag(last))
    terms = (1.0, operation.bytes, data.size / BLOCK)
    return Kernel(operation.op_type, features, terms, 0.0, operation.bytes)


def movement(operation: Operation) -> Kernel:
    """Concat, Split, Slice, Gather, Pad, Expand, ...: copies of runs of some length."""
    made = [tensor for tensor in operation.outputs if tensor is not None]
    read = [tensor for tensor in operation.inputs if tensor is not None]
    size = sum(tensor.size for tensor in made)
    if operation.op_type == "Gather":
        data = operation.input(0)
        run = math.prod(data.dims[operation.int("axis", 0) % max(len(data.dims), 1) + 1 :])
    else:
        run = _common_run(read[0].dims, made[0].dims)
    features = (
        log2(size),
        log2(run),
        log2(len(made) + len(read)),
        log2(made[0].itemsize),
        float(len(made[0].dims)),
    )
    # A gather reads what it gives, not the whole table.
    moved = 2 * sum(tensor.bytes for tensor in made)
    return Kernel(operation.op_type, features, (1.0, moved, size / run), 0.0, moved)


def _common_run(a: Dims, b: Dims) -> int:
    """Elements of the innermost axes on which two shapes agree, and of the first that differs."""
    run = 1
    for left, right in zip(reversed(a), reversed(b), strict=False):
        run *= min(left, right)
        if left != right:
            break
    return run


def view(operation: Operation) -> Kernel:
    """A new shape for the same bytes: no data is moved, unless it enters or leaves the graph."""
    value = operation.node.inputs[0]
    moved = value is not None and (value.is_graph_input() or value.is_initializer())
    moved = moved or operation.node.outputs[0].is_graph_output()
    size = operation.output.bytes if moved else 1.0
    return Kernel(operation.op_type, (log2(size),), (1.0, size), 0.0, 2 * size)


def plain(operation: Operation) -> Kernel:
    """An operator without a class of its own: its bytes, and nothing else, are known."""
    features, terms = (log2(operation.bytes),), (1.0, operation.bytes)
    return Kernel(operation.op_type, features, terms, 0.0, operation.bytes)
