"""Bias correction: a quantized layer is given back the mean of what it computed in float.

    b <- b + E[float output] - E[quantized output],   per output channel

(Nagel et al., Data-Free Quantization, 2019, the empirical form.) Layers are taken in the order
of the graph, each measured behind the quantized and already corrected layers before it, so that
it makes good what they left over as well. Both models go through the data once, side by side, a
layer at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import clone, constant_array, ir
from graphopt.quantization.repair.linear_layer import linear_layers
from graphopt.quantization.repair.rescaling import set_constant
from graphopt.quantization.repair.staged_run import StagedRun
from graphopt.runtime import Feed


@dataclass(frozen=True)
class _Biased:
    """A layer with a bias: the node and input that hold it, and the axis of output channels."""

    node: ir.Node
    index: int
    axis: int
    beta: float

    @property
    def name(self) -> str:
        return self.node.outputs[0].name or ""


def correct_biases(
    model: ir.Model,
    quantize: Callable[[ir.Model], ir.Model],
    feeds: Iterable[Feed],
    *,
    reference: ir.Model | None = None,
    op_types: Sequence[str] = ("Conv", "ConvTranspose", "Gemm"),
    max_bytes: int = 1 << 29,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ir.Model:
    """A copy of `model` whose biases make up for the mean error of its quantized form.

    When: last of all repairs, with weights rounded and ranges decided. The result is not the
    float model any more: it is only for `quantize` (keep the original to compare with). Tens of
    samples do: a mean over positions and samples needs no more.

    Args:
        model: the float model that is quantized. Not changed.
        quantize: makes the quantized model of a float one, keeping the names of what nodes
            compute: `lambda changed: quantized(changed, plan)`. It is called once: what a bias
            is changed by moves the layer's output by as much.
        feeds: calibration data, held in memory while the models run.
        reference: whose means are aimed at; None for `model`.
        op_types: whose biases; "MatMul" stands for the Add of a constant behind one, which in a
            transformer, where LayerNormalization takes the mean away again, wins nothing.
        max_bytes: memory for the feeds and for what the two models have computed of them on the
            way; where that is not enough, fewer feeds are used, at least one.
        threads: threads of the runs.
        progress: called after each step with the number of steps done and of all.

    Raises:
        NotApplicable: a value between layers is no tensor (a sequence, say).
    """
    corrected = clone(model)
    levels = _levels(corrected.graph, op_types)
    changed = quantize(model)
    known = {output.name for node in changed.graph for output in node.outputs}
    held = list(_within(feeds, max_bytes // 4))
    aims = StagedRun(model if reference is None else reference, held, threads)
    run = StagedRun(changed, held, threads)
    for number, level in enumerate(levels):
        present = [item for item in level if item.name in known]
        names = [item.name for item in present]
        for stage in (aims, run):
            stage.advance(names)
        for item in present:
            shift = _mean_difference(aims, run, item)
            if np.isfinite(shift).all():
                run.shift(item.name, shift if item.axis == -1 else _on_channels(shift, run, item))
                _add(item, shift)
        _shrink(aims, run, max_bytes)
        if progress is not None:
            progress(number + 1, len(levels))
    return corrected


def _within(feeds: Iterable[Feed], max_bytes: int) -> Iterator[Feed]:
    """The first feeds, as many as fit, at least one."""
    filled = 0
    for number, feed in enumerate(feeds):
        filled += sum(int(getattr(value, "nbytes", 0)) for value in feed.values())
        if number and filled > max_bytes:
            return
        yield feed


def _shrink(aims: StagedRun, run: StagedRun, max_bytes: int) -> None:
    size = aims.held_bytes + run.held_bytes
    if size > max_bytes and len(run) > 1:
        count = max(1, len(run) * max_bytes // size)
        aims.drop(count)
        run.drop(count)


def _mean_difference(aims: StagedRun, run: StagedRun, item: _Biased) -> np.ndarray:
    """E[float output] - E[quantized output] by channel, the same number of rows from each."""
    total: np.ndarray | float = 0.0
    rows = 0
    for expected, found in zip(aims.values(item.name), run.values(item.name), strict=True):
        difference = np.moveaxis(expected.astype(np.float64) - found, item.axis, -1)
        difference = difference.reshape(-1, difference.shape[-1])
        total = total + difference.sum(axis=0)
        rows += len(difference)
    return np.asarray(total / max(rows, 1), np.float64)


def _on_channels(shift: np.ndarray, run: StagedRun, item: _Biased) -> np.ndarray:
    rank = next(iter(run.values(item.name))).ndim
    return shift.reshape(-1, *[1] * (rank - 1 - item.axis))


def _levels(graph: ir.Graph, op_types: Sequence[str]) -> list[list[_Biased]]:
    """The layers by how many others lie before them on the longest path."""
    biased = {item.name: item for item in _biased(graph, op_types)}
    depth: dict[int, int] = {}
    levels: dict[int, list[_Biased]] = {}
    for node in graph:
        before = 0
        for value in node.inputs:
            producer = None if value is None else value.producer()
            if producer is not None:
                before = max(before, depth.get(id(producer), 0))
        item = biased.get(node.outputs[0].name or "") if node.outputs else None
        if item is not None:
            before += 1
            levels.setdefault(before, []).append(item)
        depth[id(node)] = before
    return [levels[key] for key in sorted(levels)]


def _biased(graph: ir.Graph, op_types: Sequence[str]) -> Iterator[_Biased]:
    for layer in linear_layers(graph):
        node = layer.node
        if node.op_type not in op_types:
            continue
        if node.op_type == "MatMul":
            add = _following_add(node, layer.outputs)
            if add is not None and layer.weight_index == 1:
                yield _Biased(*add, -1, 1.0)
            continue
        bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
        beta = node.attributes.get_float("beta", 1.0)
        if bias is not None and bias.dtype == np.float32 and beta != 0:
            yield _Biased(node, 2, 1, beta)


def _following_add(node: ir.Node, channels: int) -> tuple[ir.Node, int] | None:
    """The Add of a constant per channel that is the only consumer of a MatMul."""
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0].node.op_type != "Add":
        return None
    add = uses[0].node
    index = 1 - uses[0].idx
    constant = constant_array(add.inputs[index])
    if add.graph is not node.graph or constant is None or constant.dtype != np.float32:
        return None
    return (add, index) if constant.shape == (channels,) else None


def _add(item: _Biased, shift: np.ndarray) -> None:
    bias = constant_array(item.node.inputs[item.index])
    if bias is not None:
        set_constant(item.node, item.index, bias.astype(np.float64) + shift / item.beta)
