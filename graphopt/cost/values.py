"""What the rules may know of a model's values: dtypes, shapes as numbers, small contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from graphopt.cost.operator import Tensor, UnknownShapeError
from graphopt.cost.quantity import Number, free, of_expression
from graphopt.graph import constant_array, constant_tensor, ir
from graphopt.shapes import known_shape, symbolic_value
from graphopt.shapes.dim_text import DimNames, is_placeholder, parse
from graphopt.shapes.expression import symbol

_MAX_ELEMENTS = 8
"""Of float constants with more elements than this, no content matters to any rule."""


class Values:
    """Reads the values of a model on which `infer_shapes` has run.

    A dim that nobody can know before the run (how many boxes a NonMaxSuppression keeps) gets a
    name of its own, `boxes[0]`: the value's name and the axis. It is then free like any other.

    Args:
        graph: the main graph; its inputs name the free dims.
        stated: the shapes that the model states of inner values. They are believed only where
            nothing can be derived.
        sizes: the sizes given to free dims that `stated` still speaks of.
    """

    def __init__(
        self,
        graph: ir.Graph,
        stated: Mapping[ir.Value, ir.Shape] | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> None:
        self._names = DimNames()
        self._stated = stated or {}
        self._sizes = sizes or {}
        self._tensors: dict[ir.Value, Tensor] = {}
        for value in graph.inputs:
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    self._names.declare(dim.value)

    def tensor(self, value: ir.Value) -> Tensor:
        """What is known of a value."""
        found = self._tensors.get(value)
        if found is None:
            found = self._tensors[value] = self._read(value)
        return found

    def tensors(self, values: Sequence[ir.Value | None]) -> list[Tensor | None]:
        """The same for the inputs or outputs of a node; None for those left out."""
        return [
            self.tensor(value) if value is not None and value.name else None for value in values
        ]

    def bytes_of(self, value: ir.Value) -> Number:
        """The memory that a value takes when it is made; a free dim where that is unknown.

        0 for constants, which are made before the run, and for what is no tensor.
        """
        if constant_tensor(value) is not None:
            return 0
        try:
            return self.tensor(value).bytes
        except UnknownShapeError:
            return free(f"bytes({value.name})")

    def _read(self, value: ir.Value) -> Tensor:
        shape = known_shape(value)
        if shape is None and value.const_value is not None:
            shape = value.const_value.shape  # type: ignore[assignment]
        stated = self._stated.get(value)
        if shape is None:
            shape = stated
        dims = None
        if shape is not None:
            if stated is None or len(stated) != len(shape):
                stated = shape
            dims = tuple(
                self._dim(value, axis, *pair)
                for axis, pair in enumerate(zip(shape, stated, strict=True))
            )
        known = symbolic_value(value)
        elements: tuple[Number | None, ...] | None
        if known is None:
            elements = _whole_numbers(value)
        else:
            elements = tuple(self._number(entry) for entry in known.flat)
        return Tensor(value.name or "", value.dtype, dims, elements)

    def _dim(
        self,
        value: ir.Value,
        axis: int,
        derived: int | ir.SymbolicDim,
        stated: int | ir.SymbolicDim,
    ) -> Number:
        for dim in (derived, stated):
            number = self._number(dim)
            if number is not None:
                return number
        return free(f"{value.name}[{axis}]")

    def _number(self, dim: int | ir.SymbolicDim) -> Number | None:
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None and dim.value in self._sizes:
            return self._sizes[dim.value]
        known = self._names.to_dim(dim)
        if known is None and isinstance(dim, ir.SymbolicDim) and not is_placeholder(dim.value):
            # Inference gives a name of its own to a dim of an input that has none.
            with suppress(ValueError):
                known = parse(str(dim.value), symbol)
        return None if known is None else of_expression(known)


def _whole_numbers(value: ir.Value) -> tuple[int | None, ...] | None:
    """The numbers in a small float constant, None for those that are not whole.

    That `x ** 2.0` is one multiplication hangs on it.
    """
    if value.dtype is None or not value.dtype.is_floating_point():
        return None
    array = constant_array(value, _MAX_ELEMENTS)
    if array is None or array.ndim > 1:
        return None
    numbers = (float(item) for item in array.flat)
    return tuple(int(number) if number.is_integer() else None for number in numbers)
