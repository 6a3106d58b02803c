"""One view of Conv, ConvTranspose, Gemm and MatMul: y = W x + b, with a constant W.

    rows: [groups, outputs/group, columns]; a column is what one entry of x is multiplied by.

The columns are in the order of `graphopt.runtime.moments`: for a convolution channel-major, the
channel and then the position in the kernel. A ConvTranspose has a row for every output channel
and kernel position, and the channels as columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from graphopt.graph import constant_array, ir
from graphopt.rewrite import NotApplicable
from graphopt.runtime import MomentRequest, Patches
from graphopt.shapes import known_shape

LINEAR_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class LinearLayer:
    """A linear operator with a constant weight; made by `linear_layer`.

    Attributes:
        node: the operator.
        weight: its weight as stored.
        weight_index: which input the weight is.
        groups: the groups of a convolution; 1 elsewhere.
    """

    node: ir.Node
    weight: np.ndarray
    weight_index: int
    groups: int

    @property
    def name(self) -> str:
        """The name of its output."""
        return self.node.outputs[0].name or ""

    @property
    def data(self) -> ir.Value:
        """What the weight is multiplied with."""
        value = self.node.inputs[1 - self.weight_index]
        if value is None:
            raise NotApplicable(f"{self.node.op_type} has no data input")
        return value

    @property
    def weight_value(self) -> ir.Value:
        """The value that holds the weight."""
        value = self.node.inputs[self.weight_index]
        if value is None:
            raise NotApplicable(f"{self.node.op_type} has no weight")
        return value

    @property
    def inputs(self) -> int:
        """How many channels (of a MatMul: entries of the contracted dim) it reads."""
        if self.node.op_type == "Conv":
            return int(self.weight.shape[1]) * self.groups
        return int(self.weight.shape[self._input_axis])

    @property
    def outputs(self) -> int:
        """How many channels it makes."""
        if self.node.op_type == "ConvTranspose":
            return int(self.weight.shape[1]) * self.groups
        return int(self.weight.shape[self.output_axis])

    @property
    def output_axis(self) -> int:
        """The weight's axis of outputs: what per-channel scales lie along."""
        return {"Conv": 0, "ConvTranspose": 1}.get(self.node.op_type, 1 - self._input_axis)

    @property
    def _input_axis(self) -> int:
        match self.node.op_type:
            case "Conv":
                return 1
            case "ConvTranspose":
                return 0
            case "Gemm":
                transposed = self.node.attributes.get_int("transB", 0)
                return 1 if transposed else 0
        return 1 - self.weight_index

    def with_weight(self, weight: np.ndarray) -> LinearLayer:
        """The same layer with another weight, of the same shape."""
        return replace(self, weight=weight)

    def rows(self, array: np.ndarray | None = None) -> np.ndarray:
        """An array shaped as the weight (None: the weight), as [groups, outputs, columns]."""
        array = self.weight if array is None else array
        groups = self.groups
        if self.node.op_type == "Conv":
            return array.reshape(groups, array.shape[0] // groups, -1)
        if self.node.op_type == "ConvTranspose":
            split = array.reshape(groups, array.shape[0] // groups, -1)
            return split.transpose(0, 2, 1)
        matrix = array if self._input_axis == 1 else array.T
        return matrix[None]

    def stored(self, rows: np.ndarray) -> np.ndarray:
        """The inverse of `rows`."""
        if self.node.op_type == "Conv":
            return rows.reshape(self.weight.shape)
        if self.node.op_type == "ConvTranspose":
            return rows.transpose(0, 2, 1).reshape(self.weight.shape)
        return np.asarray(rows[0] if self._input_axis == 1 else rows[0].T)

    def scaled_outputs(self, factors: np.ndarray) -> np.ndarray:
        """The weight in float64, each output multiplied by its factor, [outputs]."""
        if self.node.op_type == "ConvTranspose":
            return self._scaled_by_group(factors, 2)
        return self._scaled(factors, self.output_axis)

    def scaled_inputs(self, factors: np.ndarray) -> np.ndarray:
        """The weight in float64, what each input is multiplied with times its factor, [inputs]."""
        if self.node.op_type == "Conv":
            return self._scaled_by_group(factors, 2)
        return self._scaled(factors, self._input_axis)

    def _scaled(self, factors: np.ndarray, axis: int) -> np.ndarray:
        shape = [1] * self.weight.ndim
        shape[axis] = -1
        return np.asarray(self.weight.astype(np.float64) * factors.reshape(shape))

    def _scaled_by_group(self, factors: np.ndarray, axis: int) -> np.ndarray:
        """The weight times factors along an axis of the weight split by groups."""
        split = self._by_group().astype(np.float64)
        shape = [1] * split.ndim
        shape[0], shape[axis] = self.groups, -1
        return np.asarray((split * factors.reshape(shape)).reshape(self.weight.shape))

    def _by_group(self) -> np.ndarray:
        return self.weight.reshape(self.groups, -1, *self.weight.shape[1:])

    def output_range(self) -> np.ndarray:
        """The largest magnitude in the weight of each output, [outputs]."""
        if self.node.op_type == "ConvTranspose":
            return _largest(self._by_group(), (0, 2))
        return _largest(self.weight, (self.output_axis,))

    def input_range(self) -> np.ndarray:
        """The largest magnitude that each input is multiplied with, [inputs]."""
        if self.node.op_type == "Conv":
            return _largest(self._by_group(), (0, 2))
        return _largest(self.weight, (self._input_axis,))

    def moment_request(
        self, *, rows_per_feed: int | None, seed: int, against: str | None = None
    ) -> MomentRequest:
        """The second moment of its columns.

        Raises:
            NotApplicable: the padding depends on an input size that is not known.
        """
        axis, patches = -1, None
        match self.node.op_type:
            case "Conv":
                patches = _patches(self)
            case "ConvTranspose":
                if self.groups > 1:
                    raise NotApplicable("ConvTranspose has groups: its moments are not kept apart")
                axis = 1
            case "Gemm":
                axis = 0 if self.node.attributes.get_int("transA", 0) != 0 else 1
            case "MatMul":
                axis = -1 if self.weight_index == 1 else -2
        return MomentRequest(axis, patches, rows_per_feed, seed, against)


def linear_layer(node: ir.Node) -> LinearLayer:
    """The view of a node.

    Raises:
        NotApplicable: it is no linear operator, or its weight is no constant of floats.
    """
    if node.op_type not in LINEAR_OPERATORS or node.domain not in ("", "ai.onnx"):
        raise NotApplicable(f"{node.op_type} is no linear operator")
    candidates = (1, 0) if node.op_type == "MatMul" else (1,)
    for index in candidates:
        weight = constant_array(node.inputs[index] if index < len(node.inputs) else None)
        if weight is not None:
            return _checked(node, weight, index)
    raise NotApplicable(f"{node.op_type} weight is not a constant")


def linear_layers(graph: ir.Graph) -> Iterator[LinearLayer]:
    """Every linear layer of a graph (not of those nested in it), in its order."""
    for node in graph:
        if node.op_type in LINEAR_OPERATORS:
            try:
                yield linear_layer(node)
            except NotApplicable:
                continue


def _checked(node: ir.Node, weight: np.ndarray, index: int) -> LinearLayer:
    if weight.dtype != np.float32:
        raise NotApplicable(f"{node.op_type} weight is {weight.dtype}, not float32")
    if not weight.size or not np.isfinite(weight).all():
        raise NotApplicable(f"{node.op_type} weight is empty or not finite")
    convolution = node.op_type in ("Conv", "ConvTranspose")
    if (weight.ndim < 3) if convolution else (weight.ndim != 2):
        raise NotApplicable(f"{node.op_type} weight has {weight.ndim} dims")
    groups = node.attributes.get_int("group", 1) if convolution else 1
    if weight.shape[0] % groups:
        raise NotApplicable(f"{node.op_type} weight does not divide into {groups} groups")
    return LinearLayer(node, weight, index, groups)


def _largest(array: np.ndarray, kept: tuple[int, ...]) -> np.ndarray:
    """The largest magnitude for each index along the axes kept, flat, float64."""
    others = tuple(at for at in range(array.ndim) if at not in kept)
    return np.asarray(np.abs(array).max(axis=others, initial=0), np.float64).reshape(-1)


def _patches(layer: LinearLayer) -> Patches:
    attributes = layer.node.attributes
    kernel = tuple(layer.weight.shape[2:])
    rank = len(kernel)
    strides = tuple(attributes.get_ints("strides", [1] * rank))
    dilations = tuple(attributes.get_ints("dilations", [1] * rank))
    pads = tuple(attributes.get_ints("pads", [0] * 2 * rank))
    automatic = attributes.get_string("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(layer, kernel, strides, dilations, upper=automatic == "SAME_UPPER")
    elif automatic == "VALID":
        pads = (0,) * 2 * rank
    return Patches(kernel, strides, pads, dilations, layer.groups)


def _same_pads(
    layer: LinearLayer,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    upper: bool,
) -> tuple[int, ...]:
    shape = known_shape(layer.data)
    begins, ends = [], []
    for at, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True)):
        span = dilation * (size - 1) + 1
        if stride == 1:
            total = span - 1
        else:
            dim = None if shape is None else shape[2 + at]
            if not isinstance(dim, int):
                raise NotApplicable(f"auto_pad of '{layer.name}' depends on an unknown size")
            total = max((math.ceil(dim / stride) - 1) * stride + span - dim, 0)
        begins.append(total // 2 if upper else total - total // 2)
        ends.append(total - begins[-1])
    return (*begins, *ends)


class Awaiting(Protocol):
    """What waits for the moment of its layer's data."""

    @property
    def layer(self) -> LinearLayer:
        """The layer."""

    @property
    def request(self) -> MomentRequest:
        """The moment."""


_Task = TypeVar("_Task", bound=Awaiting)


def moment_bytes(layer: LinearLayer) -> int:
    """The memory of a layer's second moment."""
    groups, _, columns = layer.rows().shape
    return int(groups * columns * columns * 8)


def in_memory_together(tasks: Sequence[_Task], max_bytes: int) -> Iterator[list[_Task]]:
    """Tasks whose moments fit into memory together, with one request for each tensor.

    A moment that does not fit by itself is alone.
    """
    waiting = list(tasks)
    while waiting:
        batch: list[_Task] = []
        requests: dict[str, MomentRequest] = {}
        later = []
        filled = 0
        for task in waiting:
            name = task.layer.data.name or ""
            size = 0 if name in requests else moment_bytes(task.layer)
            same = requests.get(name, task.request) == task.request
            if same and (not batch or filled + size <= max_bytes):
                requests[name] = task.request
                filled += size
                batch.append(task)
            else:
                later.append(task)
        yield batch
        waiting = later
