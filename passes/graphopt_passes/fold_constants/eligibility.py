"""Which operators may be evaluated ahead of time, whatever their inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphopt.plugin import NotApplicable, ir, subgraphs

STANDARD_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_FLOATS = (
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
)
_RANDOM = frozenset(
    {
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
        *("RandomUniform", "RandomUniformLike"),
    }
)
_QUANTIZATION = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})

Read = Callable[[ir.Value], np.ndarray | None]


def is_standard(node: ir.Node, model: ir.Model) -> bool:
    """Whether the node means what ONNX says of its operator: no call, no custom operator."""
    return node.domain in STANDARD_DOMAINS and node.op_identifier() not in model.functions


def check_foldable(node: ir.Node, model: ir.Model, read: Read) -> None:
    """Raise NotApplicable for a node that must stay even where all its inputs are constants."""
    if node.op_identifier() in model.functions:
        raise NotApplicable("it calls a function of the model")
    if node.domain not in STANDARD_DOMAINS:
        raise NotApplicable(f"the operator belongs to domain '{node.domain}'")
    if node.op_type in _RANDOM or _is_training(node, read):
        raise NotApplicable("its result is random")
    if node.op_type in _QUANTIZATION:
        raise NotApplicable("it is part of the model's quantization")
    if subgraphs(node):
        raise NotApplicable("it runs a subgraph")
    if any(attribute.is_ref() for attribute in node.attributes.values()):
        raise NotApplicable("an attribute is a parameter of the function")
    if any(not isinstance(value.type, ir.TensorType | None) for value in node.outputs):
        raise NotApplicable("its result is no tensor")
    if node.op_type == "Squeeze" and _has_empty_axes(node, read):
        raise NotApplicable("an empty list of axes means all of them to some runtimes")
    if node.op_type == "CastLike" and node.outputs[0].dtype == ir.DataType.BFLOAT16:
        raise NotApplicable("it rounds to bfloat16")


def check_runtime_operands(node: ir.Node, read: Read) -> None:
    """Keep from the runtime what ends the process: an integer divided by zero."""
    if node.op_type not in ("Div", "Mod") or node.outputs[0].dtype in _FLOATS:
        return
    divisor = None if node.inputs[1] is None else read(node.inputs[1])
    if divisor is None or not np.all((divisor != 0) & (divisor != -1)):
        raise NotApplicable("its divisor is not known to differ from zero")


def _has_empty_axes(node: ir.Node, read: Read) -> bool:
    if node.attributes.get_ints("axes", None) is not None:
        return not node.attributes.get_ints("axes")
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return False
    axes = read(node.inputs[1])
    return axes is not None and not axes.size


def _is_training(node: ir.Node, read: Read) -> bool:
    if node.op_type != "Dropout" or len(node.inputs) < 3 or node.inputs[2] is None:
        return False
    training = read(node.inputs[2])
    return training is None or bool(training.any())
