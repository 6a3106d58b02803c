"""estimate_cost: from a model to its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from graphopt.cost.counting import Count
from graphopt.cost.memory import memory_of
from graphopt.cost.result import Cost, NodeCost
from graphopt.cost.values import Values
from graphopt.graph import (
    ModelSource,
    all_nodes,
    clone,
    inline_functions,
    ir,
    load,
    patient_collector,
)
from graphopt.shapes import infer_shapes
from graphopt.shapes.dim_text import is_placeholder

_ONNX_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def estimate_cost(
    model: ModelSource,
    *,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Cost:
    """Count what a model costs: MACs, FLOPs, parameters, bytes moved, activation memory.

    The counts are exact. Where dims of the inputs are free, they are expressions in them, which
    `Cost.at` evaluates. No weight is read, and nothing is run.

    Args:
        model: a path, bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not changed.
        input_shapes: for an input's name one entry for each axis: a size, a symbol, or None to
            keep what the model declares.
        dims: sizes for symbolic dims of the inputs.

    Raises:
        UnreadableModelError: the source is no ONNX model.
        InvalidModelError: it breaks the rules of ONNX.
        ShapeError: its shapes contradict each other, or the ones asked for.
    """
    with patient_collector():
        copied = clone(model) if isinstance(model, ir.Model) else load(model)
        inline_functions(copied)
        _name_open_dims(copied.graph)
        stated = _stated_shapes(copied)
        infer_shapes(copied, input_shapes=input_shapes, dims=dims)
        return _count(copied, Values(copied.graph, stated, dims))


def cost_of_inferred(model: ir.Model) -> Cost:
    """The same for a model on which `infer_shapes` has run, in a fraction of the time."""
    if model.functions:
        return estimate_cost(model)
    return _count(model, Values(model.graph))


def _count(model: ir.Model, values: Values) -> Cost:
    count = Count(model, values)
    return Cost(
        by_node=tuple(count.rows),
        memory=memory_of(model.graph, values),
        edges=tuple(count.edges),
        parameters=tuple(count.parameters),
        notes=_notes(count.rows),
        inputs={
            value.name or "": values.tensor(value).shape
            for value in model.graph.inputs
            if not value.is_initializer()
        },
    )


def _stated_shapes(model: ir.Model) -> dict[ir.Value, ir.Shape]:
    """The inner shapes that a model with operators of unknown domains states.

    No inference reaches beyond such an operator. In other models what cannot be derived depends
    on data, and what is stated is what the exporter's example happened to have there.
    """
    nodes = list(all_nodes(model))
    if all(node.domain in _ONNX_DOMAINS for node in nodes):
        return {}
    return {
        value: value.shape for node in nodes for value in node.outputs if value.shape is not None
    }


def _name_open_dims(graph: ir.Graph) -> None:
    """Give each open dim of an input a name to count in: `image[0]`."""
    for value in graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                ir.SymbolicDim(f"{value.name}[{axis}]") if _is_open(dim) else dim
                for axis, dim in enumerate(value.shape)
            )


def _is_open(dim: int | ir.SymbolicDim) -> bool:
    # -1 is how some exporters spell a dim that is not known.
    return is_placeholder(dim.value) if isinstance(dim, ir.SymbolicDim) else dim < 0


def _notes(rows: Sequence[NodeCost]) -> tuple[str, ...]:
    """One line for each reason why nodes are uncounted, and for each trip count or branch."""
    reasons = Counter(row.note for row in rows if not row.counted)
    lines = [
        f"{number} node{'s are' if number > 1 else ' is'} not counted: {reason}"
        for reason, number in reasons.items()
    ]
    remarks: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.note and row.counted and row.executions != 0:
            remarks.setdefault((row.op_type, row.note), []).append(row.name)
    for (op_type, note), names in remarks.items():
        who = f"{names[0]} ({op_type})" if len(names) == 1 else f"{len(names)} {op_type} nodes"
        lines.append(f"{who}: {note}")
    return tuple(lines)
