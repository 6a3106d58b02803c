"""Operators that work on each element alone: y[i] = f(a[i], b[i], ...), with broadcasting."""

from __future__ import annotations

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.place import NotUnderstood, Place, Tensor
from graphopt.pruning.propagation.rule import Rule, standard

_UNARY = [
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "Binarizer",
    "Cast",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "BitwiseNot",
]
_BROADCASTING = [
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
]


def broadcast(place: Place, tensor: Tensor, result: Tensor) -> None:
    """Tie the axes of an operand to those of the result, counted from the last."""
    shift = result.rank - tensor.rank
    if shift < 0:
        raise NotUnderstood("has shapes that do not fit together")
    for axis, size in enumerate(tensor.sizes):
        if size == 1 and result.sizes[axis + shift] != 1:
            place.ignore(tensor, axis)
        else:
            place.tie(tensor, axis, result, axis + shift)


def vector_roles(place: Place, index: int, result: Tensor) -> None:
    """Mark the axes along which a constant operand differs."""
    tensor = place.input(index)
    for axis, size in enumerate(tensor.sizes):
        if size > 1:
            place.weight(index, axis, Role.VECTOR)


def _relate_unary(place: Place) -> None:
    place.same(place.input(0), place.output())


def _relate_broadcasting(place: Place) -> None:
    result = place.output()
    if place.version < 7 and "axis" in place.node.attributes:
        raise NotUnderstood("broadcasts along an axis as before operator set 7")
    for index, tensor in enumerate(place.inputs):
        if tensor is not None:
            broadcast(place, tensor, result)
            if not all(other is None or other.parameter for other in place.inputs):
                vector_roles(place, index, result)


def _relate_clip(place: Place) -> None:
    """The bounds are scalars."""
    place.same(place.input(0), place.output())


def _relate_dropout(place: Place) -> None:
    if place.has_input(2):
        mode = place.constant(2)
        if mode is None or bool(mode.reshape(-1)[0]):
            raise NotUnderstood("draws at random")
    place.same(place.input(0), place.output())
    if len(place.outputs) > 1 and place.outputs[1] is not None:
        place.same(place.input(0), place.output(1))


def _relate_prelu(place: Place) -> None:
    """The slope is broadcast to x, never the other way."""
    result = place.output()
    place.same(place.input(0), result)
    broadcast(place, place.input(1), result)
    vector_roles(place, 1, result)


ACTIVATION_RULES = {
    **standard(_UNARY, Rule(_relate_unary)),
    **standard(_BROADCASTING, Rule(_relate_broadcasting)),
    **standard(("Clip", "CastLike"), Rule(_relate_clip)),
    **standard(("Dropout",), Rule(_relate_dropout)),
    **standard(("PRelu",), Rule(_relate_prelu)),
}
