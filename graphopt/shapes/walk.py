"""One walk over a model in topological order that gathers what is certain of every value.

Only what every run must obey is believed: the shapes of the graph inputs and the constants.
What the model says of other values is not: exporters leave shapes of the traced batch behind,
and users name output dims as they please.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx

from graphopt.errors import ShapeError
from graphopt.graph import ir
from graphopt.graph.constants import constant_tensor
from graphopt.graph.walk import imported_version, subgraphs
from graphopt.shapes.broadcasting import Dims
from graphopt.shapes.expression import Dim
from graphopt.shapes.facts import NOTHING, Fact, join, refine_dims
from graphopt.shapes.node_view import NodeView, normalized_axis
from graphopt.shapes.onnx_inference import NodeInferenceError, constant_fact, inferred_outputs
from graphopt.shapes.shape_rules import quick_outputs, refined_dims
from graphopt.shapes.value_rules import known_outputs

Namer = Callable[[ir.Value, int], Dim]
"""Gives a symbol to the dim of a value at an axis; None where it may not."""

_ONNX_DOMAINS = ("", "ai.onnx")
# What is assumed invariant of a loop is checked by walking its body again,
# which multiplies with depth.
_MAX_LOOP_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a node stands.

    Attributes:
        opsets: the imports in force.
        certain: the node runs in every run, so what contradicts there is an error.
        attributes: what the attribute references of a function body stand for.
        loops: how many loop bodies are around it.
    """

    opsets: dict[str, int]
    certain: bool = False
    attributes: Mapping[str, ir.Attr] = field(default_factory=dict)
    loops: int = 0


