"""Finds in a proto what would be hidden, or would crash, when a model is made from it.

onnx_ir keeps the last of two initializers, functions or attributes of one name, makes up
values for undefined names, and trusts the dims of tensors: all that is refused here.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx

from graphopt.graph._onnx_ir import ir
from graphopt.graph.problem import Problem, cycle_among, cycle_text
from graphopt.graph.proto import (
    Scope,
    all_scopes,
    attribute_graphs,
    nested_scopes,
    node_label,
    tensors,
)

_MAXIMUM_ELEMENTS = 2**62
_DATA_TYPES = frozenset(int(dtype) for dtype in ir.DataType)
_ATTRIBUTE_TYPES = frozenset(int(kind) for kind in ir.AttributeType) - {0}


def verify_proto(proto: onnx.ModelProto) -> list[Problem]:
    """What is wrong with a proto and could not be told from the model made from it.

    That is names defined twice or not at all, cycles, functions and attributes given twice,
    unknown types, impossible dims, and tensors with more or less data than their shape has.
    Linear in the size of the proto. Nodes that are merely out of order are no problem here.
    """
    problems: list[Problem] = []
    for scope in all_scopes(proto):
        if not _is_text(scope):
            return [Problem("a name in it is not UTF-8: the file is damaged", None)]
        _check_scope(scope, problems)
    _check_imports(proto, problems)
    for root in (proto.graph, *proto.functions):
        _Names(root, problems).run()
    return problems


def _is_text(scope: Scope) -> bool:
    """Whether every name is text: protobuf gives bytes for what is not UTF-8."""
    names = [scope.name]
    for node in scope.node:
        names += (node.name, node.op_type, node.domain, node.overload)
        names += node.input
        names += node.output
        names += [attribute.name for attribute in node.attribute]
    if isinstance(scope, onnx.GraphProto):
        names += [tensor.name for tensor in scope.initializer]
        names += [info.name for info in scope.input]
        names += [info.name for info in scope.output]
    else:
        names += [*scope.input, *scope.output, scope.domain]
    return set(map(type, names)) == {str}


def _check_imports(proto: onnx.ModelProto, problems: list[Problem]) -> None:
    for entries in (proto.opset_import, *(f.opset_import for f in proto.functions)):
        versions: dict[str, int] = {}
        for entry in entries:
            domain = entry.domain or "ai.onnx"
            if versions.setdefault(domain, entry.version) != entry.version:
                problems.append(Problem(f"opset {domain} is imported in two versions", None))
    functions: set[tuple[str, str, str]] = set()
    for function in proto.functions:
        identifier = (function.domain, function.name, function.overload)
        if identifier in functions:
            name = f"{function.domain}.{function.name}"
            problems.append(Problem(f"two functions are named {name}", None))
        functions.add(identifier)


class _Level:
    """The names of one scope, and how far its nodes have been read."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.nodes = list(scope.node)
        # The node that makes a name; -1 for inputs and initializers.
        self.makers: dict[str, int] = {}
        self.current = -1
        self.disordered = False
        self.inner: list[onnx.GraphProto] = []


