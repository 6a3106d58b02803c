"""What a description of a kernel class sees of an executed node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.graph import ir

Dims = tuple[int, ...]

BLOCK = 16
"""Channels in a block of ONNX Runtime's NCHWc layout, on a machine with 512-bit vectors."""

_CACHES = (1.0, 32.0)  # megabytes: a core's own, and a shared one
FAR_TERMS = len(_CACHES)
"""How many of a kernel's terms, the last ones, are bytes that a cache has lost."""

_LARGE = 4096  # bytes of a tensor whose way from memory counts


@dataclass(frozen=True, slots=True)
class Kernel:
    """What one executed node is to the model of its time.

    Attributes:
        kind: the kernel class.
        features: the shape of its work, in the order of its class.
        terms: counts that its time is first taken to be a sum of, with a rate for each: one
            start, its operations, its bytes, the loops that it runs.
        flops: floating-point (or integer) operations, 2 per MAC.
        bytes: bytes read and written, each tensor once.
        integer: whether its arithmetic is on 8-bit integers.
    """

    kind: str
    features: tuple[float, ...]
    terms: tuple[float, ...]
    flops: float
    bytes: float
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of an input or output: `cold` is what no kernel of this run has made."""

    dims: Dims
    itemsize: float
    constant: bool
    cold: bool
    dtype: ir.DataType | None

    @property
    def size(self) -> int:
        """Its elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        """Its bytes."""
        return self.size * self.itemsize


class Operation:
    """A node with what is known of its tensors."""

    def __init__(self, node: ir.Node, pressure: float) -> None:
        self.node = node
        self.op_type = node.op_type
        self.inputs = [tensor_of(value) for value in node.inputs]
        self.outputs = [tensor_of(value) for value in node.outputs]
        self.pressure = pressure

    def input(self, index: int) -> Tensor:
        """The input at a position, which has to have a shape."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is None:
            raise UnknownShapeError
        return tensor

    @property
    def output(self) -> Tensor:
        """The first output."""
        if self.outputs[0] is None:
            raise UnknownShapeError
        return self.outputs[0]

    @property
    def bytes(self) -> float:
        """Bytes of all inputs and outputs."""
        return sum(tensor.bytes for tensor in (*self.inputs, *self.outputs) if tensor is not None)

    def far(self) -> tuple[float, ...]:
        """What each cache has lost since the last run.

        A share of what a kernel needs to start (the nearest has lost that), and bytes of constants
        and graph inputs.
        """
        cold = sum(
            tensor.bytes
            for tensor in self.inputs
            if tensor is not None and tensor.cold and tensor.bytes > _LARGE
        )
        lost = [max(1 - cache / 2.0**self.pressure, 0.0) for cache in _CACHES]
        return (lost[0], *(cold * share for share in lost))

    def ints(self, name: str, default: Sequence[int]) -> Sequence[int]:
        """An attribute, or its default where it is missing or empty."""
        return self.node.attributes.get_ints(name) or default

    def int(self, name: str, default: int) -> int:
        """An attribute, or its default."""
        value = self.node.attributes.get_int(name, default)
        return default if value is None else value


class UnknownShapeError(Exception):
    """A tensor whose shape the class needs has none."""


def tensor_of(value: ir.Value | None) -> Tensor | None:
    """What is known of a value; None without a static shape."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    if len(dims) != len(value.shape):
        return None
    dtype = value.dtype
    itemsize = 4.0 if dtype is None or dtype == ir.DataType.STRING else dtype.bitwidth / 8
    constant = value.is_initializer() and not value.is_graph_input()
    return Tensor(dims, itemsize, constant, value.producer() is None, dtype)


def log2(size: float) -> float:
    """The logarithm of a size; that of 0 is very small."""
    return math.log2(max(size, 1e-9))


def flag(condition: object) -> float:
    """A truth as a feature."""
    return 1.0 if condition else 0.0
