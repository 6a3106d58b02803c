"""Batch norms behind convolutions for the time of a training, as networks are trained with.

    before    y = conv(x; W, b)
    between   y = (conv(x; W, b) - m) / sqrt(v + e) * s + t       s = sqrt(v + e),  t = m
    after     y = conv(x; W s' / sqrt(v' + e), (b - m') s' / sqrt(v' + e) + t')

m and v are the mean and the variance of each channel over data, so nothing changes before the
training; it changes s and t, and m and v by observing. A network whose norms were folded away
bears a tenth of the learning rate that it bears with them (Ioffe & Szegedy, arXiv 1502.03167).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.runtime import Feed, Session

EPSILON = 1e-5
_ATTRIBUTES = {"epsilon": EPSILON, "momentum": 0.95}
_SUFFIXES = ("scale", "shift", "mean", "variance")


def insert_norms(
    model: ir.Model, feeds: Iterable[Feed], *, fixed: Iterable[str] = ()
) -> list[ir.Node]:
    """Put a batch norm behind each convolution that can take it up again, and return them.

    Those are convolutions with a weight and a bias that nothing else reads, behind which no batch
    norm stands yet, whose output is none of the model's, and nothing of which is in `fixed`. Gates,
    whose images are one pixel, have none: a batch tells too little of them.

    Args:
        model: changed in place; what it computes is not.
        feeds: data for the means and variances; streamed.
        fixed: names of initializers that must not change, and of values that are looked at.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot run the model.
    """
    places = [node for node in model.graph if _can_take(node, model.graph, set(fixed))]
    if not places:
        return []
    moments = _moments(model, [node.outputs[0].name or "" for node in places], feeds)
    inserted = []
    for node in places:
        name = node.outputs[0].name or ""
        if name not in moments:
            continue
        mean, variance = moments[name]
        output = node.outputs[0]
        numbers = (np.sqrt(variance + EPSILON), mean, mean, variance)
        taken = [
            _initializer(model.graph, f"{name} {suffix}", array.astype(np.float32))
            for suffix, array in zip(_SUFFIXES, numbers, strict=True)
        ]
        norm = ir.node("BatchNormalization", [output, *taken], _ATTRIBUTES, num_outputs=1)
        norm.outputs[0].name = f"{name} normalized"
        norm.outputs[0].type, norm.outputs[0].shape = output.type, output.shape
        for use in tuple(output.uses()):
            use.node.replace_input_with(use.idx, norm.outputs[0])
        norm.replace_input_with(0, output)
        model.graph.insert_after(node, norm)
        inserted.append(norm)
    return inserted


def bias_before(norm: ir.Node) -> str:
    """The name of the bias of the convolution that stands before a norm of `insert_norms`."""
    bias = _convolution(norm).inputs[2]
    return (bias.name or "") if bias is not None else ""


def fold_norms(model: ir.Model, norms: Iterable[ir.Node]) -> None:
    """Put the numbers of the norms of `insert_norms` into their convolutions, and remove them."""
    norms = list(norms)
    for norm in norms:
        node = _convolution(norm)
        scale, shift, mean, variance = (_numbers(value) for value in norm.inputs[1:5])
        factor = scale / np.sqrt(variance + EPSILON)
        weight, bias = (_numbers(value) for value in node.inputs[1:3])
        _write(node.inputs[1], weight * factor.reshape(-1, *(1,) * (weight.ndim - 1)))
        _write(node.inputs[2], (bias - mean) * factor + shift)
    remove_norms(model, norms)


def remove_norms(model: ir.Model, norms: Iterable[ir.Node]) -> None:
    """Take the norms of `insert_norms` out again, and their numbers with them."""
    for norm in norms:
        for use in tuple(norm.outputs[0].uses()):
            use.node.replace_input_with(use.idx, _normalized(norm))
        numbers = [value.name for value in norm.inputs[1:5] if value is not None]
        model.graph.remove(norm, safe=True)
        for name in numbers:
            del model.graph.initializers[name or ""]


def _convolution(norm: ir.Node) -> ir.Node:
    node = _normalized(norm).producer()
    if node is None:
        raise AssertionError("a batch norm that was inserted stands behind a convolution")
    return node


def _normalized(norm: ir.Node) -> ir.Value:
    value = norm.inputs[0]
    if value is None:
        raise AssertionError("a batch norm that was inserted has an input")
    return value


def _can_take(node: ir.Node, graph: ir.Graph, fixed: set[str]) -> bool:
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or len(node.inputs) < 3:
        return False
    for value in node.inputs[1:3]:
        name = None if value is None else value.name
        if value is None or name not in graph.initializers or name in fixed:
            return False
        array = constant_array(value)
        if array is None or array.dtype != np.float32 or len(tuple(value.uses())) != 1:
            return False
    output = node.outputs[0]
    if output.is_graph_output() or output.name in fixed:
        return False
    users = [use.node for use in output.uses()]
    here = all(user.graph is graph for user in users)
    return here and all(user.op_type != "BatchNormalization" for user in users)


def _moments(
    model: ir.Model, names: list[str], feeds: Iterable[Feed]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Mean and variance of each channel of these tensors [batch, channels, ...], as float64.

    Those whose images are never larger than one pixel are left out.
    """
    session = Session(model, outputs=names)
    counts = dict.fromkeys(names, 0)
    sums: dict[str, Any] = dict.fromkeys(names, 0.0)
    squares: dict[str, Any] = dict.fromkeys(names, 0.0)
    larger = set()
    for feed in feeds:
        for name, value in session.run(feed, names).items():
            if value.size > value.shape[0] * value.shape[1]:
                larger.add(name)
            channels = np.moveaxis(value, 1, 0).reshape(value.shape[1], -1).astype(np.float64)
            counts[name] += channels.shape[1]
            sums[name] = sums[name] + channels.sum(1)
            squares[name] = squares[name] + (channels**2).sum(1)
    found = {}
    for name in names:
        if name not in larger:
            continue
        mean = sums[name] / counts[name]
        found[name] = mean, np.maximum(squares[name] / counts[name] - mean**2, 0.0)
    return found


def _initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def _numbers(value: ir.Value | None) -> np.ndarray:
    array = constant_array(value)
    if array is None:
        raise AssertionError("the numbers of a batch norm that was inserted are initializers")
    return np.asarray(array, np.float64)


def _write(value: ir.Value | None, array: np.ndarray) -> None:
    if value is not None:
        value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
