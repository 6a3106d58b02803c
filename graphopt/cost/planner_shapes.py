"""What ONNX Runtime knows of shapes before it runs a graph: only there can it plan reuse.

Its planner lets a tensor have the buffer of a dead one if their shapes are known to be equal:
dim by dim the same integer, or the same name. Names come from the model (inputs, and values that
it describes) and go through ONNX's shape inference; a dim that is computed has none.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from graphopt.graph import ir
from graphopt.graph.constants import constant_array

Dim = int | str | None
Dims = tuple[Dim, ...]
_MOST_ELEMENTS = 64
_WINDOWED = ("Conv", "MaxPool", "AveragePool", "QLinearConv", "QLinearAveragePool")


def planner_shapes(executed: ir.Model, source: ir.Model) -> dict[ir.Value, Dims]:
    """The shapes of the main graph of `executed` that its planner can compare.

    Args:
        executed: the graph as it runs, its shapes those of one run.
        source: the model of the user, whose declared shapes have the names.

    Returns:
        The dims of each value; one that is not known before the run is None. A value of unknown
        rank is left out.
    """
    graph = executed.graph
    declared = {value.name: value for value in _described(source.graph)}
    version = executed.opset_imports.get("", 1)
    known: dict[ir.Value, Dims] = {}
    for value in (*graph.inputs, *graph.initializers.values()):
        dims = _dims(declared.get(value.name, value))
        if value.is_initializer() and value.const_value is not None:
            dims = tuple(int(dim) for dim in value.const_value.shape.numpy())
        if dims is not None:
            known[value] = dims
    fixed = all(isinstance(dim, int) for value in graph.inputs for dim in known.get(value, (None,)))
    for node in graph:
        if fixed:
            found: Sequence[Dims | None] = [_dims(value) for value in node.outputs]
        elif node.domain in ("", "ai.onnx"):
            found = _by_onnx(node, known, version)
        else:
            found = [_followed(node, value, known) for value in node.outputs]
        for value, dims in zip(node.outputs, found, strict=False):
            stated = _dims(declared[value.name]) if value.name in declared else None
            best = _merged(dims, stated)
            if best is not None:
                known[value] = best
    return known


def _described(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _dims(value: ir.Value) -> Dims | None:
    if value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def _merged(first: Dims | None, second: Dims | None) -> Dims | None:
    if first is None or second is None or len(first) != len(second):
        return first if first is not None else second
    return tuple(b if a is None else a for a, b in zip(first, second, strict=True))


def _by_onnx(node: ir.Node, known: dict[ir.Value, Dims], version: int) -> list[Dims | None]:
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or not value.name or value.dtype is None:
            continue
        types[value.name] = onnx.helper.make_tensor_type_proto(int(value.dtype), known.get(value))
        array = constant_array(value, _MOST_ELEMENTS)
        if array is not None:
            data[value.name] = onnx.numpy_helper.from_array(array, value.name)
    try:
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, version, ""),
            ir.serde.serialize_node(node),
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid("", version)],
        )
    except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError, KeyError):
        return []
    return [_of_proto(found.get(value.name or "")) for value in node.outputs]


def _of_proto(proto: onnx.TypeProto | None) -> Dims | None:
    if proto is None or not proto.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in proto.tensor_type.shape.dim
    )


def _followed(node: ir.Node, output: ir.Value, known: dict[ir.Value, Dims]) -> Dims | None:
    """Dims of an operator of ONNX Runtime's own: a free dim of its input stays what it is."""
    ran = _dims(output)
    source = node.inputs[0] if node.inputs else None
    before = None if source is None else known.get(source)
    if ran is None or before is None or source is None:
        return None
    if all(isinstance(dim, int) for dim in before):
        return ran
    size = _dims(source)
    if len(before) != len(ran) or size is None:
        return None
    dims: list[Dim] = []
    for axis, dim in enumerate(before):
        if isinstance(dim, int):
            dims.append(ran[axis])
        elif size[axis] == ran[axis] and not (axis > 1 and node.op_type in _WINDOWED):
            dims.append(dim)
        else:
            dims.append(None)
    return tuple(dims)
