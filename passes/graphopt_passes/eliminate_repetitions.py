"""Do once what changes nothing when it is done again, and not at all what undoes itself.

    Relu(Relu(x)), Abs(Abs(x)), Ceil(Ceil(x)), ...     ->  Relu(x), Abs(x), Ceil(x), ...
    Neg(Neg(x)), Not(Not(x)), BitwiseNot(BitwiseNot)   ->  x
    Abs(Neg(x))                                        ->  Abs(x)
    Where(Not(c), a, b)                                ->  Where(c, b, a)

Whatever else reads the value between keeps it.
"""

from __future__ import annotations

from graphopt.plugin import Match, Pattern, Promise, RewritePass, Rewriter, op, variable

_IDEMPOTENT = ("Abs", "Ceil", "Floor", "Relu", "Round", "Sign")
_INVOLUTIONS = ("BitwiseNot", "Neg", "Not")


def _inner(kind: str) -> Pattern:
    return op(kind, variable("x"), label="between", shared=True)


class EliminateRepetitions(RewritePass):
    """Do once what changes nothing when done again, and not at all what undoes itself."""

    name = "eliminate-repetitions"
    promise = Promise.EXACT
    patterns = (
        *(op(kind, op(kind, variable("x"), label="between", shared=True)) for kind in _IDEMPOTENT),
        *(op(kind, op(kind, variable("x"), label="between", shared=True)) for kind in _INVOLUTIONS),
        op("Abs", op("Neg", variable("x"), label="between", shared=True)),
        op(
            "Where",
            op("Not", variable("x"), label="between", shared=True),
            variable("yes"),
            variable("no"),
        ),
    )

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Read what stands before."""
        root = match.root
        if root.op_type == "Where":
            branches = [match.value("x"), match.value("no"), match.value("yes")]
            rewriter.replace(root, rewriter.node("Where", branches))
        elif root.op_type in _INVOLUTIONS:
            rewriter.replace(root, match.value("x"))
        elif root.op_type == match.node("between").op_type:
            rewriter.replace(root, match.node("between").outputs[0])
        else:
            rewriter.replace(root, rewriter.node(root.op_type, [match.value("x")]))
