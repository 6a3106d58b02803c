"""Which inputs and outputs of a node change their type together.

An operator's schema names the type of each input and output, by a variable or literally. The
slots of a node that hold float32 now and whose type may be half form one group: they go to
half together or not at all. A slot whose type is float32 and nothing else (Resize's scales)
is fixed. A slot that takes any float type at no cost (Cast's input) is free.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.graph import ir, subgraphs
from graphopt.graph.operators import Parameter, Signature, signature
from graphopt.precision.formats import HalfFormat
from graphopt.precision.operators import CONTRIB_UNIFORM, NEVER, PRECISION_BLIND


@dataclass(frozen=True)
class Slots:
    """The float32 inputs and outputs of a node, by what may become of them.

    Attributes:
        inputs: indices of inputs that go with the group.
        outputs: indices of outputs that go with the group.
        fixed_inputs: indices of inputs that must be float32.
        fixed_outputs: indices of outputs that are float32 in any case.
        declined: why the group must stay float32; None if it need not.
    """

    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    fixed_inputs: tuple[int, ...] = ()
    fixed_outputs: tuple[int, ...] = ()
    declined: str | None = None


def holds_float32(value: ir.Value | None) -> bool:
    """Whether the value is a float32 tensor, or a sequence or an optional of such."""
    if value is None:
        return False
    kind = value.type
    while isinstance(kind, ir.SequenceType | ir.OptionalType):
        kind = kind.elem_type
    return isinstance(kind, ir.TensorType) and kind.dtype == ir.DataType.FLOAT


def is_container(value: ir.Value) -> bool:
    """Whether the value is a sequence or an optional, which no Cast takes."""
    return isinstance(value.type, ir.SequenceType | ir.OptionalType)


def is_untyped(value: ir.Value | None) -> bool:
    """Whether a value may hold anything: it comes from an operator that nobody can infer."""
    return value is not None and bool(value.name) and value.type is None


def with_element(kind: ir.TypeProtocol | None, dtype: ir.DataType) -> ir.TypeProtocol | None:
    """The type with another element type."""
    if isinstance(kind, ir.SequenceType):
        return ir.SequenceType(with_element(kind.elem_type, dtype))  # type: ignore[arg-type]
    if isinstance(kind, ir.OptionalType):
        return ir.OptionalType(with_element(kind.elem_type, dtype))  # type: ignore[arg-type]
    return ir.TensorType(dtype)


def slots_of(node: ir.Node, version: int, half: HalfFormat) -> Slots:
    """The slots of a node that holds no subgraphs, or subgraphs that are not understood."""
    inputs = [index for index, value in enumerate(node.inputs) if holds_float32(value)]
    outputs = [index for index, value in enumerate(node.outputs) if holds_float32(value)]
    if node.domain == "com.microsoft" and node.op_type in CONTRIB_UNIFORM:
        return _contrib_slots(node, inputs, outputs)
    known = None if subgraphs(node) else signature(node.op_type, version, node.domain)
    if known is None or node.domain != "" or node.op_type in NEVER or "type" in node.attributes:
        return _all_fixed(inputs, outputs)  # Optional spells its type out in an attribute
    if node.op_type in PRECISION_BLIND:
        return Slots()
    if node.op_type in ("Cast", "CastLike"):
        return _cast_slots(node, inputs, outputs)
    unknown = _untyped_float(node, known)
    free_inputs, fixed_inputs = _split(inputs, known.inputs, half)
    free_outputs, fixed_outputs = _split(outputs, known.outputs, half)
    if node.op_type == "LayerNormalization" and node.attributes.get_int("stash_type", 1) == 1:
        # Mean and inverse deviation have the type of the stash, which is float32.
        fixed_outputs += tuple(index for index in free_outputs if index)
        free_outputs = tuple(index for index in free_outputs if not index)
    if node.op_type == "Dropout":
        # The ratio has a type of its own, and nothing is gained by changing it.
        fixed_inputs += tuple(index for index in free_inputs if index)
        free_inputs = tuple(index for index in free_inputs if not index)
    if inputs and not free_inputs and free_outputs:
        # A half output of float32 inputs, such as of Multinomial: possible, never wanted.
        return _all_fixed(inputs, outputs)
    declined = None if unknown is None else _untyped_reason(unknown)
    return Slots(free_inputs, free_outputs, fixed_inputs, fixed_outputs, declined)


def _untyped_reason(value: ir.Value) -> str:
    return f"the type of '{value.name}' is not known"


def _untyped_float(node: ir.Node, known: Signature) -> ir.Value | None:
    """The first value that has no type where the operator takes or gives float32."""
    for values, parameters in ((node.inputs, known.inputs), (node.outputs, known.outputs)):
        for index, value in enumerate(values):
            if value is not None and is_untyped(value) and parameters:
                parameter = parameters[min(index, len(parameters) - 1)]
                if any(_element(name) == "float" for name in parameter.types):
                    return value
    return None


def _all_fixed(inputs: list[int], outputs: list[int]) -> Slots:
    return Slots((), (), tuple(inputs), tuple(outputs))


def _contrib_slots(node: ir.Node, inputs: list[int], outputs: list[int]) -> Slots:
    first = [index for index in outputs if index == 0 or index == 3 or "Norm" not in node.op_type]
    rest = tuple(index for index in outputs if index not in first)
    unknown = next(
        (v for v in (*node.inputs, *node.outputs) if v is not None and is_untyped(v)), None
    )
    declined = None if unknown is None else _untyped_reason(unknown)
    return Slots(tuple(inputs), tuple(first), (), rest, declined)


def _cast_slots(node: ir.Node, inputs: list[int], outputs: list[int]) -> Slots:
    """Cast reads whatever there is, except where what it gives is finer than half."""
    wanted = node.outputs[0].dtype
    fixed = tuple(inputs[:1]) if wanted == ir.DataType.DOUBLE and 0 in inputs else ()
    target = tuple(index for index in inputs if index == 1)
    return Slots(target, tuple(outputs), fixed)


def _split(
    indices: list[int], parameters: tuple[Parameter, ...], half: HalfFormat
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The indices whose parameter may be half, and those whose may not."""
    may: list[int] = []
    fixed: list[int] = []
    for index in indices:
        parameter = parameters[min(index, len(parameters) - 1)]
        allowed = any(_element(name) == half.type_name for name in parameter.types)
        (may if allowed else fixed).append(index)
    return tuple(may), tuple(fixed)


def _element(type_name: str) -> str:
    """`seq(tensor(float16))` -> `float16`."""
    return type_name.rpartition("(")[2].rstrip(")")
