"""Changes what a model takes and gives: the layout, the type and the range of a tensor.

What is fed is converted by operators at the border of the graph, as whoever calls the model would
have done outside:

    x  ->  Transpose  ->  Cast  ->  (x - center) * factor  ->  what the model took before
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph._onnx_ir import ir
from graphopt.graph.clone import clone
from graphopt.graph.image_axes import to_channels_first
from graphopt.graph.walk import all_graphs

_NARROW = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


@dataclass(frozen=True)
class Affine:
    """(x * scale - mean) / std, one number for each channel or one for all.

    Attributes:
        mean: float64, [channels] or [1].
        std: the same.
        scale: the same.
        axis: the axis of the channels in what the model takes.
    """

    mean: np.ndarray
    std: np.ndarray
    scale: np.ndarray
    axis: int

    @property
    def center(self) -> np.ndarray:
        """What is subtracted, if the numbers are multiplied by `factor` then."""
        return np.asarray(self.mean / self.scale)

    @property
    def factor(self) -> np.ndarray:
        """What the numbers without the center are multiplied by."""
        return np.asarray(self.scale / self.std)

    def shaped(self, numbers: np.ndarray, rank: int) -> np.ndarray:
        """The numbers as they broadcast along the channels of a tensor of this rank."""
        shape = [1] * rank
        shape[self.axis] = -1
        return numbers.reshape(shape)


@dataclass(frozen=True)
class InputConversion:
    """What is done to an input before the model reads it, in this order.

    Attributes:
        name: the input.
        order: the permutation of a Transpose; None to leave the axes as they are.
        dtype: the type of what is fed; None for the model's own.
        affine: what is done to the numbers; None for nothing.
    """

    name: str
    order: tuple[int, ...] | None = None
    dtype: ir.DataType | None = None
    affine: Affine | None = None


@dataclass(frozen=True)
class OutputConversion:
    """What is done to an output: a Transpose by the permutation `order`."""

    name: str
    order: tuple[int, ...]


def convert_border(
    model: ir.Model,
    inputs: Iterable[InputConversion] = (),
    outputs: Iterable[OutputConversion] = (),
) -> ir.Model:
    """A copy of a model that takes and gives its tensors in another form, under their names.

    Args:
        model: it is not changed.
        inputs: conversions of inputs without a default that are no outputs.
        outputs: conversions of outputs that a node makes.

    Raises:
        UsageError: the type or the shape of an input is not known.
    """
    made = clone(model)
    names = _Names(made)
    for conversion in outputs:
        _convert_output(made, conversion, names)
    for given in inputs:
        _convert_input(made, given, names)
    return made


class _Names:
    """Names of values that are not taken yet."""

    def __init__(self, model: ir.Model) -> None:
        self._taken = {
            value.name
            for graph in all_graphs(model)
            for node in graph
            for value in node.outputs
            if value.name
        }
        for graph in all_graphs(model):
            self._taken.update(value.name for value in graph.inputs if value.name)
            self._taken.update(graph.initializers)

    def new(self, wanted: str) -> str:
        """`wanted`, or with a number behind it."""
        name, number = wanted, 0
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        return name


def _convert_output(model: ir.Model, conversion: OutputConversion, names: _Names) -> None:
    graph = model.graph
    places = [at for at, value in enumerate(graph.outputs) if value.name == conversion.name]
    inner = graph.outputs[places[0]]
    order = conversion.order
    given = ir.Value(name=inner.name, type=copy(inner.type), doc_string=inner.doc_string)
    if inner.shape is not None:
        given.shape = _permuted(inner.shape, order)
    given.metadata_props.update(inner.metadata_props)
    inner.metadata_props.clear()
    inner.name = names.new(f"{inner.name}_made")
    for at in places:
        graph.outputs[at] = given
    turn = ir.AttrInt64s("perm", order)
    graph.append(ir.Node("", "Transpose", [inner], [turn], outputs=[given], name=inner.name))


def _convert_input(model: ir.Model, conversion: InputConversion, names: _Names) -> None:
    graph = model.graph
    place = next(at for at, value in enumerate(graph.inputs) if value.name == conversion.name)
    taken = graph.inputs[place]
    if not isinstance(taken.type, ir.TensorType) or taken.shape is None:
        raise UsageError(f"the type and shape of input '{conversion.name}' are not known")
    wanted, shape = taken.type.dtype, taken.shape
    fed_type = conversion.dtype or wanted
    back = sorted(range(len(shape)), key=(conversion.order or range(len(shape))).__getitem__)
    fed = ir.Value(
        name=taken.name,
        type=ir.TensorType(fed_type),
        shape=_permuted(shape, back),
        doc_string=taken.doc_string,
    )
    fed.metadata_props.update(taken.metadata_props)
    taken.name = None
    graph.inputs[place] = fed
    entry, uses = fed, _uses(taken)
    behind: ir.Node | None = None
    if conversion.order is not None:
        behind = _node("Transpose", [fed], {"perm": conversion.order}, fed_type, shape)
        entry = behind.outputs[0]
        behind.name = entry.name = names.new(f"{fed.name}_turned")
        _insert(graph, None, [behind])
    for reader, at in uses:
        reader.replace_input_with(at, entry)
    affine, turn = conversion.affine, _only_turn(entry, uses, graph)
    if turn is not None and (affine is None or affine.axis == len(shape) - 1):
        # Behind the model's own Transpose, where the numbers can become part of a convolution.
        behind, entry = turn, turn.outputs[0]
        entry.type, uses = ir.TensorType(fed_type), _uses(entry)
        affine = None if affine is None else replace(affine, axis=1)
    nodes = _numbers_changed(entry, wanted, affine, graph, names)
    if not nodes:
        return
    for reader, at in uses:
        reader.replace_input_with(at, nodes[-1].outputs[0])
    for node in nodes:
        node.name = node.outputs[0].name = names.new(f"{fed.name}_{node.op_type.lower()}")
    _insert(graph, behind, nodes)


def _numbers_changed(
    entry: ir.Value,
    wanted: ir.DataType,
    affine: Affine | None,
    graph: ir.Graph,
    names: _Names,
) -> list[ir.Node]:
    """Nodes that make of a tensor one of another type, with other numbers in it."""
    nodes: list[ir.Node] = []
    value = entry
    # In half precision the rounding of what is fed would show; it is computed as outside.
    computed = ir.DataType.FLOAT if affine is not None and wanted in _NARROW else wanted

    def add(
        op_type: str, more: Sequence[ir.Value], attributes: _Attributes, to: ir.DataType
    ) -> None:
        nonlocal value
        node = _node(op_type, [value, *more], attributes, to, entry.shape)
        nodes.append(node)
        value = node.outputs[0]

    if value.dtype != computed:
        add("Cast", [], {"to": int(computed)}, computed)
    if affine is not None and entry.shape is not None:
        for op_type, numbers, idle in (("Sub", affine.center, 0), ("Mul", affine.factor, 1)):
            if (numbers == idle).all():
                continue
            array = affine.shaped(numbers, len(entry.shape)).astype(computed.numpy())
            name = names.new(f"{entry.name}_{'center' if op_type == 'Sub' else 'factor'}")
            held = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            held.type, held.shape = ir.TensorType(computed), ir.Shape(array.shape)
            graph.initializers.add(held)
            add(op_type, [held], {}, computed)
    if value.dtype != wanted:
        add("Cast", [], {"to": int(wanted)}, wanted)
    return nodes


_Attributes = Mapping[str, int | Sequence[int]]


def _node(
    op_type: str,
    inputs: Sequence[ir.Value],
    attributes: _Attributes,
    dtype: ir.DataType,
    shape: ir.Shape | None,
) -> ir.Node:
    held = [ir.convenience.convert_attribute(name, value) for name, value in attributes.items()]
    node = ir.Node("", op_type, list(inputs), held)
    node.outputs[0].type = ir.TensorType(dtype)
    node.outputs[0].shape = None if shape is None else shape.copy()
    return node


def _insert(graph: ir.Graph, behind: ir.Node | None, nodes: Sequence[ir.Node]) -> None:
    """Put nodes behind one, or first of all."""
    if behind is not None:
        graph.insert_after(behind, nodes)
    elif len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _only_turn(
    value: ir.Value, uses: Sequence[tuple[ir.Node, int]], graph: ir.Graph
) -> ir.Node | None:
    """The Transpose of the graph to channels on axis 1 that alone reads a value, if one does."""
    node = uses[0][0] if len(uses) == 1 else None
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return None
    if node.graph is not graph:
        return None
    held = node.attributes.get("perm")
    if held is None or held.is_ref() or value.shape is None or node.outputs[0].is_graph_output():
        return None
    return node if tuple(held.as_ints()) == to_channels_first(len(value.shape)) else None


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    return [(usage.node, usage.idx) for usage in value.uses()]


def _permuted(shape: ir.Shape, order: Sequence[int]) -> ir.Shape:
    """The dims of a Transpose by `order`, with what they denote."""
    return ir.Shape([shape[axis] for axis in order], [shape.get_denotation(axis) for axis in order])
