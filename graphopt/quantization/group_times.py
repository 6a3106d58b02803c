"""Attributes the kernels of a run to groups: what each took, conversions at its border apart.

    kernels -> (group -> seconds, tensor between groups -> seconds of its conversions)

ONNX Runtime renames and fuses, but it keeps pieces of names. So a copy of the model runs in which
every node and every value within carries a mark, and a kernel belongs to the mark it bears. The
kernels that change layout or type between others bear none or that of a tensor.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphopt.graph import ir
from graphopt.quantization.groups import Group, name_of

if TYPE_CHECKING:
    from graphopt.runtime import Feed

_MARK = re.compile(r"<(\d+)>")
CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "ReorderInput", "ReorderOutput", "Transpose"}
)
"""Kernels that change the type or the layout of a tensor; a Transpose only if it is no node's."""


@dataclass(frozen=True)
class Kernel:
    """One executed node.

    Attributes:
        op_type: its operator.
        mark: the original node (its first output) that it stands for; "" if none.
        tensor: for a conversion, the tensor that it converts; "" if that is not known.
        seconds: what it took.
        elements: how many elements its first output has; 0 if unknown.
    """

    op_type: str
    mark: str
    tensor: str
    seconds: float
    elements: int = 0

    @property
    def converts(self) -> bool:
        """Whether it changes the type or the layout of a tensor, and computes nothing."""
        return self.op_type in CONVERSIONS and not self.mark


@dataclass(frozen=True)
class GroupTimes:
    """Where the time of one variant of a model goes.

    Attributes:
        seconds: group -> seconds of its own kernels.
        conversions: tensor -> seconds of what changes its type or layout.
        rates: kind of conversion -> seconds per element, over the whole run.
        total: seconds of all kernels.
    """

    seconds: Mapping[str, float]
    conversions: Mapping[str, float]
    rates: Mapping[str, float] = field(default_factory=dict)
    total: float = 0.0


def attribute(kernels: Iterable[Kernel], groups: Sequence[Group]) -> GroupTimes:
    """Sum up kernels by group, and conversions by tensor."""
    owner = {node: group.name for group in groups for node in group.nodes}
    seconds: dict[str, float] = defaultdict(float)
    conversions: dict[str, float] = defaultdict(float)
    spent: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    total = 0.0
    for kernel in kernels:
        total += kernel.seconds
        if not kernel.converts:
            if kernel.mark in owner:
                seconds[owner[kernel.mark]] += kernel.seconds
            continue
        if kernel.tensor:
            conversions[kernel.tensor] += kernel.seconds
        if kernel.elements:
            spent[kernel.op_type][0] += kernel.seconds
            spent[kernel.op_type][1] += kernel.elements
    rates = {kind: time / elements for kind, (time, elements) in sorted(spent.items())}
    return GroupTimes(dict(seconds), dict(conversions), rates, total)


def run_kernels(
    model: ir.Model, original: ir.Model, feed: Feed, *, threads: int = 1, seconds: float = 1.0
) -> tuple[Kernel, ...]:
    """Run a variant of a model under ONNX Runtime's profiler.

    Args:
        model: the variant: the original, or it with QuantizeLinear and DequantizeLinear.
        original: whose nodes and tensors the kernels are called by.
        feed: the inputs of every run.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        seconds: about how long to run.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load or run the model; one line says why.
    """
    from graphopt.runtime.profiling import profile_kernels

    marked, nodes, tensors = _marked(model, original)
    operators = {name_of(node): node.op_type for node in original.graph}
    taken, executed = profile_kernels(
        marked, feed, threads=threads, seconds=seconds, minimum_runs=5, maximum_runs=100
    )
    kernels = []
    for node in executed.graph:
        time = taken.get(node.name or "", 0.0)
        kernels.append(_kernel(node, time, nodes, tensors, operators))
    return tuple(kernels)


def _marked(model: ir.Model, original: ir.Model) -> tuple[ir.Model, dict[int, str], dict[int, str]]:
    """A copy whose nodes and inner values carry marks; mark -> node, mark -> tensor."""
    names = {name_of(node): node.op_type for node in original.graph}
    copy = model.clone()
    nodes: dict[int, str] = {}
    tensors: dict[int, str] = {}
    for index, node in enumerate(copy.graph):
        name = name_of(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and names.get(name) is None:
            tensors[index] = _converted(node)
        elif name in names:
            nodes[index] = name
        elif (source := _source(node)) in names:
            nodes[index] = source
        node.name = f"<{index}>"
    # All values are named after all names were read: a conversion is known by its neighbour's.
    for index, node in enumerate(copy.graph):
        for number, value in enumerate(node.outputs):
            if value.name and not value.is_graph_output():
                value.name = f"<{index}>{number}"
    return copy, nodes, tensors


def _source(node: ir.Node) -> str:
    """For the node before an inserted pair at a graph output: the name it had before."""
    for value in node.outputs:
        for use in value.uses():
            if use.node.op_type != "QuantizeLinear":
                continue
            for pair in use.node.outputs[0].uses():
                if pair.node.outputs[0].is_graph_output():
                    return pair.node.outputs[0].name or ""
    return ""


def _converted(node: ir.Node) -> str:
    """The float tensor that a QuantizeLinear or DequantizeLinear converts."""
    value = node.inputs[0]
    if node.op_type == "DequantizeLinear" and value is not None:
        producer = value.producer()
        if producer is not None and producer.op_type == "QuantizeLinear":
            value = producer.inputs[0]
    return "" if value is None else value.name or ""


def _kernel(
    node: ir.Node,
    seconds: float,
    nodes: Mapping[int, str],
    tensors: Mapping[int, str],
    operators: Mapping[str, str],
) -> Kernel:
    outputs = [value.name or "" for value in node.outputs]
    inputs = [value.name or "" for value in node.inputs if value is not None]
    marks = _marks([node.name or "", *outputs])
    mark = next((nodes[index] for index in marks if index in nodes), "")
    tensor = next((tensors[index] for index in marks if index in tensors), "")
    if node.op_type in CONVERSIONS and mark and operators[mark] != node.op_type:
        # A change of layout that took over the name of what it converts.
        mark, tensor = "", mark
    if not mark and not tensor and node.op_type in CONVERSIONS:
        # What ONNX Runtime put in itself is known by what it reads, or by what reads it.
        near = _marks(inputs) or _marks(
            [name for value in node.outputs for use in value.uses() for name in (use.node.name,)]
        )
        tensor = next((nodes.get(index) or tensors.get(index, "") for index in near), "")
    shape = node.outputs[0].shape if node.outputs else None
    elements = 0
    if shape is not None and all(isinstance(dim, int) for dim in shape):
        elements = int(_product(dim for dim in shape if isinstance(dim, int)))
    return Kernel(node.op_type, mark, tensor, seconds, elements)


def _marks(names: Iterable[str | None]) -> list[int]:
    return [int(found) for name in names for found in _MARK.findall(name or "")]


def _product(numbers: Iterable[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
