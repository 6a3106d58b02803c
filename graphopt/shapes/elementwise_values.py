"""The numbers in small tensors, through operators that work element by element."""

import math
from collections.abc import Callable, Sequence

import ml_dtypes
import numpy as np

from graphopt.graph import ir
from graphopt.shapes import arithmetic
from graphopt.shapes.expression import Dim, Expression
from graphopt.shapes.facts import MAX_ELEMENTS, Elements, object_array
from graphopt.shapes.node_view import NodeView

Rule = Callable[[NodeView], Sequence[Elements | None] | None]

_FLOAT_TYPES = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.DOUBLE: np.float64,
    ir.DataType.FLOAT16: np.float16,
    ir.DataType.BFLOAT16: ml_dtypes.bfloat16,
}


_INTEGER_RANGES = {
    ir.DataType.BOOL: (0, 1),
    ir.DataType.INT8: (-(2**7), 2**7 - 1),
    ir.DataType.UINT8: (0, 2**8 - 1),
    ir.DataType.INT16: (-(2**15), 2**15 - 1),
    ir.DataType.UINT16: (0, 2**16 - 1),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
    ir.DataType.UINT32: (0, 2**32 - 1),
    ir.DataType.INT64: (-(2**63), 2**63 - 1),
    ir.DataType.UINT64: (0, 2**64 - 1),
}


# A dim of a tensor that fits into a machine. Times 128 it still fits into an int32; nothing
# longer is claimed of 32-bit arithmetic, and nothing symbolic of narrower types.
_MAX_INT32_FACTOR = 128


def fitting(element: object, dtype: ir.DataType | None) -> object:
    """`element` where it certainly does not wrap around in `dtype`, else None."""
    limits = None if dtype is None else _INTEGER_RANGES.get(dtype)
    if limits is None:
        float_type = None if dtype is None else _FLOAT_TYPES.get(dtype)
        if float_type is not None and isinstance(element, float_type):
            return element
        # Doubles hold every dim exactly.
        exact = dtype == ir.DataType.DOUBLE and isinstance(element, Expression)
        return element if exact and _is_small(element) else None
    if isinstance(element, int):
        return element if limits[0] <= element <= limits[1] else None
    if isinstance(element, Expression):
        if limits[0] == 0 and not arithmetic.is_non_negative(element):
            return None
        if dtype in (ir.DataType.INT64, ir.DataType.UINT64):
            return element
        return element if limits[1] >= 2**31 - 1 and _is_small(element) else None
    return None


def _is_small(element: object) -> bool:
    """Whether an expression is at most a few times one dim, also in its parts."""
    if not isinstance(element, Expression):
        return False
    factor = sum(abs(c) for monomial, c in element.terms if monomial)
    degree = max(sum(power for _, power in monomial) for monomial, _ in element.terms)
    return degree <= 1 and factor <= _MAX_INT32_FACTOR and element.depth == 0


def _elementwise(function: Callable[..., object], arity: int) -> Rule:
    vectorized = np.frompyfunc(function, arity, 1)

    def rule(view: NodeView) -> list[Elements | None] | None:
        arrays = [view.elements(index) for index in range(arity)]
        if len(view.inputs) != arity:
            return None
        shaped = [elements_or_unknown(view, index, array) for index, array in enumerate(arrays)]
        if any(array is None for array in shaped):
            return None
        return [_broadcast_apply(vectorized, shaped)]

    return rule


def elements_or_unknown(view: NodeView, index: int, elements: Elements | None) -> Elements | None:
    """The elements, or as many unknown ones where only the small static shape is known."""
    if elements is not None:
        return elements
    dims = view.dims(index)
    if dims is None or not all(isinstance(dim, int) for dim in dims):
        return None
    shape = tuple(dim for dim in dims if isinstance(dim, int))
    count = math.prod(shape)
    return object_array([None] * count, shape) if count <= MAX_ELEMENTS else None


