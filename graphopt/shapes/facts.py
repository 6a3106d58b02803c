"""What is known of one value: dtype, dims, and the numbers in it where it is small."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx

from graphopt.graph import ir
from graphopt.shapes.expression import Dim, Expression

# Element of a known tensor: an int, an Expression, a numpy scalar (floating-point tensors), or
# None for an element that is unknown.
Elements = np.ndarray  # dtype object, any rank
MAX_ELEMENTS = 64
# numpy's own limit is 32 in its version 1.
MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class Fact:
    """Certain knowledge about a value, for every run of the model.

    Attributes:
        dtype: the element type of a tensor; None if unknown, or not a tensor.
        dims: one dim for each axis; None if the rank is unknown.
        elements: the numbers of a small tensor, as an object array of its shape.
        other: the type of a value that is no tensor (sequence, optional, map, sparse).
    """

    dtype: ir.DataType | None = None
    dims: tuple[Dim, ...] | None = None
    elements: Elements | None = field(default=None, compare=False)
    other: onnx.TypeProto | None = None

    def without_elements(self) -> "Fact":
        """The same, the numbers forgotten."""
        return self if self.elements is None else Fact(self.dtype, self.dims, other=self.other)


NOTHING = Fact()


def object_array(items: Iterable[object], shape: tuple[int, ...]) -> Elements:
    """An object array of `shape`, filled in row-major order."""
    flat = list(items)
    array = np.empty(len(flat), dtype=object)
    for index, item in enumerate(flat):
        array[index] = item
    return array.reshape(shape)


def static_dims(dims: tuple[Dim, ...] | None) -> tuple[int, ...] | None:
    """The dims where all are plain integers."""
    if dims is None:
        return None
    static = tuple(dim for dim in dims if isinstance(dim, int))
    return static if len(static) == len(dims) else None


def refine_dims(
    first: tuple[Dim, ...] | None, second: tuple[Dim, ...] | None
) -> tuple[Dim, ...] | None:
    """Two claims about one shape, both true, taken together."""
    if first is None or second is None or len(first) != len(second):
        return second if first is None else first
    return tuple(map(refine_dim, first, second))


def refine_dim(first: Dim, second: Dim) -> Dim:
    """Two true claims about one dim: an integer says most, then the earlier one."""
    if isinstance(first, int) or second is None:
        return first
    return second if first is None or isinstance(second, int) else first


def join(first: Fact, second: Fact) -> Fact:
    """What holds of a value that is one or the other."""
    if first.dtype != second.dtype or first.other is not None or second.other is not None:
        same = first.other is not None and first.other == second.other
        return Fact(other=first.other) if same else NOTHING
    if first.dims is None or second.dims is None or len(first.dims) != len(second.dims):
        return Fact(first.dtype)
    dims = tuple(a if a == b else None for a, b in zip(first.dims, second.dims, strict=True))
    elements = None
    if (
        first.elements is not None
        and second.elements is not None
        and first.elements.shape == second.elements.shape
    ):
        pairs = zip(first.elements.flat, second.elements.flat, strict=True)
        elements = object_array(
            (a if same_element(a, b) else None for a, b in pairs), first.elements.shape
        )
    return Fact(first.dtype, dims, elements)


def same_element(a: object, b: object) -> bool:
    """Whether two known elements are certainly the same number."""
    if isinstance(a, int | Expression) and isinstance(b, int | Expression):
        return a == b
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return False


def plain_element(scalar: object) -> object:
    """A numpy scalar as an element: int for integers and bools, itself for floats."""
    if isinstance(scalar, np.bool_ | np.integer):
        return int(scalar)
    if isinstance(scalar, np.floating | ml_dtypes.bfloat16):
        return scalar
    return None
