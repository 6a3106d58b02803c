"""Applies patterns until none applies any more, looking again only where something changed.

Every node whose op is the root of a pattern is looked at once, in graph order. A rewrite
puts back on the list its new nodes, the consumers that it redirected, the consumers whose
input has become theirs alone, and the nodes downstream of these as far as the deepest
pattern reaches. So the cost is one look for each node and a bounded number for each rewrite.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from graphopt.errors import PassError
from graphopt.graph import ir
from graphopt.graph.walk import all_nodes
from graphopt.rewrite.constant_time import use_count
from graphopt.rewrite.journal import Journal, NotApplicable, site_of
from graphopt.rewrite.matcher import Match, match
from graphopt.rewrite.pattern import OneOf, Op, Pattern, depth, inner_ops, roots
from graphopt.rewrite.rewriter import Rewriter

RewriteFunction = Callable[[Match, Rewriter], None]

_HUB = 16


def rewrite_until_stable(
    model: ir.Model, patterns: Sequence[Pattern], rewrite: RewriteFunction, journal: Journal
) -> None:
    """Rewrite every match of `patterns` in the model, in place.

    Graphs nested in nodes and function bodies are rewritten too. `rewrite` changes the
    model through the rewriter that it is given; raising NotApplicable leaves the place as
    it is and writes the reason into the journal.

    Raises:
        PassError: the rewrites do not come to an end (each makes room for another).
    """
    index = _by_root(patterns, model)
    reach = max((depth(pattern) for pattern in patterns), default=1) - 1
    # A value with many consumers is no inner value of a match, unless it may be shared.
    may_share = any(inner.shared for pattern in patterns for inner in inner_ops(pattern))
    widest = None if may_share else _HUB
    rewriter = Rewriter(model, journal)

    queue: deque[ir.Node] = deque()
    waiting: set[int] = set()
    count = 0
    for node in all_nodes(model):
        count += 1
        if _key(node) in index:
            queue.append(node)
            waiting.add(id(node))
    patience = 10 * count + 1000

    while queue:
        node = queue.popleft()
        waiting.discard(id(node))
        if node.graph is None:
            continue
        if not _rewrite_at(node, index[_key(node)], rewrite, rewriter):
            continue
        patience -= 1
        if patience < 0:
            raise PassError(
                f"{journal.pass_name} does not come to an end: its rewrites undo each other "
                f"(last at {journal.rewrites[-1].site})"
            )
        for affected in _downstream(rewriter.touched, reach, widest):
            if (
                affected.graph is not None
                and _key(affected) in index
                and id(affected) not in waiting
            ):
                queue.append(affected)
                waiting.add(id(affected))


def operators_of(model: ir.Model) -> frozenset[tuple[str, str]]:
    """Domain and type of every operator that occurs in the model."""
    return frozenset(_key(node) for node in all_nodes(model))


def may_match(patterns: Iterable[Pattern], present: frozenset[tuple[str, str]]) -> bool:
    """Whether a model of the operators `present` has all that some pattern needs."""
    return any(_occurs(pattern, present) for pattern in patterns)


def _occurs(pattern: Pattern, present: frozenset[tuple[str, str]]) -> bool:
    if isinstance(pattern, Op):
        domain = pattern.domain or "ai.onnx"
        return any((domain, op_type) in present for op_type in pattern.op_types) and all(
            _occurs(child, present) for child in pattern.inputs
        )
    if isinstance(pattern, OneOf):
        return any(_occurs(alternative, present) for alternative in pattern.patterns)
    return True


def _by_root(patterns: Iterable[Pattern], model: ir.Model) -> dict[tuple[str, str], list[Pattern]]:
    """The patterns by the domain and the op type that their roots may have."""
    # A function of the model that bears an ONNX op's name may compute anything.
    shadowed = {
        ("ai.onnx", name) for domain, name, _ in model.functions if domain in ("", "ai.onnx")
    }
    index: dict[tuple[str, str], list[Pattern]] = {}
    for pattern in patterns:
        keys = [
            (root.domain or "ai.onnx", op_type)
            for root in roots(pattern)
            for op_type in root.op_types
        ]
        if any(
            (inner.domain or "ai.onnx", op_type) in shadowed
            for inner in inner_ops(pattern)
            for op_type in inner.op_types
        ):
            continue
        for key in dict.fromkeys(keys):
            if key not in shadowed:
                index.setdefault(key, []).append(pattern)
    return index


def _key(node: ir.Node) -> tuple[str, str]:
    return (node.domain or "ai.onnx", node.op_type)


def _rewrite_at(
    node: ir.Node, patterns: Iterable[Pattern], rewrite: RewriteFunction, rewriter: Rewriter
) -> bool:
    """Try the patterns at one node; whether the model was changed."""
    journal = rewriter.journal
    site = site_of(node)
    if not journal.permits(site):
        return False
    for pattern in patterns:
        before = len(journal.rewrites)
        rewriter.begin(node)
        try:
            found = match(pattern, node)
            if found is None:
                continue
            rewriter.stand_for(found.matched)
            rewrite(found, rewriter)
        except NotApplicable as refusal:
            rewriter.discard()
            journal.decline(site, str(refusal))
            continue
        if len(journal.rewrites) > before:
            return True
        rewriter.discard()
    return False


def _downstream(nodes: Iterable[ir.Node], reach: int, widest: int | None) -> Iterable[ir.Node]:
    """The nodes and those that consume their outputs, `reach` steps down, each once.

    The consumers of a value that has more than `widest` of them are left out.
    """
    seen: dict[int, ir.Node] = {}
    frontier = [node for node in nodes if node.graph is not None]
    for node in frontier:
        seen.setdefault(id(node), node)
    for _ in range(reach):
        following: list[ir.Node] = []
        for node in frontier:
            for value in node.outputs:
                if widest is not None and use_count(value) > widest:
                    continue
                following.extend(
                    usage.node
                    for usage in value.uses()
                    if seen.setdefault(id(usage.node), usage.node) is usage.node
                )
        frontier = following
    return seen.values()
