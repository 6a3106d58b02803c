"""Checks that a model follows the rules of ONNX, and names the node that does not.

`verify` checks a model in memory: names, order and cycles, function calls, operators (see
operators.py) and declared types. `verify_proto` (see proto_checks.py) checks a proto for what
could not be seen any more once it is a model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphopt.graph._onnx_ir import ir
from graphopt.graph.operators import KNOWN_DOMAINS, node_problems
from graphopt.graph.problem import Problem, cycle_among, cycle_text, label_of, name_of
from graphopt.graph.proto_checks import verify_proto
from graphopt.graph.walk import imported_version, nested_graphs, subgraphs

__all__ = ["Problem", "verify", "verify_proto"]


def verify(model: ir.Model) -> list[Problem]:
    """Every problem of the model, in the order of its nodes; empty if it is valid.

    Takes time linear in the size of the model, and reads no tensor's data.
    """
    problems: list[Problem] = []
    seen: set[ir.Graph] = set()
    _RootCheck(model, model.graph, model.opset_imports, problems, seen).run()
    for function in model.functions.values():
        where = f"function {function.name}: "
        if function.graph.initializers:
            problems.append(Problem(f"{where}a function cannot hold initializers", None))
        imports = function.opset_imports
        _RootCheck(model, function.graph, imports, problems, seen, where).run()
    problems.extend(_recursive_functions(model))
    return problems


@dataclass(slots=True)
class _Open:
    """A graph whose nodes are being checked, and the node of it whose graphs come next."""

    graph: ir.Graph
    nodes: Iterator[ir.Node]
    names: dict[str, ir.Value] = field(default_factory=dict)
    node: ir.Node | None = None
    inner: list[ir.Graph] = field(default_factory=list)


class _RootCheck:
    """The check of the main graph, or of a function's body, with the graphs nested in it."""

    def __init__(
        self,
        model: ir.Model,
        root: ir.Graph,
        imports: dict[str, int],
        problems: list[Problem],
        seen: set[ir.Graph],
        where: str = "",
    ) -> None:
        self._functions = model.functions
        self._root = root
        self._imports = imports
        self._problems = problems
        self._seen = seen
        self._where = where
        self._open: list[_Open] = []
        self._types: dict[ir.Value, str] = {}
        self._versions: dict[str, int] = {}
        self._disordered: dict[ir.Graph, None] = {}

    def run(self) -> None:
        self._enter(self._root)
        while self._open:
            top = self._open[-1]
            if top.inner:
                self._enter(top.inner.pop())
                continue
            if top.node is not None:
                # Only now: inside its graphs the outputs of a node do not exist yet.
                self._define_outputs(top.node)
            top.node = next(top.nodes, None)
            if top.node is None:
                self._leave(self._open.pop())
                continue
            self._check_inputs(top.node)
            self._check_operator(top.node)
            if top.node.attributes.data:
                top.inner = list(reversed(subgraphs(top.node)))
        for graph in self._disordered:
            self._check_cycles(graph)

    def _report(self, message: str, node: ir.Node | None = None) -> None:
        if node is None:
            self._problems.append(Problem(f"{self._where}{message}", None))
        else:
            text = f"{self._where}{label_of(node)} {message}"
            self._problems.append(Problem(text, name_of(node)))

    def _enter(self, graph: ir.Graph) -> None:
        opened = _Open(graph, iter(graph))
        if graph in self._seen:
            self._report(f"graph '{graph.name}' belongs to two nodes, each needs its own")
            opened.nodes = iter(())
        self._seen.add(graph)
        self._open.append(opened)
        for value in graph.inputs:
            if not value.name:
                self._report("a graph input has no name")
            elif value.name in opened.names:
                self._report(f"two inputs are named '{value.name}'")
            else:
                opened.names[value.name] = value
        for name, value in graph.initializers.items():
            if opened.names.setdefault(name, value) is not value:
                self._report(f"two values are named '{name}': an input and an initializer")
            self._check_initializer(name, value)

    def _leave(self, closed: _Open) -> None:
        for value in closed.graph.outputs:
            if not value.name or closed.names.get(value.name) is not value:
                self._report(f"nothing in the graph makes its output '{value.name}'")

    def _check_initializer(self, name: str, value: ir.Value) -> None:
        tensor = value.const_value
        if tensor is None:
            self._report(f"initializer '{name}' has no data")
            return
        declared = value.type
        if isinstance(declared, ir.TensorType) and declared.dtype not in (
            tensor.dtype,
            ir.DataType.UNDEFINED,
        ):
            self._report(
                f"initializer '{name}' has data of type {tensor.dtype.name},"
                f" declared is {declared.dtype.name}"
            )
        if value.shape is not None and not _fits(tensor.shape, value.shape):
            self._report(
                f"initializer '{name}' has data of shape {_text(tensor.shape)},"
                f" declared is {_text(value.shape)}"
            )

    def _check_inputs(self, node: ir.Node) -> None:
        for value in node.inputs:
            if value is None:
                continue
            name = value.name
            if not name:
                self._report("uses a value without a name", node)
                continue
            for opened in reversed(self._open):
                found = opened.names.get(name)
                if found is not None:
                    break
            if found is value:
                continue
            if found is not None:
                self._report(f"uses '{name}', but that names another value there", node)
                continue
            maker = value.producer()
            graph = maker.graph if maker is not None else None
            if graph is not None and any(graph is opened.graph for opened in self._open):
                self._disordered[graph] = None
                self._report(f"uses '{name}' before it is made", node)
            else:
                self._report(f"uses '{name}', which nothing makes", node)

    def _define_outputs(self, node: ir.Node) -> None:
        names = self._open[-1].names
        for value in node.outputs:
            name = value.name
            if not name:
                if name is None or value.uses() or value.is_graph_output():
                    self._report("has an output that is used and has no name", node)
                continue
            if name in names:
                self._report(f"makes '{name}', which is made already", node)
                continue
            if len(self._open) > 1 and any(name in o.names for o in self._open[:-1]):
                self._report(f"makes '{name}', which a graph around it has already", node)
            names[name] = value

    def _check_operator(self, node: ir.Node) -> None:
        domain = node.domain
        version = self._versions.get(domain)
        if version is None:
            version = self._versions[domain] = imported_version(self._imports, domain)
        if version == 0:
            self._report(f"is of domain '{domain or 'ai.onnx'}', which is not imported", node)
            return
        if self._functions:
            function = self._functions.get((domain, node.op_type, node.overload))
            if function is not None:
                self._check_call(node, function)
                return
        if node.overload:
            self._report(f"calls overload '{node.overload}', which no function has", node)
        elif domain in KNOWN_DOMAINS:
            for message in node_problems(node, version, self._types):
                self._report(message, node)

    def _check_call(self, node: ir.Node, function: ir.Function) -> None:
        for kind, given, taken in (
            ("inputs", len(node.inputs), len(function.inputs)),
            ("outputs", len(node.outputs), len(function.outputs)),
        ):
            if given > taken:
                self._report(f"has {given} {kind}, its function takes {taken}", node)
        for name in node.attributes:
            if name not in function.attributes and not name.startswith("__"):
                self._report(f"has attribute '{name}', which its function does not have", node)

    def _check_cycles(self, graph: ir.Graph) -> None:
        """Say whether nodes that use later ones form a cycle, or only need sorting."""
        nodes = list(graph)
        place = {node: index for index, node in enumerate(nodes)}
        predecessors: list[list[int]] = []
        for node in nodes:
            users = [node, *(n for g in subgraphs(node) for i in nested_graphs(g) for n in i)]
            makers = (
                value.producer() for user in users for value in user.inputs if value is not None
            )
            predecessors.append([place[m] for m in makers if m is not None and m in place])
        cycle = cycle_among(predecessors)
        if cycle:
            text = cycle_text([label_of(nodes[index]) for index in cycle])
            self._problems.append(Problem(self._where + text, name_of(nodes[cycle[0]])))


def _recursive_functions(model: ir.Model) -> Iterator[Problem]:
    identifiers = list(model.functions)
    place = {identifier: index for index, identifier in enumerate(identifiers)}
    callees: list[list[int]] = []
    for function in model.functions.values():
        nodes = (node for graph in nested_graphs(function.graph) for node in graph)
        called = ((node.domain, node.op_type, node.overload) for node in nodes)
        callees.append([place[identifier] for identifier in called if identifier in place])
    cycle = cycle_among(callees)
    if cycle:
        names = [identifiers[index][1] for index in cycle]
        yield Problem(f"functions call themselves: {' <- '.join([*names, names[0]])}", None)


def _fits(actual: ir.ShapeProtocol, declared: ir.Shape) -> bool:
    dims = list(actual)
    if len(dims) != len(declared):
        return False
    return all(
        not isinstance(wanted, int) or wanted == found
        for found, wanted in zip(dims, declared, strict=True)
    )


def _text(shape: ir.ShapeProtocol) -> str:
    return f"[{', '.join(map(str, shape))}]"