def _broadcast_apply(vectorized: np.ufunc, arrays: Sequence[Elements | None]) -> Elements | None:
    try:
        # Infinities and NaN are facts like any other number.
        with np.errstate(all="ignore"):
            result = vectorized(*arrays)
    except ValueError:
        return None
    if isinstance(result, np.ndarray):
        return result if result.size <= MAX_ELEMENTS else None
    return object_array([result], ())


def _variadic(function: Callable[[object, object], object]) -> Rule:
    vectorized = np.frompyfunc(function, 2, 1)

    def rule(view: NodeView) -> list[Elements | None] | None:
        result: Elements | None = None
        for index in range(len(view.inputs)):
            array = elements_or_unknown(view, index, view.elements(index))
            if array is None:
                return None
            result = array if result is None else _broadcast_apply(vectorized, [result, array])
            if result is None:
                return None
        return [result]

    return rule


def _arithmetic(
    on_dims: Callable[[Dim, Dim], Dim], on_floats: Callable[[np.floating, np.floating], object]
) -> Callable[[object, object], object]:
    def apply(a: object, b: object) -> object:
        if isinstance(a, np.generic) and isinstance(b, np.generic):
            with np.errstate(all="ignore"):
                return on_floats(a, b)  # type: ignore[arg-type]
        return on_dims(as_dim(a), as_dim(b))

    return apply


def as_dim(element: object) -> Dim:
    """The element as a dim; a double that is a small integer counts, beside an expression."""
    if isinstance(element, int | Expression):
        return element
    if isinstance(element, np.float64) and element.is_integer() and abs(element) <= 2**20:
        return int(element)
    return None


def _divide(a: object, b: object) -> object:
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        with np.errstate(all="ignore"):
            return _divide_floats(a, b)  # type: ignore[arg-type]
    if isinstance(a, np.generic) or isinstance(b, np.generic):
        # A double quotient with an expression is exact only where nothing is left over.
        return arithmetic.divide_exactly(as_dim(a), as_dim(b))
    return arithmetic.truncated_divide(as_dim(a), as_dim(b))


def _divide_floats(a: np.floating, b: np.floating) -> object:
    return a / b if b != 0 else None


def _compared(accept: Callable[[int], bool], on_floats: Callable[[object, object], object]) -> Rule:
    def apply(a: object, b: object) -> object:
        if isinstance(a, np.generic) and isinstance(b, np.generic):
            return int(bool(on_floats(a, b)))
        order = arithmetic.compare(as_dim(a), as_dim(b))
        return None if order is None else int(accept(order))

    return _elementwise(apply, 2)


def _equal_elements(a: object, b: object) -> object:
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return int(bool(a == b))
    order = arithmetic.compare(as_dim(a), as_dim(b))
    return None if order is None else int(order == 0)


def _where_element(condition: object, a: object, b: object) -> object:
    if isinstance(condition, int):
        return a if condition else b
    if isinstance(a, int | Expression) and a == b:
        return a
    return None


def _and(a: object, b: object) -> object:
    if a == 0 or b == 0:
        return 0
    return 1 if a == 1 and b == 1 else None


def _or(a: object, b: object) -> object:
    if a == 1 or b == 1:
        return 1
    return 0 if a == 0 and b == 0 else None


def _not(a: object) -> object:
    return None if a is None else 1 - a  # type: ignore[operator]


def _negate(a: object) -> object:
    return -a if isinstance(a, np.floating) else arithmetic.negate(as_dim(a))


def _absolute(a: object) -> object:
    if isinstance(a, np.generic):
        return abs(a)  # type: ignore[arg-type]
    if arithmetic.is_non_negative(as_dim(a)):
        return a
    return abs(a) if isinstance(a, int) else None


def _rounding(function: Callable[[np.floating], object]) -> Rule:
    def apply(a: object) -> object:
        # In a floating-point tensor an expression is an integer already.
        return function(a) if isinstance(a, np.floating) else as_dim(a)

    return _elementwise(apply, 1)


