"""Counts multiply-accumulates by running a model: an oracle that shares nothing with graphopt.

ONNX Runtime's profiler reports the shapes of every kernel that ran, in loops each time anew and in
the branch that was taken only. From those shapes alone the products are counted.
"""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner

Shape = list[int]
Attributes = dict[str, Any]


def executed_macs(model: onnx.ModelProto, feed: Mapping[str, Any], folder: Path) -> int:
    """The multiply-accumulates of one run; the profile is written to `folder`."""
    import onnxruntime

    model = onnx.inliner.inline_local_functions(model)
    attributes: dict[str, Attributes] = {}
    # Names tell the profile's events apart, so each node gets one of its own.
    for index, node in enumerate(_nodes(model.graph)):
        node.name = f"node{index}"
        attributes[node.name] = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    # A weight that a kernel packs for itself beforehand is missing among the reported inputs.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    session.run(None, dict(feed))
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [event for event in events if event.get("name", "").endswith("_kernel_time")]
    assert kernels, "ONNX Runtime reported no kernel"
    total = 0
    for event in kernels:
        given = attributes.get(event["name"].removesuffix("_kernel_time"), {})
        total += _macs(event["args"], given)
    return total


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _macs(event: Mapping[str, Any], attributes: Attributes) -> int:
    kind = event["op_name"]
    if kind not in _COUNTED:
        # Anything else that multiplies matrices would be counted as nothing without a word.
        assert not any(word in kind for word in ("Conv", "Gemm", "MatMul", "Attention", "DFT"))
        return 0
    inputs = [next(iter(tensor.values())) for tensor in event["input_type_shape"]]
    outputs = [next(iter(tensor.values())) for tensor in event["output_type_shape"]]
    return _COUNTED[kind](inputs, outputs[0], attributes)


def _convolution(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    """Every element of the output is a sum over its group's channels and the kernel's taps."""
    channels, weight = inputs[0][1], inputs[1]
    assert len(weight) == len(output), "the weight is not among the inputs"
    group = attributes.get("group", 1)
    taps = len(list(itertools.product(*(range(size) for size in weight[2:]))))
    return math.prod(output) * (channels // group) * taps


def _quantized_convolution(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    return _convolution([inputs[0], inputs[3]], output, attributes)


def _transposed_convolution(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    """Every element of the input is spread over its group's output channels and the taps."""
    group = attributes.get("group", 1)
    assert output[1] % group == 0
    assert len(inputs[1]) == len(inputs[0]), "the weight is not among the inputs"
    taps = len(list(itertools.product(*(range(size) for size in inputs[1][2:]))))
    return math.prod(inputs[0]) * (output[1] // group) * taps


def _gemm(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    rows_of_a = inputs[0] if not attributes.get("transA") else inputs[0][::-1]
    return math.prod(output) * rows_of_a[1]


def _matrix_product(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    return math.prod(output) * inputs[0][-1]


def _recurrent(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    """Each step multiplies the input by W and the state by R, in each direction."""
    steps, batch, width = inputs[0]
    directions, gates_times_hidden, hidden = inputs[2]
    once = gates_times_hidden * width + gates_times_hidden * hidden
    return sum(batch * once for _ in range(directions) for _ in range(steps))


def _einsum(inputs: list[Shape], output: Shape, attributes: Attributes) -> int:
    """Operands are taken in from left to right; what nobody needs later is summed away."""
    equation = attributes["equation"].decode().replace(" ", "")
    assert "." not in equation, "an ellipsis is not counted here"
    assert "->" in equation
    left, result = equation.split("->")
    terms = left.split(",")
    size: dict[str, int] = {}
    for term, shape in zip(terms, inputs, strict=True):
        size.update(zip(term, shape, strict=True))
    total, held = 0, set(terms[0])
    for index, term in enumerate(terms[1:], start=1):
        touched = held | set(term)
        total += math.prod(size[letter] for letter in touched)
        held = touched & set("".join(terms[index + 1 :]) + result)
    return total


_COUNTED: dict[str, Callable[[list[Shape], Shape, Attributes], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "QLinearConv": _quantized_convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearMatMul": _matrix_product,
    "Einsum": _einsum,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