class FactWalk:
    """Gathers facts. `facts` has one for each value that the walk met."""

    def __init__(
        self,
        model: ir.Model,
        inputs: Mapping[ir.Value, Dims | None],
        hints: Mapping[ir.Value, Dims] | None = None,
        namer: Namer | None = None,
    ) -> None:
        """Prepares a walk.

        Args:
            model: the model.
            inputs: dims of graph inputs.
            hints: dims to believe where nothing is derived.
            namer: gives a symbol to each dim that cannot be derived; None leaves it unknown.
        """
        self.facts: dict[ir.Value, Fact] = {}
        self._model = model
        self._inputs = inputs
        self._hints = hints
        self._namer = namer
        self._joined: dict[ir.Value, Fact] = {}
        self._calls: dict[object, list[Fact]] = {}
        self._functions = dict(model.functions)
        # Functions that call functions may expand without end.
        self._budget = 100_000 + 20 * sum(len(function) for function in self._functions.values())

    def run(self) -> None:
        """Walks the model.

        Raises:
            ShapeError: a node that every run must execute contradicts its inputs.
        """
        graph = self._model.graph
        for value in graph.inputs:
            declared = declared_fact(value)
            self.facts[value] = Fact(declared.dtype, self._inputs.get(value), other=declared.other)
        scope = Scope(self._model.opset_imports, certain=self._hints is None)
        self._walk(graph, scope)
        self.facts.update(self._joined)

    # Values --------------------------------------------------------------------------------

    def _fact(self, value: ir.Value) -> Fact:
        fact = self.facts.get(value)
        if fact is None:
            tensor = constant_tensor(value)
            fact = NOTHING if tensor is None else constant_fact(tensor)
            self.facts[value] = fact
        return fact

    def _record(self, node: ir.Node, outputs: Sequence[Fact]) -> None:
        for index, value in enumerate(node.outputs):
            fact = outputs[index] if index < len(outputs) else NOTHING
            if fact.dtype is None and fact.other is None:
                # The element type is checked by every runtime, unlike the shape.
                declared = declared_fact(value)
                fact = Fact(declared.dtype, fact.dims, fact.elements, declared.other)
            if self._hints is not None and value in self._hints:
                fact = Fact(
                    fact.dtype,
                    refine_dims(fact.dims, self._hints[value]),
                    fact.elements,
                    fact.other,
                )
            self.facts[value] = self._named(value, fact)

    def _named(self, value: ir.Value, fact: Fact) -> Fact:
        """The fact with a symbol for each dim that is not known, where these are asked for."""
        if self._namer is None or fact.dims is None or None not in fact.dims:
            return fact
        dims = tuple(
            self._namer(value, axis) if dim is None else dim for axis, dim in enumerate(fact.dims)
        )
        return Fact(fact.dtype, dims, fact.elements, fact.other)

    # Nodes ---------------------------------------------------------------------------------

    def _walk(self, graph: ir.Graph, scope: Scope) -> None:
        for node in graph:
            self._record(node, self._outputs(node, scope))

    def _outputs(self, node: ir.Node, scope: Scope) -> Sequence[Fact]:
        function = self._functions.get(node.op_identifier())
        if function is not None:
            return self._call(node, function, scope)
        if node.domain in _ONNX_DOMAINS:
            match node.op_type:
                case "Constant":
                    tensor = constant_tensor(node.outputs[0])
                    return [NOTHING if tensor is None else constant_fact(tensor)]
                case "If":
                    return self._if(node, scope)
                case "Loop":
                    return self._loop(node, scope)
                case "Scan":
                    return self._scan(node, scope)
        for graph in subgraphs(node):
            self._enter(graph, [], _inner(scope, loop=True))
        return self._operator(node, self._view(node, scope), scope)

    def _view(self, node: ir.Node, scope: Scope) -> NodeView:
        attributes: Mapping[str, ir.Attr] = node.attributes
        unresolved = False
        if any(attribute.is_ref() for attribute in attributes.values()):
            attributes, unresolved = resolved_attributes(node, scope.attributes)
        return NodeView(
            node.op_type,
            imported_version(scope.opsets, node.domain),
            attributes,
            [None if value is None else self._fact(value) for value in node.inputs],
            [value.name != "" for value in node.outputs],
            unresolved,
            nonempty=self._namer is not None,
        )

    def _operator(self, node: ir.Node, view: NodeView, scope: Scope) -> Sequence[Fact]:
        standard = node.domain in _ONNX_DOMAINS
        if standard and view.op_type == "Squeeze" and view.axes(1) in ((), []):
            # No axes: to ONNX's inference none is squeezed, to ONNX Runtime every one of size 1.
            data = view.fact(0)
            return [NOTHING if data is None else Fact(data.dtype)]
        if standard and view.op_type == "STFT" and "onesided" not in view.attributes:
            # ONNX's inference takes 0 for its default, against the specification.
            onesided = ir.AttrInt64("onesided", 1)
            view = replace(view, attributes={**view.attributes, "onesided": onesided})
        outputs = quick_outputs(view) if standard else None
        if outputs is None:
            try:
                outputs = self._infer(node, view, scope)
            except NodeInferenceError as error:
                if scope.certain and _is_needed(node):
                    raise ShapeError(f"{described(node)}: {error}") from error
                return [NOTHING] * len(node.outputs)
        if not standard:
            return outputs
        dims = refined_dims(view, [fact.dims for fact in outputs])
        elements = known_outputs(view, [fact.dtype for fact in outputs])
        return [
            fact if shape is fact.dims and known is None
            else Fact(fact.dtype, shape if known is None else known.shape, known, fact.other)
            for fact, shape, known in zip(outputs, dims, elements, strict=True)
        ]  # fmt: skip

    def _infer(self, node: ir.Node, view: NodeView, scope: Scope) -> list[Fact]:
        domain = "" if node.domain in _ONNX_DOMAINS else node.domain
        try:
            return inferred_outputs(domain, view, scope.opsets)
        except NodeInferenceError:
            # Some checks of numbers are stricter than any kernel (a Range from a tensor of
            # shape [1]). Runtimes make them for constants only, so do we.
            inputs = [
                fact
                if fact is None or constant_tensor(value) is not None
                else fact.without_elements()
                for fact, value in zip(view.inputs, node.inputs, strict=True)
            ]
            return inferred_outputs(domain, replace(view, inputs=inputs), scope.opsets)

    # Subgraphs -----------------------------------------------------------------------------

    def _enter(self, graph: ir.Graph, inputs: Sequence[Fact], scope: Scope) -> list[Fact]:
        """Walks a graph with these inputs (unknown where missing); the facts of its outputs."""
        for index, value in enumerate(graph.inputs):
            given = inputs[index] if index < len(inputs) else NOTHING
            if given.dtype is None and given.other is None:
                declared = declared_fact(value)
                given = Fact(declared.dtype, given.dims, given.elements, declared.other)
            self.facts[value] = self._named(value, given)
        self._walk(graph, scope)
        return [self._fact(value) for value in graph.outputs]

    def _if(self, node: ir.Node, scope: Scope) -> Sequence[Fact]:
        view = self._view(node, scope)
        branches = []
        for name in ("then_branch", "else_branch"):
            attribute = view.attributes.get(name)
            if attribute is None or attribute.type != ir.AttributeType.GRAPH:
                return [NOTHING] * len(node.outputs)
            branches.append(self._enter(attribute.as_graph(), [], _inner(scope)))
        taken = view.integers(0)
        if taken is not None and len(taken) == 1:
            return branches[0] if taken[0] else branches[1]
        return [join(a, b) for a, b in zip(*branches, strict=False)]

    def _loop(self, node: ir.Node, scope: Scope) -> Sequence[Fact]:
        view = self._view(node, scope)
        attribute = view.attributes.get("body")
        if attribute is None or attribute.type != ir.AttributeType.GRAPH:
            return [NOTHING] * len(node.outputs)
        body = attribute.as_graph()
        fixed = [Fact(ir.DataType.INT64, ()), Fact(ir.DataType.BOOL, ())]
        initial = [fact or NOTHING for fact in view.inputs[2:]]
        state, outputs = self._invariant(body, initial, fixed, [], 1, scope)
        # How often the body runs is not known, nor whether it runs at all.
        scans = [
            Fact(fact.dtype, None if fact.dims is None else (None, *fact.dims))
            for fact in outputs[1 + len(state) :]
        ]
        return [*state, *scans]

    def _scan(self, node: ir.Node, scope: Scope) -> Sequence[Fact]:
        view = self._view(node, scope)
        attribute = view.attributes.get("body")
        if attribute is None or attribute.type != ir.AttributeType.GRAPH:
            return [NOTHING] * len(node.outputs)
        body = attribute.as_graph()
        count = view.int_attribute("num_scan_inputs", 0)
        if view.version < 9 or not 0 < count <= len(view.inputs):
            self._enter(body, [], _inner(scope, loop=True))
            return [NOTHING] * len(node.outputs)
        split = len(view.inputs) - count
        initial = [fact or NOTHING for fact in view.inputs[:split]]
        axes = view.ints_attribute("scan_input_axes") or [0] * count
        length: Dim = None
        slices = []
        for fact, axis in zip(view.inputs[split:], axes, strict=False):
            fact = fact or NOTHING
            dims = fact.dims
            place = None if dims is None else normalized_axis(axis, len(dims))
            if dims is None or place is None:
                slices.append(Fact(fact.dtype))
                continue
            length = dims[place] if length is None else length
            slices.append(Fact(fact.dtype, (*dims[:place], *dims[place + 1 :])))
        state, outputs = self._invariant(body, initial, [], slices, 0, scope)
        results = list(state)
        out_axes = view.ints_attribute("scan_output_axes")
        for index, fact in enumerate(outputs[len(state) :]):
            axis = out_axes[index] if out_axes is not None and index < len(out_axes) else 0
            dims = fact.dims
            place = None if dims is None else normalized_axis(axis, len(dims) + 1)
            if dims is None or place is None:
                results.append(Fact(fact.dtype))
            else:
                results.append(Fact(fact.dtype, (*dims[:place], length, *dims[place:])))
        return results

    def _invariant(
        self,
        body: ir.Graph,
        initial: Sequence[Fact],
        before: Sequence[Fact],
        after: Sequence[Fact],
        skipped: int,
        scope: Scope,
    ) -> tuple[list[Fact], list[Fact]]:
        """What of the loop-carried values holds in every iteration, and the body's outputs.

        A shape is assumed to stay, the body is walked, and what did not stay is given up,
        until everything that is still assumed is confirmed (a proof by induction).
        """
        state = [fact.without_elements() for fact in initial]
        if scope.loops >= _MAX_LOOP_DEPTH:
            state = [Fact(fact.dtype, other=fact.other) for fact in state]
        inner = _inner(scope, loop=True)
        for attempt in range(4):
            outputs = self._enter(body, [*before, *state, *after], inner)
            results = outputs[skipped : skipped + len(state)]
            widened = [join(old, new) for old, new in zip(state, results, strict=False)]
            widened = [fact.without_elements() for fact in widened]
            widened += [NOTHING] * (len(state) - len(widened))
            if widened == state:
                break
            state = widened if attempt < 2 else [NOTHING] * len(state)
        return state, outputs

    # Functions -----------------------------------------------------------------------------

    def _call(self, node: ir.Node, function: ir.Function, scope: Scope) -> Sequence[Fact]:
        attributes = dict(function.attributes)
        given, unresolved = resolved_attributes(node, scope.attributes)
        attributes.update(given)
        bound = {name: a for name, a in attributes.items() if a.value is not None}
        inputs = [NOTHING if value is None else self._fact(value) for value in node.inputs]
        key = None if unresolved else _call_key(function, inputs, bound)
        if key is not None and key in self._calls:
            return self._calls[key]
        self._budget -= len(function)
        if self._budget < 0:
            # Too much to follow: then nothing may be claimed of this body at all.
            for value in _values(function.graph):
                self._joined[value] = NOTHING
            return [NOTHING] * len(node.outputs)
        inner = Scope(function.opset_imports, attributes=bound, loops=scope.loops)
        outputs = self._enter(function.graph, inputs, inner)
        for value in _values(function.graph):
            fact = self.facts.get(value, NOTHING)
            earlier = self._joined.get(value)
            self._joined[value] = fact if earlier is None else join(earlier, fact)
        if key is not None:
            self._calls[key] = outputs
        return outputs


