"""Keeps weights in half and computes in float32: each weight is cast once, when it is read.

    w (float32)  ->  w (half) -> Cast -> w

For CPUs without half arithmetic. ONNX Runtime folds the Casts when it loads the model, so that
it runs as fast as before, and takes the memory that it took; the file is half the size.
"""

from __future__ import annotations

from graphopt.graph import constant_tensor, ir
from graphopt.precision.conversion import Conversion, apply_placement
from graphopt.precision.evidence import Evidence
from graphopt.precision.flow import Cluster, Flow, Tensor, Use
from graphopt.precision.formats import HalfFormat
from graphopt.precision.masks import Masks
from graphopt.precision.request import Plan
from graphopt.rewrite import Journal

_FEWEST_ELEMENTS = 256
"""A Cast node takes as many bytes as this many elements save."""
_LARGEST_ERROR = 2.0**-7


def storage_plan(flow: Flow, evidence: Evidence) -> Plan:
    """The weights worth storing in half, each a tensor made in half that all read in float32."""
    tensors: list[Tensor] = []
    placement: dict[Cluster, bool] = {}
    reasons: dict[str, str] = {}
    for tensor in flow.constants():
        held, value = constant_tensor(tensor.value), tensor.value
        facts = evidence.constant(value)
        if held is None or facts is None or not tensor.uses or not value.is_initializer():
            continue
        if value.is_graph_output() or held.size < _FEWEST_ELEMENTS:
            continue
        site = f"weight {value.name}"
        if facts.magnitude > evidence.half.largest:
            reasons[site] = f"reaches {facts.magnitude:.3g}, beyond {evidence.half.name}"
            continue
        if facts.error > _LARGEST_ERROR:
            reasons[site] = f"is too small for {evidence.half.name}"
            continue
        cluster = Cluster(site)
        placement[cluster] = True
        reader = Cluster("", float_reason="computes in float32")
        uses = tuple(Use(use.holder, use.index, reader) for use in tensor.uses)
        tensors.append(Tensor(value, tensor.graph, cluster, uses))
    return Plan(Flow(tuple(placement), tuple(tensors), {}), placement, Masks(), reasons)


def store(
    model: ir.Model, flow: Flow, evidence: Evidence, half: HalfFormat, journal: Journal
) -> tuple[Plan, Conversion]:
    """Convert the weights of a model in place."""
    plan = storage_plan(flow, evidence)
    for cluster in plan.flow.clusters:
        if journal.permits(cluster.site):
            journal.record(cluster.site, f"stored in {half.name}")
        else:
            plan.placement[cluster] = False
    for site, reason in plan.reasons.items():
        journal.decline(site, reason)
    done = apply_placement(model, plan.flow, plan.placement, half, journal)
    return plan, done
