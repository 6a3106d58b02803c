"""The shapes of the graph inputs: what the model declares and what the user asks for."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from graphopt.errors import ShapeError
from graphopt.graph import ir
from graphopt.shapes.broadcasting import Dims
from graphopt.shapes.dim_text import DimNames, is_placeholder
from graphopt.shapes.expression import Dim

RequestedDim = int | str | None
_MAX_DIM = 2**63 - 1


@dataclass(slots=True)
class Interface:
    """The inputs after the user's wishes, nothing of it in the model yet.

    Attributes:
        names: the symbols of the inputs.
        declared: the new shape of each input that gets one.
        dims: what is known of each input's dims; None for an unknown rank.
        replaced: symbols of the model that the user replaced.
    """

    names: DimNames = field(default_factory=DimNames)
    declared: dict[ir.Value, list[int | ir.SymbolicDim]] = field(default_factory=dict)
    dims: dict[ir.Value, Dims | None] = field(default_factory=dict)
    replaced: dict[str, int | str] = field(default_factory=dict)


def read_interface(
    model: ir.Model,
    input_shapes: Mapping[str, Sequence[RequestedDim]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Interface:
    """Takes the declared input shapes and the requested ones together.

    Raises:
        ShapeError: an unknown input or symbol, another rank, a dim that contradicts the model.
    """
    interface = Interface()
    inputs = {value.name or "": value for value in model.graph.inputs}
    placed: dict[tuple[str, int], int | str] = {}
    for name, size in (dims or {}).items():
        _check_symbol(name, inputs.values())
        _replace(interface.replaced, name, _checked_size(size, f"dim '{name}'"), f"dim '{name}'")
    for name, shape in (input_shapes or {}).items():
        _request(interface, placed, inputs, name, shape)
    for value in model.graph.inputs:
        _declare(interface, placed, value)
    _name_the_nameless(interface)
    return interface


def _request(
    interface: Interface,
    placed: dict[tuple[str, int], int | str],
    inputs: Mapping[str, ir.Value],
    name: str,
    shape: Sequence[RequestedDim],
) -> None:
    value = inputs.get(name)
    if value is None:
        raise ShapeError(f"the model has no input '{name}'{suggestion(name, inputs)}")
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        raise ShapeError(f"input '{name}' is not a tensor: it cannot be given a shape")
    if value.shape is not None and len(value.shape) != len(shape):
        raise ShapeError(
            f"input '{name}' has {len(value.shape)} dims in the model,"
            f" the shape given has {len(shape)}"
        )
    for axis, wanted in enumerate(shape):
        where = f"axis {axis} of input '{name}'"
        declared = None if value.shape is None else value.shape[axis]
        if wanted is None:
            continue
        checked = wanted if isinstance(wanted, str) else _checked_size(wanted, where)
        if isinstance(declared, int) and declared >= 0:
            if declared != checked:
                raise ShapeError(
                    f"{where} is {declared} in the model, the shape given says {checked}"
                )
        elif not isinstance(declared, ir.SymbolicDim) or is_placeholder(declared.value):
            # -1 is how some exporters spell a dim that is not known.
            placed[name, axis] = checked
        else:
            _replace(interface.replaced, str(declared.value), checked, where)


def _checked_size(size: int, where: str) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _MAX_DIM:
        raise ShapeError(f"{where} must be an integer of at least 0, not {size!r}")
    return size


def _replace(replaced: dict[str, int | str], name: str, new: int | str, where: str) -> None:
    old = replaced.setdefault(name, new)
    if old != new:
        raise ShapeError(f"{where}: '{name}' is asked to be both {old} and {new}")


def _check_symbol(name: str, inputs: Iterable[ir.Value]) -> None:
    symbols = [
        str(dim.value)
        for value in inputs
        for dim in value.shape or ()
        if isinstance(dim, ir.SymbolicDim) and not is_placeholder(dim.value)
    ]
    if name not in symbols:
        raise ShapeError(f"no input of the model has a dim '{name}'{suggestion(name, symbols)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """`. Did you mean ...?`, or what there is, for the end of a message."""
    choices = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, choices, n=1)
    if close:
        return f". Did you mean '{close[0]}'?"
    return f"; it has {', '.join(repr(c) for c in choices[:10])}" if choices else ""


def _declare(
    interface: Interface, placed: Mapping[tuple[str, int], int | str], value: ir.Value
) -> None:
    name = value.name or ""
    if value.shape is None:
        axes = [axis for owner, axis in placed if owner == name]
        if not axes:
            interface.dims[value] = None
            return
        shape: list[int | ir.SymbolicDim] = [ir.SymbolicDim(None)] * (max(axes) + 1)
    else:
        shape = list(value.shape)
    result: list[int | ir.SymbolicDim] = []
    for axis, declared in enumerate(shape):
        new: int | str | None = placed.get((name, axis))
        if new is None and isinstance(declared, ir.SymbolicDim) and declared.value is not None:
            new = interface.replaced.get(declared.value)
        result.append(
            declared if new is None else ir.SymbolicDim(new) if isinstance(new, str) else new
        )
    if value.shape is None or list(value.shape) != result:
        interface.declared[value] = result
    dims: list[Dim] = []
    for dim in result:
        if isinstance(dim, ir.SymbolicDim):
            known = not is_placeholder(dim.value)
            dims.append(interface.names.declare(str(dim.value)) if known else None)
        else:
            dims.append(dim if dim >= 0 else None)
    interface.dims[value] = tuple(dims)


def _name_the_nameless(interface: Interface) -> None:
    """An input dim without a name is still the same dim wherever it goes: it gets a symbol."""
    for value, dims in interface.dims.items():
        if dims is None or None not in dims:
            continue
        stem = re.sub(r"[^A-Za-z0-9_]", "_", value.name or "input")
        stem = stem if stem[0].isalpha() else f"input_{stem}"
        named: list[Dim] = []
        for axis, dim in enumerate(dims):
            if dim is not None:
                named.append(dim)
                continue
            symbol = f"{stem}.dim{axis}"
            while symbol in interface.names:
                symbol += "_"
            named.append(interface.names.declare(symbol))
        interface.dims[value] = tuple(named)
