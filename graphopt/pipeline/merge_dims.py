"""Free dims of models that are merged: one where a tensor goes from one to another, else apart.

y[batch, 10] of A is x[N, 10] of B      ->  N is called batch in B
batch of A, batch of B, nothing bound   ->  batch of B is called batch_2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphopt.graph import ir
from graphopt.graph.merging import Binding, free_name
from graphopt.shapes import infer_shapes


def unite_dims(models: Sequence[ir.Model], bindings: Sequence[Binding]) -> None:
    """Give the dims of bound inputs those of what they are bound to; tell the others apart.

    A size that a later model fixes fixes the dim of the earlier one that it is bound to.
    """
    for position in range(len(models) - 1, 0, -1):
        for name, (index, source) in bindings[position].items():
            value, given = _named(models[position], name), _named(models[index], source)
            sizes = {
                symbol: size
                for symbol, size in zip(_symbols(given), _dims(value), strict=False)
                if symbol in _input_symbols(models[index]) and isinstance(size, int)
            }
            if sizes:
                infer_shapes(models[index], dims=sizes)
    taken: set[str] = set()
    for position, (model, binding) in enumerate(zip(models, bindings, strict=True)):
        renamed: dict[str, int | str] = {}
        for name, (index, source) in binding.items():
            dims = _dims(_named(models[index], source))
            for symbol, dim in zip(_symbols(_named(model, name)), dims, strict=False):
                if symbol is not None and (isinstance(dim, int) or dim in taken):
                    renamed.setdefault(symbol, dim)
        own = _input_symbols(model)
        for symbol in own:
            if symbol in taken and symbol not in renamed:
                renamed[symbol] = free_name(symbol, taken | own)
        if position:
            _rename(model, renamed)
            for value in model.graph.outputs:
                _forget_foreign(value, taken, _input_symbols(model))
        taken |= _input_symbols(model)
        for value in model.graph.outputs:
            taken |= {symbol for symbol in _symbols(value) if symbol is not None}


def _rename(model: ir.Model, renamed: Mapping[str, int | str]) -> None:
    shapes = {
        value.name or "": [
            renamed.get(symbol, symbol) if symbol is not None else None
            for symbol in _symbols(value)
        ]
        for value in model.graph.inputs
        if value.shape is not None and isinstance(value.type, ir.TensorType)
    }
    infer_shapes(model, input_shapes=shapes)


def _forget_foreign(value: ir.Value, taken: set[str], own: set[str]) -> None:
    """An output's dim that no input names is free, whatever another model calls so."""
    if value.shape is None:
        return
    value.shape = ir.Shape(
        [
            None if symbol in taken and symbol not in own else dim
            for symbol, dim in zip(_symbols(value), value.shape, strict=True)
        ]
    )


def _named(model: ir.Model, name: str) -> ir.Value:
    every = [*model.graph.inputs, *model.graph.outputs]
    return next(value for value in every if value.name == name)


def _dims(value: ir.Value) -> list[int | str | None]:
    dims = () if value.shape is None else value.shape
    return [dim if isinstance(dim, int) else dim.value for dim in dims]


def _symbols(value: ir.Value) -> list[str | None]:
    """For each axis the name of its free dim; None where it has a size or no name."""
    return [dim if isinstance(dim, str) else None for dim in _dims(value)]


def _input_symbols(model: ir.Model) -> set[str]:
    return {symbol for v in model.graph.inputs for symbol in _symbols(v) if symbol is not None}
