"""Make the smallest weights zero, for runtimes that skip them.

    Conv(x, W)    ->  Conv(x, W * (|W| >= t))       t: the `ratio` quantile of |W|
    MatMul(x, W)  ->  MatMul(x, W * mask)           pattern=2:4: the two largest of each four

With pattern=2:4 every four consecutive inputs of one output (input channels of a Conv at one place
of its window, rows of a MatMul's weight) keep their two largest weights, as the sparse units of
NVIDIA's GPUs from Ampere on need it; `ratio` does not count then. Shapes stay: ONNX Runtime
computes dense and gains nothing but a file that compresses better. To make a model faster there,
remove whole channels with prune-channels.

Declined where the weight is no constant of floats or is small, where something else reads it too,
where it is as sparse already, and for 2:4 where the inputs are no multiple of four.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Pass,
    Promise,
    Rewriter,
    all_nodes,
    constant_array,
    ir,
    option,
    site_of,
)

_READERS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class SparsifyWeights(Pass):
    """Make the smallest weights of Conv, Gemm and MatMul zero."""

    name = "sparsify-weights"
    promise = Promise.LOSSY

    ratio: float = option(0.5, "the share of each weight's elements to make zero, 0 to 1")
    pattern: str = option("unstructured", "unstructured, or 2:4")
    minimum_elements: int = option(1024, "leave weights with fewer elements as they are")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            ValueError: an option is out of its range.
        """
        if not 0 < self.ratio < 1:
            raise ValueError(f"ratio={self.ratio} is not between 0 and 1")
        if self.pattern not in ("unstructured", "2:4"):
            raise ValueError(f"pattern={self.pattern} is neither 'unstructured' nor '2:4'")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Give each node its masked weight; nodes that share one go on sharing it."""
        rewriter = Rewriter(model, journal)
        made: dict[tuple[ir.Value, int, int], ir.Value] = {}
        for node in list(all_nodes(model)):
            if node.op_type not in _READERS or node.domain not in ("", "ai.onnx"):
                continue
            weight = node.inputs[1]
            if weight is None or constant_array(weight) is None:
                continue
            if not journal.permits(site_of(node)):
                continue
            rewriter.begin(node)
            rank = 0 if weight.shape is None else len(weight.shape)
            key = weight, id(node.graph), _input_axis(node, rank)
            try:
                if key not in made:
                    made[key] = rewriter.initializer(
                        self._masked(weight, node), f"{weight.name}_sparse"
                    )
            except NotApplicable as refusal:
                rewriter.discard()
                journal.decline(site_of(node), str(refusal))
                continue
            inputs: list[ir.Value | None] = [node.inputs[0], made[key], *node.inputs[2:]]
            rewriter.replace(node, rewriter.node(node.op_type, inputs, node.attributes.values()))

    def _masked(self, weight: ir.Value, node: ir.Node) -> np.ndarray:
        """The weight with its smallest elements zero.

        Raises:
            NotApplicable: it is to stay as it is.
        """
        array = constant_array(weight)
        if array is None or not np.issubdtype(array.dtype, np.floating):
            raise NotApplicable("the weight is no constant of floats")
        if array.size < self.minimum_elements:
            raise NotApplicable(f"the weight has {array.size} elements only")
        if any(usage.node.op_type not in _READERS or usage.idx != 1 for usage in weight.uses()):
            raise NotApplicable("something else reads the weight too")
        kept = self._kept(array, node)
        if not (array[~kept] != 0).any():
            raise NotApplicable("the weight is as sparse already")
        return np.where(kept, array, np.zeros((), array.dtype))

    def _kept(self, array: np.ndarray, node: ir.Node) -> np.ndarray:
        """Which elements stay, in the weight's shape."""
        size = np.abs(array)
        if self.pattern == "unstructured":
            count = round(self.ratio * array.size)
            kept = np.ones(array.size, bool)
            # Stable, so that of equal weights the first go, on every machine.
            kept[np.argsort(size, axis=None, kind="stable")[:count]] = False
            return kept.reshape(array.shape)
        axis = _input_axis(node, array.ndim)
        if array.shape[axis] % 4:
            raise NotApplicable(f"{array.shape[axis]} inputs are no multiple of four")
        moved = np.moveaxis(size, axis, -1)
        fours = moved.reshape(*moved.shape[:-1], -1, 4)
        order = np.argsort(fours, axis=-1, kind="stable")
        four = np.ones(fours.shape, bool)
        np.put_along_axis(four, order[..., :2], False, axis=-1)
        return np.moveaxis(four.reshape(moved.shape), -1, axis)


def _input_axis(node: ir.Node, rank: int) -> int:
    """The axis of a weight that is summed over."""
    if node.op_type == "Conv":
        return 1
    if node.op_type == "Gemm" and node.attributes.get_int("transB", False):
        return 1
    return max(rank - 2, 0)
