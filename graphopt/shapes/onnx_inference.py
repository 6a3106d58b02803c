"""ONNX's own inference (C++), asked about one node at a time.

Asked about a whole model it would want the model serialized, would believe every stale shape
in it, and would make up symbols (`unk__0`) that may be the user's. Asked about a node it gets
only what is known for certain, answers in about 50 microseconds, and an error names the node.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.shape_inference

from graphopt.graph import ir
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import MAX_ELEMENTS, NOTHING, Fact, object_array
from graphopt.shapes.node_view import NodeView
from graphopt.shapes.value_rules import plain_element

# Attributes of these types identify a call in the cache.
_HASHABLE = (
    ir.AttributeType.INT,
    ir.AttributeType.INTS,
    ir.AttributeType.FLOAT,
    ir.AttributeType.FLOATS,
    ir.AttributeType.STRING,
    ir.AttributeType.STRINGS,
)
_MAX_CACHED = 4096
# Scales of a Resize, a scalar factor: longer floating-point tensors are weights.
MAX_FLOATS = 8
_FLOATS = frozenset(
    (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
)
_INTEGERS = frozenset(
    (
        ir.DataType.BOOL,
        ir.DataType.INT8,
        ir.DataType.INT16,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT8,
        ir.DataType.UINT16,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
    )
)


class NodeInferenceError(Exception):
    """ONNX says that the node cannot work; the message is ONNX's, in one line."""


class NodeInference:
    """Answers for nodes, and remembers: the layers of a deep model ask the same again."""

    def __init__(self) -> None:
        self._schemas: dict[tuple[str, str, int], Any] = {}
        self._answers: dict[object, tuple[Fact, ...]] = {}

    def schema(self, domain: str, op_type: str, version: int) -> Any:  # noqa: ANN401
        """The schema in force, None for an operator that ONNX does not know."""
        key = (domain, op_type, version)
        if key not in self._schemas:
            try:
                schema = onnx.defs.get_schema(op_type, version, domain)
            except onnx.defs.SchemaError:
                schema = None
            if schema is not None and (
                schema.deprecated or not schema.has_type_and_shape_inference_function
            ):
                schema = None
            self._schemas[key] = schema
        return self._schemas[key]

    def infer(self, domain: str, view: NodeView, opsets: dict[str, int]) -> list[Fact]:
        """The facts of the outputs; nothing of an operator that ONNX does not know.

        Raises:
            NodeInferenceError: the node contradicts its inputs.
        """
        schema = self.schema(domain, view.op_type, view.version)
        if schema is None or view.unresolved:
            return [NOTHING] * len(view.outputs)
        key = _cache_key(domain, view)
        if key is not None and key in self._answers:
            return list(self._answers[key])
        answer = _ask(schema, domain, view, opsets)
        if key is not None and len(self._answers) < _MAX_CACHED:
            self._answers[key] = tuple(answer)
        return answer


def _cache_key(domain: str, view: NodeView) -> object | None:
    attributes = []
    for name, attribute in view.attributes.items():
        if attribute.type not in _HASHABLE:
            return None
        value = attribute.value
        hashable = value if isinstance(value, int | float | str | bytes) else tuple(value)
        attributes.append((name, attribute.type, hashable))
    inputs: list[object] = []
    for fact in view.inputs:
        if fact is None:
            inputs.append(None)
        elif fact.other is not None:
            return None
        else:
            data = _input_data(fact)
            inputs.append((fact.dtype, fact.dims, None if data is None else data.tobytes()))
    return (
        domain, view.op_type, view.version, tuple(attributes), tuple(inputs), tuple(view.outputs),
    )  # fmt: skip


def _input_data(fact: Fact) -> np.ndarray | None:
    """The elements as a plain array where all of them are numbers."""
    if fact.elements is None or fact.dtype is None:
        return None
    if any(element is None or isinstance(element, Expression) for element in fact.elements.flat):
        return None
    try:
        return np.array(fact.elements.tolist(), dtype=fact.dtype.numpy())
    except (TypeError, ValueError, OverflowError):
        return None


