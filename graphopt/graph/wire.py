"""Takes large tensors out of a serialized model, and puts them back in, without holding them.

A file of 1 GB would otherwise be in memory as bytes, as a protobuf and as bytes again. So what
protobuf parses is the model without the contents of its large tensors, each of which says where
they are, as external data would; and what it writes is such a model, with contents put in on the
way to the file. Of the wire format (protobuf.dev/programming-guides/encoding) this needs to know
that a message is a row of fields: a varint `number << 3 | type`, then a varint (type 0), eight
bytes (1), a length and so many bytes (2), or four bytes (5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import onnx

from graphopt.graph._onnx_ir import ir

LARGE = 4096
"""Contents of fewer bytes stay where they are."""
OWN_FILE = "\0"
"""As location of external data: the file of the model itself. No file has this name."""

_MODEL, _GRAPH, _FUNCTION, _NODE, _ATTRIBUTE, _TENSOR = range(6)
_Schema = dict[int, dict[int, int]]
"""For a message, field number -> the message it holds that tensors can be in."""

_EVERYWHERE: _Schema = {
    _MODEL: {7: _GRAPH, 25: _FUNCTION},
    _GRAPH: {1: _NODE, 5: _TENSOR},
    _FUNCTION: {7: _NODE},
    _NODE: {5: _ATTRIBUTE},
    _ATTRIBUTE: {5: _TENSOR, 6: _GRAPH, 10: _TENSOR, 11: _GRAPH},
}
_LISTS = frozenset({7, 8, 9})
"""In an attribute: its floats, integers or strings, a field for each."""
_MAIN_GRAPH: _Schema = {_MODEL: {7: _GRAPH}, _GRAPH: {5: _TENSOR}}

_ELSEWHERE = frozenset({4, 5, 6, 7, 9, 10, 11, 13, 14})
"""In a tensor: contents other than its first raw data, and where they are."""
_DIMS, _DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 9, 13, 14
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_MOST_LEVELS = 200


class _MalformedError(ValueError):
    """The bytes are no row of fields."""


class _Field(NamedTuple):
    """One field: where it begins, where its contents begin, and where they end."""

    number: int
    kind: int
    start: int
    body: int
    end: int


def without_contents(model: memoryview) -> bytes | None:
    """A serialized model whose large tensors say where in the file, `OWN_FILE`, their contents are.

    Args:
        model: the bytes of the file.

    Returns:
        The shorter model; None where nothing is to be gained, or protobuf has to say what is
        wrong with the bytes.
    """
    try:
        return _shorter(model, 0, len(model), _MODEL, 0)
    except _MalformedError:
        return None


def _shorter(data: memoryview, start: int, end: int, message: int, level: int) -> bytes | None:
    """The message without contents of large tensors; None if it holds none."""
    if level > _MOST_LEVELS:
        return None
    children = _EVERYWHERE[message]
    parts: list[bytes | memoryview] = []
    done = start
    for field in _fields(data, start, end):
        if message == _ATTRIBUTE and field.number in _LISTS:
            break  # millions of numbers, in a forest of decision trees; no tensor stands beside
        if field.kind != _BYTES or field.end - field.body < LARGE:
            continue
        child = children.get(field.number)
        if child is None:
            continue
        if child == _TENSOR:
            made = _shorter_tensor(data, field.body, field.end)
        else:
            made = _shorter(data, field.body, field.end, child, level + 1)
        if made is not None:
            parts += [data[done : field.start], _framed(field.number, made)]
            done = field.end
    if not parts:
        return None
    return b"".join([*parts, data[done:end]])


def _shorter_tensor(data: memoryview, start: int, end: int) -> bytes | None:
    raw: _Field | None = None
    dims: list[int] = []
    data_type = 0
    others: list[bytes | memoryview] = []
    for field in _fields(data, start, end):
        if field.number == _RAW_DATA and field.kind == _BYTES and raw is None:
            raw = field
            continue
        if field.number in _ELSEWHERE:
            return None
        if field.number == _DIMS and field.kind == _VARINT:
            dims.append(_varint(data, field.body)[0])
        elif field.number == _DIMS and field.kind == _BYTES:
            position = field.body
            while position < field.end:
                size, position = _varint(data, position)
                dims.append(size)
        elif field.number == _DATA_TYPE and field.kind == _VARINT:
            data_type = _varint(data, field.body)[0]
        others.append(data[field.start : field.end])
    if raw is None or raw.end - raw.body < LARGE:
        return None
    try:
        bits = ir.DataType(data_type).bitwidth
    except (TypeError, ValueError):
        return None
    if bits < 8 or math.prod(dims) * bits != 8 * (raw.end - raw.body):
        return None  # the checks that follow say what is wrong with it
    place = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    length = raw.end - raw.body
    for key, text in (("location", OWN_FILE), ("offset", raw.body), ("length", length)):
        place.external_data.add(key=key, value=str(text))
    return b"".join([*others, place.SerializeToString(deterministic=True)])


class _Piece(NamedTuple):
    """Bytes to write, or the place of a tensor whose contents are to be written."""

    data: bytes | memoryview
    offset: int | None = None


def write_with_contents(
    model: bytes, length_of: Callable[[int], int], write: Callable[[int], None], file: BinaryIO
) -> None:
    """Write a serialized model whose external initializers get their contents, as raw data.

    Args:
        model: the model without them; the `offset` of each external tensor tells them apart. All
            are initializers of the main graph.
        length_of: how many bytes the contents of an offset have.
        write: appends them to the file.
        file: where the model is written.
    """
    pieces, _ = _longer(memoryview(model), 0, len(model), _MODEL, length_of)
    for piece in pieces:
        if piece.offset is None:
            file.write(piece.data)
        else:
            write(piece.offset)


def _longer(
    data: memoryview, start: int, end: int, message: int, length_of: Callable[[int], int]
) -> tuple[list[_Piece], int]:
    """The message with the contents of its external tensors, and how many bytes it has."""
    children = _MAIN_GRAPH[message]
    pieces: list[_Piece] = []
    size = end - start
    done = start
    for field in _fields(data, start, end):
        child = children.get(field.number) if field.kind == _BYTES else None
        if child is None:
            continue
        if child == _TENSOR:
            made, length = _longer_tensor(data, field.body, field.end, length_of)
        else:
            made, length = _longer(data, field.body, field.end, child, length_of)
        if length == field.end - field.body:
            continue
        head = _head(field.number, length)
        pieces += [_Piece(data[done : field.start]), _Piece(head), *made]
        size += len(head) + length - (field.end - field.start)
        done = field.end
    return [*pieces, _Piece(data[done:end])], size


def _longer_tensor(
    data: memoryview, start: int, end: int, length_of: Callable[[int], int]
) -> tuple[list[_Piece], int]:
    fields = list(_fields(data, start, end))
    if not any(field.number == _EXTERNAL_DATA for field in fields):
        return [_Piece(data[start:end])], end - start
    tensor = onnx.TensorProto.FromString(data[start:end])
    offset = int(next(entry.value for entry in tensor.external_data if entry.key == "offset"))
    length = length_of(offset)
    before = b""
    after = b""
    for field in fields:  # in the order of their numbers, as protobuf writes them
        if field.number < _RAW_DATA:
            before += data[field.start : field.end]
        elif field.number not in (_EXTERNAL_DATA, _DATA_LOCATION):
            after += data[field.start : field.end]
    before += _head(_RAW_DATA, length)
    pieces = [_Piece(before), _Piece(b"", offset), _Piece(after)]
    return pieces, len(before) + length + len(after)


def _fields(data: memoryview, start: int, end: int) -> Iterator[_Field]:
    position = start
    while position < end:
        begin = position
        tag, position = _varint(data, position)
        kind = tag & 7
        body = position
        if kind == _BYTES:
            length, body = _varint(data, position)
            position = body + length
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind == _EIGHT_BYTES:
            position += 8
        elif kind == _FOUR_BYTES:
            position += 4
        else:
            raise _MalformedError
        if position > end:
            raise _MalformedError
        yield _Field(tag >> 3, kind, begin, body, position)


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits to the byte, the lowest first, and where it ends."""
    value = shift = 0
    try:
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
            if shift > 63:
                raise _MalformedError
    except IndexError:
        raise _MalformedError from None


def _head(number: int, length: int) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(length)


def _framed(number: int, contents: bytes) -> bytes:
    return _head(number, len(contents)) + contents


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    written.append(value)
    return bytes(written)
