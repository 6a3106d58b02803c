"""Rewrites QDQ into operators that take and give integers (`--format qoperator`).

    Q(Conv(DQ(x), DQ(w), DQ(b)))      ->  QLinearConv(x, w, b)
    Q(MatMul(DQ(a), DQ(b)))           ->  QLinearMatMul(a, b)
    Q(Gemm(DQ(a), DQ(b), DQ(c)))      ->  QGemm(a, b, c)                     com.microsoft
    Q(Add(DQ(a), DQ(b)))              ->  QLinearAdd(a, b); Mul likewise     com.microsoft
    Q(AveragePool(DQ(x)))             ->  QLinearAveragePool(x); GlobalAveragePool, Sigmoid,
                                          LeakyRelu, Softmax, Concat likewise
    Q(MaxPool(DQ(x)))                 ->  MaxPool(x) where both sides have the same parameters,
                                          and so for Reshape, Transpose, Flatten, ...

A Relu or a Clip in front of Q falls away where the integers cannot leave its range anyway. It is
what ONNX Runtime makes of QDQ itself as it loads a model: the format is for runtimes that do not.
What has no such operator stays in QDQ form, and the journal says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.graph import all_nodes, constant_array, ir
from graphopt.quantization.parameters import limits
from graphopt.rewrite import Journal, NotApplicable, Rewriter
from graphopt.rewrite.journal import site_of

_CONTRIB = "com.microsoft"
_BINARY = ("Add", "Mul")
_UNARY = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
_MOVEMENTS = ("Flatten", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class _Integers:
    """A quantized value: the integers, their scale and zero point."""

    value: ir.Value
    scale: ir.Value
    zero_point: ir.Value

    @property
    def operands(self) -> list[ir.Value]:
        return [self.value, self.scale, self.zero_point]


def convert_to_qoperators(model: ir.Model, journal: Journal) -> None:
    """Replace QDQ by integer operators wherever there is one, in place.

    When: last, on the finished QDQ model (of the backend "ort-cpu": activations in 8 bits).

    Args:
        model: the QDQ model.
        journal: asked before each change, told after it; says why a node stays in QDQ form.
    """
    rewriter = Rewriter(model, journal)
    for node in list(all_nodes(model)):
        if node.op_type != "QuantizeLinear" or node.graph is None:
            continue
        site = site_of(node)
        if node.inputs[0] is None or node.inputs[0].producer() is None:
            continue
        if not journal.permits(site):
            continue
        rewriter.begin(node)
        try:
            _convert(node, rewriter)
        except NotApplicable as refusal:
            rewriter.discard()
            journal.decline(site, str(refusal))
    if any(node.domain == _CONTRIB for node in all_nodes(model)):
        model.opset_imports.setdefault(_CONTRIB, 1)


def _convert(quantize: ir.Node, rewriter: Rewriter) -> None:
    main = _only_reader(quantize)
    sources = [main, quantize]
    out = _parameters(quantize, rewriter)
    while main.op_type in ("Relu", "Clip") and main.inputs[0] is not None:
        _check_bounds(main, quantize)
        before = main.inputs[0].producer()
        if before is None or len(main.inputs[0].uses()) > 1 or main.inputs[0].is_graph_output():
            raise NotApplicable(f"{main.op_type} has a float input of its own")
        main = before
        sources.insert(0, main)
    if main.op_type == "DequantizeLinear" or main.domain not in ("", "ai.onnx"):
        raise NotApplicable(f"{main.op_type} has no integer form")
    rewriter.stand_for(sources)
    made = _integer_node(main, out, rewriter)
    detail = f"{main.op_type} -> {made.op_type} on integers"
    rewriter.replace(quantize, made, detail)


def _integer_node(main: ir.Node, out: _Integers, rewriter: Rewriter) -> ir.Node:
    kind = main.op_type
    attributes = list(main.attributes.values())
    operands = [_integers(value, rewriter) for value in main.inputs if value is not None]
    result = [out.scale, out.zero_point]
    if kind == "Conv":
        bias = [operands[2].value] if len(operands) > 2 else []
        inputs = [*operands[0].operands, *operands[1].operands, *result, *bias]
        return rewriter.node("QLinearConv", inputs, attributes)
    if kind == "MatMul":
        inputs = [*operands[0].operands, *operands[1].operands, *result]
        return rewriter.node("QLinearMatMul", inputs)
    if kind == "Gemm":
        if len(operands) > 2 and main.attributes.get_float("beta", 1.0) != 1.0:
            raise NotApplicable("QGemm has no beta")
        rest = [attribute for attribute in attributes if attribute.name != "beta"]
        third = operands[2].value if len(operands) > 2 else None
        gemm = [*operands[0].operands, *operands[1].operands, third, *result]
        return rewriter.node("QGemm", gemm, rest, domain=_CONTRIB)
    if kind in _BINARY:
        inputs = [*operands[0].operands, *operands[1].operands, *result]
        return rewriter.node(f"QLinear{kind}", inputs, domain=_CONTRIB)
    if kind == "Concat":
        inputs = [*result, *(part for operand in operands for part in operand.operands)]
        return rewriter.node("QLinearConcat", inputs, attributes, domain=_CONTRIB)
    if kind in _UNARY:
        return _unary(main, operands[0], result, rewriter)
    if kind in _MOVEMENTS:
        return _moved(main, operands[0], out, rewriter)
    raise NotApplicable(f"{kind} has no integer form")


def _unary(
    main: ir.Node, operand: _Integers, result: list[ir.Value], rewriter: Rewriter
) -> ir.Node:
    attributes = list(main.attributes.values())
    if main.op_type == "Softmax":
        imports = rewriter.model.opset_imports
        opset = imports.get("", imports.get("ai.onnx", 0))
        attributes.append(ir.AttrInt64("opset", opset))
        if "axis" not in main.attributes:
            attributes.append(ir.AttrInt64("axis", -1 if opset >= 13 else 1))
    if main.op_type == "GlobalAveragePool":
        attributes.append(ir.AttrInt64("channels_last", 0))
    inputs = [*operand.operands, *result]
    return rewriter.node(f"QLinear{main.op_type}", inputs, attributes, domain=_CONTRIB)


def _moved(main: ir.Node, operand: _Integers, out: _Integers, rewriter: Rewriter) -> ir.Node:
    same = all(
        np.array_equal(_known(before), _known(after))
        for before, after in zip(operand.operands[1:], out.operands[1:], strict=True)
    )
    if not same or operand.value.dtype != out.zero_point.dtype:
        raise NotApplicable(f"the two sides of {main.op_type} have different parameters")
    if any(output.uses() for output in main.outputs[1:]):
        raise NotApplicable(f"{main.op_type} has further outputs in use")
    inputs = [operand.value, *main.inputs[1:]]
    return rewriter.node(main.op_type, inputs, list(main.attributes.values()))


def _only_reader(quantize: ir.Node) -> ir.Node:
    """The node that makes what Q reads, and nobody else does."""
    value = quantize.inputs[0]
    producer = None if value is None else value.producer()
    if value is None or producer is None:
        raise NotApplicable("it quantizes an input")
    if len(value.uses()) > 1 or value.is_graph_output():
        raise NotApplicable(f"'{value.name}' is read in float too")
    return producer


def _integers(value: ir.Value, rewriter: Rewriter) -> _Integers:
    """What DequantizeLinear makes `value` of; the shape operands of movements pass as they are."""
    producer = value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        if constant_array(value) is not None and value.dtype in (None, ir.DataType.INT64):
            return _Integers(value, value, value)
        raise NotApplicable(f"'{value.name}' is no integers")
    integers = producer.inputs[0]
    if integers is None or producer.attributes.get_int("block_size", 0) != 0:
        raise NotApplicable(f"'{value.name}' is in blocks")
    found = _parameters(producer, rewriter)
    return _Integers(integers, found.scale, found.zero_point)


def _parameters(node: ir.Node, rewriter: Rewriter) -> _Integers:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear; a zero where none is given."""
    scale = node.inputs[1]
    zero = node.inputs[2] if len(node.inputs) > 2 else None
    integers = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    if scale is None or integers is None:
        raise NotApplicable(f"{node.op_type} has no scale")
    if zero is None:
        shape = _known(scale).shape
        dtype = (integers.dtype or ir.DataType.UINT8).numpy()
        zero = rewriter.initializer(np.zeros(shape, dtype), f"{scale.name}_zero_point")
    return _Integers(integers, scale, zero)