def _ask(schema: Any, domain: str, view: NodeView, opsets: dict[str, int]) -> list[Fact]:  # noqa: ANN401
    node = onnx.NodeProto(op_type=view.op_type, domain=domain)
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    symbols: dict[str, Dim] = {}
    for index, fact in enumerate(view.inputs):
        if fact is None:
            node.input.append("")
            continue
        name = f"i{index}"
        node.input.append(name)
        types[name] = type_proto(fact, symbols)
        array = _input_data(fact)
        if array is not None and fact.dtype is not None:
            data[name] = onnx.TensorProto(
                data_type=fact.dtype.value, dims=array.shape, raw_data=array.tobytes()
            )
    node.output.extend(f"o{i}" if used else "" for i, used in enumerate(view.outputs))
    for attribute in view.attributes.values():
        node.attribute.append(ir.serde.serialize_attribute(attribute))
    imports = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in opsets.items()]
    try:
        answer = onnx.shape_inference.infer_node_outputs(
            schema, node, types, data, opset_imports=imports
        )
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise NodeInferenceError(_one_line(error)) from error
    return [
        fact_of_type(answer[name], symbols) if (name := f"o{index}") in answer else NOTHING
        for index in range(len(view.outputs))
    ]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    # "[ShapeInferenceError] (op_type:MatMul, node name: m): what": the caller names the node.
    _, found, rest = text.partition("): ")
    if found and "(op_type:" in text:
        return rest
    return text.removeprefix("[ShapeInferenceError] ").removeprefix("[TypeInferenceError] ")


def type_proto(fact: Fact, symbols: dict[str, Dim]) -> onnx.TypeProto:
    """The fact as ONNX has it; the text of each expression is noted in `symbols`."""
    if fact.other is not None:
        return fact.other
    proto = onnx.TypeProto()
    if fact.dtype is None:
        return proto
    proto.tensor_type.elem_type = fact.dtype.value
    if fact.dims is not None:
        shape = proto.tensor_type.shape
        # An empty shape is a scalar, not an unknown rank.
        shape.SetInParent()
        for dim in fact.dims:
            entry = shape.dim.add()
            if isinstance(dim, int):
                entry.dim_value = dim
            elif dim is not None:
                entry.dim_param = dim.text
                symbols[dim.text] = dim
    return proto


def fact_of_type(proto: onnx.TypeProto, symbols: dict[str, Dim]) -> Fact:
    """The inverse of `type_proto`; a symbol that was not ours is an unknown dim."""
    if not proto.HasField("tensor_type"):
        return Fact(other=proto) if proto.WhichOneof("value") else NOTHING
    tensor = proto.tensor_type
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return Fact(dtype)
    dims: list[Dim] = []
    for entry in tensor.shape.dim:
        if entry.HasField("dim_value"):
            # Some inference functions compute negative sizes out of nonsense.
            dims.append(entry.dim_value if entry.dim_value >= 0 else None)
        else:
            dims.append(symbols.get(entry.dim_param))
    return Fact(dtype, tuple(dims))


def constant_fact(tensor: ir.TensorProtocol) -> Fact:
    """The fact of a constant; its numbers are read only if they are few."""
    dims = tensor.shape.numpy()
    dtype = tensor.dtype
    elements = None
    limit = MAX_FLOATS if dtype in _FLOATS else MAX_ELEMENTS if dtype in _INTEGERS else 0
    if limit and math.prod(dims) <= limit:
        array = tensor.numpy()
        items: Sequence[object] = (
            array.reshape(-1).tolist()
            if array.dtype.kind in "iu"
            else [plain_element(scalar) for scalar in array.reshape(-1)]
        )
        elements = object_array(items, dims)
    return Fact(dtype, dims, elements)
