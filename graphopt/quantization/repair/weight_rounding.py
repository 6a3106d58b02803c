"""Rounds the weights of a model's linear layers so that what the layers compute changes least.

    minimize  |X W^T - X (q s)^T|^2  over the calibration data, layer by layer

by the second moments X^T X that one pass over the data sums up; see `rounding`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.parameters import Parameters, limits
from graphopt.quantization.processor import adds_products_in_int16
from graphopt.quantization.repair.linear_layer import (
    LinearLayer,
    in_memory_together,
    linear_layers,
    moment_bytes,
)
from graphopt.quantization.repair.rounding import (
    centred,
    objective,
    round_second_order,
    round_to_nearest,
)
from graphopt.quantization.saturation import without_saturation
from graphopt.rewrite import NotApplicable
from graphopt.runtime import Feed, MomentRequest, SecondMoment, collect

Place = tuple[str, int]
"""A weight: the name of its node's first output, and which input of the node it is."""


@dataclass(frozen=True)
class RoundedWeights:
    """The result of `round_weights`.

    Attributes:
        integers: place -> integers shaped as the weight, of the type of its parameters.
        declined: place -> why it keeps nearest rounding.
    """

    integers: Mapping[Place, np.ndarray]
    declined: Mapping[Place, str]


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that a weight's elements may become: (q - zero_point) * scale.

    Attributes:
        scale: of each element, shaped as the weight.
        zero_point: of each element, likewise.
        lowest: the lowest q.
        highest: the highest q.
        saturation_safe: whether pairs of q are bounded too, see `saturation`.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    lowest: int
    highest: int
    saturation_safe: bool = False


@dataclass(frozen=True)
class _Task:
    place: Place
    layer: LinearLayer
    request: MomentRequest
    has_bias: bool


