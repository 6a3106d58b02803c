"""ONNX's own inference (C++), asked about one node at a time.

Asked about a whole model it would want the model serialized, would believe every stale shape
in it, and would make up symbols (`unk__0`) that may be the user's. Asked about a node it gets
only what is known for certain, answers in about 50 microseconds, and an error names the node.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.shape_inference

from graphopt.graph import ir
from graphopt.graph.external import MissingTensor
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import (
    MAX_ELEMENTS,
    NOTHING,
    Fact,
    object_array,
    plain_element,
    static_dims,
)
from graphopt.shapes.node_view import NodeView

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
# Operators whose function reads dims that are not integers as 0.
_NEEDS_INTEGERS = frozenset({"Attention"})
# Operators whose function takes the axis for granted.
_CHECKS_NO_AXIS = frozenset({"LayerNormalization", "RMSNormalization"})
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


_answers: dict[object, tuple[Fact, ...]] = {}


@functools.cache
def schema_of(domain: str, op_type: str, version: int) -> Any:
    """The schema in force, None for an operator that ONNX does not know any more."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else schema


def inferred_outputs(domain: str, view: NodeView, opsets: dict[str, int]) -> list[Fact]:
    """The facts of the outputs; nothing of an operator that ONNX does not know.

    Answers are remembered: the layers of a deep model, and the next pass, ask the same again.

    Raises:
        NodeInferenceError: the node contradicts its inputs.
    """
    schema = schema_of(domain, view.op_type, view.version)
    if schema is None or view.unresolved or _may_crash(view):
        return [NOTHING] * len(view.outputs)
    if not schema.has_type_and_shape_inference_function:
        return _declared_types(schema, view)
    key = _cache_key(domain, view)
    if key is not None and key in _answers:
        return list(_answers[key])
    answer = _ask(schema, domain, view, opsets)
    if key is not None:
        if len(_answers) >= _MAX_CACHED:
            _answers.clear()
        _answers[key] = tuple(answer)
    return answer


def _may_crash(view: NodeView) -> bool:
    """Whether an attribute is so far out of range that onnx may crash the process over it.

    Some functions use attributes unchecked (in onnx 1.23 LayerNormalization its axis, Split its
    num_outputs). Such a node cannot run; the check of the model says so.
    """
    if view.op_type == "Split" and "num_outputs" in view.attributes:
        return view.int_attribute("num_outputs", 0) != len(view.outputs)
    dims = view.dims(0)
    attribute = view.attributes.get("axis")
    if dims is None or attribute is None or attribute.type != ir.AttributeType.INT:
        return False
    # OneHot and the like count the axes of their output, which are one more.
    spare = 0 if view.op_type in _CHECKS_NO_AXIS else 1
    return not -len(dims) - spare <= attribute.as_int() < len(dims) + spare


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


def _ask(schema: Any, domain: str, view: NodeView, opsets: dict[str, int]) -> list[Fact]:
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
    except onnx.shape_inference.InferenceError as error:
        if any(fact is not None and fact.dtype is None and not fact.other for fact in view.inputs):
            # ONNX objects to an input without a type, which says nothing about the model.
            return _declared_types(schema, view)
        raise NodeInferenceError(_one_line(error)) from error
    except (onnx.checker.ValidationError, RuntimeError, ValueError, MemoryError):
        # Not a matter of shapes: a missing input or attribute, an absurd number. Others judge it.
        return [NOTHING] * len(view.outputs)
    outputs = [
        fact_of_type(answer[name], symbols) if (name := f"o{index}") in answer else NOTHING
        for index in range(len(view.outputs))
    ]
    if all(fact is None or static_dims(fact.dims) is not None for fact in view.inputs):
        return outputs
    return [_without_mistakes(fact, view) for fact in outputs]


def _declared_types(schema: Any, view: NodeView) -> list[Fact]:
    """Outputs of which only the dtype is known: that of an input declared to be of one type."""
    known: dict[str, ir.DataType] = {}
    for declared, fact in zip(schema.inputs, view.inputs, strict=False):
        if declared.is_homogeneous and fact is not None and fact.dtype is not None:
            known[declared.type_str] = fact.dtype
    last = len(schema.outputs) - 1
    declared_outputs = [schema.outputs[min(place, last)] for place in range(len(view.outputs))]
    return [
        Fact(known.get(declared.type_str)) if declared.is_homogeneous else NOTHING
        for declared in declared_outputs
    ]


def _without_mistakes(fact: Fact, view: NodeView) -> Fact:
    """The answer without what some functions make up when an input dim is not an integer.

    They read such a dim as 0 (Attention of onnx 1.23 does). A result of size 0 is
    rare: where no input is empty, it is not believed.
    """
    if fact.dims is None:
        return fact
    if view.op_type in _NEEDS_INTEGERS:
        return Fact(fact.dtype)
    if 0 not in fact.dims or any(given and given.dims and 0 in given.dims for given in view.inputs):
        return fact
    return Fact(fact.dtype, tuple(None if dim == 0 else dim for dim in fact.dims))


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
    dims = tuple(tensor.shape.numpy())
    dtype = tensor.dtype
    elements = None
    limit = MAX_FLOATS if dtype in _FLOATS else MAX_ELEMENTS if dtype in _INTEGERS else 0
    if limit and math.prod(dims) <= limit and not isinstance(tensor, MissingTensor):
        array = tensor.numpy()
        items: Sequence[object] = (
            array.reshape(-1).tolist()
            if array.dtype.kind in "iu"
            else [plain_element(scalar) for scalar in array.reshape(-1)]
        )
        elements = object_array(items, dims)
    return Fact(dtype, dims, elements)
