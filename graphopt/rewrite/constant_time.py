"""What onnx_ir does in time that grows with the graph, done in constant time.

onnx_ir has no public way to do these; without them, 10,000 rewrites around a value that 10,000
nodes read, or in a graph of 10,000 outputs, take minutes.
"""

from __future__ import annotations

from graphopt.graph import ir


def use_count(value: ir.Value) -> int:
    """How many node inputs are `value`, those of nodes in nested graphs included.

    `value.uses()` copies every use.
    """
    return len(value._uses)


def remove_node(graph: ir.Graph, node: ir.Node) -> None:
    """Take `node` out of `graph`; its inputs are not touched.

    `graph.remove()` builds the set of all outputs of the graph first.
    """
    graph._nodes.remove(node)
    node.graph = None
