"""Small models for the tests of pruning: nodes as text, weights by shape, one oracle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from graphopt.graph import all_graphs, clone, ir, load, verify
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.groups import Groups
from graphopt.pruning.surgery import prune
from graphopt.runtime import Session, seeded_feeds

Weights = Mapping[str, tuple[int, ...] | np.ndarray]


def model(
    inputs: str,
    outputs: str,
    body: str,
    weights: Weights | None = None,
    *,
    opset: int = 17,
) -> ir.Model:
    """A model from the text of its nodes; a weight given by its shape is drawn at random."""
    version = 10 if opset > 20 else 8
    proto = onnx.parser.parse_model(
        f'<ir_version: {version}, opset_import: ["" : {opset}]>\ng ({inputs}) => ({outputs}) '
        f"{{\n{body}\n}}"
    )
    generator = np.random.default_rng(len(body))
    for name, weight in (weights or {}).items():
        array = weight if isinstance(weight, np.ndarray) else _drawn(generator, weight)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return load(proto)


def _drawn(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    # Away from zero, so that nothing is zero in effect by chance.
    size = generator.uniform(0.2, 1.0, shape) * generator.choice([-1.0, 1.0], shape)
    return size.astype(np.float32)


@dataclass(frozen=True)
class Situation:
    """A model with a group that can be pruned exactly, or that cannot be pruned.

    Attributes:
        group: the name of the group that the situation is about.
        channels: how many units it has.
        remove: the units to take out.
        frozen: a part of the reason why the group cannot be pruned; "" where it can.
        left: sizes of tensors after pruning, by name, of those that are worth naming.
        zero: initializers to set to zero at (axis, indices), where zeroing the weights that
            take the channels is not enough.
    """

    model: ir.Model
    group: str
    channels: int
    remove: Sequence[int] = ()
    frozen: str = ""
    left: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    zero: Mapping[str, tuple[int, Sequence[int]]] = field(default_factory=dict)


def set_to_zero(target: ir.Model, name: str, axis: int, indices: Any) -> None:
    """Make a constant zero at these indices of one axis."""
    value = target.graph.initializers[name]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    position: list[Any] = [slice(None)] * array.ndim
    position[axis] = np.asarray(indices).reshape(-1)
    array[tuple(position)] = 0
    value.const_value = ir.tensor(array, name=name)


def zero_in_effect(source: ir.Model, groups: Groups, name: str, units: Sequence[int]) -> ir.Model:
    """A copy in which nothing takes anything from these units."""
    result = clone(source)
    for member in groups.named(name).consumers:
        if member.value in result.graph.initializers:
            set_to_zero(result, member.value, member.axis, member.indices[list(units)])
    return result


def without(source: ir.Model, groups: Groups, removed: Mapping[str, Sequence[int]]) -> ir.Model:
    """A copy without these units, checked to be valid."""
    result = clone(source)
    kept = {
        name: np.setdiff1d(np.arange(groups.named(name).channels), units)
        for name, units in removed.items()
    }
    prune(result, groups, kept)
    assert verify(result) == []
    return result


def worst_error(
    first: ir.Model, second: ir.Model, feeds: Sequence[Any], *, varied: bool = True
) -> float:
    """The largest difference of any output, relative to the output's scale."""
    one, two = Session(first), Session(second)
    worst = 0.0
    for feed in feeds:
        expected, actual = one.run(feed), two.run(feed)
        assert expected.keys() == actual.keys()
        for name, reference in expected.items():
            assert reference.shape == actual[name].shape
            scale = max(float(np.abs(reference.astype(np.float64)).max(initial=0.0)), 1e-6)
            # A constant output would be right whatever was removed.
            assert not varied or np.ptp(reference.astype(np.float64)) > 1e-6 * scale
            error = np.abs(reference.astype(np.float64) - actual[name]).max(initial=0.0)
            worst = max(worst, float(error) / scale)
    return worst


def assert_exact(situation: Situation) -> None:
    """Removing units that are zero in effect leaves the outputs as they are."""
    groups = find_groups(situation.model)
    group = groups.named(situation.group)
    assert group.frozen_reason is None
    assert group.channels == situation.channels
    zeroed = zero_in_effect(situation.model, groups, group.name, situation.remove)
    for name, (axis, indices) in situation.zero.items():
        set_to_zero(zeroed, name, axis, indices)
    pruned = without(zeroed, groups, {group.name: situation.remove})
    feeds = list(seeded_feeds(situation.model, count=2))
    assert worst_error(zeroed, pruned, feeds) < 1e-5
    for name, shape in situation.left.items():
        assert tuple(_constant(pruned, name).shape.numpy()) == shape
    assert parameters(pruned) < parameters(situation.model)


def assert_declined(situation: Situation) -> None:
    """The group is frozen, for the reason that is true of it."""
    group = find_groups(situation.model).named(situation.group)
    assert group.frozen_reason is not None
    assert situation.frozen in group.frozen_reason
    assert group.channels == situation.channels


def _constant(target: ir.Model, name: str) -> ir.TensorProtocol:
    value = target.graph.initializers[name]
    assert value.const_value is not None
    return value.const_value


def parameters(target: ir.Model) -> int:
    """Elements of all initializers that are not shapes or indices."""
    return sum(
        value.const_value.size
        for graph in all_graphs(target)
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype != ir.DataType.INT64
    )
