"""Makes a plan: which groups are quantized, one set of parameters per tie, weights and biases.

Relu, Clip behind Q      the integers stand for nothing outside the bounds: zero point and
                         scale are moved until (lowest - z)*s >= low and (highest - z)*s <= high
Concat                   branches share the output's parameters if their ranges are alike
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import constant_array, ir, opset_version
from graphopt.quantization.absorbed import parameters_within
from graphopt.quantization.backends.backend import Backend, Role
from graphopt.quantization.borders import Borders, readers_of, settle
from graphopt.quantization.constants import (
    QuantizedConstant,
    bias_parameters,
    channel_axis,
    fit_bias,
    weight_parameters,
)
from graphopt.quantization.groups import Group, Placement, Use, name_of
from graphopt.quantization.joins import JoinDecision, decide_joins
from graphopt.quantization.parameters import Parameters, limits, parameters_of_range
from graphopt.quantization.processor import adds_products_in_int16
from graphopt.quantization.saturation import without_saturation

if TYPE_CHECKING:
    from graphopt.quantization.plan import BoundedRange, Plan

PER_CHANNEL_OPSET = 13
"""From here on DequantizeLinear has an axis."""

# -inf, or what stands for it, beside logits: no scale serves both.
_MASK = 1e6


class Planner:
    """One plan in the making; see `make_plan` for the arguments."""

    def __init__(
        self,
        model: ir.Model,
        placement: Placement,
        ranges: Mapping[str, BoundedRange],
        backend: Backend,
        saturation_safe: bool | None,
        memory: MutableMapping[Any, Any] | None = None,
    ) -> None:
        self.model = model
        self.placement = placement
        self.ranges = ranges
        self.backend = backend
        if saturation_safe is None:
            saturation_safe = backend.saturates and adds_products_in_int16()
        self.saturation_safe = saturation_safe
        self.memory: MutableMapping[Any, Any] = {} if memory is None else memory
        self.nodes = {name_of(node): node for node in model.graph if name_of(node)}
        self.left_float: dict[str, str] = dict(placement.declined)
        self.notes: dict[str, str] = {}
        for group in placement.groups:
            for name in group.nodes:
                if name not in self.nodes:
                    raise UsageError(f"the placement has a node {name!r} that the model has not")

    def plan(
        self,
        float_groups: Mapping[str, str] | None,
        rounded: Mapping[tuple[str, int], np.ndarray],
    ) -> Plan:
        """The plan."""
        from graphopt.quantization.plan import Plan

        borders = Borders(self.placement.groups, readers_of(self.model, self.placement.groups))
        joins = self._choose(borders, float_groups)
        roots = self._roots(borders, joins)
        shared = {root: self._parameters(root, borders) for root in dict.fromkeys(roots.values())}
        activations = {tensor: shared[root] for tensor, root in roots.items()}
        constants: dict[tuple[str, int], QuantizedConstant] = {}
        for group in borders.groups.values():
            for item in self._constants(group, activations, rounded):
                constants[item.node, item.index] = item
        for place in rounded:
            if place not in constants and not self._is_left_float(place[0], borders):
                raise UsageError(f"no weight at input {place[1]} of {place[0]!r} to round")
        groups = tuple(borders.groups.values())
        return Plan(self.backend.name, groups, self.left_float, activations, constants, self.notes)

    def _is_left_float(self, node: str, borders: Borders) -> bool:
        return not any(node in group.nodes for group in borders.groups.values())

    # -- which groups

    def _choose(self, borders: Borders, float_groups: Mapping[str, str] | None) -> JoinDecision:
        """Take out what stays float; what becomes of each Concat."""
        for group in self.placement.groups:
            reason = (float_groups or {}).get(group.name)
            if reason is None and float_groups is None and group.slow:
                reason = group.slow
            reason = reason or self._unfit(group)
            if reason:
                self._take_out(borders, group.name, reason)
        while True:
            self.left_float.update(settle(borders))
            joins = decide_joins(self, borders)
            for name, reason in joins.left_float.items():
                self._take_out(borders, name, reason)
            if not joins.left_float:
                return joins

    def _take_out(self, borders: Borders, name: str, reason: str) -> None:
        if name in borders.groups:
            borders.take_out(name)
        self.left_float[name] = reason

    def _unfit(self, group: Group) -> str | None:
        """Why the group cannot be quantized, given its ranges and constants."""
        # Of a kernel that can write floats the output's range is needed by its readers alone.
        writes = () if group.writes_integers is not True else group.writes
        for tensor in (*(use.tensor for use in group.reads), *writes):
            if group.role is Role.LOOKUP:
                continue
            found = self.range_of(tensor)
            if found is None:
                return f"'{tensor}' has no range: calibrate it"
            if not np.isfinite(found).all():
                return f"the range of '{tensor}' is not finite"
            if max(abs(found[0]), abs(found[1])) >= _MASK:
                return f"'{tensor}' reaches {max(found, key=abs):.3g}, as masks do"
        for use in (*group.weights, *((group.bias,) if group.bias else ())):
            array = self.constant(use)
            if not np.isfinite(array).all():
                return f"'{use.tensor}' is not finite"
        return None

    # -- activations

    def range_of(self, tensor: str) -> tuple[float, float] | None:
        """The range of a tensor, in floats; its root's if it has none of its own."""
        for name in (tensor, self.placement.ties.get(tensor, tensor)):
            if name in self.placement.fixed:
                return self.placement.fixed[name]
            if name in self.ranges:
                found = self.ranges[name]
                return float(found.minimum), float(found.maximum)
        return self._table_range(tensor)

    def _table_range(self, tensor: str) -> tuple[float, float] | None:
        root = self.placement.ties.get(tensor, tensor)
        for group in self.placement.groups:
            if group.role is Role.LOOKUP and root in group.writes:
                array = self.constant(group.weights[0])
                return float(array.min(initial=0.0)), float(array.max(initial=0.0))
        return None

    def _roots(self, borders: Borders, joins: JoinDecision) -> dict[str, str]:
        """Integer tensor -> the tensor whose parameters it has."""
        found: dict[str, str] = {}
        for group in self.placement.groups:
            quantized = group.name in borders.groups
            for tensor in group.tensors:
                if borders.is_integer(tensor):
                    found.setdefault(tensor, tensor)
            if quantized and group.role is Role.MOVEMENT:
                source = group.reads[0].tensor
                found.update(dict.fromkeys(group.writes, source))
        found.update(joins.ties)
        return {tensor: _root(tensor, found) for tensor in found if borders.is_integer(tensor)}

    def _parameters(self, tensor: str, borders: Borders) -> Parameters:
        form = self.backend.activation
        bounds = self.range_of(tensor)
        if bounds is None:  # `_unfit` left the groups float that would need it
            raise UsageError(f"'{tensor}' has no range: calibrate it")
        writer = borders.writer(tensor)
        clip = None if writer is None else writer.clip
        if clip is None or not self.backend.ranges_absorb:
            return parameters_of_range(*bounds, form.dtype, symmetric=form.symmetric)
        return parameters_within(bounds, clip, form.dtype)

    # -- constants

    def constant(self, use: Use) -> np.ndarray:
        """The numbers of a constant input.

        Raises:
            UsageError: it is no constant: the placement is of another model.
        """
        node = self.nodes[use.node]
        array = constant_array(node.inputs[use.index])
        if array is None:
            raise UsageError(f"input {use.index} of {use.node!r} is no constant")
        return array

    def _constants(
        self,
        group: Group,
        activations: Mapping[str, Parameters],
        rounded: Mapping[tuple[str, int], np.ndarray],
    ) -> list[QuantizedConstant]:
        found: list[QuantizedConstant] = []
        input_scale = np.asarray(1.0, np.float32)
        for use in group.reads:
            if use.node == group.nodes[0]:
                input_scale = np.asarray(input_scale * activations[use.tensor].scale)
        scale: np.ndarray = np.asarray(1.0, np.float32)
        for use in group.weights:
            if group.role is Role.LOOKUP:
                parameters = activations[group.writes[0]]
                found.append(QuantizedConstant(use.node, use.index, use.tensor, parameters))
                continue
            item = self._remembered_weight(group, use, input_scale, rounded)
            scale = scale * item.parameters.scale
            found.append(item)
        if group.bias is not None and self.backend.bias is not None:
            use = group.bias
            channels = self._channels(group)
            parameters = bias_parameters(self.backend.bias, input_scale, scale, channels)
            found.append(QuantizedConstant(use.node, use.index, use.tensor, parameters))
        return found

    def _remembered_weight(
        self,
        group: Group,
        use: Use,
        input_scale: np.ndarray,
        rounded: Mapping[tuple[str, int], np.ndarray],
    ) -> QuantizedConstant:
        """`_weight`, from memory where an earlier plan had the same one."""
        # The scale of the input matters to a weight only by the room that the bias needs.
        room = None if group.bias is None else input_scale.tobytes()
        key = (use, room, self.saturation_safe)
        item: QuantizedConstant
        if key not in self.memory:
            item = self._weight(group, use, input_scale, rounded)
            self.memory[key] = (item, self.notes.get(group.name))
        item, note = self.memory[key]
        if note is not None:
            self.notes[group.name] = note
        return item

    def _weight(
        self,
        group: Group,
        use: Use,
        input_scale: np.ndarray,
        rounded: Mapping[tuple[str, int], np.ndarray],
    ) -> QuantizedConstant:
        node, array = self.nodes[use.node], self.constant(use)
        rule = self.backend.rule(node)
        form = self.backend.weight
        if group.role is not Role.PRODUCT:
            form = self.backend.activation
        elif use.index == 0:
            form = self.backend.left_weight
        axis = None
        if group.role is Role.PRODUCT and rule is not None and rule.per_channel:
            axis = channel_axis(node, use.index, array.ndim)
        if opset_version(node, self.model) < PER_CHANNEL_OPSET:
            axis = None
        parameters = weight_parameters(array, form, axis)
        lowest, highest = limits(parameters.dtype)
        given = rounded.get((use.node, use.index))
        if given is not None:
            if given.shape != array.shape or given.min() < lowest or given.max() > highest:
                raise UsageError(f"the integers for input {use.index} of {use.node!r} do not fit")
            given = given.astype(parameters.dtype.numpy())
        integers = given
        signed = parameters.dtype == ir.DataType.INT8 and parameters.is_symmetric
        if group.bias is not None:
            parameters = self._with_room(group, parameters, array, input_scale)
        if self.saturation_safe and group.saturates and signed and group.role is Role.PRODUCT:
            along = channel_axis(node, use.index, array.ndim)
            if along is not None:
                scale, integers = self._unsaturated(parameters, array, along, given)
                if not np.array_equal(scale, parameters.scale):
                    parameters = Parameters(
                        parameters.dtype, scale, parameters.zero_point, parameters.axis
                    )
        return QuantizedConstant(use.node, use.index, use.tensor, parameters, integers)

    def _unsaturated(
        self, parameters: Parameters, array: np.ndarray, axis: int, given: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if given is not None:
            # They were made for the scales below, which their maker had from a plan.
            scale, _ = without_saturation(array, parameters.scale, axis)
            return scale, without_saturation(array, scale, axis, given)[1]
        scale, integers = without_saturation(array, parameters.scale, axis)
        nearest = Parameters(parameters.dtype, scale, parameters.zero_point, parameters.axis)
        if np.array_equal(nearest.quantize(array), integers):
            return scale, None
        return scale, integers

    def _with_room(
        self, group: Group, parameters: Parameters, array: np.ndarray, input_scale: np.ndarray
    ) -> Parameters:
        """The parameters of a weight with which the group's bias fits int32."""
        if group.bias is None or self.backend.bias is None:
            return parameters
        bias = np.broadcast_to(self.constant(group.bias).reshape(-1), (self._channels(group),))
        fitted = fit_bias(parameters, array, bias, input_scale)
        wider = int(np.sum(fitted.scale > parameters.scale))
        if wider:
            self.notes[group.name] = (
                f"the scales of {wider} channels were enlarged: their biases would overflow int32"
            )
        return fitted

    def _channels(self, group: Group) -> int:
        """How many output channels a group with a bias has."""
        bias = self.constant(group.bias) if group.bias is not None else np.zeros(1)
        for use in group.weights:
            node, array = self.nodes[use.node], self.constant(use)
            axis = channel_axis(node, use.index, array.ndim)
            if axis is not None and node.op_type != "ConvTranspose":
                return int(array.shape[axis])
        return int(bias.size)


def _root(tensor: str, parents: Mapping[str, str]) -> str:
    while parents.get(tensor, tensor) != tensor:
        tensor = parents[tensor]
    return tensor
