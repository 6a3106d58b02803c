"""Writes a model: to a file, with or without a data file beside it, to bytes, or to a proto.

Writing to a file never leaves a broken model behind. Each file is written under a temporary
name in its folder and then renamed. A data file that is there already is never overwritten:
the model in place may refer to it until the very last rename, so new data gets a name that is
free. Once the new model is in place, data files that belonged to the old one alone are removed.
"""

import gc
import glob
import mmap
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError

from graphopt.errors import InvalidModelError, OutputError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.carried import SparseTensor, detached, restore
from graphopt.graph.external import EmbeddedTensor, MappedTensor
from graphopt.graph.problem import one_line, root_cause
from graphopt.graph.proto import (
    MAXIMUM_BYTES,
    MAXIMUM_NESTING,
    all_scopes,
    external_entries,
    tensors,
)
from graphopt.graph.walk import (
    all_graphs,
    attribute_tensors,
    nesting_depth_of,
    tensor_attributes,
    with_tensors,
)
from graphopt.graph.wire import LARGE, without_contents, write_with_contents

# Smaller tensors stay in the model file.
_EXTERNAL_THRESHOLD = 1024
_WORTH_STREAMING = 1 << 20
# Offsets of big tensors lie on pages, so that a runtime can map them; the others on the
# widest vector register.
_PAGE_THRESHOLD = 1 << 20
_PAGE = 4096
_VECTOR = 64


