"""The table of emitters: functions that add one construct to a scope."""

from collections.abc import Callable

from tests.generate.scope import Scope

Emitter = Callable[[Scope], None]
EMITTERS: list[tuple[float, Emitter]] = []


def emitter(weight: float = 1.0) -> Callable[[Emitter], Emitter]:
    """Register an emitter; it raises NotApplicable where the scope has no suitable operand."""

    def register(function: Emitter) -> Emitter:
        EMITTERS.append((weight, function))
        return function

    return register
