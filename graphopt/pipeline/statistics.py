"""Counts of a model: nodes, op types, parameters, bytes."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from graphopt.errors import GraphoptError
from graphopt.graph import all_graphs, ir, nested_graphs
from graphopt.report import ModelStatistics


def statistics_of(
    model: ir.Model, file_bytes: int | None, *, count: bool = False
) -> ModelStatistics:
    """Count the nodes and parameters of a model.

    Args:
        model: the model; its weights are not read.
        file_bytes: its size on disk; None where it has none.
        count: whether to count MACs and activations too; `infer_shapes` must have run.
    """
    operators = Counter(
        node.op_type if not node.domain else f"{node.domain}.{node.op_type}"
        for graph in nested_graphs(model.graph)
        for node in graph
    )
    parameters = parameter_bytes = 0
    for graph in all_graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                parameters += value.const_value.size
                parameter_bytes += value.const_value.nbytes
    ordered = dict(sorted(operators.items(), key=lambda item: (-item[1], item[0])))
    statistics = ModelStatistics(
        operators.total(), ordered, parameters, parameter_bytes, file_bytes
    )
    if not count:
        return statistics
    from graphopt.cost.estimate import cost_of_inferred

    try:
        cost = cost_of_inferred(model)
    except GraphoptError:
        return statistics  # functions that cannot be inlined; nothing else needs the counts
    return replace(
        statistics, macs=cost.total.macs, activation_bytes=cost.memory.peak_bytes_in_place
    )


def size_on_disk(source: Any, model: ir.Model) -> int | None:
    """Bytes of the model as it was given: the file and its data files, or the bytes.

    None for a model that was given as an object.
    """
    if isinstance(source, bytes):
        return len(source)
    if not isinstance(source, str | os.PathLike):
        return None
    files = {Path(source)}
    for graph in all_graphs(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                files.add(Path(value.const_value.path))
    return sum(file.stat().st_size for file in sorted(files) if file.exists())
