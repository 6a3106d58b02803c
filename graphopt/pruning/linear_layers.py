"""Linear layers as least squares sees them: a matrix of columns, a bias, and where they are kept.

    y = X W + b        X: [groups, rows, columns],  W: [groups, columns, outputs/group]

The columns of a convolution are channel-major: the channel, then the position in the kernel, as
in graphopt.runtime.moments. Conv, Gemm and MatMul with a constant right factor are such layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.pruning.propagation.place import node_name
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Patches


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear operator with a constant weight; made by `layer_of`.

    Attributes:
        node: the operator.
        weight: its weight as stored.
        groups: the groups of a convolution; 1 elsewhere.
        bias: the node and the input that its bias is; None where it can have none.
        output: what it gives, the bias included.
        patches: the geometry of a convolution; None elsewhere.
    """

    node: ir.Node
    weight: np.ndarray
    groups: int
    bias: tuple[ir.Node, int] | None
    output: ir.Value
    patches: Patches | None

    @property
    def name(self) -> str:
        """The name of the operator's first output."""
        return node_name(self.node)

    @property
    def data(self) -> ir.Value:
        """What the weight is multiplied with."""
        value = self.node.inputs[0]
        if value is None:
            raise NotApplicable(f"{self.node.op_type} has no data input")
        return value

    @property
    def input_axis(self) -> int:
        """The weight's axis that is summed over (of a convolution: within a group)."""
        if self.patches is not None:
            return 1
        return 1 if self.node.attributes.get_int("transB", 0) else 0

    @property
    def channel_axis(self) -> int:
        """The channel axis of what it reads and gives."""
        return 1 if self.patches is not None else -1

    @property
    def columns(self) -> int:
        """How many columns a group has."""
        return self.weight.size // self.outputs

    @property
    def outputs(self) -> int:
        """How many outputs it has, over all groups."""
        return int(self.weight.shape[0 if self.patches is not None else 1 - self.input_axis])

    def matrix(self) -> np.ndarray:
        """The weight as float64 [groups, columns, outputs/group]."""
        weight = self.weight.astype(np.float64)
        if self.patches is not None:
            return weight.reshape(self.groups, self.outputs // self.groups, -1).transpose(0, 2, 1)
        return np.asarray(weight if self.input_axis == 0 else weight.T)[None]

    def stored(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`, in the weight's own type."""
        if self.patches is not None:
            array = matrix.transpose(0, 2, 1).reshape(self.weight.shape)
        else:
            array = matrix[0] if self.input_axis == 0 else matrix[0].T
        return np.ascontiguousarray(array.astype(self.weight.dtype))

    def bias_vector(self) -> np.ndarray:
        """The bias as float64 [outputs]; zeros where there is none."""
        if self.bias is not None:
            node, index = self.bias
            array = constant_array(node.inputs[index] if index < len(node.inputs) else None)
            if array is not None:
                return np.broadcast_to(array.astype(np.float64).reshape(-1), (self.outputs,))
        return np.zeros(self.outputs)

    def columns_of(self, indices: np.ndarray) -> np.ndarray:
        """The columns that go with indices of the weight's input axis, in the same order."""
        kernel = 1 if self.patches is None else int(math.prod(self.patches.kernel))
        return (np.asarray(indices)[..., None] * kernel + np.arange(kernel)).reshape(
            *np.shape(indices)[:-1], -1
        )

    def holds(self, *arrays: np.ndarray) -> bool:
        """Whether all numbers are finite in the weight's type: float16 ends at 65,504."""
        with np.errstate(over="ignore"):
            return all(np.isfinite(array.astype(self.weight.dtype)).all() for array in arrays)

    def write(self, matrix: np.ndarray, bias: np.ndarray | None) -> None:
        """Give the operator another weight and, where it can have one, bias [outputs]."""
        _set(self.node, 1, self.stored(matrix))
        if bias is not None and self.bias is not None:
            node, index = self.bias
            old = constant_array(node.inputs[index] if index < len(node.inputs) else None)
            array = bias.astype(self.weight.dtype)
            _set(node, index, array if old is None or old.size == 1 else array.reshape(old.shape))


def layer_of(node: ir.Node) -> Layer:
    """The view of a node.

    Raises:
        NotApplicable: it is no linear operator, or one whose weight cannot be changed.
    """
    if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
        raise NotApplicable(f"{node.op_type} is not refitted")
    value = node.inputs[1] if len(node.inputs) > 1 else None
    weight = constant_array(value)
    if value is None or weight is None:
        raise NotApplicable(f"the right factor of {node.op_type} is not a constant")
    if weight.dtype not in (np.float32, np.float64, np.float16) or not np.isfinite(weight).all():
        raise NotApplicable(f"the weight of {node.op_type} is {weight.dtype} or not finite")
    if len(value.uses()) > 1 or value.is_graph_output():
        raise NotApplicable(f"the weight '{value.name}' is shared")
    convolution = node.op_type == "Conv"
    if weight.size == 0 or ((weight.ndim < 3) if convolution else (weight.ndim != 2)):
        raise NotApplicable(f"the weight of {node.op_type} has {weight.ndim} dims")
    if convolution:
        groups = node.attributes.get_int("group", 1)
        patches = _patches(node, weight.shape[2:], groups)
        return Layer(node, weight, groups, _input_bias(node, 2), node.outputs[0], patches)
    if node.op_type == "Gemm":
        plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
        if not plain or node.attributes.get_int("transA", 0) != 0:
            raise NotApplicable("Gemm has alpha, beta or transA")
        return Layer(node, weight, 1, _input_bias(node, 2), node.outputs[0], None)
    added = _added_bias(node.outputs[0], weight.shape[1])
    output = node.outputs[0] if added is None else added[0].outputs[0]
    return Layer(node, weight, 1, added, output, None)


def layers_of(graph: ir.Graph) -> tuple[dict[str, Layer], dict[str, str]]:
    """The linear layers of a graph by name, in its order, and why others are none."""
    layers: dict[str, Layer] = {}
    declined: dict[str, str] = {}
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        try:
            layers[node_name(node)] = layer_of(node)
        except NotApplicable as reason:
            declined[node_name(node)] = str(reason)
    return layers, declined


def _patches(node: ir.Node, kernel: Sequence[int], groups: int) -> Patches:
    rank = len(kernel)
    attributes = node.attributes
    pads = tuple(attributes.get_ints("pads", [0] * 2 * rank))
    if attributes.get_string("auto_pad", "NOTSET") == "VALID":
        pads = (0,) * 2 * rank
    return Patches(
        tuple(kernel),
        tuple(attributes.get_ints("strides", [1] * rank)),
        pads,
        tuple(attributes.get_ints("dilations", [1] * rank)),
        groups,
    )


def same_pads(layer: Layer, sizes: Sequence[int]) -> tuple[int, ...] | None:
    """The pads that auto_pad makes for these sizes; None where the node says them itself."""
    automatic = layer.node.attributes.get_string("auto_pad", "NOTSET")
    patches = layer.patches
    if patches is None or automatic not in ("SAME_UPPER", "SAME_LOWER"):
        return None
    totals = [
        max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        for size, kernel, stride, dilation in zip(
            sizes, patches.kernel, patches.strides, patches.dilations, strict=True
        )
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return tuple(small + large if automatic == "SAME_UPPER" else large + small)


def output_shape(layer: Layer, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of what a layer gives, for that of what it reads."""
    patches = layer.patches
    if patches is None:
        return (*shape[:-1], layer.outputs)
    sizes = shape[2:]
    rank = len(sizes)
    pads = same_pads(layer, sizes) or patches.pads
    spatial = [
        (size + pads[axis] + pads[axis + rank] - 1 - patches.dilations[axis] * (kernel - 1))
        // patches.strides[axis]
        + 1
        for axis, (size, kernel) in enumerate(zip(sizes, patches.kernel, strict=True))
    ]
    return (shape[0], layer.outputs, *spatial)


def _input_bias(node: ir.Node, index: int) -> tuple[ir.Node, int] | None:
    """The place of an optional bias input; None where it holds what cannot be changed."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return node, index
    array = constant_array(value)
    if array is None or (array.ndim > 1 and max(array.shape) != array.size):
        return None
    return node, index


def _added_bias(product: ir.Value, outputs: int) -> tuple[ir.Node, int] | None:
    """The Add of a constant vector that alone uses a product, and which input the vector is."""
    uses = tuple(product.uses())
    if len(uses) != 1 or product.is_graph_output():
        return None
    node, index = uses[0].node, 1 - uses[0].idx
    if node.op_type != "Add" or node.domain not in ("", "ai.onnx"):
        return None
    array = constant_array(node.inputs[index])
    if array is None or array.ndim == 0 or array.shape[-1] != outputs or array.size != outputs:
        return None
    return node, index


def _set(node: ir.Node, index: int, array: np.ndarray) -> None:
    """Put a constant in the place of an input; in the old one's value where nobody else uses it."""
    old = node.inputs[index] if index < len(node.inputs) else None
    graph = node.graph
    if old is not None and old.is_initializer() and len(old.uses()) == 1:
        old.const_value = ir.Tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    if not isinstance(graph, ir.Graph):
        raise NotApplicable(f"'{node_name(node)}' is in no graph that can hold a weight")
    base = f"{node_name(node)}/input_{index}_refitted"
    name = base
    while name in graph.initializers:
        name += "_"
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.Tensor(array, name=name),
    )
    graph.initializers.add(value)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
