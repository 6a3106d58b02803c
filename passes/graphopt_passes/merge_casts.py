"""Cast once where the first of two casts loses nothing.

    Cast(Cast(x: float16 -> float) -> double)   ->  Cast(x -> double)
    Cast(Cast(x: int32 -> int64) -> float)      ->  Cast(x -> float)
    Cast(Cast(x: float16 -> float) -> float16)  ->  x
    Cast(Cast(x: bool -> int64) -> bool)        ->  x

The type between must hold every value of the first. Declined where it does not (a trip through
float16 or through integers loses digits), where a float becomes an integer or a bool in the end,
which runtimes do differently from type to type outside the range, and where a wide type becomes
a 16-bit float, which runtimes do in one step or in two.
"""

from __future__ import annotations

from graphopt.plugin import Match, NotApplicable, Promise, RewritePass, Rewriter, ir, op, variable
from graphopt_passes.operands import no_references

_T = ir.DataType
_MANTISSA = {_T.BFLOAT16: 8, _T.FLOAT16: 11, _T.FLOAT: 24, _T.DOUBLE: 53}
_EXPONENT = {_T.FLOAT16: 5, _T.BFLOAT16: 8, _T.FLOAT: 8, _T.DOUBLE: 11}
_BITS = {
    _T.BOOL: 1,
    _T.INT8: 8,
    _T.UINT8: 8,
    _T.INT16: 16,
    _T.UINT16: 16,
    _T.INT32: 32,
    _T.UINT32: 32,
    _T.INT64: 64,
    _T.UINT64: 64,
}
_SIGNED = frozenset({_T.INT8, _T.INT16, _T.INT32, _T.INT64})


class MergeCasts(RewritePass):
    """Cast once where the first of two casts loses nothing."""

    name = "merge-casts"
    promise = Promise.EXACT
    patterns = (op("Cast", op("Cast", variable("x"), label="first")),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Cast from the first type to the last, or say what would be lost between."""
        data, first, last = match.value("x"), match.node("first"), match.root
        no_references(first)
        no_references(last)
        source = data.dtype
        middle = _T(first.attributes.get_int("to", 0))
        target = _T(last.attributes.get_int("to", 0))
        if source is None:
            raise NotApplicable(f"the type of '{data.name}' is not known")
        if not _holds(middle, source):
            raise NotApplicable(f"{middle.name} does not hold every {source.name}")
        if source == target:
            rewriter.replace(last, data)
            return
        if source in _MANTISSA and target not in _MANTISSA:
            raise NotApplicable(f"{source.name} to {target.name} is not defined out of range")
        if target not in _MANTISSA and target not in _BITS:
            raise NotApplicable(f"casts to {target.name} are not merged")
        if target in (_T.FLOAT16, _T.BFLOAT16) and not _holds(_T.FLOAT, source):
            raise NotApplicable(f"{source.name} to {target.name} may be rounded twice")
        rewriter.replace(last, rewriter.node("Cast", [data], {"to": int(target)}))


def _holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Whether every value of `narrow` is one of `wide`, and bools become 0 and 1."""
    if wide in _MANTISSA and narrow in _MANTISSA:
        return _MANTISSA[wide] >= _MANTISSA[narrow] and _EXPONENT[wide] >= _EXPONENT[narrow]
    if narrow not in _BITS:
        return False
    magnitude = _BITS[narrow] - (narrow in _SIGNED)
    if wide in _MANTISSA:
        return _MANTISSA[wide] >= magnitude and 2 ** (_EXPONENT[wide] - 1) > magnitude
    if wide == _T.BOOL or wide not in _BITS:
        return wide == narrow
    if narrow in _SIGNED and wide not in _SIGNED:
        return False
    return _BITS[wide] - (wide in _SIGNED) >= magnitude