def _inner(scope: Scope, loop: bool = False) -> Scope:
    """A subgraph may not run at all: nothing in it is certain to be reached."""
    return Scope(scope.opsets, False, scope.attributes, scope.loops + loop)


def _values(graph: ir.Graph) -> list[ir.Value]:
    """The values of a function body and of the graphs nested in it."""
    values = [*graph.inputs]
    for node in graph:
        values.extend(node.outputs)
        for inner in subgraphs(node):
            values.extend(_values(inner))
    return values


def _call_key(
    function: ir.Function, inputs: Sequence[Fact], attributes: Mapping[str, ir.Attr]
) -> object | None:
    parts: list[object] = [function.identifier()]
    for fact in inputs:
        if fact.other is not None:
            return None
        elements = fact.elements
        known = None if elements is None else (elements.shape, tuple(elements.flat))
        parts.append((fact.dtype, fact.dims, known))
    for name, attribute in sorted(attributes.items()):
        value = attribute.value
        if not isinstance(value, int | float | str):
            return None
        parts.append((name, attribute.type, value))
    return tuple(parts)


def resolved_attributes(
    node: ir.Node, bound: Mapping[str, ir.Attr]
) -> tuple[dict[str, ir.Attr], bool]:
    """The node's attributes with references replaced, and whether one had to be left out."""
    attributes: dict[str, ir.Attr] = {}
    unresolved = False
    for name, attribute in node.attributes.items():
        if not attribute.is_ref():
            attributes[name] = attribute
            continue
        target = bound.get(attribute.ref_attr_name or "")
        if target is None:
            # An optional parameter that was not given: the attribute is then absent. It may
            # as well be one that the caller had to give; nothing is assumed.
            unresolved = True
        else:
            attributes[name] = ir.Attr(name, target.type, target.value)
    return attributes, unresolved


def declared_fact(value: ir.Value) -> Fact:
    """The type that the model declares of a value, without the shape."""
    if value.type is None:
        return NOTHING
    if isinstance(value.type, ir.TensorType):
        return Fact(value.type.dtype)
    proto = onnx.TypeProto()
    try:
        ir.serde.serialize_type_into(proto, value.type)
    except ir.serde.SerdeError:
        return NOTHING  # a map: no operator computes a shape from one
    return Fact(other=proto)


def described(node: ir.Node) -> str:
    """The node as an error message names it."""
    if node.name:
        return f"node '{node.name}' ({node.op_type})"
    output = next((value.name for value in node.outputs if value.name), None)
    return f"the {node.op_type} node that makes '{output}'"


def _is_needed(node: ir.Node) -> bool:
    """A runtime drops a node that nobody reads, whatever is wrong with it."""
    return any(value.uses() or value.is_graph_output() for value in node.outputs)
