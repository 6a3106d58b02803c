"""Name the type that a CastLike takes from another value, so that it can be folded.

    CastLike(x, like)  ->  Cast(x, to = type of like)

The other value is not needed any more, and what was cast may be a constant. Declined where the
type is not known, as in the body of a function.
"""

from __future__ import annotations

from graphopt.plugin import Match, NotApplicable, Promise, RewritePass, Rewriter, op, variable


class ConvertCastLike(RewritePass):
    """Name the type that a CastLike takes from another value."""

    name = "convert-cast-like"
    promise = Promise.EXACT
    patterns = (op("CastLike", variable("x"), variable("like"), label="cast"),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Make the Cast, or say that the type is not known."""
        dtype = match.value("like").dtype
        if dtype is None:
            raise NotApplicable(f"the type of '{match.value('like').name}' is not known")
        attributes = {**match.root.attributes, "to": int(dtype)}
        rewriter.replace(match.root, rewriter.node("Cast", [match.value("x")], attributes))
