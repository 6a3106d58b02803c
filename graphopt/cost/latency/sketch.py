"""Builds small ONNX models with random weights, in floats or as QDQ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

_OPSET = 17
_TILE = 4099

# What ONNX Runtime's static quantizer puts between QuantizeLinear and DequantizeLinear.
QUANTIZED = frozenset(
    (
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "Add",
        "Mul",
        "MaxPool",
        "AveragePool",
        "GlobalAveragePool",
        "Concat",
        "Softmax",
        "Sigmoid",
        "Resize",
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Pad",
        "Gather",
        "Slice",
        "LeakyRelu",
        "Flatten",
        "LayerNormalization",
        "Where",
        "Relu",
        "Clip",
    )
)


class Sketch:
    """A model under construction; every method that adds a node returns its output's name.

    Args:
        random: where sizes and weights are drawn from.
        quantized: None for floats, or the ONNX type of quantized activations.
    """

    def __init__(self, random: np.random.Generator, quantized: int | None = None) -> None:
        self.random = random
        self.quantized = quantized
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.per_column = bool(random.random() < 0.6)
        self.macs = 0.0
        self.weight_bytes = 0.0
        self._tile = random.standard_normal(_TILE).astype(np.float32)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[str] = []
        self._count = 0

    def input(self, shape: Sequence[Any], dtype: int = TensorProto.FLOAT) -> str:
        """An input of the model."""
        name = self.name("input")
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        self.shapes[name] = tuple(shape)
        return name

    def output(self, *names: str) -> None:
        """Make these values outputs of the model."""
        self._outputs.extend(names)

    def reduce_outputs(self) -> None:
        """Give out one number of each output instead of all of it.

        The memory of a graph's outputs is new at every run, and the first to write to it waits
        for the system; in a network that holds for few of the values.
        """
        wide, self._outputs = self._outputs, []
        for name in wide:
            flat = self.add("Reshape", [name, self.integers([-1])])
            self.output(self.add("Gather", [flat, self.integers(0)]))

    def weight(self, shape: Sequence[int], scale: float = 1.0) -> str:
        """A float constant: the same random numbers over and over, which is quick."""
        size = math.prod(shape)
        data = np.resize(self._tile * np.float32(scale), size)
        name = self.name("weight")
        self.weight_bytes += 4 * size
        return self.constant(name, TensorProto.FLOAT, shape, data.tobytes())

    def integers(self, values: int | Sequence[int]) -> str:
        """An int64 constant."""
        data = np.array(values, np.int64)
        return self.constant(self.name("ints"), TensorProto.INT64, data.shape, data.tobytes())

    def add(
        self,
        op_type: str,
        inputs: Sequence[str],
        shape: Sequence[int] = (),
        *,
        outputs: int = 1,
        **attributes: Any,
    ) -> str:
        """Add a node; `shape` is what the caller knows of its first output's shape."""
        return self.add_many(op_type, inputs, [shape] * outputs, **attributes)[0]

    def add_many(
        self,
        op_type: str,
        inputs: Sequence[str],
        shapes: Sequence[Sequence[int]],
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs; `shapes` as in `add`."""
        names = [self.name(op_type.lower()) for _ in shapes]
        for name, shape in zip(names, shapes, strict=True):
            self.shapes[name] = tuple(shape)
        node = helper.make_node(op_type, list(inputs), names, name=names[0], **attributes)
        self._nodes.append(node)
        return names

    def conv(
        self,
        data: str,
        filters: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        group: int = 1,
        dilation: int = 1,
    ) -> str:
        """A 2-D convolution with bias that keeps the size (divided by the stride)."""
        high, wide = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        batch, channels, height, width = self.shapes[data]
        depth = channels // group
        weight = self.weight((filters, depth, high, wide), (2 / (depth * high * wide)) ** 0.5)
        top, left = dilation * (high - 1), dilation * (wide - 1)
        out = (batch, filters, -(-height // stride), -(-width // stride))
        self.macs += math.prod(out) * depth * high * wide
        return self.add(
            "Conv",
            [data, weight, self.weight((filters,), 0.1)],
            out,
            kernel_shape=[high, wide],
            strides=[stride, stride],
            dilations=[dilation, dilation],
            group=group,
            pads=[top // 2, left // 2, top - top // 2, left - left // 2],
        )

    def normalized(self, data: str) -> str:
        """A BatchNormalization."""
        wide = (self.shapes[data][1],)
        weights = [self.weight(wide, 0.1) for _ in range(3)]
        ones = np.ones(wide, np.float32).tobytes()
        variance = self.constant(self.name("variance"), TensorProto.FLOAT, wide, ones)
        return self.unary("BatchNormalization", data, *weights, variance)

    def linear(self, data: str, columns: int, *, bias: bool = True) -> str:
        """A MatMul with a constant matrix, and an Add; a Gemm where the data is a matrix."""
        *outer, depth = self.shapes[data]
        self.macs += math.prod(outer) * depth * columns
        shape = (*outer, columns)
        if bias and len(outer) == 1:
            turned = int(self.random.random() < 0.6)
            weight = self.weight((columns, depth) if turned else (depth, columns), depth**-0.5)
            inputs = [data, weight, self.weight((columns,), 0.1)]
            return self.add("Gemm", inputs, shape, transB=turned)
        weight = self.weight((depth, columns), depth**-0.5)
        product = self.add("MatMul", [data, weight], shape)
        return self.binary("Add", product, self.weight((columns,), 0.1)) if bias else product

    def matmul(self, a: str, b: str) -> str:
        """A MatMul of two computed matrices."""
        left, right = self.shapes[a], self.shapes[b]
        self.macs += math.prod(left) * right[-1]
        return self.add("MatMul", [a, b], (*left[:-1], right[-1]))

    def unary(self, op_type: str, data: str, *more: str, **attributes: Any) -> str:
        """A node whose output is as large as its first input."""
        return self.add(op_type, [data, *more], self.shapes[data], **attributes)

    def binary(self, op_type: str, a: str, b: str) -> str:
        """An elementwise node on two values, stretched to one another."""
        shape = np.broadcast_shapes(self._shape(a), self._shape(b))
        return self.add(op_type, [a, b], shape)

    def scalar(self, value: float) -> str:
        """A float constant of rank 0."""
        data = np.array(value, np.float32)
        return self.constant(self.name("scalar"), TensorProto.FLOAT, (), data.tobytes())

    def reshape(self, data: str, shape: Sequence[int]) -> str:
        """A Reshape to a fixed shape."""
        return self.add("Reshape", [data, self.integers(shape)], shape)

    def transpose(self, data: str, order: Sequence[int]) -> str:
        """A Transpose."""
        shape = [self.shapes[data][axis] for axis in order]
        return self.add("Transpose", [data], shape, perm=list(order))

    def model(self) -> onnx.ModelProto:
        """The finished model."""
        if self.quantized is not None:
            self._quantize(self.quantized)
        outputs = [helper.make_empty_tensor_value_info(name) for name in self._outputs]
        graph = helper.make_graph(
            self._nodes, "sample", self._inputs, outputs, list(self._initializers.values())
        )
        for info in graph.output:
            info.type.tensor_type.elem_type = TensorProto.FLOAT
        opset = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        return self.shapes[name]

    def name(self, stem: str) -> str:
        """A name that is not taken."""
        self._count += 1
        return f"{stem}_{self._count}"

    def constant(self, name: str, dtype: int, shape: Sequence[int], data: bytes) -> str:
        """A constant of any type, from its bytes."""
        self._initializers[name] = TensorProto(
            name=name, data_type=dtype, dims=list(shape), raw_data=data
        )
        return name

    def _quantize(self, dtype: int) -> None:
        """Put QuantizeLinear and DequantizeLinear around what the static quantizer knows."""
        nodes, self._nodes = self._nodes, []
        made = {name: node for node in nodes for name in node.output}
        uses: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                uses.setdefault(name, []).append(node)
        replaced: dict[str, str] = {}
        discrete = {
            info.name
            for info in self._inputs
            if info.type.tensor_type.elem_type != TensorProto.FLOAT
        }
        for info in self._inputs:
            if info.type.tensor_type.elem_type == TensorProto.FLOAT and any(
                node.op_type in QUANTIZED for node in uses.get(info.name, ())
            ):
                replaced[info.name] = self.pair(info.name, dtype)
        for node in nodes:
            first = made.get(node.input[0])
            if (
                node.op_type in ("Relu", "Clip")
                and first is not None
                and first.op_type in ("Conv", "Add", "Gemm")
                and len(uses[node.input[0]]) == 1
            ):
                # The range of the quantized type clips: the quantizer drops the activation.
                replaced[node.output[0]] = replaced[node.input[0]]
                if node.output[0] in self._outputs:
                    self._outputs.append(replaced[node.input[0]])
                    self._outputs.remove(node.output[0])
                continue
            if _is_discrete(node, discrete):
                discrete.update(node.output)
            quantized = node.op_type in QUANTIZED
            for index, name in enumerate(node.input):
                constant = self._initializers.get(name)
                if quantized and constant is not None and constant.data_type == TensorProto.FLOAT:
                    if node.op_type in ("Clip", "Resize"):
                        continue
                    node.input[index] = self._constant_pair(name, node, index)
                elif name in replaced:
                    node.input[index] = replaced[name]
            self._nodes.append(node)
            for name in node.output:
                wanted = quantized or any(user.op_type in QUANTIZED for user in uses.get(name, ()))
                if wanted and name not in discrete:
                    replaced[name] = self.pair(name, dtype)

    def pair(self, name: str, dtype: int) -> str:
        """Quantize a value and back; gives the name of the result."""
        scale, zero = self.scalar(0.02), self._zero(dtype)
        code = self.name("quantized")
        back = self.name("dequantized")
        self.shapes[back] = self.shapes[name]
        self._nodes.append(helper.make_node("QuantizeLinear", [name, scale, zero], [code]))
        self._nodes.append(helper.make_node("DequantizeLinear", [code, scale, zero], [back]))
        return back

    def _zero(self, dtype: int, shape: Sequence[int] = (), value: int = 3) -> str:
        size = math.prod(shape)
        width = 4 if dtype == TensorProto.INT32 else 1
        data = bytes([value] * size) if width == 1 else bytes(4 * size)
        return self.constant(self.name("zero"), dtype, shape, data)

    def _constant_pair(self, name: str, node: onnx.NodeProto, index: int) -> str:
        """An 8-bit weight (or 32-bit bias) and the DequantizeLinear that reads it."""
        tensor = self._initializers[name]
        size = math.prod(tensor.dims)
        bias = index == 2 and node.op_type in ("Conv", "Gemm", "ConvTranspose")
        kind = TensorProto.INT32 if bias else TensorProto.INT8
        integers = np.resize((self._tile * 40).clip(-127, 127), size)
        data = integers.astype(np.int32 if bias else np.int8).tobytes()
        code = self.constant(self.name("code"), kind, tensor.dims, data)
        shape: tuple[int, ...] = ()
        axis = 0
        if node.op_type == "Conv":
            shape = (tensor.dims[0],)
        elif node.op_type in ("MatMul", "Gemm") and self.per_column:
            axis = len(tensor.dims) - 1
            shape = (tensor.dims[axis],)
        scale = np.full(shape, 4e-4 if bias else 0.02, np.float32)
        scale_name = self.constant(self.name("scale"), TensorProto.FLOAT, shape, scale.tobytes())
        zero = self._zero(kind, shape, 0)
        back = self.name("dequantized")
        attributes: dict[str, Any] = {"axis": axis} if shape else {}
        self._nodes.append(
            helper.make_node("DequantizeLinear", [code, scale_name, zero], [back], **attributes)
        )
        return back


def _is_discrete(node: onnx.NodeProto, discrete: set[str]) -> bool:
    """Whether a node makes integers or truth values, given the names of those made so far."""
    if node.op_type in ("Equal", "Less", "Greater", "Not", "Shape", "ArgMax", "MatMulInteger"):
        return True
    if node.op_type == "Cast":
        return any(a.name == "to" and a.i != TensorProto.FLOAT for a in node.attribute)
    if node.op_type == "DynamicQuantizeLinear":
        return True
    return node.op_type != "Where" and node.input[0] in discrete


def random_size(random: np.random.Generator, low: float = 0.0, high: float = 20.0) -> int:
    """A size between two powers of 2, log-uniform."""
    return max(round(2 ** random.uniform(low, high)), 1)


def made(sketch: Sketch, shape: list[int] | tuple[int, ...]) -> str:
    """A tensor of this shape: a kernel reads an input of the graph and leaves it in the caches."""
    return sketch.binary("Add", sketch.input(shape), sketch.scalar(0.5))
