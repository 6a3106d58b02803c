"""Which inputs and outputs of a model hold pictures, and why the others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.graph.image_axes import RANKS, Layout, layouts_of
from graphopt.shapes import known_shape
from graphopt.shapes.interface import suggestion

LAYOUTS = tuple(str(item) for item in Layout)


def read_layout(text: str) -> Layout:
    """The layout of that name.

    Raises:
        UsageError: there is none.
    """
    if text not in LAYOUTS:
        raise UsageError(f"there is no layout '{text}'; it is one of {', '.join(LAYOUTS)}")
    return Layout(text)


def inputs_to_look_at(model: ir.Model, names: Sequence[str]) -> list[ir.Value]:
    """The inputs without a default, and those that are named."""
    return [
        value for value in model.graph.inputs if not value.is_initializer() or value.name in names
    ]


def check_names(names: Sequence[str], values: Sequence[ir.Value], kind: str) -> None:
    """Refuse names that none of the values has; `kind` is what the values are, in words.

    Raises:
        UsageError: a name is unknown.
    """
    known = [value.name or "" for value in values]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no {kind} '{name}'{suggestion(name, known)}")


def layout_of(value: ir.Value) -> tuple[Layout | None, str]:
    """The layout of an input or output, and which operator tells; None, and why it is not known.

    What has no layout at all is to be asked of `obstacle_of` first.
    """
    found = layouts_of(value)
    told: Mapping[Layout, str] = {item: f"{item} at {where}" for item, where in found.items()}
    if len(found) == 1:
        ((item, reason),) = told.items()
        return item, reason
    return None, " but ".join(told.values()) or "no operator tells which axis holds channels"


def obstacle_of(value: ir.Value) -> str | None:
    """Why an input or output cannot be a picture, or not be changed; None where it can."""
    if not isinstance(value.type, ir.TensorType):
        return "it is not a tensor"
    shape = known_shape(value)
    if shape is None or value.shape is None or len(shape) != len(value.shape):
        return "its rank is not known"
    if len(shape) not in RANKS:
        return f"it has rank {len(shape)}"
    if value.is_graph_input() and value.is_graph_output():
        return "it is an input and an output"
    if value.is_graph_input() and value.is_initializer():
        return "it has a default"
    if not value.is_graph_input() and value.producer() is None:
        return "it is a constant"
    return None


def type_text(kind: ir.TypeProtocol | None, shape: ir.Shape | None) -> str:
    """The type and shape of an input or output for people: `FLOAT[batch,3,224,224]`."""
    if not isinstance(kind, ir.TensorType):
        return str(kind)
    if shape is None:
        return str(kind.dtype)
    dims = (dim.value if isinstance(dim, ir.SymbolicDim) else dim for dim in shape)
    return f"{kind.dtype}[{','.join('?' if dim is None else str(dim) for dim in dims)}]"
