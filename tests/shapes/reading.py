"""Models from ONNX text, and what is known of their values by name."""

import onnx.parser

from graphopt.graph import all_graphs, ir, load
from graphopt.shapes import infer_shapes, known_shape


def parsed(text: str, opset: int = 17) -> ir.Model:
    header = f'<ir_version: 8, opset_import: ["": {opset}, "custom": 1, "local": 1]>\n'
    return load(onnx.parser.parse_model(header + text))


def values(model: ir.Model) -> dict[str, ir.Value]:
    """Every value that a node makes, functions and subgraphs included, by name."""
    graphs = list(all_graphs(model))
    found = {v.name: v for graph in graphs for node in graph for v in node.outputs}
    found |= {v.name: v for graph in graphs for v in graph.inputs}
    return {str(name): value for name, value in found.items()}


def shapes(model: ir.Model) -> dict[str, str]:
    return {name: str(known_shape(value)) for name, value in values(model).items()}


def inferred(text: str, opset: int = 17) -> ir.Model:
    model = parsed(text, opset)
    infer_shapes(model)
    return model