def _modulo(view: NodeView) -> Sequence[Elements | None] | None:
    fmod = view.int_attribute("fmod", 0)

    def apply(a: object, b: object) -> object:
        left, right = as_dim(a), as_dim(b)
        if isinstance(a, np.generic) or isinstance(b, np.generic) or right == 0:
            return None
        if isinstance(left, int) and isinstance(right, int):
            return int(math.fmod(left, right)) if fmod and abs(left) < 2**52 else left % right
        # For a dividend that is not negative both kinds agree.
        if fmod and not arithmetic.is_non_negative(left):
            return None
        return arithmetic.modulo(left, right)

    return _elementwise(apply, 2)(view)


def _power(a: object, b: object) -> object:
    if isinstance(b, np.generic) and float(b).is_integer():
        b = int(float(b))
    if isinstance(a, int | Expression) and isinstance(b, int) and 0 <= b <= 8:
        return arithmetic.product([a] * b)
    return None


def _cast(view: NodeView) -> list[Elements | None] | None:
    elements = view.elements(0)
    source = view.inputs[0]
    target = _cast_target(view)
    if elements is None or source is None or target is None:
        return None
    return [
        object_array((cast_element(e, source.dtype, target) for e in elements.flat), elements.shape)
    ]


def _cast_target(view: NodeView) -> ir.DataType | None:
    if view.op_type == "CastLike":
        like = view.fact(1)
        return None if like is None else like.dtype
    return ir.DataType(view.int_attribute("to", 0)) if "to" in view.attributes else None


def cast_element(element: object, source: ir.DataType | None, target: ir.DataType) -> object:
    """The element after a Cast; None where rounding or wrapping may change it."""
    if target == ir.DataType.BOOL:
        if isinstance(element, np.generic):
            return None if np.isnan(element) else int(bool(element))
        if isinstance(element, int):
            return int(element != 0)
        return 1 if arithmetic.is_positive(as_dim(element)) else None
    float_type = _FLOAT_TYPES.get(target)
    if float_type is not None:
        if isinstance(element, Expression):
            return element if target == ir.DataType.DOUBLE else None
        if isinstance(element, int):
            converted = float_type(element) if abs(element) < 2**53 else None
            return converted if converted is not None and float(converted) == element else None
        if isinstance(element, np.generic):
            with np.errstate(over="ignore"):
                converted = float_type(float(element))
            # Rounding twice, or to a type of other rules, is the runtime's business.
            return converted if float(converted) == float(element) else None
        return None
    if isinstance(element, np.generic):
        number = float(element)
        return int(number) if math.isfinite(number) and abs(number) < 2**53 else None
    return element


_ROUNDINGS: dict[str, Callable[[np.floating], object]] = {
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
}


ELEMENTWISE_VALUES: dict[str, Rule] = {
    "Cast": _cast,
    "CastLike": _cast,
    "Add": _elementwise(_arithmetic(arithmetic.add, lambda a, b: a + b), 2),
    "Sub": _elementwise(_arithmetic(arithmetic.subtract, lambda a, b: a - b), 2),
    "Mul": _elementwise(_arithmetic(arithmetic.multiply, lambda a, b: a * b), 2),
    "Div": _elementwise(_divide, 2),
    "Mod": _modulo,
    "Pow": _elementwise(_power, 2),
    "Neg": _elementwise(_negate, 1),
    "Abs": _elementwise(_absolute, 1),
    "Not": _elementwise(_not, 1),
    "And": _elementwise(_and, 2),
    "Or": _elementwise(_or, 2),
    "Equal": _elementwise(_equal_elements, 2),
    "Less": _compared(lambda order: order < 0, lambda a, b: a < b),  # type: ignore[operator]
    "LessOrEqual": _compared(lambda order: order <= 0, lambda a, b: a <= b),  # type: ignore[operator]
    "Greater": _compared(lambda order: order > 0, lambda a, b: a > b),  # type: ignore[operator]
    "GreaterOrEqual": _compared(lambda order: order >= 0, lambda a, b: a >= b),  # type: ignore[operator]
    "Where": _elementwise(_where_element, 3),
    "Max": _variadic(_arithmetic(arithmetic.maximum, lambda a, b: None)),
    "Min": _variadic(_arithmetic(arithmetic.minimum, lambda a, b: None)),
    **{name: _rounding(function) for name, function in _ROUNDINGS.items()},
}
