"""Compute ahead of a loop what is the same in each of its trips.

    Loop(n, c, v, body: s = f(w); v' = g(v, s))   ->   s = f(w); Loop(n, c, v, body: v' = g(v, s))

f reads nothing that the body computes or is given; w comes from around the loop, or is a constant
of the body, which moves along. So for Scan, and for loops within loops.

A loop may make no trip, and what stood in its body then ran never. So:

- Where the first trip is certain (Loop: n > 0 or left out, c true or left out; Scan: a size > 0 is
  scanned) whatever has no body of its own and draws no random numbers may move.
- Elsewhere only what cannot fail, on operands whose shapes are known to fit: arithmetic of floats
  (integers can be divided by zero), Cast between numbers, comparisons, MatMul, Transpose, Shape,
  Unsqueeze. At worst that costs once what it saves in each further trip.

Left in place is what the body returns as it is, and what reads a constant of the body where the
loop stands in a function, which holds no initializers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graphopt.plugin import (
    Journal,
    Pass,
    Promise,
    Rewriter,
    all_graphs,
    all_nodes,
    constant_array,
    ir,
    known_shape,
    nested_graphs,
    opset_version,
    same_dim,
    site_of,
    subgraphs,
    symbolic_value,
)
from graphopt_passes.operands import given, rank

_RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_UNARY = frozenset(
    {
        "Abs",
        "Ceil",
        "Clip",
        "Cos",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Sqrt",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)
_BINARY = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    }
)
_SCANS_WITHOUT_BATCH = 9
_MAY_TRAP = frozenset({"Div", "Pow"})


@dataclass(frozen=True)
class HoistLoopInvariants(Pass):
    """Compute ahead of a loop what is the same in each of its trips."""

    name = "hoist-loop-invariants"
    promise = Promise.EXACT
    acts_on = ("Loop", "Scan")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Inner loops first: what leaves them may leave those around them too."""
        loops = [node for node in all_nodes(model) if _is_loop(node)]
        if not loops:
            return
        hoisting = _Hoisting(model, journal)
        for loop in reversed(loops):
            hoisting.hoist(loop)


def _is_loop(node: ir.Node) -> bool:
    return node.op_type in ("Loop", "Scan") and node.domain in ("", "ai.onnx")


class _Hoisting:
    """The state of one run: which names are taken, and which graphs hold no initializers."""

    def __init__(self, model: ir.Model, journal: Journal) -> None:
        self._rewriter = Rewriter(model, journal)
        self._journal = journal
        self._functions = {
            graph
            for function in model.functions.values()
            for graph in nested_graphs(function.graph)
        }
        self._shadowed = {name for domain, name, _ in model.functions if domain in ("", "ai.onnx")}
        self._names = Counter(
            value.name
            for graph in all_graphs(model)
            for value in (*graph.inputs, *graph.initializers.values(), *_made(graph))
            if value.name
        )

    def hoist(self, loop: ir.Node) -> None:
        """Move what does not change out of one loop."""
        body = loop.attributes["body"].as_graph()
        around = loop.graph
        if around is None:
            return
        certain = _first_trip_is_certain(loop, opset_version(loop, self._rewriter.model))
        returned = set(body.outputs)
        changing = set(body.inputs)
        for node in tuple(body):
            reason = self._obstacle(node, changing, returned, around, certain=certain)
            if reason is None and self._journal.permits(site_of(node)):
                self._move(node, loop, around)
                continue
            changing.update(node.outputs)
            if reason:
                self._journal.decline(site_of(node), reason)

    def _obstacle(
        self,
        node: ir.Node,
        changing: set[ir.Value],
        returned: set[ir.Value],
        around: ir.Graph,
        *,
        certain: bool,
    ) -> str | None:
        """Why a node stays: a phrase, empty where that is no surprise; None if it moves."""
        read = [value for value in node.inputs if value is not None]
        if not read or any(value in changing for value in read):
            return ""
        if subgraphs(node) or node.op_type in _RANDOM or not self._is_standard(node):
            return ""
        if any(value in returned for value in node.outputs):
            return "the body returns it"
        if around in self._functions and any(_is_own(value, node) for value in read):
            return "a function holds no initializers"
        if any(_is_own(value, node) and value in returned for value in read):
            return "the body returns a constant that it reads"
        if any(_is_own(value, node) and value.const_value is None for value in read):
            return "an initializer of the body has no data"
        if not certain and not _cannot_fail(node):
            return f"the loop may make no trip, and {node.op_type} may fail or costs too much"
        return None

    def _is_standard(self, node: ir.Node) -> bool:
        """Whether a node is what its name says, and no function of the model."""
        return node.domain in ("", "ai.onnx") and node.op_type not in self._shadowed

    def _move(self, node: ir.Node, loop: ir.Node, around: ir.Graph) -> None:
        """Put a node ahead of the loop, with the constants of the body that it reads."""
        site, body = site_of(node), node.graph
        if body is None:
            return
        for value in node.inputs:
            if value is not None and _is_own(value, node):
                body.initializers.pop(value.name or "")
                self._make_unique(value)
                around.initializers.add(value)
        for value in node.outputs:
            self._make_unique(value)
        body.remove(node)
        around.insert_before(loop, node)
        self._journal.record(site, f"{node.op_type} ahead of {loop.op_type}")

    def _make_unique(self, value: ir.Value) -> None:
        """Bodies may share names, as long as neither stands in the other."""
        if value.name and self._names[value.name] > 1:
            self._names[value.name] -= 1
            value.name = self._rewriter.unique_name(value.name)
            self._names[value.name] += 1