class _Names:
    """The check of the names of a main graph or a function, with the graphs nested in it."""

    def __init__(self, root: Scope, problems: list[Problem]) -> None:
        self._root = root
        self._problems = problems
        self._open: list[_Level] = []
        is_function = isinstance(root, onnx.FunctionProto)
        self._where = f"function {root.name}: " if is_function else ""

    def run(self) -> None:
        self._enter(self._root)
        while self._open:
            top = self._open[-1]
            if top.inner:
                self._enter(top.inner.pop())
                continue
            top.current += 1
            if top.current == len(top.nodes):
                self._leave(self._open.pop())
                continue
            node = top.nodes[top.current]
            for name in node.input:
                if name:
                    self._use(name, node)
            top.inner = attribute_graphs(node)[::-1]

    def _report(self, message: str, node: onnx.NodeProto | None = None) -> None:
        name = None
        if node is not None:
            name = node.name or next((n for n in node.output if n), node.op_type)
        self._problems.append(Problem(f"{self._where}{message}", name))

    def _enter(self, scope: Scope) -> None:
        level = _Level(scope)
        makers = level.makers
        if isinstance(scope, onnx.GraphProto):
            inputs = [info.name for info in scope.input]
            initializers = [
                *(tensor.name for tensor in scope.initializer),
                *(sparse.values.name for sparse in scope.sparse_initializer),
            ]
        else:
            inputs, initializers = list(scope.input), []
        for kind, names in (("input", inputs), ("initializer", initializers)):
            once: set[str] = set()
            for name in names:
                if not name:
                    self._report(f"an {kind} has no name")
                elif name in once:
                    self._report(f"two {kind}s are named '{name}'")
                once.add(name)
                makers[name] = -1
        for place, node in enumerate(level.nodes):
            for name in node.output:
                if not name:
                    continue
                if name in makers:
                    self._report(f"{node_label(node)} makes '{name}', which is made already", node)
                else:
                    makers[name] = place
        self._open.append(level)

    def _use(self, name: str, node: onnx.NodeProto) -> None:
        for level in reversed(self._open):
            maker = level.makers.get(name)
            if maker is not None:
                if maker >= level.current:
                    level.disordered = True
                return
        self._report(f"{node_label(node)} uses '{name}', which nothing makes", node)

    def _leave(self, level: _Level) -> None:
        scope = level.scope
        if isinstance(scope, onnx.GraphProto):
            outputs = [info.name for info in scope.output]
        else:
            outputs = list(scope.output)
        for name in outputs:
            if name not in level.makers or not name:
                self._report(f"nothing in the graph makes its output '{name}'")
        if level.disordered:
            predecessors = [list(_makers_used(node, level.makers)) for node in level.nodes]
            cycle = cycle_among(predecessors)
            if cycle:
                labels = [node_label(level.nodes[place]) for place in cycle]
                self._report(cycle_text(labels), level.nodes[cycle[0]])


def _makers_used(node: onnx.NodeProto, makers: dict[str, int]) -> Iterator[int]:
    """The places of the nodes whose outputs `node`, or a graph nested in it, uses."""
    used = list(node.input)
    for inner in attribute_graphs(node):
        for scope, _ in nested_scopes(inner):
            own = {name for each in scope.node for name in each.output}
            if isinstance(scope, onnx.GraphProto):
                own.update(info.name for info in scope.input)
                own.update(tensor.name for tensor in scope.initializer)
            used.extend(n for each in scope.node for n in each.input if n not in own)
    for name in used:
        place = makers.get(name, -1)
        if place >= 0:
            yield place


def _check_scope(scope: Scope, problems: list[Problem]) -> None:
    def report(message: str, node: str = "") -> None:
        problems.append(Problem(message, node or None))

    infos = list(scope.value_info)
    if isinstance(scope, onnx.GraphProto):
        infos += [*scope.input, *scope.output]
        for sparse in scope.sparse_initializer:
            fault = _sparse_fault(sparse)
            if fault:
                report(f"sparse initializer '{sparse.values.name}' {fault}")
    for info in infos:
        fault = _type_fault(info.type)
        if fault:
            report(f"the type of '{info.name}' {fault}")
    for tensor, what in tensors(scope):
        fault = tensor_fault(tensor)
        if fault:
            report(f"{what} {fault}")
    for node in scope.node:
        names: set[str] = set()
        for attribute in node.attribute:
            twice = "is given twice" if attribute.name in names else None
            fault = twice or _attribute_fault(attribute)
            names.add(attribute.name)
            if fault:
                report(f"attribute '{attribute.name}' of {node_label(node)} {fault}", node.name)


def _attribute_fault(attribute: onnx.AttributeProto) -> str | None:
    """What is wrong with an attribute apart from dense tensors, which `tensors` finds."""
    if attribute.type not in _ATTRIBUTE_TYPES:
        return f"has the unknown type {attribute.type}"
    if attribute.ref_attr_name:
        return None
    if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
        return _sparse_fault(attribute.sparse_tensor)
    if attribute.type == onnx.AttributeProto.SPARSE_TENSORS:
        return next(filter(None, map(_sparse_fault, attribute.sparse_tensors)), None)
    if attribute.type == onnx.AttributeProto.TYPE_PROTO:
        return _type_fault(attribute.tp)
    return None


