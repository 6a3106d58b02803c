"""What to look for: patterns are immutable values, read from the root op towards its inputs.

    op("BatchNormalization", op("Conv", label="conv"), label="bn")
    op("Mul", variable("x"), op("Sigmoid", variable("x")), commutative=True)
    op("Conv", variable("x"), constant("weight"), maybe(constant("bias")), label="conv")

A label that stands twice must be the same value (or node) in both places. Inputs that the
pattern does not list are not looked at. An op below the root is matched only if nothing
outside the match uses its outputs, so that the rewrite may remove it; `shared=True` lifts
that for an op which the rewrite leaves standing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphopt.graph import ir

ValueCondition = Callable[[ir.Value], bool]


@dataclass(frozen=True, slots=True)
class Variable:
    """Any present value, optionally one that `where` accepts."""

    label: str | None = None
    where: ValueCondition | None = None


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that no caller can change: an initializer that is no graph input, or a Constant."""

    label: str | None = None
    where: ValueCondition | None = None


@dataclass(frozen=True, slots=True)
class Maybe:
    """An optional input: omitted, or matched by `pattern`."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class OneOf:
    """The first of several alternatives that leads to a match."""

    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """A node of one of `op_types` in `domain`, and patterns for its first inputs.

    Attributes:
        attributes: pairs of a name and either the value it must have or a condition on the
            value; an attribute that the node does not carry reads as None.
        commutative: whether the first two inputs may also match the other way round.
        shared: whether others may use the outputs of this node too (below the root only).
        output: which output of the node the pattern above it uses.
    """

    op_types: tuple[str, ...]
    inputs: tuple[Pattern, ...] = ()
    label: str | None = None
    domain: str = ""
    attributes: tuple[tuple[str, Any], ...] = ()
    commutative: bool = False
    shared: bool = False
    output: int = 0


Pattern = Variable | Constant | Maybe | OneOf | Op


def op(
    op_type: str | tuple[str, ...],
    *inputs: Pattern,
    label: str | None = None,
    domain: str = "",
    attributes: Mapping[str, Any] | None = None,
    commutative: bool = False,
    shared: bool = False,
    output: int = 0,
) -> Op:
    """Build an `Op`; its fields are explained there."""
    return Op(
        op_types=(op_type,) if isinstance(op_type, str) else tuple(op_type),
        inputs=inputs,
        label=label,
        domain=domain,
        attributes=tuple((attributes or {}).items()),
        commutative=commutative,
        shared=shared,
        output=output,
    )


def variable(label: str | None = None, where: ValueCondition | None = None) -> Variable:
    """Build a `Variable`."""
    return Variable(label, where)


def constant(label: str | None = None, where: ValueCondition | None = None) -> Constant:
    """Build a `Constant`."""
    return Constant(label, where)


def maybe(pattern: Pattern) -> Maybe:
    """Build a `Maybe`."""
    return Maybe(pattern)


def one_of(*patterns: Pattern) -> OneOf:
    """Build a `OneOf`."""
    return OneOf(patterns)


def roots(pattern: Pattern) -> tuple[Op, ...]:
    """The ops that a match of `pattern` can begin at.

    Raises:
        TypeError: the root is no op, so there is nothing to index it by.
    """
    if isinstance(pattern, Op):
        return (pattern,)
    if isinstance(pattern, OneOf):
        return tuple(root for alternative in pattern.patterns for root in roots(alternative))
    raise TypeError(f"a pattern's root must be an op or one_of ops, not {type(pattern).__name__}")


def depth(pattern: Pattern) -> int:
    """How many ops a path of `pattern` passes through at most."""
    if isinstance(pattern, Op):
        return 1 + max((depth(child) for child in pattern.inputs), default=0)
    if isinstance(pattern, OneOf):
        return max((depth(child) for child in pattern.patterns), default=0)
    if isinstance(pattern, Maybe):
        return depth(pattern.pattern)
    return 0


def inner_ops(pattern: Pattern) -> Iterator[Op]:
    """Every op that may stand below the root of `pattern`."""
    stack: list[Pattern] = [child for root in roots(pattern) for child in root.inputs]
    while stack:
        current = stack.pop()
        if isinstance(current, Op):
            yield current
            stack.extend(current.inputs)
        elif isinstance(current, OneOf):
            stack.extend(current.patterns)
        elif isinstance(current, Maybe):
            stack.append(current.pattern)
