"""Compares dims and shapes without mistaking two unknowns for one."""

from graphopt.graph import ir
from graphopt.shapes.dim_text import is_placeholder
from graphopt.shapes.inference import known_shape

AnyDim = int | ir.SymbolicDim


def same_dim(a: AnyDim, b: AnyDim) -> bool:
    """Whether two dims are certainly equal in every run; never for unknown dims.

    `infer_shapes` writes dims in a canonical text, so equal expressions are equal texts.
    """
    if isinstance(a, ir.SymbolicDim) and isinstance(b, ir.SymbolicDim):
        return a.value == b.value and not is_placeholder(a.value)
    if isinstance(a, ir.SymbolicDim) or isinstance(b, ir.SymbolicDim):
        return False
    return a == b


def same_shape(a: ir.Shape | None, b: ir.Shape | None) -> bool:
    """Whether two shapes are certainly equal in every run; never for an unknown rank."""
    if a is None or b is None or len(a) != len(b):
        return False
    return all(same_dim(left, right) for left, right in zip(a, b, strict=True))


def static_shape(value: ir.Value) -> tuple[int, ...] | None:
    """The shape as integers where it is the same in every run, else None."""
    shape = known_shape(value)
    if shape is None:
        return None
    sizes = tuple(dim for dim in shape if isinstance(dim, int))
    return sizes if len(sizes) == len(shape) else None