def _check_bounds(activation: ir.Node, quantize: ir.Node) -> None:
    """Refuse where the integers reach beyond what the activation lets through."""
    scale = _known(quantize.inputs[1])
    zero = quantize.inputs[2] if len(quantize.inputs) > 2 else None
    dtype = ir.DataType.UINT8 if zero is None else zero.dtype or ir.DataType.UINT8
    offset = np.zeros(()) if zero is None else _known(zero).astype(np.float64)
    lowest, highest = limits(dtype)
    low, high = 0.0, np.inf
    if activation.op_type == "Clip":
        bounds = [-np.inf, np.inf]
        for index in (1, 2):
            value = activation.inputs[index] if index < len(activation.inputs) else None
            if value is not None:
                bounds[index - 1] = float(_known(value))
        low, high = bounds
    half = float(scale.max()) / 2  # what is nearer to an integer within than to one beyond
    reached = ((lowest - offset) * scale, (highest - offset) * scale)
    if (reached[0] < low - half).any() or (reached[1] > high + half).any():
        raise NotApplicable(f"the integers reach beyond what {activation.op_type} lets through")


def _known(value: ir.Value | None) -> np.ndarray:
    array = constant_array(value)
    if array is None:
        raise NotApplicable("a scale or zero point is not a constant")
    return array
