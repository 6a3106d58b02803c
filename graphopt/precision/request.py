"""convert: from a model and what is known of it to the model in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphopt.graph import ir
from graphopt.precision.clusters import flow_of
from graphopt.precision.conversion import Conversion, apply_placement
from graphopt.precision.evidence import Evidence, Measurements
from graphopt.precision.flow import Cluster, Flow, Tensor
from graphopt.precision.formats import FLOAT16, HalfFormat
from graphopt.precision.hazards import float_reasons, mark_hazards
from graphopt.precision.kernels import kernels_of
from graphopt.precision.masks import Masks, find_masks
from graphopt.precision.placement import choose
from graphopt.precision.regions import Blocked
from graphopt.precision.scales import raised_scales
from graphopt.rewrite import Journal


@dataclass(frozen=True)
class Request:
    """What is wanted of a conversion.

    Attributes:
        half: the type.
        keep_io_types: whether float32 inputs and outputs of the model stay so.
        provider: whose kernels to go by; "any" is what every provider takes.
        blocked: what to leave in float32.
        measurements: ranges seen on data.
        rounded: what constants of the main graph become in half, by name, where that is not
            the nearest half number; float32 arrays of half numbers.
        lose_small: whether weights that half holds few digits of, or none, go to half all the
            same. A layer scale of 1e-6 beside a residual of 1 vanishes there in any case: only
            a comparison of the outputs tells.
    """

    half: HalfFormat = FLOAT16
    keep_io_types: bool = False
    provider: str = "any"
    blocked: Blocked = field(default_factory=Blocked)
    measurements: Measurements | None = None
    rounded: Mapping[str, np.ndarray] = field(default_factory=dict)
    lose_small: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to become of a model; holds on to the very model it was made from.

    Attributes:
        flow: its clusters and tensors.
        placement: which clusters go to half.
        masks: which constants are clamped, and to what.
        reasons: site -> why it stays float32.
        rounded: constants -> what they become in half, where that is not the nearest.
        small: the weights that half holds few digits of, kept in float32 or not.
    """

    flow: Flow
    placement: dict[Cluster, bool]
    masks: Masks
    reasons: dict[str, str]
    rounded: Mapping[ir.Value, np.ndarray] = field(default_factory=dict)
    small: tuple[str, ...] = ()

    def casts(self) -> int:
        """How many Casts the placement adds: one for each tensor read otherwise than made."""

        def is_half(cluster: Cluster) -> bool:
            return self.placement.get(cluster.root(), False)

        return sum(
            any(is_half(u.cluster) != is_half(tensor.producer) for u in tensor.uses if u.cluster)
            for tensor in self.flow.tensors
            if tensor.producer is not None
        )

    def lost(self) -> list[str]:
        """Those of `small` that somebody reads in half."""

        def is_half(tensor: Tensor) -> bool:
            ends = [use.cluster for use in tensor.uses]
            if tensor.producer is not None:  # stored in half, cast for its readers
                ends = [tensor.producer]
            return any(end is not None and self.placement.get(end.root(), False) for end in ends)

        half = {tensor.value.name for tensor in self.flow.tensors if is_half(tensor)}
        return sorted(name for name in self.small if name in half)

    def half_sites(self) -> list[str]:
        """Sites of the clusters with nodes that go to half, in the order of the model."""
        return [c.site for c in self.flow.clusters if c.nodes and self.placement[c]]


def make_plan(model: ir.Model, request: Request) -> Plan:
    """Decide what goes to half; types must have been inferred. The model is not changed.

    Raises:
        UsageError: the request names a provider without a table.
    """
    flow = flow_of(model, request.half)
    evidence = Evidence(model, request.half, request.measurements)
    masks = find_masks(flow, evidence)
    if request.keep_io_types:
        for cluster in flow.clusters:
            if cluster.boundary:
                cluster.keep_float("inputs and outputs keep their types")
    kernels = kernels_of(request.provider)
    small = mark_hazards(
        model, flow, evidence, kernels, masks, request.blocked, lose_small=request.lose_small
    )
    placement = choose(flow)
    known = model.graph.initializers
    rounded = {known[name]: array for name, array in request.rounded.items() if name in known}
    rounded |= raised_scales(flow, request.half)
    reasons = flow.fixed | float_reasons(flow, placement)
    return Plan(flow, placement, masks, reasons, rounded, small)


def convert(
    model: ir.Model, request: Request, journal: Journal | None = None
) -> tuple[Plan, Conversion]:
    """Convert a model in place.

    Raises:
        UsageError: as for `make_plan`.
    """
    journal = journal or Journal("convert-half")
    plan = make_plan(model, request)
    for site, reason in plan.reasons.items():
        journal.decline(site, reason)
    done = apply_placement(
        model,
        plan.flow,
        plan.placement,
        request.half,
        journal,
        plan.masks.bounds,
        plan.rounded,
    )
    return plan, done
