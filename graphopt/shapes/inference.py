"""infer_shapes: gathers the facts, and writes them into the model when nothing is wrong."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from graphopt.graph import ir
from graphopt.graph.constants import constant_array
from graphopt.graph.walk import all_graphs, all_nodes, nested_graphs, subgraphs
from graphopt.shapes import arithmetic
from graphopt.shapes.broadcasting import Dims
from graphopt.shapes.demanded_ranks import demanded_ranks
from graphopt.shapes.dim_text import DimNames, safe_name
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import MAX_ELEMENTS, Fact, object_array, refine_dims
from graphopt.shapes.interface import Interface, RequestedDim, read_interface
from graphopt.shapes.walk import FactWalk

_VALUE_KEY = "graphopt.symbolic_value"
_SHAPE_KEY = "graphopt.known_shape"


def infer_shapes(
    model: ir.Model,
    *,
    input_shapes: Mapping[str, Sequence[RequestedDim]] | None = None,
    dims: Mapping[str, int] | None = None,
    name_unknown: bool = False,
) -> None:
    """Writes into the model what is certain of the dtype and shape of each value.

    Starts from the shapes of the graph inputs and the constants, and follows both shapes and
    the small integer tensors of shape arithmetic (see `symbolic_value`). Dims that depend on
    input dims come out as expressions in their names, in a canonical text: equal dims print
    equal. Where a node takes tensors of one rank only, what it reads has that rank. Of what the
    model says of an inner value only the rank is believed, and not even that if anything it
    says is shown wrong. The shapes of graph inputs and outputs stay as they are declared, except
    for what the user asks for here. On an error the model is unchanged.

    Args:
        model: changed in place.
        input_shapes: for an input's name one entry for each axis: a size, a symbol, or None
            to keep what is declared. Replacing a symbol replaces it everywhere.
        dims: sizes for symbols that the inputs declare.
        name_unknown: give each dim that cannot be derived a symbol, `boxes[0]` for axis 0 of
            `boxes`, and follow it; where two dims are broadcast that may differ, take the larger;
            and where there are operators of unknown domains, believe the shapes that the model
            states. For counting only: in a loop such a dim may differ from one iteration to the
            next, a dim of 0 is not stretched, and what is stated may be stale.

    Raises:
        ShapeError: a node's inputs contradict it, or the request contradicts the model; one
            line that names the node or the input.
    """
    interface = read_interface(model, input_shapes, dims)
    walk = FactWalk(model, interface.dims)
    walk.run()
    values = list(_inner_values(model))
    claimed = _claims(model, values, interface)
    ranks: dict[ir.Value, Dims] = {}
    if not any(_contradicts(claimed[v], walk.facts.get(v)) for v in claimed):
        # The sizes may be those of the one input that the exporter ran on (what a NonZero
        # found there, say), and no later check need meet another: only the rank is believed.
        ranks = {value: (None,) * len(dims) for value, dims in claimed.items()}
        if name_unknown and _has_foreign_nodes(model):
            # No inference reaches beyond an operator of an unknown domain.
            ranks = _claims(model, [*values, *model.graph.outputs], interface)
    for value, rank in demanded_ranks(model.graph, walk.facts).items():
        if value not in ranks or len(ranks[value]) != rank:
            ranks[value] = (None,) * rank
    if name_unknown and any(_is_open(fact) for fact in walk.facts.values()):
        walk = FactWalk(model, interface.dims, ranks, _Namer(interface.names))
        walk.run()
    elif any(_adds_rank(value, walk.facts) for value in ranks):
        walk = FactWalk(model, interface.dims, ranks)
        walk.run()
    _write(model, values, walk.facts, interface, ranks)


class _Namer:
    """Symbols for dims that cannot be derived, each its own, whatever names values have."""

    def __init__(self, names: DimNames) -> None:
        self._names = names
        self._given: dict[tuple[ir.Value, int], Expression] = {}

    def __call__(self, value: ir.Value, axis: int) -> Expression:
        found = self._given.get((value, axis))
        if found is None:
            text = f"{value.name}[{axis}]"
            # Graphs that stand beside each other may use one name for different values.
            while text in self._names:
                text += "'"
            found = self._given[value, axis] = self._names.declare(text)
        return found


def _inner_values(model: ir.Model) -> Iterator[ir.Value]:
    """Every value that belongs to no interface: no input or output of the main graph."""
    for graph in all_graphs(model):
        if graph is not model.graph:
            yield from graph.inputs
        for node in graph:
            for value in node.outputs:
                if graph is not model.graph or not value.is_graph_output():
                    yield value


def _graphs_in_loops(model: ir.Model) -> set[ir.Graph | ir.Function | None]:
    """The graphs that run once for each iteration: they are declared as the first one was."""
    return {
        graph
        for node in all_nodes(model)
        if node.op_type in ("Loop", "Scan")
        for body in subgraphs(node)
        for graph in nested_graphs(body)
    }


def _claims(
    model: ir.Model, values: Sequence[ir.Value], interface: Interface
) -> dict[ir.Value, Dims]:
    """The shapes that the model states of inner values, in symbols of the inputs."""
    claims: dict[ir.Value, Dims] = {}
    looped = _graphs_in_loops(model)
    old_names = DimNames()
    sizes: dict[str, Dim] = {}
    for name, new in interface.replaced.items():
        old_names.declare(name)
        sizes[safe_name(name)] = new if isinstance(new, int) else interface.names.declare(new)
    for value in values:
        producer = value.producer()
        if value.shape is None or producer is None or producer.graph in looped:
            continue
        dims: list[Dim] = []
        for dim in value.shape:
            known = interface.names.to_dim(dim)
            if known is None and sizes:
                known = arithmetic.substitute(old_names.to_dim(dim), sizes)
            dims.append(known if not isinstance(known, int) or known >= 0 else None)
        claims[value] = tuple(dims)
    return claims


def _contradicts(claimed: Dims, fact: Fact | None) -> bool:
    """Whether a claim is wrong for some sizes of the inputs."""
    if fact is None or fact.dims is None:
        return False
    if len(claimed) != len(fact.dims):
        return True
    return any(
        isinstance(claim, int) and dim is not None and claim != dim
        for claim, dim in zip(claimed, fact.dims, strict=True)
    )


def _adds_rank(value: ir.Value, facts: Mapping[ir.Value, Fact]) -> bool:
    fact = facts.get(value)
    return fact is None or fact.dims is None


def _is_open(fact: Fact) -> bool:
    return fact.dims is None or None in fact.dims


def _has_foreign_nodes(model: ir.Model) -> bool:
    return any(node.domain not in ("", "ai.onnx", "ai.onnx.ml") for node in all_nodes(model))


# Writing -----------------------------------------------------------------------------------


def _write(
    model: ir.Model,
    values: Sequence[ir.Value],
    facts: Mapping[ir.Value, Fact],
    interface: Interface,
    claimed: Mapping[ir.Value, Dims],
) -> None:
    names = interface.names
    for value, shape in interface.declared.items():
        value.shape = ir.Shape(shape)
    for value in values:
        fact = facts.get(value)
        derived = refine_dims(None if fact is None else fact.dims, claimed.get(value))
        if fact is not None:
            _set_type(value, fact)
        _set_shape(value, derived, names)
        _set_symbolic_value(value, fact, names)
    for value in dict.fromkeys(model.graph.outputs):
        fact = facts.get(value)
        if fact is None or value.is_graph_input() or value.is_initializer():
            continue
        _set_type(value, fact)
        _set_symbolic_value(value, fact, names)
        _replace_symbols(value, fact, interface)
        _set_known_shape(value, fact, names)


def _ir_dims(dims: Dims, names: DimNames) -> list[int | ir.SymbolicDim]:
    return [names.to_ir(dim) for dim in dims]


def _set_shape(value: ir.Value, dims: Dims | None, names: DimNames) -> None:
    # ONNX has no place for the shape of a value of unknown type.
    if dims is None or value.type is None:
        value.shape = None
        return
    new = _ir_dims(dims, names)
    if value.shape is None or list(value.shape) != new:
        value.shape = ir.Shape(new)


def _set_type(value: ir.Value, fact: Fact) -> None:
    if fact.dtype is not None:
        if value.dtype != fact.dtype and (value.type is None or not value.is_graph_output()):
            value.type = ir.TensorType(fact.dtype)
    elif fact.other is not None and value.type is None:
        value.type = ir.serde.deserialize_type_proto_for_type(fact.other)


def _set_symbolic_value(value: ir.Value, fact: Fact | None, names: DimNames) -> None:
    known = None
    if fact is not None and fact.elements is not None and is_countable(fact.dtype):
        known = fact.elements if fact.elements.ndim <= 1 else None
    if known is None:
        if _VALUE_KEY in value.meta:
            del value.meta[_VALUE_KEY]
        return
    entries = (names.to_ir(e if isinstance(e, int | Expression) else None) for e in known.flat)
    array = object_array(entries, known.shape)
    array.flags.writeable = False
    value.meta[_VALUE_KEY] = array


def _replace_symbols(value: ir.Value, fact: Fact, interface: Interface) -> None:
    """Where an output's declared dim speaks of a symbol that the user replaced."""
    if value.shape is None or not interface.replaced:
        return
    old_names = DimNames()
    for name in interface.replaced:
        old_names.declare(name)
    new: list[int | ir.SymbolicDim] = []
    for axis, dim in enumerate(value.shape):
        text = dim.value if isinstance(dim, ir.SymbolicDim) else None
        replacement = interface.replaced.get(text) if text is not None else None
        if replacement is None and (text is None or old_names.to_dim(dim) is None):
            new.append(dim)
            continue
        # What is derived goes first: outputs are often named without much care.
        derived = None
        if fact.dims is not None and len(fact.dims) == len(value.shape):
            derived = fact.dims[axis]
        if derived is not None:
            new.append(interface.names.to_ir(derived))
        elif isinstance(replacement, int):
            new.append(replacement)
        else:
            new.append(ir.SymbolicDim(replacement))
    if new != list(value.shape):
        value.shape = ir.Shape(new)


