"""Reads, writes, checks and walks a model. The IR is `onnx_ir.Model`; there is no other."""

from graphopt.graph._onnx_ir import ir
from graphopt.graph.clone import clone
from graphopt.graph.constants import constant_array, constant_tensor
from graphopt.graph.extraction import extract
from graphopt.graph.garbage import patient_collector
from graphopt.graph.inline import inline_functions
from graphopt.graph.load import ModelSource, load
from graphopt.graph.opset import raise_opset
from graphopt.graph.replace import replace_content
from graphopt.graph.save import save, to_bytes, to_proto
from graphopt.graph.scratch import outside
from graphopt.graph.text import from_text, to_text
from graphopt.graph.verify import Problem, verify, verify_proto
from graphopt.graph.walk import (
    all_graphs,
    all_nodes,
    nested_graphs,
    opset_version,
    outer_values,
    subgraphs,
)

__all__ = [
    "ModelSource",
    "Problem",
    "all_graphs",
    "all_nodes",
    "clone",
    "constant_array",
    "constant_tensor",
    "extract",
    "from_text",
    "inline_functions",
    "ir",
    "load",
    "nested_graphs",
    "opset_version",
    "outer_values",
    "outside",
    "patient_collector",
    "raise_opset",
    "replace_content",
    "save",
    "subgraphs",
    "to_bytes",
    "to_proto",
    "to_text",
    "verify",
    "verify_proto",
]
