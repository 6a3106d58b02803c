"""Carries through onnx_ir what it cannot hold, so that a model keeps it from load to save.

onnx_ir refuses sparse attributes and map types, fails on string lists that are not UTF-8, and
drops sparse initializers and training information without a word. `lift` takes them out of a
proto, `attach` hangs them on the model (`SparseTensor`, `OpaqueType`, attributes that hold the
proto itself, metadata of the main graph: all survive `ir.Model.clone`), `detached` takes them
off while the model is serialized, and `restore` puts them into the new proto.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import onnx

from graphopt.graph._onnx_ir import ir
from graphopt.graph.proto import Scope, all_scopes
from graphopt.graph.walk import all_graphs

_TRAINING_INFO = "graphopt.training_info"
_OUTPUT_TYPES = "graphopt.output_types"
_SPARSE = (ir.AttributeType.SPARSE_TENSOR, ir.AttributeType.SPARSE_TENSORS)


class OpaqueType(ir.TypeProtocol):
    """A type that onnx_ir has no class for: a map, something containing one, or opaque."""

    def __init__(self, proto: onnx.TypeProto) -> None:
        self.proto = proto
        self.denotation = proto.denotation or None
        # The elements are no tensors of one type.
        self.elem_type = self.dtype = ir.DataType.UNDEFINED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OpaqueType) and self.proto == other.proto

    def __hash__(self) -> int:
        return hash(self.proto.SerializeToString(deterministic=True))

    def __repr__(self) -> str:
        return f"OpaqueType({self.proto.WhichOneof('value')})"


class SparseTensor(ir.LazyTensor):
    """A sparse initializer: dense to those who read it, sparse again when it is saved."""

    def __init__(self, proto: onnx.SparseTensorProto) -> None:
        super().__init__(
            self._dense,
            ir.DataType(proto.values.data_type),
            ir.Shape(proto.dims, frozen=True),
            name=proto.values.name,
        )
        self.proto = proto

    def _dense(self) -> ir.TensorProtocol:
        dense = np.zeros(self.shape.numpy(), self.dtype.numpy())
        values = ir.serde.deserialize_tensor(self.proto.values).numpy()
        indices = ir.serde.deserialize_tensor(self.proto.indices).numpy()
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
        return ir.tensor(dense, dtype=self.dtype, name=self.name)


@dataclass
class Lifted:
    """What was taken out of a proto; scopes and nodes by their place in the walk."""

    training_info: tuple[bytes, ...] = ()
    sparse: list[tuple[int, onnx.SparseTensorProto]] = field(default_factory=list)
    types: list[tuple[int, str, onnx.TypeProto]] = field(default_factory=list)
    attributes: list[tuple[int, int, ir.Attr]] = field(default_factory=list)
    output_types: list[tuple[int, int, onnx.TypeProto]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(vars(self).values())


def lift(proto: onnx.ModelProto) -> Lifted:
    """Take what onnx_ir cannot hold out of `proto`, which is changed."""
    lifted = Lifted(tuple(info.SerializeToString() for info in proto.training_info))
    del proto.training_info[:]
    for place, scope in enumerate(all_scopes(proto)):
        if isinstance(scope, onnx.GraphProto):
            for sparse in scope.sparse_initializer:
                # An initializer without data stands in for it while values are connected.
                scope.initializer.add(
                    name=sparse.values.name, data_type=sparse.values.data_type, dims=sparse.dims
                )
                lifted.sparse.append((place, _copy_sparse(sparse)))
            del scope.sparse_initializer[:]
            lifted.output_types.extend((place, *kept) for kept in _lift_output_types(scope))
            infos = [*scope.input, *scope.output, *scope.value_info]
        else:
            infos = [*scope.value_info]
        for info in infos:
            if info.HasField("type") and not _representable(info.type):
                kept = onnx.TypeProto()
                kept.CopyFrom(info.type)
                lifted.types.append((place, info.name, kept))
                info.ClearField("type")
        for position, node in enumerate(scope.node):
            for index in reversed(range(len(node.attribute))):
                attribute = _opaque_attribute(node.attribute[index])
                if attribute is not None:
                    lifted.attributes.append((place, position, attribute))
                    del node.attribute[index]
    return lifted


def attach(model: ir.Model, lifted: Lifted) -> None:
    """Hang what was lifted on the model made from the proto, before its nodes are moved."""
    if not lifted:
        return
    if lifted.training_info:
        model.graph.meta[_TRAINING_INFO] = lifted.training_info
    graphs = list(all_graphs(model))
    for place, position, kept in lifted.output_types:
        graphs[place].meta.setdefault(_OUTPUT_TYPES, {})[position] = kept
    for place, sparse in lifted.sparse:
        graphs[place].initializers[sparse.values.name].const_value = SparseTensor(sparse)
    named = {at: _by_name(graphs[at]) for at in {place for place, _, _ in lifted.types}}
    for place, name, kept in lifted.types:
        for value in named[place].get(name, ()):
            value.type = OpaqueType(kept)
    if lifted.attributes:
        nodes = {place: list(graphs[place]) for place, _, _ in lifted.attributes}
        for place, position, attribute in lifted.attributes:
            nodes[place][position].attributes.add(attribute)


def forget_carried(graph: ir.Graph) -> None:
    """Drop what is carried by places and names that a graph no longer has.

    How a model was trained is said of the whole model, and a second type of what is declared
    twice belongs to the position of an output.
    """
    graph.meta.pop(_TRAINING_INFO, None)
    graph.meta.pop(_OUTPUT_TYPES, None)


@contextmanager
def detached(model: ir.Model) -> Iterator[Lifted]:
    """While it is open, the model holds only what onnx_ir can serialize; yields the rest."""
    lifted = Lifted(model.graph.meta.get(_TRAINING_INFO, ()))
    types: list[tuple[ir.Value, OpaqueType]] = []
    attributes: list[tuple[ir.Node, dict[str, ir.Attr]]] = []
    try:
        for place, graph in enumerate(all_graphs(model)):
            for position, kept in graph.meta.get(_OUTPUT_TYPES, {}).items():
                lifted.output_types.append((place, position, kept))
            for value in _values(graph):
                if type(value.type) is OpaqueType:
                    types.append((value, value.type))
                    lifted.types.append((place, value.name or "", value.type.proto))
                    value.type = None
                tensor = value.const_value
                if type(tensor) is SparseTensor and value.is_initializer():
                    lifted.sparse.append((place, _renamed(tensor.proto, value.name)))
            for position, node in enumerate(graph):
                if not node.attributes.data:
                    continue
                opaque = [held for held in node.attributes.data.values() if _is_opaque(held)]
                if opaque:
                    attributes.append((node, dict(node.attributes)))
                for held in opaque:
                    del node.attributes[held.name]
                    lifted.attributes.append((place, position, held))
        yield lifted
    finally:
        for value, kind in types:
            value.type = kind
        for node, whole in attributes:
            node.attributes.clear()
            for held in whole.values():
                node.attributes.add(held)


def restore(proto: onnx.ModelProto, lifted: Lifted) -> None:
    """Put what `detached` yielded into the proto that was made meanwhile."""
    if not lifted:
        return
    for info in lifted.training_info:
        proto.training_info.add().ParseFromString(info)
    scopes = list(all_scopes(proto))
    sparse_names: dict[int, set[str]] = {}
    for place, sparse in lifted.sparse:
        scope = scopes[place]
        assert isinstance(scope, onnx.GraphProto)  # noqa: S101 - functions hold no initializers
        scope.sparse_initializer.append(sparse)
        sparse_names.setdefault(place, set()).add(sparse.values.name)
    for place, names in sparse_names.items():
        scope = scopes[place]
        assert isinstance(scope, onnx.GraphProto)  # noqa: S101 - the same
        dense = [tensor for tensor in scope.initializer if tensor.name not in names]
        del scope.initializer[:]
        scope.initializer.extend(dense)
    for place, position, kept in lifted.output_types:
        scope = scopes[place]
        assert isinstance(scope, onnx.GraphProto)  # noqa: S101 - only graphs declare outputs
        scope.output[position].type.CopyFrom(kept)
    infos = {at: _infos_by_name(scopes[at]) for at in {place for place, _, _ in lifted.types}}
    for place, name, kept in lifted.types:
        for info in infos[place].get(name) or [scopes[place].value_info.add(name=name)]:
            info.type.CopyFrom(kept)
    for place, position, attribute in lifted.attributes:
        target = scopes[place].node[position].attribute.add(name=attribute.name)
        target.type = cast(onnx.AttributeProto.AttributeType, attribute.type.value)
        if attribute.doc_string:
            target.doc_string = attribute.doc_string
        if attribute.type == ir.AttributeType.SPARSE_TENSOR:
            target.sparse_tensor.CopyFrom(attribute.value)
        elif attribute.type == ir.AttributeType.SPARSE_TENSORS:
            target.sparse_tensors.extend(attribute.value)
        else:
            target.strings.extend(attribute.value)


def _lift_output_types(scope: onnx.GraphProto) -> Iterator[tuple[int, onnx.TypeProto]]:
    """Positions and types of outputs that another type is declared for too.

    An output that is also an input, or an output twice, is one value to onnx_ir, which would
    keep the type that was declared last.
    """
    known = {info.name: info.type for info in scope.input}
    for position, info in enumerate(scope.output):
        first = known.setdefault(info.name, info.type)
        if first != info.type:
            kept = onnx.TypeProto()
            kept.CopyFrom(info.type)
            yield position, kept
            info.type.CopyFrom(first)


def _by_name(graph: ir.Graph) -> dict[str | None, list[ir.Value]]:
    named: dict[str | None, list[ir.Value]] = {}
    for value in _values(graph):
        named.setdefault(value.name, []).append(value)
    return named


def _infos_by_name(scope: Scope) -> dict[str, list[onnx.ValueInfoProto]]:
    ends = [*scope.input, *scope.output] if isinstance(scope, onnx.GraphProto) else []
    named: dict[str, list[onnx.ValueInfoProto]] = {}
    for info in (*ends, *scope.value_info):
        named.setdefault(info.name, []).append(info)
    return named


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _representable(proto: onnx.TypeProto) -> bool:
    while True:
        match proto.WhichOneof("value"):
            case "tensor_type" | "sparse_tensor_type" | None:
                return True
            case "sequence_type" if proto.sequence_type.HasField("elem_type"):
                proto = proto.sequence_type.elem_type
            case "optional_type" if proto.optional_type.HasField("elem_type"):
                proto = proto.optional_type.elem_type
            case _:
                return False


def _opaque_attribute(proto: onnx.AttributeProto) -> ir.Attr | None:
    kind = ir.AttributeType(proto.type)
    if proto.ref_attr_name:
        return None
    if kind == ir.AttributeType.SPARSE_TENSOR:
        return ir.Attr(proto.name, kind, _copy_sparse(proto.sparse_tensor))
    if kind == ir.AttributeType.SPARSE_TENSORS:
        return ir.Attr(proto.name, kind, tuple(map(_copy_sparse, proto.sparse_tensors)))
    if kind == ir.AttributeType.STRINGS:
        try:
            for text in proto.strings:
                text.decode()
        except UnicodeDecodeError:
            return ir.Attr(proto.name, kind, tuple(proto.strings))
    return None


def _is_opaque(attribute: ir.Attr) -> bool:
    if attribute.is_ref():
        return False
    if attribute.type == ir.AttributeType.STRINGS:
        return any(isinstance(text, bytes) for text in attribute.value)
    return attribute.type in _SPARSE


def _copy_sparse(proto: onnx.SparseTensorProto) -> onnx.SparseTensorProto:
    copy = onnx.SparseTensorProto()
    copy.CopyFrom(proto)
    return copy


def _renamed(proto: onnx.SparseTensorProto, name: str | None) -> onnx.SparseTensorProto:
    copy = _copy_sparse(proto)
    copy.values.name = name or ""
    return copy
