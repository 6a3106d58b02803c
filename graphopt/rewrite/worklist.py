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
from graphopt.rewrite.journal import Journal, NotApplicable, site_of
from graphopt.rewrite.matcher import Match, match
from graphopt.rewrite.pattern import Pattern, depth, roots
from graphopt.rewrite.rewriter import Rewriter

RewriteFunction = Callable[[Match, Rewriter], None]


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
    index: dict[tuple[str, str], list[Pattern]] = {}
    for pattern in patterns:
        for key in dict.fromkeys(
            (root.domain, name) for root in roots(pattern) for name in root.op_types
        ):
            index.setdefault((key[0] or "ai.onnx", key[1]), []).append(pattern)
    reach = max((depth(pattern) for pattern in patterns), default=1) - 1
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
                f"(last at {site_of(node)})"
            )
        for affected in _downstream(rewriter.touched, reach):
            if (
                affected.graph is not None
                and _key(affected) in index
                and id(affected) not in waiting
            ):
                queue.append(affected)
                waiting.add(id(affected))


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


def _downstream(nodes: Iterable[ir.Node], reach: int) -> Iterable[ir.Node]:
    """The nodes and those that consume their outputs, `reach` steps down, each once."""
    seen: dict[int, ir.Node] = {}
    frontier = [node for node in nodes if node.graph is not None]
    for node in frontier:
        seen.setdefault(id(node), node)
    for _ in range(reach):
        following: list[ir.Node] = []
        for node in frontier:
            for value in node.outputs:
                uses = value.uses()
                if len(uses) > _HUB:
                    continue
                following.extend(
                    usage.node
                    for usage in uses
                    if seen.setdefault(id(usage.node), usage.node) is usage.node
                )
        frontier = following
    return seen.values()


_HUB = 16
"""A value with more consumers is no inner value of a match, so nothing below it waits for it."""
