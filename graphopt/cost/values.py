"""What the rules may know of a model's values: dtypes, shapes as numbers, small contents."""

from __future__ import annotations

from collections.abc import Sequence

from graphopt.cost.operator import Tensor, UnknownShapeError
from graphopt.cost.quantity import Number, Quantity, free, of_expression
from graphopt.graph import constant_array, constant_tensor, ir, nested_graphs, subgraphs
from graphopt.shapes import known_shape, symbolic_value
from graphopt.shapes.dim_text import DimNames, is_placeholder, parse
from graphopt.shapes.expression import symbol

_MAX_ELEMENTS = 8
"""Of float constants with more elements than this, no content matters to any rule."""


class Values:
    """Reads the values of a model on which `infer_shapes` has run.

    A number that nobody can know before the run (how often a loop turns) gets a name of its own
    from `unknown`. It is then free like any other.

    Args:
        graph: the main graph; its inputs name the free dims.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._names = DimNames()
        self._tensors: dict[ir.Value, Tensor] = {}
        self._unknown: dict[str, object] = {}
        self._settled = _settled_values(graph)
        for value in graph.inputs:
            for dim in value.shape or ():
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                    self._names.declare(dim.value)

    def unknown(self, text: str, owner: object) -> Quantity:
        """A free number that is `owner`'s alone, named `text` unless that is another's name."""
        while text in self._names or self._unknown.setdefault(text, owner) != owner:
            text += "'"
        return free(text)

    def sources(self, value: ir.Value) -> tuple[ir.Value, ...] | None:
        """The constants that a value is made of before any run; None if it is made in the run.

        A constant is its own source. What is computed of constants alone (the transpose of a
        weight, a weight that is dequantized) is settled when a runtime loads the model.
        """
        if value.is_initializer() or constant_tensor(value) is not None:
            return (value,)
        return self._settled.get(value)

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

        0 for what is made before the run, and for what is no tensor.
        """
        if self.sources(value) is not None:
            return 0
        try:
            return self.tensor(value).bytes
        except UnknownShapeError:
            return self.unknown(f"bytes({value.name})", value)

    def _read(self, value: ir.Value) -> Tensor:
        shape = known_shape(value)
        if shape is None and value.const_value is not None:
            shape = value.const_value.shape  # type: ignore[assignment]
        dims = None
        if shape is not None:
            dims = tuple(self._dim(value, axis, dim) for axis, dim in enumerate(shape))
        known = symbolic_value(value)
        elements: tuple[Number | None, ...] | None
        if known is None:
            elements = _whole_numbers(value)
        else:
            elements = tuple(self._number(entry) for entry in known.flat)
        return Tensor(value.name or "", value.dtype, dims, elements)

    def _dim(self, value: ir.Value, axis: int, dim: int | ir.SymbolicDim) -> Number:
        number = self._number(dim)
        if number is None:
            return self.unknown(f"{value.name}[{axis}]", (value, axis))
        return number

    def _number(self, dim: int | ir.SymbolicDim) -> Number | None:
        if not isinstance(dim, ir.SymbolicDim):
            return dim
        if dim.value is None or is_placeholder(dim.value):
            return None
        known = self._names.to_dim(dim)
        if known is None:
            try:
                known = parse(dim.value, symbol)
            except ValueError:
                # A name that inference gave, `boxes[0]`: any text may be one.
                return free(dim.value)
        return None if known is None else of_expression(known)


_DRAWN = frozenset(
    (
        "Bernoulli",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    )
)


def _settled_values(graph: ir.Graph) -> dict[ir.Value, tuple[ir.Value, ...]]:
    """What ONNX's operators compute of constants alone, and of which ones."""
    settled: dict[ir.Value, tuple[ir.Value, ...]] = {}
    for inner in nested_graphs(graph):
        for node in inner:
            inputs = [value for value in node.inputs if value is not None]
            if not inputs or node.op_type in _DRAWN or node.domain not in ("", "ai.onnx"):
                continue
            if subgraphs(node):
                continue
            sources: dict[ir.Value, None] = {}
            for value in inputs:
                if value.is_graph_input():
                    break
                if constant_tensor(value) is not None:
                    sources[value] = None
                elif value in settled:
                    sources.update(dict.fromkeys(settled[value]))
                else:
                    break
            else:
                settled.update(dict.fromkeys(node.outputs, tuple(sources)))
    return settled


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
