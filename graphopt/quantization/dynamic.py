"""Dynamic quantization: a MatMul's weight is integers, its input becomes integers as it runs.

    X W  ->  (MatMulInteger(X_q, W_q, z_x, z_w)) * (s_x * s_w),
             X_q, s_x, z_x = DynamicQuantizeLinear(X),  s_w one for each column of W

No calibration: the range of X is measured in every run, which costs a pass over X. ONNX Runtime
fuses the pattern into one kernel (MatMulIntegerToFloat, DynamicQuantizeMatMul), an Add of a
constant behind it included. All that read the same X share one DynamicQuantizeLinear.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from graphopt.graph import all_graphs, constant_array, ir, opset_version
from graphopt.quantization.parameters import Parameters, parameters_of_weight
from graphopt.quantization.processor import adds_products_in_int16
from graphopt.quantization.repair.linear_layer import LinearLayer, linear_layer
from graphopt.quantization.saturation import without_saturation
from graphopt.rewrite import Journal, NotApplicable, Rewriter
from graphopt.rewrite.journal import site_of

_FIRST_OPSET = 11  # DynamicQuantizeLinear's

Shared = dict[int, tuple[ir.Value, ir.Value, ir.Value]]


def quantize_dynamically(
    model: ir.Model,
    journal: Journal,
    *,
    nodes: Collection[str] | None = None,
    minimum_elements: int = 1 << 12,
    saturation_safe: bool | None = None,
    integers: Mapping[tuple[str, int], np.ndarray] | None = None,
) -> None:
    """Let MatMul and Gemm with constant weights multiply integers, in place.

    When: on the prepared float model, in place of calibration and QDQ. Which nodes pay is for
    the caller to measure and say in `nodes`; the journal tells why a node was left alone.

    Args:
        model: the model.
        journal: asked before each change, told after it.
        nodes: the nodes to change, by the name of their first output; None for all.
        minimum_elements: leave smaller weights float: measuring X costs more than they save.
        saturation_safe: whether no two neighbouring products may saturate int16, as they do on
            x86 without VNNI (see `saturation`); None: where this processor needs it.
        integers: (node, input index) -> the weight's integers, from `round_weights` with
            `dynamic_parameters`; they replace nearest rounding.
    """
    safe = adds_products_in_int16() if saturation_safe is None else saturation_safe
    rewriter = Rewriter(model, journal)
    for graph in list(all_graphs(model)):
        shared: Shared = {}
        for node in list(graph):
            name = (node.outputs[0].name or "") if node.outputs else ""
            if node.op_type not in ("MatMul", "Gemm") or (nodes is not None and name not in nodes):
                continue
            site = site_of(node)
            if not journal.permits(site):
                continue
            rewriter.begin(node)
            try:
                layer = _eligible(node, opset_version(graph, model), minimum_elements)
                given = None if integers is None else integers.get((name, layer.weight_index))
                _replace(layer, rewriter, shared, safe, given)
            except NotApplicable as refusal:
                rewriter.discard()
                journal.decline(site, str(refusal))


def dynamic_parameters(layer: LinearLayer, *, saturation_safe: bool | None = None) -> Parameters:
    """The parameters of a layer's weight: int8, symmetric, one scale for each output.

    `saturation_safe` as for `quantize_dynamically`.
    """
    safe = adds_products_in_int16() if saturation_safe is None else saturation_safe
    parameters = parameters_of_weight(
        layer.weight, ir.DataType.INT8, symmetric=True, axis=layer.output_axis
    )
    if not safe:
        return parameters
    scale, _ = without_saturation(layer.weight, parameters.scale, layer.output_axis)
    return Parameters(parameters.dtype, scale, parameters.zero_point, parameters.axis)


def _eligible(node: ir.Node, opset: int, minimum_elements: int) -> LinearLayer:
    if opset < _FIRST_OPSET:
        raise NotApplicable(f"DynamicQuantizeLinear needs opset {_FIRST_OPSET}")
    layer = linear_layer(node)
    if layer.weight_index != 1:
        raise NotApplicable("the weight is on the left")
    if node.op_type == "Gemm":
        if node.attributes.get_int("transA", 0):
            raise NotApplicable("Gemm transposes its input")
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and constant_array(bias) is None:
            raise NotApplicable("Gemm bias is not a constant")
    if layer.weight.size < minimum_elements:
        raise NotApplicable(f"the weight has {layer.weight.size} elements: it would not pay")
    return layer


def _replace(
    layer: LinearLayer,
    rewriter: Rewriter,
    shared: Shared,
    safe: bool,
    integers: np.ndarray | None,
) -> None:
    node, data = layer.node, layer.data
    parameters = dynamic_parameters(layer, saturation_safe=safe)
    if integers is None:
        integers = parameters.quantize(layer.weight)
    if safe:
        _, integers = without_saturation(
            layer.weight, parameters.scale, layer.output_axis, integers
        )
    alpha, scale = 1.0, parameters.scale.astype(np.float64)
    if node.op_type == "Gemm":
        alpha = node.attributes.get_float("alpha", 1.0)
        if node.attributes.get_int("transB", 0):
            integers = integers.T
    name = layer.weight_value.name or "weight"
    quantized = shared.get(id(data))
    if quantized is None:
        made = rewriter.node("DynamicQuantizeLinear", [data], outputs=3)
        quantized = (made.outputs[0], made.outputs[1], made.outputs[2])
    x, x_scale, x_zero = quantized
    weight = rewriter.initializer(np.ascontiguousarray(integers), f"{name}_quantized")
    weight_scale = rewriter.initializer((scale * alpha).astype(np.float32), f"{name}_scale")
    weight_zero = rewriter.initializer(np.zeros((), np.int8), f"{name}_zero_point")
    product = rewriter.node("MatMulInteger", [x, weight, x_zero, weight_zero])
    real = rewriter.node("Cast", [product.outputs[0]], {"to": int(ir.DataType.FLOAT)})
    both = rewriter.node("Mul", [x_scale, weight_scale])
    last = rewriter.node("Mul", [real.outputs[0], both.outputs[0]])
    if node.op_type == "Gemm" and len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant_array(node.inputs[2])
        if bias is None:
            raise NotApplicable("Gemm bias is not a constant")
        beta = node.attributes.get_float("beta", 1.0)
        added = (bias.astype(np.float64) * beta).astype(np.float32)
        constant = rewriter.initializer(added, f"{node.inputs[2].name}_scaled")
        last = rewriter.node("Add", [last.outputs[0], constant])
    rewriter.replace(node, last, f"{node.op_type} -> DynamicQuantizeLinear + MatMulInteger")
    shared[id(data)] = quantized
