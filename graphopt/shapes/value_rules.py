"""The numbers in small tensors, carried through the operators of shape arithmetic.

Each rule gives the elements of the outputs or None. An element is an exact fact: an integer,
an expression in dims of the inputs, a concrete floating-point scalar, or None for unknown.
"""

from collections.abc import Sequence

from graphopt.graph import ir
from graphopt.shapes.elementwise_values import ELEMENTWISE_VALUES, fitting
from graphopt.shapes.facts import MAX_ELEMENTS, Elements, object_array
from graphopt.shapes.moved_values import MOVED_VALUES
from graphopt.shapes.node_view import NodeView

_RULES = ELEMENTWISE_VALUES | MOVED_VALUES
# These say something of a tensor whose elements are unknown.
_FROM_DIMS = frozenset({"Shape", "Size"})


def known_outputs(view: NodeView, dtypes: Sequence[ir.DataType | None]) -> list[Elements | None]:
    """The elements of each output, as far as they are known and fit their dtype."""
    unknown: list[Elements | None] = [None] * len(dtypes)
    rule = _RULES.get(view.op_type)
    # Before 7 operators broadcast and default in other ways, and nobody exports that any more.
    if rule is None or view.unresolved or view.version < 7:
        return unknown
    if view.op_type not in _FROM_DIMS and all(
        fact is None or fact.elements is None for fact in view.inputs
    ):
        return unknown
    results = rule(view)
    if results is None:
        return unknown
    checked: list[Elements | None] = []
    for dtype, elements in zip(dtypes, results, strict=False):
        if elements is None or elements.size > MAX_ELEMENTS:
            checked.append(None)
            continue
        fitted = object_array((fitting(e, dtype) for e in elements.flat), elements.shape)
        # An empty tensor is known entirely; one of which nothing is known is not worth a note.
        worth = fitted.size == 0 or any(e is not None for e in fitted.flat)
        checked.append(fitted if worth else None)
    return checked + unknown[len(checked) :]
