"""Sorts executed nodes into kernel classes, and says of each the work and the shape it has.

A class holds nodes that run the same code, so that their times vary smoothly with their shapes.
Features are base-2 logarithms of sizes, and flags of 0 or 1. Two things set the classes apart
that ONNX does not show: which of ONNX Runtime's convolutions runs (they differ by a factor of
five in speed), and whether a matrix is constant, and therefore packed beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from graphopt.cost.latency import contractions, elements, movement
from graphopt.cost.latency.operation import Kernel, Operation, UnknownShapeError, log2, tensor_of
from graphopt.graph import ir, subgraphs


def kernels(model: ir.Model) -> list[tuple[ir.Node, Kernel]]:
    """Every node of an executed model that runs, with what it is to the model of its time."""
    pressure = _pressure(list(model.graph))
    return [(node, kernel_of(node, pressure)) for node in _run_nodes(model.graph)]


def _run_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """The nodes that run: of branches those of the longer one, of a loop one iteration."""
    for node in graph:
        yield node
        inner = subgraphs(node)
        if inner:
            yield from _run_nodes(max(inner, key=len))


def kernel_of(node: ir.Node, pressure: float = 0.0) -> Kernel:
    """The class, features and work of one node.

    Args:
        node: a node of an executed graph, whose values have shapes.
        pressure: log2 of the megabytes that a run of the whole model touches: with many, weights
            have left the near caches by the time that they are needed again.
    """
    operation = Operation(node, pressure)
    try:
        kernel = _DESCRIBED.get(node.op_type, movement.plain)(operation)
        return replace(kernel, terms=(*kernel.terms, *operation.far()))
    except (UnknownShapeError, IndexError, ValueError, ZeroDivisionError):
        return Kernel(f"{node.op_type} of unknown shape", (), (1.0,), 0.0, operation.bytes)


def _pressure(nodes: Sequence[ir.Node]) -> float:
    weights: dict[str, float] = {}
    largest = 0.0
    for node in nodes:
        moved = 0.0
        for value in (*node.inputs, *node.outputs):
            tensor = tensor_of(value)
            if value is None or tensor is None:
                continue
            if tensor.constant:
                weights[value.name or ""] = tensor.bytes
            else:
                moved += tensor.bytes
        largest = max(largest, moved)
    return log2((sum(weights.values()) + 3 * largest) / 2**20 + 1 / 16)


def _by(
    describe: Callable[[Operation], Kernel], names: str
) -> dict[str, Callable[[Operation], Kernel]]:
    return dict.fromkeys(names.split(), describe)


_DESCRIBED: dict[str, Callable[[Operation], Kernel]] = {
    **_by(contractions.convolution, "Conv FusedConv NhwcFusedConv QLinearConv"),
    **_by(contractions.transposed_convolution, "ConvTranspose"),
    **_by(contractions.product, "MatMul Gemm FusedMatMul FusedGemm"),
    **_by(contractions.product, " ".join(contractions.INTEGER_PRODUCTS)),
    **_by(
        elements.binary,
        "Add Sub Mul Div Pow Max Min And Or Xor Equal Less Greater LessOrEqual GreaterOrEqual Mod "
        "PRelu QLinearAdd QLinearMul Where",
    ),
    **_by(
        elements.unary,
        "Relu LeakyRelu Clip Sigmoid Tanh Exp Log Sqrt Reciprocal Erf Abs Neg Floor Ceil Round "
        "Not Cast HardSigmoid HardSwish Softplus Elu Gelu QuickGelu FastGelu BiasGelu Sign Mish "
        "Sin Cos QuantizeLinear DequantizeLinear QLinearSigmoid QLinearLeakyRelu IsNaN "
        "DynamicQuantizeLinear",
    ),
    **_by(
        elements.rows,
        "Softmax LogSoftmax LayerNormalization SimplifiedLayerNormalization GroupNorm "
        "SkipLayerNormalization SkipSimplifiedLayerNormalization RMSNormalization "
        "InstanceNormalization BatchNormalization QLinearSoftmax BiasSoftmax",
    ),
    **_by(
        elements.reduction,
        "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL2 ReduceL1 ReduceSumSquare "
        "ArgMax ArgMin CumSum",
    ),
    **_by(
        elements.pool,
        "MaxPool AveragePool GlobalAveragePool GlobalMaxPool QLinearAveragePool "
        "QLinearGlobalAveragePool NhwcMaxPool",
    ),
    **_by(movement.transpose, "Transpose"),
    **_by(movement.reorder, "ReorderInput ReorderOutput"),
    **_by(
        movement.movement,
        "Concat Split Slice Gather Pad Expand Tile QLinearConcat GatherElements GatherND "
        "ScatterND ScatterElements DepthToSpace SpaceToDepth",
    ),
    **_by(elements.resize, "Resize Upsample"),
    **_by(contractions.einsum, "Einsum"),
    **_by(contractions.recurrent, "LSTM GRU RNN"),
    **_by(movement.view, "Reshape Squeeze Unsqueeze Flatten Identity Shape"),
}