def _set_known_shape(value: ir.Value, fact: Fact, names: DimNames) -> None:
    known = None if fact.dims is None else ir.Shape(_ir_dims(fact.dims, names), frozen=True)
    value.meta[_SHAPE_KEY] = known


# Reading -----------------------------------------------------------------------------------


def is_countable(dtype: ir.DataType | None) -> bool:
    """Whether tensors of this type hold integers or booleans."""
    return dtype is not None and (dtype.is_integer() or dtype == ir.DataType.BOOL)


def symbolic_value(value: ir.Value) -> np.ndarray | None:
    """The numbers in a small integer (or boolean) tensor, as far as they are known.

    An object array of rank 0 or 1, at most 64 elements: an `int` is certain for every run, a
    `SymbolicDim` is that expression in the dims of the graph inputs, `SymbolicDim(None)` is
    unknown. None where nothing is known. `infer_shapes` finds them; a copy of the model keeps
    them. Constants need no inference.
    """
    known = value.meta.get(_VALUE_KEY)
    if isinstance(known, np.ndarray):
        return known
    if not is_countable(value.dtype):
        return None
    array = constant_array(value, MAX_ELEMENTS)
    if array is None or array.ndim > 1:
        return None
    entries = object_array((int(item) for item in array.reshape(-1)), array.shape)
    entries.flags.writeable = False
    return entries


def known_shape(value: ir.Value) -> ir.Shape | None:
    """The shape that is certain, also for a graph output.

    What a graph output declares is kept for its users, but nothing enforces it: for an output
    this is what `infer_shapes` derived, or the declared shape where it has not run.
    """
    if _SHAPE_KEY not in value.meta or not value.is_graph_output():
        return value.shape
    known: ir.Shape | None = value.meta[_SHAPE_KEY]
    return known
