"""What a model costs: exact counts, symbolic in free dims, and a predicted latency.

    cost = graphopt.estimate_cost("model.onnx")
    print(cost.total.macs, cost.memory.peak_bytes)

A library of its own: it knows nothing of passes, and imports ONNX Runtime only to calibrate a
machine, to measure, and to see a model as ONNX Runtime will run it.
"""

from graphopt.cost.estimate import estimate_cost
from graphopt.cost.memory import MemoryUse, Moment
from graphopt.cost.operator import MOVE, VIEW, Operator, Rule, Tensor, UnknownShapeError, Work
from graphopt.cost.quantity import Number, Quantity, free, maximum, minimum, product, total
from graphopt.cost.result import Cost, Edge, Group, NodeCost, Parameter

__all__ = [
    "MOVE",
    "VIEW",
    "Cost",
    "Edge",
    "Group",
    "MemoryUse",
    "Moment",
    "NodeCost",
    "Number",
    "Operator",
    "Parameter",
    "Quantity",
    "Rule",
    "Tensor",
    "UnknownShapeError",
    "Work",
    "estimate_cost",
    "free",
    "maximum",
    "minimum",
    "product",
    "total",
]
