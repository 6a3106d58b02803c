"""Completes the shapes of an optimized graph, by the rules of ONNX Runtime's own operators.

What the optimized model states is kept. A value that ONNX Runtime did not describe has the shape
that follows from the inputs of its node: by ONNX's inference for ONNX's operators, by a rule below
for those of ONNX Runtime. Else it has the shape that the source model gives the value of that name,
or what the node of that name makes there: a Reshape to computed dims may give a value that ONNX
Runtime has named anew.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import onnx

from graphopt.graph import ir
from graphopt.graph.constants import constant_array
from graphopt.graph.walk import all_nodes, nested_graphs

Dims = tuple[int, ...]
_CHANNELS_LAST = "com.ms.internal.nhwc"


def complete_shapes(model: ir.Model, source: ir.Model) -> None:
    """Write the shape of every value that it can be told of into `model`.

    Args:
        model: the optimized graph; changed in place.
        source: the model that it was made of, with shapes.
    """
    known = {
        value.name: value.shape
        for graph in nested_graphs(source.graph)
        for value in _values(graph)
        if value.name and value.shape is not None
    }
    times = Counter(node.name for node in all_nodes(source))
    makers = {node.name: node for node in all_nodes(source) if node.name and times[node.name] == 1}
    for value in model.graph.inputs:
        value.shape = known.get(value.name or "", value.shape)
    for graph in nested_graphs(model.graph):
        for node in graph:
            if all(static_dims(value) is not None for value in node.outputs if value.name):
                continue
            inferred = _inferred(node, model)
            for value, dims in zip(node.outputs, inferred, strict=False):
                if dims is not None and static_dims(value) is None:
                    value.shape = ir.Shape(dims)
            maker = makers.get(node.name or "")
            same = maker is not None and maker.op_identifier() == node.op_identifier()
            made = maker.outputs if maker is not None and same else ()
            for value, original in itertools.zip_longest(node.outputs, made):
                if value is None or static_dims(value) is not None:
                    continue
                shape = known.get(value.name or "")
                if shape is None and original is not None:
                    shape = original.shape
                if shape is not None:
                    value.shape = ir.Shape(shape)
            for value in node.outputs:
                if value.type is None:
                    value.type = _type(node)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


# Inputs whose type an operator of ONNX Runtime gives to its output, where it is not the first.
_TYPE_FROM = {
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QGemm": 8,
    "QLinearConcat": 1,
    "QuantizeLinear": 2,
    "DequantizeLinear": 1,
    "MatMulIntegerToFloat": 2,
    "DynamicQuantizeMatMul": 0,
}


def _type(node: ir.Node) -> ir.TypeProtocol | None:
    """The type of what a node makes, where ONNX Runtime did not write it down."""
    index = _TYPE_FROM.get(node.op_type, 0)
    source = node.inputs[index] if index < len(node.inputs) else None
    if source is None and node.op_type == "QGemm":
        source = node.inputs[1]  # without a zero point of its own it gives floats, as its scales
    return None if source is None else source.type


def static_dims(value: ir.Value | None) -> Dims | None:
    """The dims of a value as stated, if all are integers."""
    if value is None or value.shape is None:
        return None
    dims = tuple(dim for dim in value.shape if isinstance(dim, int))
    return dims if len(dims) == len(value.shape) else None


def _inferred(node: ir.Node, model: ir.Model) -> Sequence[Dims | None]:
    rule = _RULES.get(node.op_type)
    try:
        if rule is not None and node.domain not in ("", "ai.onnx"):
            return [rule(node)]
        if node.domain in ("", "ai.onnx"):
            return _by_onnx(node, model)
    except (ValueError, TypeError, IndexError, KeyError):
        return ()  # an input without a shape: nothing follows
    return ()


def _by_onnx(node: ir.Node, model: ir.Model) -> Sequence[Dims | None]:
    """What ONNX's own inference says of one node."""
    version = model.opset_imports.get("", 1)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, "")
        types: dict[str, onnx.TypeProto] = {}
        data: dict[str, onnx.TensorProto] = {}
        for value in node.inputs:
            if value is None or value.type is None or not value.name:
                continue
            types[value.name] = ir.serde.serialize_value(value).type
            array = constant_array(value, 64)
            if array is not None:
                data[value.name] = onnx.numpy_helper.from_array(array, value.name)
        found = onnx.shape_inference.infer_node_outputs(
            schema,
            ir.serde.serialize_node(node),
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid("", version)],
        )
    except (
        onnx.checker.ValidationError,
        onnx.defs.SchemaError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
    ):
        return ()
    result: list[Dims | None] = []
    for value in node.outputs:
        kind = found.get(value.name or "")
        if kind is None or not kind.HasField("tensor_type"):
            result.append(None)
            continue
        if value.type is None:
            value.type = ir.serde.deserialize_type_proto_for_type(kind)
        dims = kind.tensor_type.shape.dim
        stated = tuple(dim.dim_value for dim in dims if dim.HasField("dim_value"))
        complete = kind.tensor_type.HasField("shape") and len(stated) == len(dims)
        result.append(stated if complete else None)
    return result


def _dims(node: ir.Node, index: int) -> Dims:
    dims = static_dims(node.inputs[index])
    if dims is None:
        raise ValueError(f"input {index} has no shape")
    return dims


def _same(node: ir.Node) -> Dims:
    return _dims(node, 0)


