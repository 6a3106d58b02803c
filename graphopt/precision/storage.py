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
from graphopt.precision.hazards import CONSTANT_ERROR
from graphopt.precision.masks import Masks
from graphopt.precision.request import Plan, Request
from graphopt.rewrite import Journal

_FEWEST_ELEMENTS = 256
"""A Cast node takes as many bytes as this many elements save."""


def storage_plan(flow: Flow, evidence: Evidence, *, lose_small: bool = False) -> Plan:
    """The weights worth storing in half, each a tensor made in half that all read in float32.

    Args:
        flow: what the model's constants are read from.
        evidence: what is known of them.
        lose_small: as of a `Request`.
    """
    tensors: list[Tensor] = []
    placement: dict[Cluster, bool] = {}
    reasons: dict[str, str] = {}
    small: list[str] = []
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
        if facts.error > CONSTANT_ERROR:
            small.append(value.name or "")
            if not lose_small:
                reasons[site] = f"is too small for {evidence.half.name}"
                continue
        cluster = Cluster(site)
        placement[cluster] = True
        reader = Cluster("", float_reason="computes in float32")
        uses = tuple(Use(use.holder, use.index, reader) for use in tensor.uses)
        tensors.append(Tensor(value, tensor.graph, cluster, uses))
    stored = Flow(tuple(placement), tuple(tensors), {})
    return Plan(stored, placement, Masks(), reasons, small=tuple(small))


def store(
    model: ir.Model, flow: Flow, evidence: Evidence, request: Request, journal: Journal
) -> tuple[Plan, Conversion]:
    """Convert the weights of a model in place."""
    half = request.half
    plan = storage_plan(flow, evidence, lose_small=request.lose_small)
    for cluster in plan.flow.clusters:
        if journal.permits(cluster.site):
            journal.record(cluster.site, f"stored in {half.name}")
        else:
            plan.placement[cluster] = False
    for site, reason in plan.reasons.items():
        journal.decline(site, reason)
    done = apply_placement(model, plan.flow, plan.placement, half, journal)
    return plan, done
