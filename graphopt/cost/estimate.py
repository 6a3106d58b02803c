"""estimate_cost: from a model to its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from graphopt.cost.counting import Count
from graphopt.cost.memory import memory_of
from graphopt.cost.operator import Rule
from graphopt.cost.result import Cost, NodeCost
from graphopt.cost.values import Values
from graphopt.graph import (
    ModelSource,
    clone,
    inline_functions,
    ir,
    load,
    patient_collector,
)
from graphopt.shapes import infer_shapes
from graphopt.shapes.dim_text import is_placeholder


def estimate_cost(
    model: ModelSource,
    *,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    rules: Iterable[Rule] = (),
) -> Cost:
    """Count what a model costs: MACs, FLOPs, parameters, bytes moved, activation memory.

    The counts are exact. Where dims of the inputs are free, they are expressions in them, which
    `Cost.at` evaluates. Nothing is run, and no weight is read: files of external data may be
    missing.

    Args:
        model: a path, bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not changed.
        input_shapes: for an input's name one entry for each axis: a size, a symbol, or None to
            keep what the model declares.
        dims: sizes for symbolic dims of the inputs.
        rules: how to count operators that no installed rule is for, or that you count otherwise.

    Raises:
        UnreadableModelError: the source is no ONNX model.
        InvalidModelError: it breaks the rules of ONNX.
        ShapeError: its shapes contradict each other, or the ones asked for.
        UsageError: two installed plugins have a rule for one operator.
    """
    with patient_collector():
        copied = clone(model) if isinstance(model, ir.Model) else load(model, need_data=False)
        inline_functions(copied)
        _name_open_dims(copied.graph)
        infer_shapes(copied, input_shapes=input_shapes, dims=dims, name_unknown=True)
        return _count(copied, Values(copied.graph), rules)


def cost_of_inferred(model: ir.Model) -> Cost:
    """The same for a model on which `infer_shapes` has run, in a fraction of the time."""
    if model.functions:
        return estimate_cost(model)
    return _count(model, Values(model.graph))


def _count(model: ir.Model, values: Values, rules: Iterable[Rule] = ()) -> Cost:
    count = Count(model, values, tuple(rules))
    return Cost(
        by_node=tuple(count.rows),
        memory=memory_of(model.graph, values),
        edges=tuple(count.edges),
        parameters=tuple(count.parameters),
        notes=_notes(count.rows),
        inputs=tuple(
            (value.name or "", values.tensor(value).shape)
            for value in model.graph.inputs
            if not value.is_initializer()
        ),
    )


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
