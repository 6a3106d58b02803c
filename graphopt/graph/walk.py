"""Walks a model: its graphs, its nodes, and what a subgraph takes from outside.

`ir.Model.graphs()` leaves function bodies out and recurses; these walks cover functions, keep
their own stack (nesting cannot exhaust Python's), and always go in the same order.
"""

from collections.abc import Iterator

from graphopt.graph._onnx_ir import ir

_HOLD_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def subgraphs(node: ir.Node) -> tuple[ir.Graph, ...]:
    """The graphs held by the attributes of `node` (If, Loop, Scan, ...), not those below them."""
    attributes = node.attributes.data
    if not attributes:
        return ()
    # Every walk asks this of every node: what is no graph has to be passed over quickly.
    found: tuple[ir.Graph, ...] = ()
    for attribute in attributes.values():
        kind = attribute.type
        if kind in _HOLD_GRAPHS and not attribute.is_ref():
            one = kind == ir.AttributeType.GRAPH
            found += (attribute.as_graph(),) if one else tuple(attribute.as_graphs())
    return found


def nested_graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    """`graph` and every graph nested in it, each before the graphs nested in it."""
    stack = [graph]
    while stack:
        current = stack.pop()
        yield current
        below = [inner for node in current for inner in subgraphs(node)]
        stack.extend(reversed(below))


def all_graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """The main graph, its nested graphs, then the same for the body of each function."""
    yield from nested_graphs(model.graph)
    for function in model.functions.values():
        yield from nested_graphs(function.graph)


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every node of `all_graphs(model)`, graph by graph, in each graph's own order."""
    for graph in all_graphs(model):
        yield from graph


def outer_values(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """The values that `graph`, or a graph nested in it, uses and that are defined outside it.

    Each value once, in the order of its first use. Empty for a main graph of a valid model.
    """
    inner = list(nested_graphs(graph))
    defined: set[ir.Value] = set()
    for current in inner:
        defined.update(current.inputs)
        defined.update(current.initializers.values())
        for node in current:
            defined.update(node.outputs)
    captured: dict[ir.Value, None] = {}
    for current in inner:
        for node in current:
            for value in node.inputs:
                if value is not None and value not in defined:
                    captured[value] = None
        for value in current.outputs:
            if value not in defined:
                captured[value] = None
    return tuple(captured)


def opset_version(place: ir.Node | ir.Graph, model: ir.Model) -> int:
    """The version of the operator set in force at `place`.

    For a node it is the version of the node's domain, for a graph that of ONNX's own domain.
    The body of a function has imports of its own. 0 where the domain is not imported.
    """
    if isinstance(place, ir.Node):
        domain, graph = place.domain, place.graph
    else:
        domain, graph = "", place
    version = imported_version(model.opset_imports, domain)
    others = {
        function: imported_version(function.opset_imports, domain)
        for function in model.functions.values()
    }
    if all(other == version for other in others.values()):
        return version
    for function, other in others.items():
        if other != version and any(graph is inner for inner in nested_graphs(function.graph)):
            return other
    return version


def imported_version(imports: dict[str, int], domain: str) -> int:
    """The version of `domain` in `imports`, 0 if it is absent ("" and "ai.onnx" are one)."""
    if domain in ("", "ai.onnx"):
        return imports.get("", imports.get("ai.onnx", 0))
    return imports.get(domain, 0)


def nesting_depth_of(model: ir.Model) -> int:
    """How many graphs deep the deepest graph lies; 0 for a model without nested graphs."""
    deepest = 0
    roots = [model.graph, *(function.graph for function in model.functions.values())]
    stack = [(root, 0) for root in roots]
    while stack:
        graph, depth = stack.pop()
        deepest = max(deepest, depth)
        stack.extend((inner, depth + 1) for node in graph for inner in subgraphs(node))
    return deepest


def tensor_attributes(node: ir.Node) -> tuple[ir.Attr, ...]:
    """The attributes of `node` that hold a tensor, or several."""
    kinds = (ir.AttributeType.TENSOR, ir.AttributeType.TENSORS)
    held = node.attributes.data.values()
    return tuple(attr for attr in held if attr.type in kinds and not attr.is_ref())


def attribute_tensors(attribute: ir.Attr) -> list[ir.TensorProtocol]:
    """The tensors that such an attribute holds."""
    if attribute.type == ir.AttributeType.TENSOR:
        return [attribute.as_tensor()]
    return list(attribute.as_tensors())


def with_tensors(attribute: ir.Attr, tensors: list[ir.TensorProtocol]) -> ir.Attr:
    """An attribute like `attribute` with other tensors in the place of its own."""
    held = tensors[0] if attribute.type == ir.AttributeType.TENSOR else tensors
    return ir.Attr(attribute.name, attribute.type, held, doc_string=attribute.doc_string)
