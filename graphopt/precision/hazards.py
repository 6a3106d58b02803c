"""Finds what half precision would break, and why: those clusters stay float32.

    overflow      a value beyond the range; a sum on the way to a mean; a square in a normalization
    underflow     1e-12 becomes 0; a variance of 1e-7 keeps one digit; a scale below 2^-14
    integers      2049 becomes 2048: positions and indices that are computed in float
    angles        sin(x) with |x| > 16 is off by |x| 2^-12, see `angles`
    int8          between DequantizeLinear and QuantizeLinear integers compute, if left in peace

A value that half cannot hold keeps its producer and all its readers in float32: casting it
down would lose it just as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphopt.graph import constant_tensor, ir
from graphopt.precision.angles import angle_beyond
from graphopt.precision.evidence import Evidence
from graphopt.precision.flow import Cluster, Flow, Tensor, Use
from graphopt.precision.integers import IntegerValues
from graphopt.precision.intervals import reduced_elements
from graphopt.precision.kernels import Kernels
from graphopt.precision.masks import Masks
from graphopt.precision.operators import (
    COMPARISONS,
    MATRIX,
    MOVEMENT,
    NORMALIZATIONS,
    PERIODIC,
    SUMS,
)
from graphopt.precision.regions import Blocked, mark_blocked, mark_integer_regions
from graphopt.precision.saturation import saturates
from graphopt.precision.scales import scales_weights

CONSTANT_ERROR = 2.0**-7
"""Of a weight tensor that is rounded to half: beyond it, its own error dominates all others."""
_ELEMENT_ERROR = 0.05
"""Of an element whose own size counts: a variance, an epsilon, a scale."""
_FEW_DIGITS = 2.0**-5
"""A denominator below this share of the smallest normal number is off by up to 2^-6, and its
inverse root by half of that: 0.8%."""


def mark_hazards(
    model: ir.Model,
    flow: Flow,
    evidence: Evidence,
    kernels: Kernels,
    masks: Masks,
    blocked: Blocked,
    *,
    lose_small: bool = False,
) -> tuple[str, ...]:
    """Give every cluster that cannot go to half its reason.

    Returns:
        The constants that are too small for half, as they count beside larger values or do not;
        with `lose_small` they are no reason.
    """
    mark_blocked(flow, blocked, kernels, evidence.half)
    mark_integer_regions(model, flow, kernels)
    integers = IntegerValues(model)
    tensors = {tensor.value: tensor for tensor in flow.tensors}
    marker = _Marker(flow, tensors, evidence, kernels, masks, integers, lose_small)
    for tensor in flow.tensors:
        if tensor.producer is None:
            marker.check_constant(tensor)
        else:
            marker.check_value(tensor)
    for node in flow.by_node:
        marker.check_node(node)
    return tuple(dict.fromkeys(marker.small))


class _Marker:
    def __init__(
        self,
        flow: Flow,
        tensors: dict[ir.Value, Tensor],
        evidence: Evidence,
        kernels: Kernels,
        masks: Masks,
        integers: IntegerValues,
        lose_small: bool,
    ) -> None:
        self._flow = flow
        self._tensors = tensors
        self._evidence = evidence
        self._kernels = kernels
        self._masks = masks
        self._integers = integers
        self._half = evidence.half
        self._lose_small = lose_small
        self.small: list[str] = []

    # Values --------------------------------------------------------------------------------

    def check_value(self, tensor: Tensor) -> None:
        value = tensor.value
        reason = None
        if value not in self._masks.bounds:
            reason = self._evidence.overflow(value)
            if reason is not None and saturates(value, self._evidence):
                reason = None
        if reason is None:
            reason = self._inexact_integer(value)
        if reason is not None:
            self._keep(tensor, f"'{value.name}': {reason}")

    def _keep(self, tensor: Tensor, reason: str) -> None:
        """Nobody may hold the value in half."""
        if tensor.producer is not None:
            tensor.producer.keep_float(reason)
        for use in tensor.uses:
            if use.cluster is not None:
                use.cluster.keep_float(reason)

    def _keep_value(self, value: ir.Value | None, reason: str) -> None:
        tensor = None if value is None else self._tensors.get(value)
        if tensor is not None:
            self._keep(tensor, reason)

    def _inexact_integer(self, value: ir.Value) -> str | None:
        if not self._integers.holds(value) or self._evidence.is_floored(value):
            return None
        largest = self._half.largest_integer
        known = self._evidence.magnitude(value)
        if known is None:
            if self._integers.is_position(value):
                return f"it counts, and {self._half.name} counts to {largest} only"
            return None
        if known > largest:
            return f"it holds integers up to {known:.6g}, {self._half.name} is exact to {largest}"
        return None

    # Constants -----------------------------------------------------------------------------

    def check_constant(self, tensor: Tensor) -> None:
        facts = self._evidence.constant(tensor.value)
        if facts is None:
            return
        name = tensor.value.name
        if facts.magnitude > self._half.largest and tensor.value not in self._masks.bounds:
            for use in tensor.uses:
                if use.cluster is not None:
                    use.cluster.keep_float(
                        f"constant '{name}' of {facts.magnitude:.3g} leaves the range"
                    )
            return
        for use in tensor.uses:
            if use.cluster is None or not isinstance(use.holder, ir.Node):
                continue
            reason = self._constant_hazard(name or "", use.holder, use, facts.error, facts.worst)
            if reason is not None:
                use.cluster.keep_float(f"constant '{name}' {reason}")

    def _constant_hazard(
        self, name: str, node: ir.Node, use: Use, error: float, worst: float
    ) -> str | None:
        if node.op_type in _BIASED and use.index == 2:
            return None  # as below: what the sum of products loses is what half cannot hold
        if node.op_type in ("Add", "Sub", "Max", "Min", "Clip"):
            # Only its size beside the other operand counts.
            if error <= _ELEMENT_ERROR or not _is_floor(node):
                return None
            return f"vanishes in {self._half.name} and keeps a denominator from 0"
        if node.op_type == "BatchNormalization" and use.index == 4 and worst > _ELEMENT_ERROR:
            return f"is too small for {self._half.name}"
        scales = node.op_type in ("QuantizeLinear", "DequantizeLinear") and use.index == 1
        if scales and not scales_weights(use):
            # A whole tensor is as wrong as its scale is.
            return f"is too small for {self._half.name}" if worst > CONSTANT_ERROR else None
        if error > CONSTANT_ERROR:
            self.small.append(name)
            return None if self._lose_small else f"is too small for {self._half.name}"
        return None

    # Nodes ---------------------------------------------------------------------------------

    def check_node(self, node: ir.Node) -> None:
        cluster = self._flow.by_node[node]
        for check in (self._sum, self._normalization, self._angle, self._comparison):
            reason = check(node)
            if reason is not None:
                cluster.keep_float(reason)
        for denominator in _denominators(node):
            self._check_denominator(denominator)
        for value in self._indices(node):
            self._keep_indices(value)

    def _sum(self, node: ir.Node) -> str | None:
        if node.op_type not in SUMS or not self._kernels.half_sums:
            return None
        measured = self._evidence.measured(node.outputs[0])
        count = reduced_elements(node)
        if measured is None or self._evidence.measurements is None:
            return None
        margin = self._evidence.measurements.margin
        largest = self._half.largest
        if node.op_type in ("ReduceL2", "LpPool"):
            reached = measured.magnitude**2
        elif node.op_type in ("ReduceMean", "GlobalAveragePool"):
            if count is None:
                return None
            reached = measured.magnitude * count
        else:
            return None  # the output is the sum itself
        if reached * margin > largest:
            return f"its sum reaches {reached:.3g}, and kernels may sum in {self._half.name}"
        return None

    def _normalization(self, node: ir.Node) -> str | None:
        if node.op_type not in NORMALIZATIONS or not self._kernels.half_sums:
            return None
        stashes = node.domain == "" and node.op_type in _STASHING
        if stashes and node.attributes.get_int("stash_type", 1) == ir.DataType.FLOAT:
            return None  # by definition it computes its statistics in float32
        measured = self._evidence.measured(node.inputs[0])
        if measured is None or measured.magnitude**2 <= self._half.largest:
            return None
        return f"it squares values up to {measured.magnitude:.3g}"

    def _angle(self, node: ir.Node) -> str | None:
        if node.op_type not in PERIODIC:
            return None
        value = node.inputs[0]
        angle = None if value is None else angle_beyond(value, self._evidence, self._integers)
        if angle is None:
            return None
        reason = f"{node.op_type} of an angle {angle.reach} needs more digits"
        for kept in angle.values:
            self._keep_value(kept, reason)
        return reason

    def _comparison(self, node: ir.Node) -> str | None:
        if node.op_type not in COMPARISONS:
            return None
        for value in node.inputs:
            # What was measured says nothing: inputs may be longer.
            within = self._evidence.bound(value).magnitude <= self._half.largest_integer
            if value is not None and self._integers.is_position(value) and not within:
                return "it compares positions, which have to be exact"
        return None

    def _check_denominator(self, value: ir.Value) -> None:
        """A positive number whose inverse, root or logarithm is taken needs its digits."""
        measured = self._evidence.measured(value)
        tiny = self._half.smallest_normal * _FEW_DIGITS
        if measured is None or not 0 < measured.minimum < tiny:
            return
        reason = f"'{value.name}' is as small as {measured.minimum:.2g} where its inverse counts"
        waiting: list[ir.Value] = [value]
        seen: set[ir.Value] = set()
        while waiting:
            current = waiting.pop()
            if current in seen or constant_tensor(current) is not None:
                continue
            seen.add(current)
            self._keep_value(current, reason)
            producer = current.producer()
            if producer is None or producer.op_type not in _SQUARES:
                continue
            if producer.op_type == "Pow" or _is_square(producer):
                continue
            waiting.extend(given for given in producer.inputs[:2] if given is not None)

    def _indices(self, node: ir.Node) -> list[ir.Value]:
        """Outputs of the node that are turned into indices."""
        return [
            value
            for value in node.outputs
            if any(
                use.node.op_type == "Cast"
                and use.node.attributes.get_int("to", 0) in (ir.DataType.INT32, ir.DataType.INT64)
                for use in value.uses()
            )
        ]

    def _keep_indices(self, value: ir.Value) -> None:
        reason = f"'{value.name}' becomes an index"
        waiting = [value]
        seen: set[ir.Value] = set()
        while waiting:
            current = waiting.pop()
            if current in seen:
                continue
            seen.add(current)
            self._keep_value(current, reason)
            producer = current.producer()
            if producer is None or producer.op_type not in _INDEX_ARITHMETIC:
                continue
            waiting.extend(
                given
                for given in producer.inputs
                if given is not None and constant_tensor(given) is None
            )


_BIASED = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "Gemm", "BatchNormalization", "LayerNormalization"}
)
"""Operators that add what their third input holds."""
_STASHING = ("GroupNormalization", "LayerNormalization", "RMSNormalization")
_SQUARES = frozenset({"Add", "Mul", "Pow", "ReduceMean", "ReduceSum", "Sub", "Sqrt", "Max", "Clip"})
_INDEX_ARITHMETIC = MOVEMENT | {
    "Add",
    "Cast",
    "Ceil",
    "Clip",
    "Concat",
    "Div",
    "Floor",
    "Mul",
    "Round",
    "Sub",
}


def _is_square(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _denominators(node: ir.Node) -> list[ir.Value]:
    """Inputs of a node whose relative error, not their absolute one, is what counts."""
    inputs = node.inputs
    found: list[ir.Value | None] = []
    if node.op_type in ("Sqrt", "Log", "Reciprocal"):
        found = [inputs[0]]
    elif node.op_type == "Div":
        found = [inputs[1]]
    elif node.op_type == "Pow":
        exponent = constant_tensor(inputs[1])
        if exponent is not None and exponent.size == 1 and float(exponent.numpy().item()) < 1:
            found = [inputs[0]]
    return [value for value in found if value is not None and constant_tensor(value) is None]


def _is_floor(node: ir.Node) -> bool:
    """Whether what the node gives is a denominator, a root or a logarithm, perhaps moved."""
    return _reaches(node.outputs[0], lambda user, value: value in _denominators(user), 4)


def _reaches(value: ir.Value, wanted: Callable[[ir.Node, ir.Value], bool], depth: int) -> bool:
    for use in value.uses():
        node = use.node
        if wanted(node, value):
            return True
        if depth and (node.op_type in MOVEMENT or node.op_type in ("Cast", "Pow", "Expand")):
            if node.op_type in MATRIX or use.idx:
                continue
            if any(_reaches(made, wanted, depth - 1) for made in node.outputs):
                return True
    return False


def float_reasons(flow: Flow, placement: Mapping[Cluster, bool]) -> dict[str, str]:
    """Site -> why it is float32, for every cluster with nodes that did not go."""
    reasons = {}
    for cluster in flow.clusters:
        if cluster.nodes and not placement[cluster]:
            reasons[cluster.site] = cluster.float_reason or "casting to it and back costs more"
    return reasons