def _type_fault(proto: onnx.TypeProto) -> str | None:
    while True:
        match proto.WhichOneof("value"):
            case "sequence_type":
                proto = proto.sequence_type.elem_type
            case "optional_type":
                proto = proto.optional_type.elem_type
            case "map_type":
                proto = proto.map_type.value_type
            case "tensor_type":
                tensor: onnx.TypeProto.Tensor | onnx.TypeProto.SparseTensor = proto.tensor_type
                break
            case "sparse_tensor_type":
                tensor = proto.sparse_tensor_type
                break
            case _:
                return None
    if tensor.elem_type not in _DATA_TYPES:
        return f"has the unknown element type {tensor.elem_type}"
    sizes = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
    # Many exporters write -1 for a size that is not known, as ONNX Runtime reads it.
    return _dims_fault([max(size, 0) if size == -1 else size for size in sizes])


def _dims_fault(dims: Sequence[int]) -> str | None:
    if any(size < 0 for size in dims):
        return f"has the negative dim {min(dims)}"
    if math.prod(size for size in dims if size) > _MAXIMUM_ELEMENTS:
        return f"has impossibly large dims {list(dims)}"
    return None


# The field for typed data of each element type, and how many entries an element takes; it is
# int32_data with one entry per element for all the others.
_FIELDS: dict[int, tuple[str, float]] = {
    ir.DataType.FLOAT: ("float_data", 1),
    ir.DataType.COMPLEX64: ("float_data", 2),
    ir.DataType.DOUBLE: ("double_data", 1),
    ir.DataType.COMPLEX128: ("double_data", 2),
    ir.DataType.INT64: ("int64_data", 1),
    ir.DataType.UINT32: ("uint64_data", 1),
    ir.DataType.UINT64: ("uint64_data", 1),
    ir.DataType.STRING: ("string_data", 1),
    ir.DataType.INT4: ("int32_data", 1 / 2),
    ir.DataType.UINT4: ("int32_data", 1 / 2),
    ir.DataType.FLOAT4E2M1: ("int32_data", 1 / 2),
    ir.DataType.INT2: ("int32_data", 1 / 4),
    ir.DataType.UINT2: ("int32_data", 1 / 4),
}


def tensor_fault(tensor: onnx.TensorProto) -> str | None:
    """What is wrong with a tensor's type, dims or amount of data, as the end of a sentence."""
    if tensor.data_type not in _DATA_TYPES or not tensor.data_type:
        return f"has the unknown element type {tensor.data_type}"
    fault = _dims_fault(tensor.dims)
    if fault:
        return fault
    dtype = ir.DataType(tensor.data_type)
    count = math.prod(tensor.dims)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        if dtype == ir.DataType.STRING:
            return "has strings in external data, which ONNX does not allow"
        for entry in tensor.external_data:
            if entry.key in ("offset", "length") and not entry.value.isdecimal():
                return f"has external data with the {entry.key} '{entry.value[:40]}'"
        return None
    if tensor.HasField("raw_data"):
        if dtype == ir.DataType.STRING:
            return "has strings as raw data, which ONNX does not allow"
        wanted = math.ceil(count * dtype.bitwidth / 8)
        found = len(tensor.raw_data)
        unit = "bytes"
    else:
        name, entries = _FIELDS.get(tensor.data_type, ("int32_data", 1))
        wanted = math.ceil(count * entries)
        found = len(getattr(tensor, name))
        unit = "entries"
    if found != wanted:
        return f"has {found} {unit} of data, its type and dims {list(tensor.dims)} need {wanted}"
    return None


def _sparse_fault(sparse: onnx.SparseTensorProto) -> str | None:
    for part in (sparse.values, sparse.indices):
        if part.data_location == onnx.TensorProto.EXTERNAL:
            return "has sparse data in an external file, which is not handled"
        fault = tensor_fault(part)
        if fault:
            return fault
    fault = _dims_fault(sparse.dims)
    if fault:
        return fault
    rank, count = len(sparse.dims), math.prod(sparse.values.dims)
    if not sparse.dims or any(size == 0 for size in sparse.dims):
        return f"has dims {list(sparse.dims)}, not allowed for a sparse tensor"
    if sparse.indices.data_type != onnx.TensorProto.INT64:
        return "has indices that are not int64"
    if len(sparse.values.dims) != 1 or list(sparse.indices.dims) not in ([count], [count, rank]):
        return "has indices that do not match its values"
    indices = ir.serde.deserialize_tensor(sparse.indices).numpy()
    limits = np.array(sparse.dims) if indices.ndim == 2 else math.prod(sparse.dims)
    if indices.size and not ((indices >= 0) & (indices < limits)).all():
        return "has indices outside its dims"
    return None