def save(
    model: ir.Model,
    path: str | os.PathLike[str],
    *,
    external_data: bool | None = None,
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write `model` to `path`, whole or not at all; the model is left as it is.

    Args:
        model: the model.
        path: the model file. Its folder must exist.
        external_data: keep tensors of 1 KiB and more in a data file beside it. None decides:
            yes if the model came so, or if it would pass the 2 GiB that protobuf allows.
        overwrite: replace a file that is there, together with the data files that are named
            after it. Also right when the model's own weights are mapped from those.

    Returns:
        The files that hold the model now: the model file, then its data file if it has one.

    Raises:
        OutputError: the file exists, or cannot be written.
        InvalidModelError: the model cannot be expressed in protobuf.
    """
    target = Path(path)
    _check_target(target, overwrite)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary_data = temporary.with_suffix(".data.tmp")
    leftovers = [temporary, temporary_data]
    try:
        data = None
        embedded: _Places = {}
        contents = None
        if external_data is None:
            external_data = _is_external(model) or _tensor_bytes(model) > MAXIMUM_BYTES
            if not external_data:
                embedded = _streamed(model)
                contents = _whole(model, embedded)
                external_data = contents is None
        if external_data:
            embedded = {}
            places = _arrange(model)
            if places:
                with temporary_data.open("xb") as file:
                    _write_data(places, file)
                data, is_new = _settle_data(temporary_data, target)
                if is_new:
                    leftovers.append(data)
            contents = _serialized(_to_proto(model, places, data.name if data else ""))
        elif contents is None:
            embedded = _streamed(model)
            contents = _whole(model, embedded)
        if contents is None:
            raise OutputError(
                f"{target} would pass the 2 GiB that protobuf allows: save with external data"
            )
        obsolete = _data_files_of(target) if target.exists() else []
        with temporary.open("xb") as file:
            if target.exists():
                os.fchmod(file.fileno(), target.stat().st_mode & 0o777)
            _write_model(contents, embedded, file)
        temporary.replace(target)
        leftovers.clear()
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None
    finally:
        for leftover in leftovers:
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
    for old in obsolete:
        if old != data:
            with suppress(OSError):
                old.unlink()
    return (target,) if data is None else (target, data)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto that refers to no file: external data is read into it.

    Raises:
        InvalidModelError: the model cannot be expressed in protobuf.
        OutputError: its tensors pass the 2 GiB that protobuf allows.
    """
    size = _tensor_bytes(model)
    if size > MAXIMUM_BYTES:
        raise OutputError(
            f"the model has {size / 2**30:.1f} GiB of tensors, protobuf allows 2 GiB:"
            " save it to a file, with external data"
        )
    return _to_proto(model, {}, "")


def to_bytes(model: ir.Model) -> bytes:
    """The model as the bytes of a file that refers to no other; the same model, the same bytes.

    Raises:
        InvalidModelError, OutputError: as for `to_proto`.
    """
    contents = _serialized(to_proto(model))
    if contents is None:
        raise OutputError("the model passes the 2 GiB of protobuf: save it with external data")
    return contents


def _embedded(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    """A tensor that onnx_ir writes into the proto with all its data.

    Stands in for external tensors, which onnx_ir would write as references, and for tensors
    with metadata, which it would write twice.
    """
    return ir.LazyTensor(
        lambda: tensor,
        tensor.dtype,
        _shape_of(tensor),
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


# The place of a tensor in the data file, by the tensor's identity: two values may share one.
_Places = dict[int, tuple[ir.TensorProtocol, int]]


def _to_proto(model: ir.Model, places: _Places, location: str) -> onnx.ModelProto:
    depth = nesting_depth_of(model)
    if depth > MAXIMUM_NESTING:
        raise InvalidModelError(
            f"subgraphs are nested {depth} deep, protobuf can hold {MAXIMUM_NESTING}"
        )

    def written(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
        if id(tensor) in places:
            return ir.ExternalTensor(
                location,
                places[id(tensor)][1],
                tensor.nbytes,
                tensor.dtype,
                shape=_shape_of(tensor),
                name=tensor.name or "",
                doc_string=tensor.doc_string,
                metadata_props=dict(tensor.metadata_props),
            )
        if isinstance(tensor, SparseTensor):
            return ir.tensor(np.zeros((), np.uint8), name=tensor.name)
        if isinstance(tensor, ir.ExternalTensor):
            return _embedded(tensor)
        if isinstance(tensor, ir.serde.TensorProtoTensor) and tensor.raw.metadata_props:
            return _embedded(tensor)
        return tensor

    with detached(model) as lifted, _swapped(model, written):
        try:
            with without_collection():
                proto = ir.to_proto(model)
        except ir.serde.SerdeError as error:
            raise InvalidModelError(f"the model cannot be written: {root_cause(error)}") from None
    restore(proto, lifted)
    for function in proto.functions:
        # ONNX wants the field to be there, also where it is the empty domain.
        function.domain = function.domain
    return proto


@contextmanager
def without_collection() -> Iterator[None]:
    """While it is open, the cyclic garbage collector rests.

    Making a large model makes millions of objects that all live on: looking through them
    again and again for cycles takes a third of the time and frees nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _swapped(model: ir.Model, written: Any) -> Iterator[None]:
    """While it is open, the tensors of the model are what `written` makes of them."""
    values: list[tuple[ir.Value, ir.TensorProtocol, ir.TypeProtocol | None, ir.Shape | None]] = []
    attributes: list[tuple[ir.Node, ir.Attr]] = []
    try:
        for graph in all_graphs(model):
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None:
                    continue
                values.append((value, tensor, value.type, value.shape))
                value.const_value = written(tensor)
                described = bool(value.doc_string or value.metadata_props)
                if not (described or value.is_graph_input() or value.is_graph_output()):
                    # onnx_ir would write what the tensor says once more as type of the value.
                    value.type = None
                    value.shape = None
            for node in graph:
                for attribute in tensor_attributes(node):
                    held = attribute_tensors(attribute)
                    stand_ins = [written(tensor) for tensor in held]
                    if any(new is not old for new, old in zip(stand_ins, held, strict=True)):
                        attributes.append((node, attribute))
                        node.attributes[attribute.name] = with_tensors(attribute, stand_ins)
        yield
    finally:
        for value, tensor, kind, shape in values:
            value.const_value = tensor
            value.type = kind
            value.shape = shape
        for node, attribute in attributes:
            node.attributes[attribute.name] = attribute


def _all_tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in all_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
        for node in graph:
            for attribute in tensor_attributes(node):
                yield from attribute_tensors(attribute)


def _shape_of(tensor: ir.TensorProtocol) -> ir.Shape:
    return ir.Shape([int(size) for size in tensor.shape.numpy()])


def _is_external(model: ir.Model) -> bool:
    return any(isinstance(tensor, ir.ExternalTensor) for tensor in _all_tensors(model))


def _tensor_bytes(model: ir.Model) -> int:
    """The bytes that the tensors take in a proto; of strings and sparse tensors, none."""
    return sum(tensor.nbytes for tensor in _all_tensors(model) if _is_plain(tensor))


def _is_plain(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and not isinstance(tensor, SparseTensor)


def _serialized(proto: onnx.ModelProto) -> bytes | None:
    """The bytes of a proto, None if they pass what protobuf allows."""
    try:
        contents = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError, MemoryError):
        return None
    return contents if len(contents) <= MAXIMUM_BYTES else None


def _check_target(target: Path, overwrite: bool) -> None:
    if "\0" in str(target):
        raise OutputError(one_line(f"{target} cannot be written: it has a null character"))
    try:
        if target.is_dir():
            raise OutputError(f"{target} is a folder: name a file in it")
        if not target.parent.is_dir():
            raise OutputError(f"{target} cannot be written: there is no folder {target.parent}")
        if not overwrite and os.path.lexists(target):
            raise OutputError(f"{target} exists: choose another name, or ask to overwrite it")
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from None


def _arrange(model: ir.Model) -> _Places:
    """Where each big tensor goes in the data file, in the order of the walk."""
    places: _Places = {}
    end = 0
    for tensor in _all_tensors(model):
        if id(tensor) in places or not _is_plain(tensor) or tensor.nbytes < _EXTERNAL_THRESHOLD:
            continue
        boundary = _PAGE if tensor.nbytes >= _PAGE_THRESHOLD else _VECTOR
        start = -(-end // boundary) * boundary
        places[id(tensor)] = (tensor, start)
        end = start + tensor.nbytes
    return places


def _write_data(places: _Places, file: BinaryIO) -> None:
    for tensor, offset in places.values():
        file.seek(offset)
        _append(tensor, file)


def _append(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    writer = getattr(tensor, "tofile", None)
    if writer is None:
        file.write(tensor.tobytes())
    else:
        writer(file)


def _streamed(model: ir.Model) -> _Places:
    """Large initializers that go into the file one by one, numbered; {} where that saves little.

    Only those that protobuf would write as raw data too: a file has the bytes of `to_bytes`.
    """
    own = [value.const_value for value in model.graph.initializers.values()]
    elsewhere = Counter(map(id, _all_tensors(model)))
    elsewhere.subtract(map(id, own))
    places: _Places = {}
    for tensor in own:
        if not isinstance(tensor, EmbeddedTensor | MappedTensor | ir.Tensor):
            continue
        if tensor.nbytes >= LARGE and not elsewhere[id(tensor)]:
            places.setdefault(id(tensor), (tensor, len(places)))
    return places if sum(t.nbytes for t, _ in places.values()) >= _WORTH_STREAMING else {}


def _whole(model: ir.Model, embedded: _Places) -> bytes | None:
    """The bytes of a file without those of its streamed tensors; None if it passes 2 GiB."""
    size = _tensor_bytes(model)
    contents = _serialized(_to_proto(model, embedded, "")) if size <= MAXIMUM_BYTES else None
    added = sum(tensor.nbytes for tensor, _ in embedded.values())
    return None if contents is None or len(contents) + added > MAXIMUM_BYTES else contents


def _write_model(contents: bytes, embedded: _Places, file: BinaryIO) -> None:
    if not embedded:
        file.write(contents)
        return
    by_number = {number: tensor for tensor, number in embedded.values()}

    def append(number: int) -> None:
        tensor = by_number[number]
        _append(tensor, file)
        if isinstance(tensor, EmbeddedTensor | MappedTensor):
            tensor.release()

    write_with_contents(contents, lambda number: by_number[number].nbytes, append, file)


def _settle_data(written: Path, target: Path) -> tuple[Path, bool]:
    """Give the data its name, one that is free or that holds these very bytes already.

    Returns:
        The data file, and whether it is new.
    """
    data = target.with_name(target.name + ".data")
    if os.path.lexists(data) and not _same_content(written, data):
        data = target.with_name(f"{target.name}.{_digest(written)}.data")
    if os.path.lexists(data) and _same_content(written, data):
        written.unlink()
        return data, False
    written.replace(data)
    return data, True


def _same_content(first: Path, second: Path) -> bool:
    import filecmp

    return second.is_file() and filecmp.cmp(first, second, shallow=False)


def _digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _data_files_of(model: Path) -> list[Path]:
    """The data files that the model file refers to and that are named after it."""
    if not any(model.parent.glob(f"{glob.escape(model.name)}*.data")):
        return []
    try:
        with model.open("rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        proto = onnx.ModelProto.FromString(without_contents(whole) or bytes(whole))
    except (OSError, ValueError, DecodeError):  # of ValueError: an empty file is not mapped
        return []
    names = {
        external_entries(tensor).get("location", "")
        for scope in all_scopes(proto)
        for tensor, _ in tensors(scope)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
    return sorted(
        model.with_name(name)
        for name in names
        if name == Path(name).name and name.startswith(model.name) and name.endswith(".data")
    )
