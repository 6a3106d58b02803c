"""External data: checked against its folder when a model is loaded, mapped when it is used.

`ir.ExternalTensor` maps the whole file once per tensor (each holds a file descriptor, so a
model of a few thousand tensors runs out of them), and refuses a file that has a second hard
link, which deduplicated model stores make all the time. A hard link inside the folder names
a file that is in the folder: what counts is that the name cannot lead out of it.
"""

import errno
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from graphopt.errors import UnreadableModelError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.wire import OWN_FILE

_CHUNK = 1 << 24
# Data files held open from loading on. A process may have a thousand open, or 256.
_MAXIMUM_PINNED = 128
_MAXIMUM_PINNED_MODELS = 64  # of all models: each takes two descriptors, one for its mapping
_NO_KERNEL_COPY = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV}


class DataFile:
    """One data file, shared by all the tensors in it.

    A pinned file is opened once and mapped once. One that is not holds no file descriptor
    between uses: a mapping of it ends with the arrays that view it.

    Args:
        path: the file.
        what: words for it, in errors.
    """

    def __init__(self, path: Path, what: str = "external data file") -> None:
        self.path = path
        self._what = what
        status = path.stat()
        self.size = status.st_size
        self._identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        self._file: BinaryIO | None = None
        self._mapping: mmap.mmap | None = None

    def pin(self) -> None:
        """Hold the file open from now on, so that it may be replaced or removed meanwhile."""
        self._file = self._open()
        weakref.finalize(self, self._file.close)

    @property
    def is_pinned(self) -> bool:
        """Whether the file is held open."""
        return self._file is not None

    def __deepcopy__(self, memo: Any) -> "DataFile":
        return self

    def _open(self) -> BinaryIO:
        """The file; UnreadableModelError if it is not the one that was there at first."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise UnreadableModelError(
                f"{self._what} {self.path} cannot be read: {error.strerror}"
            ) from None
        try:
            self._check(file)
        except UnreadableModelError:
            file.close()
            raise
        return file

    def _check(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        found = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if found != self._identity:
            raise UnreadableModelError(
                f"{self._what} {self.path} changed after the model was loaded: load the model again"
            )

    def check(self) -> None:
        """Of a pinned file: whether nobody wrote into it, which its mapping would show.

        Raises:
            UnreadableModelError: somebody did.
        """
        if self._file is not None:
            self._check(self._file)

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self._file is not None:
            self._check(self._file)
            yield self._file
        else:
            with self._open() as file:
                yield file

    def mapping(self) -> mmap.mmap:
        """The whole file, mapped read-only."""
        if self._mapping is not None:
            self.check()
            return self._mapping
        with self._opened() as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.is_pinned:
            self._mapping = mapping
        return mapping

    def forget(self, offset: int, length: int) -> None:
        """Give the pages of a range back to the system; touching them reads them again."""
        if self._mapping is None or not hasattr(self._mapping, "madvise"):
            return
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (offset + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > start:
            self._mapping.madvise(mmap.MADV_DONTNEED, start, end - start)

    def copy(self, offset: int, length: int, target: BinaryIO) -> None:
        """Append a range to `target` without bringing it into this process where possible."""
        with self._opened() as source:
            self._copy(source, offset, length, target)

    def _copy(self, source: BinaryIO, offset: int, length: int, target: BinaryIO) -> None:
        done = 0
        if hasattr(os, "copy_file_range"):
            target.flush()
            place = target.tell()
            try:
                while done < length:
                    count = os.copy_file_range(
                        source.fileno(),
                        target.fileno(),
                        length - done,
                        offset_src=offset + done,
                        offset_dst=place + done,
                    )
                    if count == 0:
                        break
                    done += count
            except OSError as error:
                if error.errno not in _NO_KERNEL_COPY:
                    raise
            target.seek(place + done)
        while done < length:
            chunk = os.pread(source.fileno(), min(_CHUNK, length - done), offset + done)
            if not chunk:
                raise UnreadableModelError(f"{self._what} {self.path} is cut short")
            target.write(chunk)
            done += len(chunk)


class MissingTensor(ir.ExternalTensor):
    """An external tensor whose file is not there, and is not needed: a type and a shape."""

    def __init__(self, located: ir.ExternalTensor) -> None:
        super().__init__(
            located.location,
            located.offset,
            located.length,
            located.dtype,
            shape=located.shape,
            name=located.name,
        )

    def numpy(self) -> np.ndarray:
        """There is nothing to give.

        Raises:
            UnreadableModelError: always.
        """
        raise UnreadableModelError(
            f"the contents of '{self.name}' are needed, and {self.location} is not there"
        )

    def tobytes(self) -> bytes:
        """As `numpy`."""
        return self.numpy().tobytes()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.numpy()


class MappedTensor(ir.ExternalTensor):
    """An external tensor whose place was checked when the model was loaded.

    Its array is a view of the mapped file (a copy for types narrower than a byte).
    """

    def __init__(self, data: DataFile, located: ir.ExternalTensor) -> None:
        super().__init__(
            located.location,
            located.offset,
            located.length,
            located.dtype,
            shape=located.shape,
            name=located.name,
            doc_string=located.doc_string,
            metadata_props=dict(located.metadata_props),
            base_dir=located.base_dir,
        )
        self._data = data
        self._view: np.ndarray | None = None

    @property
    def file(self) -> DataFile:
        """The file that it is in."""
        return self._data

    def numpy(self) -> np.ndarray:
        """The data as a read-only array."""
        view = self._view  # another thread may release it meanwhile
        if view is None:
            view = self._read()
            if self._data.is_pinned:
                self._view = view
        else:
            self._data.check()
        return view

    def _read(self) -> np.ndarray:
        shape = self.shape.numpy()
        if self.size == 0:
            return np.empty(shape, self.dtype.numpy())
        if self.dtype.bitwidth < 8:
            packed = np.frombuffer(self.tobytes(), np.uint8)
            return ir.PackedTensor(packed, self.dtype, shape=self.shape).numpy()
        dtype = np.dtype(self.dtype.numpy()).newbyteorder("<")
        return np.frombuffer(
            self._data.mapping(), dtype, count=self.size, offset=self.offset or 0
        ).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def tobytes(self) -> bytes:
        """The data as a copy in memory."""
        if self.nbytes == 0:
            return b""
        start = self.offset or 0
        return self._data.mapping()[start : start + self.nbytes]

    def tofile(self, file: Any) -> None:
        """Append the data to a file; the system copies it, nothing is mapped."""
        try:
            file.fileno()
        except (AttributeError, OSError):
            file.write(self.tobytes())
            return
        self._data.copy(self.offset or 0, self.nbytes, file)

    def release(self) -> None:
        """Forget the array and give its memory back; the next use reads the file again."""
        self._view = None
        self._data.forget(self.offset or 0, self.nbytes)

    def __deepcopy__(self, memo: Any) -> "MappedTensor":
        return MappedTensor(self._data, self)

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickled(self)


class EmbeddedTensor(ir.LazyTensor):
    """A tensor whose contents are in the model file itself, and stay there until they are used.

    Not an external one to those who save the model. It lies at any byte of the file, so that its
    array need not be aligned.
    """

    def __init__(self, mapped: MappedTensor) -> None:
        super().__init__(
            lambda: mapped,
            mapped.dtype,
            mapped.shape,
            name=mapped.name,
            doc_string=mapped.doc_string,
            metadata_props=dict(mapped.metadata_props),
        )
        self._mapped = mapped

    @property
    def file(self) -> DataFile:
        """The file that it is in."""
        return self._mapped.file

    @property
    def is_aligned(self) -> bool:
        """Whether each element lies where the processor wants it."""
        return (self._mapped.offset or 0) % max(1, self.dtype.itemsize) == 0

    def release(self) -> None:
        """As of the mapped tensor."""
        self._mapped.release()

    def __deepcopy__(self, memo: Any) -> "EmbeddedTensor":
        copied = EmbeddedTensor(self._mapped)
        copied.name, copied.doc_string = self.name, self.doc_string
        copied.metadata_props.clear()
        copied.metadata_props.update(self.metadata_props)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return _pickled(self)


def _pickled(tensor: ir.TensorProtocol) -> tuple[Any, ...]:
    """How a tensor is pickled: with its contents, for the file may be elsewhere by then."""
    shape = tuple(tensor.shape.numpy())
    notes = (tensor.name, tensor.doc_string, dict(tensor.metadata_props))
    return _unpickled, (np.array(tensor.numpy()), int(tensor.dtype), shape, *notes)


def _unpickled(
    array: np.ndarray,
    dtype: int,
    shape: tuple[int, ...],
    name: str | None,
    doc_string: str | None,
    metadata: dict[str, str],
) -> ir.Tensor[np.ndarray]:
    return ir.Tensor(
        array,
        ir.DataType(dtype),
        shape=ir.Shape(shape),
        name=name,
        doc_string=doc_string,
        metadata_props=metadata,
    )


_pinned_models: weakref.WeakSet[DataFile] = weakref.WeakSet()


def mapped_model(path: Path) -> DataFile | None:
    """A model file, held open and mapped; None where too many are, or the system maps none.

    Raises:
        UnreadableModelError: it cannot be opened.
        OSError: it is not there.
    """
    if len(_pinned_models) >= _MAXIMUM_PINNED_MODELS:
        return None
    own = DataFile(path, "model file")
    own.pin()
    try:
        own.mapping()
    except OSError:
        return None
    _pinned_models.add(own)
    return own


class DataFolder:
    """The folder of a model: opens data files for tensors, and only those inside it.

    Args:
        folder: the folder.
        own: the model file, which holds the contents of tensors itself; None if it does not.
    """

    def __init__(self, folder: Path, own: DataFile | None = None) -> None:
        self._folder = folder
        self._own = own
        self._real = folder.resolve()
        self._files: dict[str, DataFile] = {}

    def tensor(self, located: ir.ExternalTensor) -> MappedTensor | EmbeddedTensor:
        """The tensor with its place checked.

        Raises:
            UnreadableModelError: the place is outside the folder, absent, or past the end.
        """
        what = f"external data of '{located.name}'"
        location = os.fspath(located.location)
        embedded = self._own is not None and location == OWN_FILE
        data = self._own if embedded and self._own is not None else self._file(location, what)
        offset = located.offset or 0
        if offset < 0 or (located.length or 0) < 0:
            raise UnreadableModelError(f"{what} has a negative offset or length")
        if located.length and located.length != located.nbytes:
            raise UnreadableModelError(
                f"{what} has {located.length} bytes, its type and shape need {located.nbytes}"
            )
        if offset + located.nbytes > data.size:
            raise UnreadableModelError(
                f"{what} ends at byte {offset + located.nbytes} of {data.path},"
                f" which has {data.size}"
            )
        located.base_dir = os.fspath(self._folder)
        mapped = MappedTensor(data, located)
        return EmbeddedTensor(mapped) if embedded else mapped

    def _file(self, location: str, what: str) -> DataFile:
        known = self._files.get(location)
        if known is not None:
            return known
        if not location or "\0" in location:
            raise UnreadableModelError(f"{what} names no file")
        parts = Path(location.replace("\\", "/")).parts
        if Path(location).is_absolute() or location[0] in "/\\" or location[1:2] == ":":
            raise UnreadableModelError(f"{what} is at the absolute path {location}: not allowed")
        if ".." in parts:
            raise UnreadableModelError(f"{what} is at {location}, outside the model's folder")
        path = self._folder / location
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise UnreadableModelError(f"{what} is missing: there is no file {path}") from None
        if not real.is_relative_to(self._real):
            raise UnreadableModelError(
                f"{what} is behind a link, {path}, that leads out of the model's folder:"
                " put the file itself there"
            )
        if not real.is_file():
            raise UnreadableModelError(f"{what} is at {path}, which is no regular file")
        data = DataFile(real)
        self._files[location] = data
        if len(self._files) <= _MAXIMUM_PINNED:
            data.pin()
        return data
