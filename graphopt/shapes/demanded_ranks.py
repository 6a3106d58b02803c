"""Ranks that follow from who reads a value: a run that ends without an error had them.

    x = If(c, Squeeze(v), v);  y = If(rank(x) != 2, Unsqueeze(x), x);  LSTM(Unsqueeze(y), ...)

Exporters of scripted code leave such questions behind. The LSTM takes a tensor of rank 3, so y has
rank 2; x has rank 2 or 3, so y is x, and x has rank 2. Only nodes of the main graph ask for ranks,
as all others may not run.
"""

from collections.abc import Callable, Mapping

from graphopt.graph import ir
from graphopt.graph.constants import constant_array
from graphopt.graph.walk import outer_values, subgraphs
from graphopt.shapes.facts import Fact

_RECURRENT = frozenset(["GRU", "LSTM", "RNN"])
_RECURRENT_INPUTS = (0, 5, 6)
"""X, initial_h and initial_c."""
_SAME_RANK = frozenset(["Cast", "Identity"])
_MOST_RANKS = 8
"""A value that may have more ranks than this is one of unknown rank."""

Ranks = frozenset[int] | None
"""The ranks that a value may have; None where nothing is known."""


def demanded_ranks(graph: ir.Graph, facts: Mapping[ir.Value, Fact]) -> dict[ir.Value, int]:
    """The ranks of values of the main graph that no fact tells and that readers demand.

    Args:
        graph: the main graph, in topological order.
        facts: what is derived of its values and of those of its subgraphs.
    """

    def rank(value: ir.Value | None) -> int | None:
        fact = None if value is None else facts.get(value)
        return None if fact is None or fact.dims is None else len(fact.dims)

    demands: dict[ir.Value, int] = {}
    demanding = [(node, demand) for node in graph for demand in _demands(node, rank)]
    if all(rank(value) is not None for _, (value, _) in demanding):
        return {}
    needed = _needed(graph)
    for node, (value, demanded) in demanding:
        if rank(value) is None and any(output in needed for output in node.outputs):
            demands.setdefault(value, demanded)
    possible: dict[ir.Value, Ranks] = {}
    _find_possible(graph, rank, possible)
    for node in reversed(graph):
        _pass_on(node, demands, possible)
    inner = {value for node in graph for value in node.outputs}
    return {value: found for value, found in demands.items() if value in inner and found >= 0}


_Rank = Callable[[ir.Value | None], int | None]


def _demands(node: ir.Node, rank: _Rank) -> list[tuple[ir.Value, int]]:
    """Inputs of a node, each with the only rank that the node takes there."""
    if node.domain not in ("", "ai.onnx"):
        return []
    inputs = node.inputs
    if node.op_type in _RECURRENT:
        places = [inputs[at] for at in _RECURRENT_INPUTS if at < len(inputs)]
        return [(value, 3) for value in places if value is not None]
    if node.op_type == "Conv" and len(inputs) > 1 and inputs[0] is not None:
        weight = rank(inputs[1])
        return [] if weight is None else [(inputs[0], weight)]
    return []


def _needed(graph: ir.Graph) -> set[ir.Value]:
    """The values that the graph's outputs are made of: a runtime may drop all others."""
    needed = set(graph.outputs)
    for node in reversed(graph):
        if any(value in needed for value in node.outputs):
            needed.update(value for value in node.inputs if value is not None)
            for inner in subgraphs(node):
                needed.update(outer_values(inner))
    return needed


def _find_possible(graph: ir.Graph, rank: _Rank, possible: dict[ir.Value, Ranks]) -> None:
    """Fill in the ranks that values of the graph, and of the branches in it, may have."""

    def ranks(value: ir.Value | None) -> Ranks:
        known = rank(value)
        if known is not None:
            return frozenset([known])
        return None if value is None else possible.get(value)

    for node in graph:
        change = _rank_change(node)
        if change is not None:
            before = ranks(node.inputs[0])
            possible[node.outputs[0]] = (
                None if before is None else frozenset(each + change for each in before)
            )
        elif node.op_type == "If" and node.domain == "":
            branches = subgraphs(node)
            for branch in branches:
                _find_possible(branch, rank, possible)
            for index, value in enumerate(node.outputs):
                each = [ranks(branch.outputs[index]) for branch in branches]
                found = [one for one in each if one is not None]
                union = frozenset[int]().union(*found)
                whole = len(found) == len(each) == 2 and len(union) <= _MOST_RANKS
                possible[value] = union if whole else None
        for value in node.outputs:
            possible[value] = ranks(value)


def _rank_change(node: ir.Node) -> int | None:
    """By how much the rank of a node's output differs from its input's; None if that is open."""
    if node.domain != "" or not node.inputs or not node.outputs:
        return None
    if node.op_type in _SAME_RANK:
        return 0
    if node.op_type not in ("Squeeze", "Unsqueeze"):
        return None
    attribute = node.attributes.get("axes")
    if attribute is not None:
        axes = () if attribute.is_ref() else tuple(attribute.as_ints())
    else:
        array = constant_array(node.inputs[1], 64) if len(node.inputs) > 1 else None
        axes = () if array is None else tuple(array.reshape(-1).tolist())
    # One axis may be named twice, or from both ends, and is taken away once.
    distinct = len(set(axes)) == len(axes) and len({axis < 0 for axis in axes}) == 1
    if not distinct:
        return None
    return len(axes) if node.op_type == "Unsqueeze" else -len(axes)


def _pass_on(node: ir.Node, demands: dict[ir.Value, int], possible: dict[ir.Value, Ranks]) -> None:
    """Let what is demanded of a node's outputs be demanded of what they are made of."""
    change = _rank_change(node)
    if change is not None:
        source = node.inputs[0]
        if source is not None and node.outputs[0] in demands:
            demands.setdefault(source, demands[node.outputs[0]] - change)
        return
    if node.op_type != "If" or node.domain != "":
        return
    branches = subgraphs(node)
    for index, value in enumerate(node.outputs):
        demanded = demands.get(value)
        if demanded is None:
            continue
        taken = [
            branch
            for branch in branches
            if (may := possible.get(branch.outputs[index])) is None or demanded in may
        ]
        if len(taken) == 1 and len(branches) == 2:
            demands.setdefault(taken[0].outputs[index], demanded)
            for inner in reversed(taken[0]):
                _pass_on(inner, demands, possible)
