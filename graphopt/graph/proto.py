"""Walks a `ModelProto` in the order in which `walk.all_graphs` walks the model made from it."""

from collections.abc import Iterator, Mapping

import onnx

Scope = onnx.GraphProto | onnx.FunctionProto

# What protobuf can hold: at most 2 GiB, at most 100 messages inside each other, and a graph
# in a node's attribute is three further down than the graph of that node.
MAXIMUM_BYTES = 2**31 - 1
MAXIMUM_NESTING = 31


def attribute_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs held by the attributes of `node`."""
    found: list[onnx.GraphProto] = []
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            found.append(attribute.g)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            found.extend(attribute.graphs)
    return found


def nested_scopes(root: Scope) -> Iterator[tuple[Scope, int]]:
    """`root` and the graphs nested in it, parents first, each with its depth below `root`."""
    stack = [(root, 0)]
    while stack:
        scope, depth = stack.pop()
        yield scope, depth
        below = [(inner, depth + 1) for node in scope.node for inner in attribute_graphs(node)]
        stack.extend(reversed(below))


def all_scopes(proto: onnx.ModelProto) -> Iterator[Scope]:
    """The main graph, its nested graphs, then each function and the graphs nested in it."""
    for root in (proto.graph, *proto.functions):
        for scope, _ in nested_scopes(root):
            yield scope


def graph_protos(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Every graph of the model, nested ones and those inside function bodies included."""
    return (scope for scope in all_scopes(proto) if isinstance(scope, onnx.GraphProto))


def nesting_depth(proto: onnx.ModelProto) -> int:
    """How many graphs deep the deepest graph lies; 0 for a model without nested graphs."""
    roots: list[Scope] = [proto.graph, *proto.functions]
    return max(depth for root in roots for _, depth in nested_scopes(root))


def tensors(scope: Scope) -> Iterator[tuple[onnx.TensorProto, str]]:
    """The dense tensors of one scope, each with words for where it stands."""
    if isinstance(scope, onnx.GraphProto):
        for tensor in scope.initializer:
            yield tensor, f"initializer '{tensor.name}'"
    for node in scope.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t, f"attribute '{attribute.name}' of {node_label(node)}"
            elif attribute.type == onnx.AttributeProto.TENSORS:
                for tensor in attribute.tensors:
                    yield tensor, f"attribute '{attribute.name}' of {node_label(node)}"


def node_label(node: onnx.NodeProto) -> str:
    """Words that let a person find the node: its type and name, or its first output."""
    if node.name:
        return f"{node.op_type} '{node.name}'"
    output = next((name for name in node.output if name), None)
    return f"{node.op_type} that makes '{output}'" if output else f"{node.op_type} without output"


def external_entries(tensor: onnx.TensorProto) -> Mapping[str, str]:
    """The key-value pairs that say where the data of an external tensor lies."""
    return {entry.key: entry.value for entry in tensor.external_data}