def _made(graph: ir.Graph) -> list[ir.Value]:
    return [value for node in graph for value in node.outputs]


def _is_own(value: ir.Value, node: ir.Node) -> bool:
    """Whether a value is a constant of the graph that the node stands in."""
    return value.is_initializer() and value.graph is node.graph


def _first_trip_is_certain(loop: ir.Node, opset: int) -> bool:
    if loop.op_type == "Scan":
        if opset < _SCANS_WITHOUT_BATCH:
            return False
        count = loop.attributes.get_int("num_scan_inputs", 0)
        scanned = loop.inputs[len(loop.inputs) - count]
        shape = None if scanned is None else known_shape(scanned)
        axes = loop.attributes.get_ints("scan_input_axes", [0])
        size = None if not shape else shape[axes[0]]
        return isinstance(size, int) and size > 0
    return all(
        value is None or _is_positive(value) for value in (given(loop, index) for index in (0, 1))
    )


def _is_positive(value: ir.Value) -> bool:
    """Whether a number is known to be above zero, or a condition to be true."""
    array = constant_array(value, 1)
    if array is None:
        array = symbolic_value(value)
    if array is None or array.size != 1:
        return False
    number = array.item()
    return isinstance(number, bool | int) and number > 0


def _cannot_fail(node: ir.Node) -> bool:
    """Whether a node has a result whatever its operands hold."""
    operands = [value for value in node.inputs if value is not None]
    shapes = [known_shape(value) for value in operands]
    if node.op_type == "Cast":
        return all(value.dtype not in (None, ir.DataType.STRING) for value in operands) and (
            node.outputs[0].dtype != ir.DataType.STRING
        )
    if node.op_type == "Clip":
        return all(rank(bound) == 0 for bound in operands[1:])
    if node.op_type in _UNARY:
        # The axes of Unsqueeze may be none that there are.
        return all(constant_array(value) is not None for value in operands[1:])
    if any(shape is None for shape in shapes):
        return False
    known = [list(shape) for shape in shapes if shape is not None]
    if node.op_type == "MatMul":
        left, right = known
        if len(left) < 2 or len(right) < 2 or not same_dim(left[-1], right[-2]):
            return False
        return _broadcast(left[:-2], right[:-2])
    if node.op_type not in _BINARY:
        return False
    if node.op_type in _MAY_TRAP and not all(
        value.dtype is not None and value.dtype.is_floating_point() for value in operands
    ):
        return False
    return all(_broadcast(known[0], other) for other in known[1:]) and (
        len(known) < 3 or _broadcast(known[1], known[2])
    )


def _broadcast(left: list[int | ir.SymbolicDim], right: list[int | ir.SymbolicDim]) -> bool:
    """Whether two shapes are known to fit together."""
    return all(
        1 in (a, b) or same_dim(a, b) for a, b in zip(reversed(left), reversed(right), strict=False)
    )