def round_weights(
    model: ir.Model,
    weights: Mapping[Place, Parameters],
    feeds: Iterable[Feed],
    *,
    biases_follow: bool = False,
    saturation_safe: bool | None = None,
    rows_per_feed: int | None = 512,
    seed: int = 0,
    max_bytes: int = 1 << 29,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> RoundedWeights:
    """Integers for weights whose parameters are decided.

    When: once the plan is made, `weights` being `{place: constant.parameters for place, constant
    in plan.constants.items()}` (biases and what is no linear layer are passed over). The integers
    go into the plan as `rounded`.

    Args:
        model: the float model that is quantized. Not changed.
        weights: the parameters of each weight.
        feeds: calibration data; iterated again where the moments do not fit in `max_bytes`.
        biases_follow: whether biases are corrected afterwards: then a layer that has one is
            rounded for what is left about the mean. False where they are not: the mean of the
            error would go uncorrected.
        saturation_safe: whether no pair of products of an int8 weight may saturate (see
            `saturation`), as `make_plan` was told; None: where this processor needs it.
        rows_per_feed: so many rows (positions) of each feed are taken; None for all.
        seed: which ones.
        max_bytes: memory for the moments of one run over the data.
        threads: threads of the runs.
        progress: called after each weight with the number of weights done.
    """
    safe = adds_products_in_int16() if saturation_safe is None else saturation_safe
    grids = {
        (layer.name, layer.weight_index): _grid(weights[place], layer.weight.shape, safe)
        for layer in linear_layers(model.graph)
        if (place := (layer.name, layer.weight_index)) in weights
    }
    found = round_to_grids(
        model,
        grids,
        feeds,
        biases_follow=biases_follow,
        rows_per_feed=rows_per_feed,
        seed=seed,
        max_bytes=max_bytes,
        threads=threads,
        progress=progress,
    )
    integers = {
        place: array.astype(weights[place].dtype.numpy()) for place, array in found.integers.items()
    }
    return RoundedWeights(integers, found.declined)


def round_to_grids(
    model: ir.Model,
    grids: Mapping[Place, Grid],
    feeds: Iterable[Feed],
    *,
    biases_follow: bool = False,
    rows_per_feed: int | None = 512,
    seed: int = 0,
    max_bytes: int = 1 << 29,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> RoundedWeights:
    """The same for weights whose scales lie in any pattern, such as blocks; int64 integers."""
    declined: dict[Place, str] = {}
    tasks = []
    for task in _tasks(model.graph, grids, rows_per_feed, seed, declined):
        size = moment_bytes(task.layer)
        if size <= max_bytes:
            tasks.append(task)
        else:
            declined[task.place] = f"its second moment takes {size >> 20} MB"
    integers: dict[Place, np.ndarray] = {}
    for batch in in_memory_together(tasks, max_bytes):
        requests = {task.layer.data.name or "": task.request for task in batch}
        statistics = collect(model, feeds, list(requests), moments=requests, threads=threads)
        for task in batch:
            moment = statistics[task.layer.data.name or ""].moment
            if moment is None:
                declined[task.place] = "no data reached it"
                continue
            integers[task.place] = _round(task, grids[task.place], moment, biases_follow)
            if progress is not None:
                progress(len(integers))
    return RoundedWeights(integers, declined)


def _grid(parameters: Parameters, shape: tuple[int, ...], safe: bool) -> Grid:
    lowest, highest = limits(parameters.dtype)
    if parameters.is_symmetric:
        lowest += 1  # as nearest rounding, which never needs it
    scale, zero = parameters.scale.astype(np.float64), parameters.zero_point.astype(np.int64)
    if parameters.axis is not None:
        along = [1] * len(shape)
        along[parameters.axis] = -1
        scale, zero = scale.reshape(along), zero.reshape(along)
    safe = safe and parameters.dtype == ir.DataType.INT8 and parameters.is_symmetric
    whole_scale, whole_zero = np.broadcast_to(scale, shape), np.broadcast_to(zero, shape)
    return Grid(whole_scale, whole_zero, lowest, highest, safe)


def _tasks(
    graph: ir.Graph,
    grids: Mapping[Place, Grid],
    rows_per_feed: int | None,
    seed: int,
    declined: dict[Place, str],
) -> Iterator[_Task]:
    for layer in linear_layers(graph):
        place = (layer.name, layer.weight_index)
        if place not in grids:
            continue
        try:
            request = layer.moment_request(rows_per_feed=rows_per_feed, seed=seed)
        except NotApplicable as refusal:
            declined[place] = str(refusal)
            continue
        inputs = layer.node.inputs
        has_bias = len(inputs) > 2 and inputs[2] is not None
        yield _Task(place, layer, request, has_bias)


def _round(task: _Task, grid: Grid, moment: SecondMoment, biases_follow: bool) -> np.ndarray:
    layer = task.layer
    hessian = centred(moment) if biases_follow and task.has_bias else moment.matrix
    rounded = round_second_order(
        layer.rows(),
        layer.rows(grid.scale),
        layer.rows(grid.zero_point),
        grid.lowest,
        grid.highest,
        hessian,
    )
    if grid.saturation_safe:
        rounded = _unsaturated(layer, grid, hessian, rounded)
    return np.ascontiguousarray(layer.stored(rounded))


def _unsaturated(
    layer: LinearLayer, grid: Grid, hessian: np.ndarray, rounded: np.ndarray
) -> np.ndarray:
    """Integers whose pairs keep the bound: those given or the nearest, whichever is better then."""
    weight, scale, zero = layer.rows(), layer.rows(grid.scale), layer.rows(grid.zero_point)
    nearest = round_to_nearest(weight, scale, zero, grid.lowest, grid.highest)
    candidates = []
    for integers in (rounded, nearest):
        stored = np.ascontiguousarray(layer.stored(integers))
        axis = layer.output_axis
        _, kept = without_saturation(layer.weight, np.ones((), np.float32), axis, stored)
        candidates.append(layer.rows(kept).astype(np.int64))
    errors = [objective(weight, scale, zero, kept, hessian) for kept in candidates]
    better = errors[0] < errors[1]
    if layer.node.op_type == "ConvTranspose":  # its pairs reach from row to row
        better = np.broadcast_to(errors[0].sum() < errors[1].sum(), better.shape)
    return np.where(better[:, :, None], *candidates)
