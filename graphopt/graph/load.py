"""Reads a model from a path, bytes, a proto or another model, and checks it while it does.

What would make onnx_ir crash, guess or drop something is found in the proto first, so that a
bad model gives one clear line before anything large is allocated. Then:

- External data is checked against the model's folder and stays on disk (see external.py); so do
  large tensors inside the model file (see wire.py).
- What onnx_ir cannot hold is carried along (see carried.py).
- Nodes that are merely out of order are sorted; ONNX Runtime accepts such models too.
- Before IR version 4 every initializer had to be an input as well, and none was overridable.
  Such inputs are dropped and the IR version raised to 4, which says the same thing.
"""

import os
from pathlib import Path

import onnx
import onnx.defs
import onnx.helper
from google.protobuf.message import DecodeError

from graphopt.errors import InvalidModelError, ModelError, UnreadableModelError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.carried import attach, lift
from graphopt.graph.clone import clone
from graphopt.graph.external import DataFile, DataFolder, MissingTensor, mapped_model
from graphopt.graph.problem import one_line, root_cause
from graphopt.graph.proto import MAXIMUM_BYTES, MAXIMUM_NESTING, all_scopes, nesting_depth
from graphopt.graph.save import without_collection
from graphopt.graph.verify import Problem, verify, verify_proto
from graphopt.graph.walk import (
    all_graphs,
    attribute_tensors,
    nesting_depth_of,
    subgraphs,
    tensor_attributes,
    with_tensors,
)
from graphopt.graph.wire import OWN_FILE, without_contents

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model
"""What a model can be read from."""

OLDEST_OPSET = 7
"""The oldest version of ONNX's operator set that is read."""

_IR_VERSION_WITH_CONSTANTS = 4
_LARGE_FILE = 1 << 20
"""From this size on the contents of large tensors stay in the file until they are used."""


def load(source: ModelSource, *, need_data: bool = True) -> ir.Model:
    """The model in `source`, sharing no graph, node or value with it.

    Tensors may be shared with an `ir.Model`, and are mapped from external data files, or from
    a large model file. Such a file may be replaced or removed meanwhile, but not written into.

    Args:
        source: the model.
        need_data: whether external data has to be there. Without it a tensor whose file is
            missing has its shape and type, and no contents.

    Raises:
        UnreadableModelError: no ONNX model is there, or its external data is missing, outside
            the model's folder, or too short.
        InvalidModelError: the model breaks the rules of ONNX; `problems` lists how.
    """
    if isinstance(source, ir.Model):
        return _clone(source)
    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        return _from_proto(proto, "the model", None, need_data)
    if isinstance(source, bytes | bytearray | memoryview):
        return _from_proto(_parse(bytes(source), "the model"), "the model", None, need_data)
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        contents, own = _read(path)
        return _from_proto(_parse(contents, str(path)), str(path), path.parent, need_data, own)
    raise UnreadableModelError(
        f"a model is a path, bytes, an onnx.ModelProto or an onnx_ir.Model,"
        f" not {type(source).__name__}"
    )


def _read(path: Path) -> tuple[bytes, DataFile | None]:
    """The bytes of a model; of a large file those beside its tensors, and the file for them."""
    try:
        if path.is_dir():
            raise UnreadableModelError(f"{path} is a folder: name the model file in it")
        if path.exists() and not path.is_file():
            raise UnreadableModelError(f"{path} is no regular file")
        size = path.stat().st_size
        if size > MAXIMUM_BYTES:
            raise UnreadableModelError(
                f"{path} has {size / 2**30:.1f} GiB, an ONNX file has at most 2:"
                " larger models keep their weights in external data"
            )
        own = mapped_model(path) if size >= _LARGE_FILE else None
        shorter = None if own is None else without_contents(memoryview(own.mapping()))
        return (path.read_bytes(), None) if shorter is None else (shorter, own)
    except FileNotFoundError:
        raise UnreadableModelError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableModelError(f"{path} cannot be read: {reason}") from None


