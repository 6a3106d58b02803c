"""Keeps large tensors in a file without a name, mapped, instead of in memory.

What is read of it can be given back at any time, as of a model file, and read again. The system
removes the file when nobody uses it any more, also after a crash.
"""

import mmap
import os
import sys
import threading
import weakref
from typing import Any, BinaryIO

from graphopt.graph._onnx_ir import ir
from graphopt.graph.external import DataFile, EmbeddedTensor, MappedTensor
from graphopt.graph.wire import OWN_FILE

_LARGE = 1 << 20
"""A smaller tensor stays where it is."""
_FILE_BYTES = 256 << 20
"""Room in one file, of which only what is written takes space."""


class _ScratchFile(DataFile):
    """A file with room for tensors, which are written once, one behind the other."""

    def __init__(self, size: int) -> None:
        import tempfile

        self._file = tempfile.TemporaryFile(prefix="graphopt-")  # noqa: SIM115 - closed below
        weakref.finalize(self, self._file.close)
        self._file.truncate(size)
        self._mapping = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ)
        self.size = size
        self.free = 0

    def _check(self, file: BinaryIO) -> None:
        """Nobody else can write into it."""

    def place(self, length: int) -> BinaryIO:
        """The file at a place that is free, on a page; it is taken."""
        assert self._file is not None  # noqa: S101 - never unpinned
        self._file.seek(self.free)
        self.free = -(-(self.free + length) // mmap.PAGESIZE) * mmap.PAGESIZE
        return self._file


_lock = threading.Lock()
_current: weakref.ref[_ScratchFile] | None = None


def _begin_anew() -> None:
    """After a fork: parent and child would write to the same free place of the same file."""
    global _lock, _current
    _lock, _current = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


_Tensor = ir.Tensor[Any] | EmbeddedTensor


def outside(tensor: _Tensor) -> _Tensor:
    """The tensor with its contents in a scratch file; itself where it is small or that fails."""
    if tensor.nbytes < _LARGE or not _is_possible(tensor):
        return tensor
    try:
        with _lock:
            return _copied(tensor)
    except OSError:  # no space, or no place to write to
        return tensor


def _is_possible(tensor: _Tensor) -> bool:
    return (
        sys.platform != "win32"  # a mapping need not show what is written to the file
        and sys.byteorder == "little"
        and tensor.dtype != ir.DataType.STRING
        and tensor.dtype.bitwidth >= 8
    )


def _copied(tensor: _Tensor) -> EmbeddedTensor:
    global _current
    scratch = None if _current is None else _current()
    if scratch is None or scratch.free + tensor.nbytes > scratch.size:
        scratch = _ScratchFile(max(_FILE_BYTES, tensor.nbytes))
        _current = weakref.ref(scratch)
    offset = scratch.free
    file = scratch.place(tensor.nbytes)
    tensor.tofile(file)
    file.flush()
    located = ir.ExternalTensor(
        OWN_FILE,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape([int(size) for size in tensor.shape.numpy()]),
        name=tensor.name or "",
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
    return EmbeddedTensor(MappedTensor(scratch, located))
