"""Walks a model and counts each node, as often as it runs.

The body of a Loop or Scan counts once for each iteration; where the number of iterations is not
known before the run it is a free dim of its own, `trips(name)`. Of the branches of an If the one
that is taken counts where the condition is known, else the one that costs more; the other's
nodes are listed with 0 executions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import index as index_of

from graphopt.cost.modules import module_of
from graphopt.cost.operator import VIEW, Operator, Rule, Tensor, UnknownShapeError, Work
from graphopt.cost.quantity import Number, Quantity, at_least, maximum, minimum, total
from graphopt.cost.result import Edge, NodeCost, Parameter
from graphopt.cost.rules import rules
from graphopt.cost.values import Values
from graphopt.errors import reason_of
from graphopt.graph import constant_tensor, ir, subgraphs
from graphopt.graph.walk import imported_version

_SETTLED = replace(VIEW, note="settled at load")

_ENDLESS = 2**31
"""Exporters write a while-loop as a Loop of this many iterations, or more."""


class Count:
    """The rows of a model, in the order in which its nodes run.

    Args:
        model: has no functions; `infer_shapes` has run on it. It is not changed.
        values: what is known of its values.
        further: rules besides those that are installed, or instead of them.
    """

    def __init__(self, model: ir.Model, values: Values, further: Iterable[Rule] = ()) -> None:
        self.rows: list[NodeCost] = []
        self.edges: list[Edge] = []
        self.values = values
        self._rules = rules()
        if further:
            own = {(rule.domain, rule.op_type): rule for rule in further}
            self._rules = {**self._rules, **own}
        self._opsets = model.opset_imports
        self._made_by: dict[ir.Value, int] = {}
        self._tensors: dict[ir.Value, ir.TensorProtocol] = {}
        # By the tensor's identity: the calls of a function share those of its body.
        self._readers: dict[int, tuple[ir.TensorProtocol, list[int]]] = {}
        self._graph(model.graph, 1)
        for value in model.graph.outputs:
            self._readers_of(value)

    @property
    def parameters(self) -> list[Parameter]:
        """The constants that the rows read, in order of first use."""
        return [
            Parameter(str(tensor.dtype), tensor.size, tensor.nbytes, tuple(readers))
            for tensor, readers in self._readers.values()
        ]

    def _readers_of(self, value: ir.Value) -> tuple[ir.TensorProtocol, list[int]] | None:
        """The tensor of a constant, and the rows that read it."""
        tensor = self._tensors.get(value)
        if tensor is None:
            found = value.const_value if value.is_initializer() else constant_tensor(value)
            if found is None:
                return None
            tensor = self._tensors[value] = found
        return self._readers.setdefault(id(tensor), (tensor, []))

    def _graph(self, graph: ir.Graph, executions: Number) -> None:
        for node in graph:
            index = len(self.rows)
            match node.op_type if node.domain in ("", "ai.onnx") else "":
                case "If":
                    self._add(node, VIEW, executions)
                    self._if(node, index, executions)
                case "Loop" | "Scan" | "SequenceMap":
                    trips, note = self._trips(node)
                    self._add(node, replace(VIEW, note=note), executions)
                    for body in subgraphs(node):
                        self._graph(body, executions * trips)
                case _:
                    self._operator(node, executions)
            for value in node.outputs:
                self._made_by[value] = index

    # One node ------------------------------------------------------------------------------

    def _operator(self, node: ir.Node, executions: Number) -> None:
        operator = Operator(
            node,
            imported_version(self._opsets, node.domain),
            self.values.tensors(node.inputs),
            self.values.tensors(node.outputs),
        )
        if all(self.values.sources(value) is not None for value in node.outputs if value.name):
            return self._add(node, _SETTLED, 0)
        rule = self._rules.get((operator.domain, operator.op_type))
        if rule is None:
            reason = f"no rule for {_type_text(node)}"
            return self._add(node, replace(VIEW, note=reason), executions, counted=False)
        try:
            work = rule.count(operator)
            work = Work(
                macs=_checked(work.macs),
                elementwise=_checked(work.elementwise),
                transcendentals=_checked(work.transcendentals),
                reads=_bytes(operator.inputs) if work.reads is None else _checked(work.reads),
                writes=_bytes(operator.outputs) if work.writes is None else _checked(work.writes),
                note=str(work.note),
            )
        except UnknownShapeError as error:
            return self._add(node, replace(VIEW, note=str(error)), executions, counted=False)
        except Exception as error:  # noqa: BLE001 - of a plugin, or on a node that no schema allows
            reason = f"its rule failed: {reason_of(error)}"
            return self._add(node, replace(VIEW, note=reason), executions, counted=False)
        return self._add(node, work, executions)

    def _add(self, node: ir.Node, work: Work, executions: Number, *, counted: bool = True) -> None:
        index = len(self.rows)
        elements = stored = 0
        for value in dict.fromkeys(value for value in node.inputs if value is not None):
            sources = self.values.sources(value)
            if sources is None and value in self._made_by:
                size = self.values.bytes_of(value)
                self.edges.append(Edge(self._made_by[value], index, value.name or "", size))
            for source in sources or ():
                constant = self._readers_of(source)
                if constant is not None and constant[1][-1:] != [index]:
                    elements += constant[0].size
                    stored += constant[0].nbytes
                    constant[1].append(index)
        self.rows.append(
            NodeCost(
                name=node.name or _first_output(node),
                op_type=_type_text(node),
                module=module_of(node),
                shape=self.values.tensor(node.outputs[0]).shape if node.outputs else None,
                executions=executions,
                macs=work.macs * executions,
                flops=(work.macs * 2 + work.elementwise) * executions,
                transcendentals=work.transcendentals * executions,
                parameters=elements,
                parameter_bytes=stored,
                bytes_read=(work.reads or 0) * executions,
                bytes_written=(work.writes or 0) * executions,
                note=work.note,
                counted=counted,
            )
        )

    # Control flow --------------------------------------------------------------------------

    def _if(self, node: ir.Node, index: int, executions: Number) -> None:
        branches = {}
        for name in ("then_branch", "else_branch"):
            start = len(self.rows)
            self._graph(node.attributes[name].as_graph(), executions)
            branches[name] = range(start, len(self.rows))
        known = _single(self.values.tensors(node.inputs)[0])
        if isinstance(known, int):
            taken, note = ("then_branch" if known else "else_branch"), ""
        else:
            taken, note = self._dearer(branches)
        for name, rows in branches.items():
            if name != taken:
                for row in rows:
                    self.rows[row] = _not_run(self.rows[row])
        self.rows[index] = replace(self.rows[index], note=note)

    def _dearer(self, branches: Mapping[str, range]) -> tuple[str, str]:
        """The branch that counts, and why."""
        first, second = branches
        for figure in ("flops", "transcendentals", "bytes_read"):
            a, b = (
                total(getattr(self.rows[row], figure) for row in rows) for rows in branches.values()
            )
            if a == b:
                continue
            if at_least(a, b):
                return first, f"the {first} counts, which costs more"
            if at_least(b, a):
                return second, f"the {second} counts, which costs more"
            return first, f"the {first} counts; which branch costs more depends on the free dims"
        return first, f"the {first} counts; both cost the same"

    def _trips(self, node: ir.Node) -> tuple[Number, str]:
        """How often the body runs, and what is to be said of that."""
        name = node.name or _first_output(node)
        unknown = self.values.unknown(f"trips({name})", node)
        tensors = self.values.tensors(node.inputs)
        if node.op_type == "Scan":
            count = node.attributes["num_scan_inputs"].as_int()
            axes = node.attributes.get("scan_input_axes")
            axis = axes.as_ints()[0] if axes is not None else 0
            scanned = tensors[len(tensors) - count] if 0 < count <= len(tensors) else None
            if scanned is not None and scanned.shape is not None:
                return scanned.shape[axis], ""
        elif node.op_type == "Loop":
            limit = _single(tensors[0]) if tensors else None
            first = _single(tensors[1]) if len(tensors) > 1 and tensors[1] is not None else 1
            goes_on = _goes_on(node.attributes["body"].as_graph())
            if first == 0:
                return 0, "its condition is false: it never runs"
            if goes_on is False and first is not None:
                return 1 if limit is None else minimum(maximum(limit, 0), 1), ""
            if limit is not None and not (isinstance(limit, int) and limit >= _ENDLESS):
                ends = first is None or not goes_on
                return maximum(limit, 0), "at most: it may end earlier" if ends else ""
        return unknown, f"how often it runs is unknown: {unknown}"


def _checked(number: Number) -> Number:
    """What a rule gave, as a count.

    Raises:
        ValueError: it is negative.
        TypeError: it is no integer.
    """
    if isinstance(number, Quantity):
        return number
    count = index_of(number)
    if count < 0:
        raise ValueError(f"{count} is no count")
    return count


def _goes_on(body: ir.Graph) -> bool | None:
    """Whether the body's condition stays true, if it was; None where that is unknown."""
    value: ir.Value | None = body.outputs[0]
    while value is not None:
        if len(body.inputs) > 1 and value is body.inputs[1]:
            return True
        tensor = constant_tensor(value)
        if tensor is not None:
            return bool(tensor.numpy().all())
        producer = value.producer()
        if producer is None or producer.op_type not in ("Identity", "Cast"):
            return None
        value = producer.inputs[0]
    return None


def _single(tensor: Tensor | None) -> Number | None:
    if tensor is None or tensor.elements is None or len(tensor.elements) != 1:
        return None
    return tensor.elements[0]


def _bytes(tensors: Sequence[Tensor | None]) -> Number:
    """The bytes of each tensor once, also where it is given twice."""
    distinct = {tensor.name: tensor for tensor in tensors if tensor is not None}
    return total(tensor.bytes for tensor in distinct.values())


def _not_run(row: NodeCost) -> NodeCost:
    return replace(
        row,
        executions=0,
        macs=0,
        flops=0,
        transcendentals=0,
        bytes_read=0,
        bytes_written=0,
    )


def _type_text(node: ir.Node) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _first_output(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")
