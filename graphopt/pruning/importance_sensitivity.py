"""How much a group's error matters: what the model's outputs lose for one unit of it.

    scale(g) = output error when a part of group g is removed and its consumers are refitted
               / error(g) of that removal

The output error is the mean over the outputs of |y' - y|^2 / var(y). Errors of different layers
are then in one unit, and may be added up and traded against each other. Of an output that is
rounded, an index or a probability the number behind it is taken: those go on growing with the
error where a probability has long been 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import clone, ir
from graphopt.pruning.groups import CouplingGroup, Groups
from graphopt.pruning.importance import RIDGE, Ranking, covariance_of
from graphopt.pruning.linear_layers import Layer, layers_of
from graphopt.pruning.surgery import prune
from graphopt.runtime import Feed, SecondMoment, Session

_SQUASHING = frozenset(
    {
        *("ArgMax", "ArgMin", "Cast", "DequantizeLinear", "Identity", "LogSoftmax"),
        *("QuantizeLinear", "Sigmoid", "Softmax", "TopK"),
    }
)

PART = 0.5
"""The share of a group's units that is removed to see what it does."""


def output_scales(
    model: ir.Model,
    groups: Groups,
    rankings: Mapping[str, Ranking],
    moments: Mapping[str, SecondMoment],
    feeds: Sequence[Feed],
    *,
    part: float = PART,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """For each ranked group's name its scale; infinite where the model then does not run.

    Empty where no output tells anything: then all groups count alike.

    Args:
        model: the model in which the groups were found; it is not changed.
        groups: of `find_groups`.
        rankings: which units go, and the errors that are scaled.
        moments: of `consumer_moments`, for the refit; {} for none.
        feeds: the data; the whole model runs on it once for each group.
        part: see `PART`.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        progress: called with the number of groups done.
    """
    names = observed(model)
    if not names:
        return {}
    expected = _values(model, names, feeds, threads)
    scales: dict[str, float] = {}
    for number, (name, ranking) in enumerate(rankings.items()):
        channels = len(ranking.order)
        count = min(max(1, channels - round(channels * part)), channels)
        if count < channels:
            candidate = without(model, groups, name, ranking.kept(count), moments)
            try:
                found = _values(candidate, names, feeds, threads)
            except RuntimeUnavailableError:
                scales[name] = float("inf")
            else:
                error = max(float(ranking.errors[channels - count]), 1e-12)
                scales[name] = _error(found, expected) / error
        if progress is not None:
            progress(number + 1)
    return scales


def without(
    model: ir.Model,
    groups: Groups,
    name: str,
    units: np.ndarray,
    moments: Mapping[str, SecondMoment],
) -> ir.Model:
    """A copy in which a group keeps these units alone, and its consumers are refitted."""
    copied = clone(model)
    before, _ = layers_of(copied.graph)
    group = groups.named(name)
    numbers = {
        member.node: _refitted(before[member.node], member.indices[units], moments[member.node])
        for member in group.consumers
        if member.node in before and member.node in moments and _once(group, member.node)
    }
    prune(copied, groups, {name: units})
    after, _ = layers_of(copied.graph)
    for node, (matrix, bias) in numbers.items():
        if node in after and after[node].matrix().shape == matrix.shape:
            after[node].write(matrix, bias)
    return copied


def _once(group: CouplingGroup, node: str) -> bool:
    return sum(member.node == node for member in group.consumers) == 1


def _refitted(
    layer: Layer, indices: np.ndarray, moment: SecondMoment
) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares weight and bias of a layer that reads some of its input only."""
    columns = layer.columns_of(np.sort(indices.reshape(-1)))
    covariance = covariance_of(moment, centred=layer.bias is not None)
    matrix = layer.matrix()
    inner = covariance[:, columns[:, None], columns[None, :]]
    level = np.maximum(np.trace(covariance, axis1=1, axis2=2) / layer.columns, 1e-30)
    hold = RIDGE * level[:, None, None] * np.eye(len(columns))
    old = matrix[:, columns]
    fitted = np.linalg.solve(inner + hold, covariance[:, columns] @ matrix + hold @ old)
    mean = (moment.sums / moment.rows)[:, None, :]
    lost = mean @ matrix - mean[:, :, columns] @ fitted
    bias = layer.bias_vector()
    return fitted, bias + lost.reshape(-1) if layer.bias is not None else bias


def observed(model: ir.Model) -> list[str]:
    """The tensors of floats that tell how far the outputs are off: outputs, or what they are of."""
    names: dict[str, None] = {}
    for output in model.graph.outputs:
        value: ir.Value | None = output
        while value is not None:
            producer = value.producer()
            if producer is None or producer.op_type not in _SQUASHING:
                break
            value = producer.inputs[0]
        for found in (value, output):
            known = None if found is None else found.dtype
            if found is not None and known is not None and known.is_floating_point():
                names[found.name or ""] = None
                break
    return list(names)


def _values(
    model: ir.Model, names: Sequence[str], feeds: Sequence[Feed], threads: int
) -> list[dict[str, np.ndarray]]:
    own = {value.name for value in model.graph.outputs}
    inner = [name for name in names if name not in own]
    session = Session(model, threads=threads, optimized=True, outputs=inner)
    return [
        {
            name: value
            for name, value in session.run(feed, names).items()
            if isinstance(value, np.ndarray)
        }
        for feed in feeds
    ]


def _error(
    found: Sequence[Mapping[str, np.ndarray]], expected: Sequence[Mapping[str, np.ndarray]]
) -> float:
    """The mean over outputs of the squared error relative to the variance."""
    errors = []
    for name in expected[0] if expected else ():
        wanted = np.concatenate([feed[name].astype(np.float64).reshape(-1) for feed in expected])
        actual = np.concatenate([feed[name].astype(np.float64).reshape(-1) for feed in found])
        if wanted.shape != actual.shape:
            continue
        finite = np.isfinite(wanted)  # masks, and what inputs that are no numbers give
        wanted, actual = wanted[finite], actual[finite]
        if not wanted.size:
            continue
        variance = max(float(wanted.var()), 1e-30)
        errors.append(float(((wanted - actual) ** 2).mean()) / variance)
    return float(np.mean(errors)) if errors else 0.0
