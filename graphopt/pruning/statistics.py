"""Linear layers as least squares sees them, and the second moments of what they read.

    y = X W + b        X: [groups, rows, columns],  W: [groups, columns, outputs/group]

The columns of a convolution are channel-major: the channel, then the position in the kernel, as
in graphopt.runtime.moments. Conv, Gemm and MatMul with a constant right factor are such layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.pruning.groups import Groups
from graphopt.pruning.propagation.place import node_name
from graphopt.pruning.repair_walk import Walk
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed, Patches, SecondMoment

MAX_COLUMNS = 5000
"""A layer with more columns is not refitted: its second moment would take over 200 MB."""

ROWS_PER_COLUMN = 30
"""Rows in a second moment for each of its columns: the estimate's excess error is 1/30."""

MIN_ROWS = 4096
MAX_ROW_BYTES = 256 << 20


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


def consumer_moments(
    model: ir.Model,
    groups: Groups,
    feeds: Sequence[Feed],
    *,
    rows_per_column: int = ROWS_PER_COLUMN,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, SecondMoment]:
    """For the name of each layer that consumes prunable channels the moment of its columns.

    The model runs once over the data. Layers too wide to be refitted are left out.

    Args:
        model: the model in which the groups were found; it is not changed.
        groups: of `find_groups`.
        feeds: the data.
        rows_per_column: rows that are drawn for each column.
        seed: which ones.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        progress: called with the layers done and the layers in all.
    """
    layers, _ = layers_of(model.graph)
    consuming = {member.node for group in groups.prunable for member in group.consumers}
    wanted = [layer for layer in layers.values() if layer.name in consuming]
    walk = Walk(model, feeds, threads)
    moments: dict[str, SecondMoment] = {}
    for number, layer in enumerate(wanted if feeds else ()):
        if progress is not None:
            progress(number, len(wanted))
        if layer.columns > MAX_COLUMNS:
            continue
        data = layer.data.name or ""
        walk.advance([data, layer.name])
        random = np.random.default_rng([seed, number])
        each = drawn_each(layer, rows_per_column, len(feeds))
        try:
            parts = [
                gathered_rows(layer, x, y, drawn(layer, y, each, random))[0]
                for x, y in zip(walk.values(data), walk.values(layer.name), strict=True)
            ]
        except NotApplicable:
            continue
        moments[layer.name] = _moment(np.concatenate(parts, axis=1))
    return moments


def drawn_each(layer: Layer, rows_per_column: int, feeds: int) -> int:
    """How many rows of each feed to take, so that a layer gets its rows within the memory."""
    wanted = max(MIN_ROWS, rows_per_column * layer.columns)
    wanted = min(wanted, MAX_ROW_BYTES // (4 * (layer.groups * layer.columns + layer.outputs)))
    return max(1, -(-wanted // feeds))


def drawn(layer: Layer, result: np.ndarray, each: int, random: np.random.Generator) -> np.ndarray:
    """Numbers of rows of a result, ascending, at most `each` of them."""
    count = result.size // layer.outputs
    if count <= each:
        return np.arange(count)
    return np.sort(random.choice(count, each, replace=False))


def _moment(rows: np.ndarray) -> SecondMoment:
    groups, count, columns = rows.shape
    matrix = np.zeros((groups, columns, columns))
    for start in range(0, count, 1 << 14):
        part = rows[:, start : start + (1 << 14)]
        matrix += np.matmul(part.transpose(0, 2, 1), part)
    sums = rows.sum(axis=1, dtype=np.float64)
    return SecondMoment(matrix, sums, sums, count)


def gathered_rows(
    layer: Layer, values: np.ndarray, result: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen rows of X as float32 [groups, rows, columns] and of `result` as [rows, outputs].

    Args:
        layer: whose rows.
        values: what it reads.
        result: anything of the shape of its output.
        chosen: numbers of rows, of those that `result` has over all axes but the channels.
    """
    moved = np.moveaxis(result, layer.channel_axis, -1)
    places = np.unravel_index(chosen, moved.shape[:-1])
    patches = layer.patches
    if patches is None:
        return np.asarray(values[places], np.float32)[None], np.asarray(moved[places], np.float32)
    rank = len(patches.kernel)
    pads = _same_pads(layer, values.shape[2:]) or patches.pads or (0,) * 2 * rank
    border = [(0, 0), *zip(pads[:rank], pads[rank:], strict=True), (0, 0)]
    last = np.pad(np.moveaxis(values, 1, -1), border).astype(np.float32, copy=False)
    offsets = list(np.ndindex(*patches.kernel))
    rows = np.empty((len(chosen), last.shape[-1], len(offsets)), np.float32)
    strides = patches.strides or (1,) * rank
    dilations = patches.dilations or (1,) * rank
    for number, offset in enumerate(offsets):
        index = [
            places[1 + axis] * strides[axis] + offset[axis] * dilations[axis]
            for axis in range(rank)
        ]
        rows[:, :, number] = last[(places[0], *index)]
    grouped = rows.reshape(len(chosen), layer.groups, -1).transpose(1, 0, 2)
    return grouped, np.asarray(moved[places], np.float32)


def feeds_of(feeds: Iterable[Feed], samples: int) -> list[Feed]:
    """The first feeds that hold so many samples together (at least one feed)."""
    taken: list[Feed] = []
    count = 0
    for feed in feeds:
        taken.append(feed)
        count += max((np.shape(value)[0] for value in feed.values() if np.ndim(value)), default=1)
        if count >= samples:
            break
    return taken


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


def _same_pads(layer: Layer, sizes: Sequence[int]) -> tuple[int, ...] | None:
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
