"""Chooses the half numbers that weights become, from what their layers see on data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_tensor, ir
from graphopt.precision import HalfFormat
from graphopt.precision.rounding import round_rows
from graphopt.quantization.repair.linear_layer import (
    LinearLayer,
    in_memory_together,
    linear_layers,
)
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed, MomentRequest, SecondMoment, collect

_MOST_COLUMNS = 1152
"""Wider layers keep nearest rounding: solving takes the third power of the columns, and what
comes early in a model, where layers are narrow, is amplified by all that follows."""
_MOST_ELEMENTS = 1 << 22
"""Larger weights, such as a vocabulary's, keep nearest rounding: float64 copies are made."""
_ROWS_PER_FEED = 1024
_MOST_BYTES = 1 << 28
"""Memory for the moments of one run over the data."""


@dataclass(frozen=True)
class _Task:
    layer: LinearLayer
    request: MomentRequest
    bias: ir.Value | None


def rounded_weights(
    model: ir.Model, nodes: Iterable[ir.Node], feeds: Iterable[Feed], half: HalfFormat
) -> dict[str, np.ndarray]:
    """Half numbers for the weights and biases of layers, so that their outputs change least.

    Args:
        model: the float32 model; not changed.
        nodes: those that go to half; only what is an initializer that nobody else reads counts.
        feeds: the data; iterated again where the moments do not fit into memory.
        half: the type.

    Returns:
        Name of an initializer -> float32 array of half numbers.
    """
    wanted = set(nodes)
    rounded: dict[str, np.ndarray] = {}
    for batch in in_memory_together(list(_tasks(model.graph, wanted)), _MOST_BYTES):
        requests = {task.layer.data.name or "": task.request for task in batch}
        found = collect(model, feeds, list(requests), moments=requests)
        for task in batch:
            moment = found[task.layer.data.name or ""].moment
            if moment is not None and moment.rows:
                rounded.update(_round(task, moment, half))
    return rounded


def _tasks(graph: ir.Graph, wanted: set[ir.Node]) -> Iterator[_Task]:
    for layer in linear_layers(graph):
        node = layer.node
        plain = all(node.attributes.get_float(name, 1.0) == 1 for name in ("alpha", "beta"))
        if node not in wanted or not plain or not _is_own(layer.weight_value):
            continue
        if layer.rows().shape[2] > _MOST_COLUMNS or layer.weight.size > _MOST_ELEMENTS:
            continue
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and not (_is_own(bias) and _is_vector(bias, layer.outputs)):
            continue
        if bias is not None and node.op_type == "ConvTranspose":
            continue  # which kernel positions meet at an output depends on the output
        try:
            request = layer.moment_request(rows_per_feed=_ROWS_PER_FEED, seed=0)
        except NotApplicable:
            continue
        yield _Task(layer, request, bias)


def _is_own(value: ir.Value) -> bool:
    """Whether a value is a constant of the main graph that one place reads."""
    is_constant = value.is_initializer() and constant_tensor(value) is not None
    return is_constant and len(list(value.uses())) == 1 and not value.is_graph_output()


def _is_vector(value: ir.Value, size: int) -> bool:
    held = constant_tensor(value)
    return held is not None and tuple(held.shape.numpy()) == (size,)


def _round(task: _Task, moment: SecondMoment, half: HalfFormat) -> Mapping[str, np.ndarray]:
    layer = task.layer
    weight = layer.rows().astype(np.float64)
    hessian = moment.matrix / moment.rows
    columns = weight.shape[2]
    held = constant_tensor(task.bias)
    if held is not None:
        mean = moment.sums / moment.rows
        hessian = _with_ones(hessian, mean)
        bias = held.numpy().astype(np.float64).reshape(weight.shape[0], -1, 1)
        weight = np.concatenate([weight, bias], axis=2)
    chosen = round_rows(weight, hessian, half).astype(np.float32)
    stored = np.ascontiguousarray(layer.stored(chosen[:, :, :columns]))
    found = {layer.weight_value.name or "": stored}
    if task.bias is not None and held is not None:
        found[task.bias.name or ""] = chosen[:, :, columns].reshape(-1)
    return found


def _with_ones(moment: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The moment of the columns and one more of ones: [groups, d + 1, d + 1]."""
    groups, columns = mean.shape
    whole = np.ones((groups, columns + 1, columns + 1))
    whole[:, :columns, :columns] = moment
    whole[:, :columns, columns] = whole[:, columns, :columns] = mean
    return whole