def _parse(contents: bytes, name: str) -> onnx.ModelProto:
    if not contents:
        raise UnreadableModelError(f"{name} is empty")
    if contents[4:8] == b"ORTM":
        raise UnreadableModelError(
            f"{name} is in ONNX Runtime's own format: give the .onnx file it was made from"
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(contents)
    except DecodeError as error:
        if "depth" in str(error).lower():
            raise InvalidModelError(
                f"{name}: subgraphs are nested deeper than protobuf can hold"
                f" ({MAXIMUM_NESTING} graphs)"
            ) from None
        raise UnreadableModelError(f"{name} is no ONNX model, or is cut short") from None
    if not proto.HasField("graph"):
        raise UnreadableModelError(f"{name} is no ONNX model: it has no graph")
    return proto


def _from_proto(
    proto: onnx.ModelProto,
    name: str,
    folder: Path | None,
    need_data: bool,
    own: DataFile | None = None,
) -> ir.Model:
    """The model in `proto`, which is used up; contents of its tensors may be in its own file."""
    if not proto.HasField("graph"):
        raise UnreadableModelError(f"{name} is no ONNX model: it has no graph")
    depth = nesting_depth(proto)
    if depth > MAXIMUM_NESTING:
        raise InvalidModelError(
            f"{name}: subgraphs are nested {depth} deep, protobuf can hold {MAXIMUM_NESTING}"
        )
    _complete(proto)
    problems = [*_opset_problems(proto), *verify_proto(proto)]
    if problems:
        raise _invalid(name, problems)
    lifted = lift(proto)
    try:
        with without_collection():
            model = ir.from_proto(proto)
    except ir.serde.SerdeError as error:
        raise InvalidModelError(f"{name} cannot be read: {root_cause(error)}") from None
    attach(model, lifted)
    try:
        _map_external_data(model, folder, need_data, own)
    except ModelError as error:
        raise type(error)(one_line(f"{name}: {error}")) from None
    _constants_from_inputs(model)
    _sort(model)
    return model


def _invalid(name: str, problems: list[Problem]) -> InvalidModelError:
    lines = [str(problem) for problem in problems]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return InvalidModelError(f"{name} is invalid: {lines[0]}{more}", lines)


def _complete(proto: onnx.ModelProto) -> None:
    """Fill in what old writers left out and what has only one possible value."""
    for scope in all_scopes(proto):
        for node in scope.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.UNDEFINED and not attribute.ref_attr_name:
                    attribute.type = _attribute_type(attribute)
    if not proto.ir_version:
        known = [
            entry
            for entry in proto.opset_import
            if (entry.domain or "ai.onnx", entry.version) in onnx.helper.OP_SET_ID_VERSION_MAP
        ]
        lowest = onnx.helper.find_min_ir_version_for(known, ignore_unknown=True)
        proto.ir_version = max(lowest, 8 if proto.functions else _IR_VERSION_WITH_CONSTANTS)


_ATTRIBUTE_FIELDS = {
    "f": onnx.AttributeProto.FLOAT,
    "i": onnx.AttributeProto.INT,
    "s": onnx.AttributeProto.STRING,
    "t": onnx.AttributeProto.TENSOR,
    "g": onnx.AttributeProto.GRAPH,
    "floats": onnx.AttributeProto.FLOATS,
    "ints": onnx.AttributeProto.INTS,
    "strings": onnx.AttributeProto.STRINGS,
    "tensors": onnx.AttributeProto.TENSORS,
    "graphs": onnx.AttributeProto.GRAPHS,
}


def _attribute_type(attribute: onnx.AttributeProto) -> onnx.AttributeProto.AttributeType:
    """The type of an attribute from before types were written (IR version 1)."""
    for descriptor, _ in attribute.ListFields():
        if descriptor.name in _ATTRIBUTE_FIELDS:
            return _ATTRIBUTE_FIELDS[descriptor.name]
    return onnx.AttributeProto.UNDEFINED


def _opset_problems(proto: onnx.ModelProto) -> list[Problem]:
    """Why the operator sets that the model imports cannot be handled here."""
    if not proto.opset_import:
        return [Problem("no operator set is imported: the file may be cut short", None)]
    newest = {
        "ai.onnx": onnx.defs.onnx_opset_version(),
        "ai.onnx.ml": onnx.defs.onnx_ml_opset_version(),
    }
    problems = []
    for owner, imports in (
        ("", proto.opset_import),
        *((f"function {f.name}: ", f.opset_import) for f in proto.functions),
    ):
        for entry in imports:
            domain = entry.domain or "ai.onnx"
            if domain == "ai.onnx" and entry.version < OLDEST_OPSET:
                problems.append(
                    Problem(
                        f"{owner}opset {entry.version} is older than {OLDEST_OPSET}, the oldest"
                        " that is handled: convert the model with onnx.version_converter",
                        None,
                    )
                )
            elif entry.version > newest.get(domain, entry.version):
                problems.append(
                    Problem(
                        f"{owner}opset {entry.version} of {domain} is newer than"
                        f" {newest[domain]}, the newest that the installed onnx"
                        f" {onnx.__version__} knows: upgrade onnx",
                        None,
                    )
                )
    return problems


def _map_external_data(
    model: ir.Model, folder: Path | None, need_data: bool, own: DataFile | None
) -> None:
    """Replace each external tensor by one that is checked and mapped."""
    opened: DataFolder | None = None

    def located(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        nonlocal opened
        if not isinstance(tensor, ir.ExternalTensor):
            return tensor
        embedded = own is not None and tensor.location == OWN_FILE
        optional = not need_data and not embedded
        if optional and (folder is None or not (folder / tensor.location).exists()):
            return MissingTensor(tensor)
        if folder is None:
            raise UnreadableModelError(
                f"the data of '{tensor.name}' is in the file {tensor.location}: give the path of"
                " the model file, so that the folder is known"
            )
        if opened is None:
            opened = DataFolder(folder, own)
        return opened.tensor(tensor)

    for graph in all_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = located(value.const_value)
        for node in graph:
            for attribute in tensor_attributes(node):
                held = attribute_tensors(attribute)
                if any(isinstance(tensor, ir.ExternalTensor) for tensor in held):
                    node.attributes.add(with_tensors(attribute, list(map(located, held))))


def _constants_from_inputs(model: ir.Model) -> None:
    if model.ir_version >= _IR_VERSION_WITH_CONSTANTS:
        return
    for graph in all_graphs(model):
        kept = [value for value in graph.inputs if not value.is_initializer()]
        if len(kept) < len(graph.inputs):
            graph.inputs.clear()
            graph.inputs.extend(kept)
    model.ir_version = _IR_VERSION_WITH_CONSTANTS


def _sort(model: ir.Model) -> None:
    """Put nodes in order where they are not; the proto was checked for cycles before."""
    for root in (model.graph, *(function.graph for function in model.functions.values())):
        if not _is_sorted(root):
            root.sort()


def _is_sorted(root: ir.Graph) -> bool:
    """Whether each value is made before it is used, nested graphs taken where they stand."""
    made: set[ir.Node] = set()
    stack = [iter(root)]
    while stack:
        node = next(stack[-1], None)
        if node is None:
            stack.pop()
            continue
        for value in node.inputs:
            producer = value.producer() if value is not None else None
            if producer is not None and producer not in made:
                return False
        made.add(node)
        stack.extend(iter(inner) for inner in reversed(subgraphs(node)))
    return True


def _clone(model: ir.Model) -> ir.Model:
    depth = nesting_depth_of(model)
    if depth > MAXIMUM_NESTING:
        raise InvalidModelError(
            f"subgraphs are nested {depth} deep, protobuf can hold {MAXIMUM_NESTING}"
        )
    try:
        with without_collection():
            copied = clone(model)
    except (RuntimeError, AssertionError) as error:
        # Only a model whose values are not connected as they must be cannot be cloned.
        problems = verify(model)
        if problems:
            raise _invalid("the model", problems) from None
        raise InvalidModelError(f"the model cannot be copied: {root_cause(error)}") from None
    copied.meta.update(model.meta)
    return copied
