"""Arrays whose first axis is the sample, read piece by piece from where they are."""

import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from graphopt.errors import UsageError, reason_of

Read = Callable[[int], np.ndarray]
"""Gives the next so many samples."""


@dataclass(frozen=True)
class Samples:
    """An array of samples that need not be in memory.

    Attributes:
        shape: its shape, the number of samples first.
        reader: starts reading at the first sample.
        whole: reads all of it.
    """

    shape: tuple[int, ...]
    reader: Callable[[], Read]
    whole: Callable[[], np.ndarray]

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self.shape[0]


def array_samples(array: np.ndarray) -> Samples:
    """Samples of an array in memory, or mapped."""

    def reader() -> Read:
        position = 0

        def read(count: int) -> np.ndarray:
            nonlocal position
            start, position = position, position + count
            return array[start:position]

        return read

    return Samples(array.shape, reader, lambda: array)


def open_npy(path: Path) -> Samples:
    """Samples of an .npy file, mapped."""
    try:
        return array_samples(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {reason_of(error)}") from error


def open_npz(path: Path, stack: ExitStack) -> dict[str, Samples]:
    """Samples of each array of an .npz file, streamed out of the archive, compressed or not.

    Args:
        path: the file.
        stack: keeps the file open.
    """
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
        samples = {}
        for member in archive.namelist():
            if member.endswith(".npy"):
                samples[member.removesuffix(".npy")] = _open_member(archive, member, stack)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read: {reason_of(error)}") from error
    if not samples:
        raise UsageError(f"{path} holds no arrays")
    return samples


def _open_member(archive: zipfile.ZipFile, member: str, stack: ExitStack) -> Samples:
    with archive.open(member) as file:
        shape, fortran, dtype = _header(file)

    def whole() -> np.ndarray:
        with archive.open(member) as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))

    if fortran and len(shape) > 1:
        # Its samples are not in one piece; such an array is read whole.
        return Samples(shape, lambda: array_samples(whole()).reader(), whole)

    def reader() -> Read:
        file = stack.enter_context(archive.open(member))
        _header(file)
        size = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize

        def read(count: int) -> np.ndarray:
            data = file.read(count * size)
            if len(data) != count * size:
                raise UsageError(f"{archive.filename} is cut short in {member}")
            return np.frombuffer(data, dtype).reshape(count, *shape[1:])

        return read

    return Samples(shape, reader, whole)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"an array is of the unknown format version {version}")
    if dtype.hasobject:
        raise ValueError("an array holds Python objects: save strings as a numpy string array")
    return shape, fortran, dtype