def _broadcast(*indices: int) -> Callable[[ir.Node], Dims]:
    def rule(node: ir.Node) -> Dims:
        shapes = [_dims(node, index) for index in indices]
        rank = max(map(len, shapes))
        padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
        return tuple(max(sizes) for sizes in zip(*padded, strict=True))

    return rule


def _window(node: ir.Node, spatial: Dims, kernel: Sequence[int]) -> Dims:
    """Output dims of a convolution or pool along its spatial axes."""
    rank = len(spatial)
    strides = node.attributes.get_ints("strides") or [1] * rank
    dilations = node.attributes.get_ints("dilations") or [1] * rank
    pads = node.attributes.get_ints("pads") or [0] * (2 * rank)
    automatic = node.attributes.get_string("auto_pad", "NOTSET")
    rounded_up = bool(node.attributes.get_int("ceil_mode", 0))
    sizes = []
    for axis, size in enumerate(spatial):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            sizes.append(math.ceil(size / strides[axis]))
            continue
        padding = 0 if automatic == "VALID" else pads[axis] + pads[axis + rank]
        steps = (size + padding - reach) / strides[axis]
        sizes.append((math.ceil(steps) if rounded_up else math.floor(steps)) + 1)
    return tuple(sizes)


def _convolution(weight: int) -> Callable[[ir.Node], Dims]:
    def rule(node: ir.Node) -> Dims:
        data, kernel = _dims(node, 0), _dims(node, weight)
        window = tuple(node.attributes.get_ints("kernel_shape") or kernel[2:])
        if is_channels_last(node):
            return (data[0], *_window(node, data[1:-1], window), kernel[0])
        return (data[0], kernel[0], *_window(node, data[2:], window))

    return rule


def _pool(node: ir.Node) -> Dims:
    data = _dims(node, 0)
    channels_last = is_channels_last(node)
    spatial = data[1:-1] if channels_last else data[2:]
    if node.op_type.endswith(("GlobalAveragePool", "GlobalMaxPool")):
        inner: Dims = (1,) * len(spatial)
    else:
        inner = _window(node, spatial, node.attributes.get_ints("kernel_shape"))
    return (data[0], *inner, data[-1]) if channels_last else (*data[:2], *inner)


def is_channels_last(node: ir.Node) -> bool:
    """Whether the channels of a convolution or pool of ONNX Runtime are its data's last axis."""
    if node.domain == _CHANNELS_LAST or node.op_type.startswith("Nhwc"):
        return True
    return bool(node.attributes.get_int("channels_last", 0))


def _reorder_input(node: ir.Node) -> Dims:
    data = _dims(node, 0)
    if node.attributes.get_int("channels_last", 0):
        return (data[0], data[-1], *data[1:-1])
    return data


def _reorder_output(node: ir.Node) -> Dims:
    data = _dims(node, 0)
    channels = node.attributes.get_int("channels", data[1])
    if node.attributes.get_int("channels_last", 0):
        return (data[0], *data[2:], channels)
    return (data[0], channels, *data[2:])


def _upsample(node: ir.Node) -> Dims:
    scales = node.attributes.get_ints("scales")
    return tuple(int(d * s) for d, s in zip(_dims(node, 0), scales, strict=True))


def _product(left: int, right: int) -> Callable[[ir.Node], Dims]:
    def rule(node: ir.Node) -> Dims:
        a, b = list(_dims(node, left)), list(_dims(node, right))
        if node.attributes.get_int("transA", 0):
            a[-2:] = [a[-1], a[-2]]
        if node.attributes.get_int("transB", 0):
            b[-2:] = [b[-1], b[-2]]
        rank = max(len(a), len(b)) - 2
        outer = [[1] * (rank + 2 - len(s)) + s[:-2] for s in (a, b)]
        return (*(max(pair) for pair in zip(*outer, strict=True)), a[-2], b[-1])

    return rule


def _concatenation(node: ir.Node) -> Dims:
    parts = [_dims(node, index) for index in range(2, len(node.inputs), 3)]
    axis = node.attributes.get_int("axis", 0) % len(parts[0])
    total = sum(part[axis] for part in parts)
    return (*parts[0][:axis], total, *parts[0][axis + 1 :])


# By op type; the domain is one of ONNX Runtime's own.
_RULES: dict[str, Callable[[ir.Node], Dims]] = {
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "NhwcFusedConv": _convolution(1),
    "QLinearConv": _convolution(3),
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "NhwcMaxPool": _pool,
    "QLinearAveragePool": _pool,
    "QLinearGlobalAveragePool": _pool,
    "ReorderInput": _reorder_input,
    "ReorderOutput": _reorder_output,
    "Upsample": _upsample,
    "FusedMatMul": _product(0, 1),
    "FusedGemm": _product(0, 1),
    "QGemm": _product(0, 3),
    "MatMulIntegerToFloat": _product(0, 1),
    "DynamicQuantizeMatMul": _product(0, 1),
    "QLinearConcat": _concatenation,
    "QLinearAdd": _broadcast(0, 3),
    "QLinearMul": _broadcast(0, 3),
    "BiasGelu": _same,
    "FastGelu": _same,
    "Gelu": _same,
    "QuickGelu": _same,
    "QuantizeLinear": _same,
    "DequantizeLinear": _same,
    "SkipLayerNormalization": _same,
    "SkipSimplifiedLayerNormalization": _same,
    "SimplifiedLayerNormalization": _same,
    "QLinearLeakyRelu": _same,
    "QLinearSigmoid": _same,
    "QLinearSoftmax": _same,
    "BiasSoftmax": _same,
}
