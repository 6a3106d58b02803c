"""Checks one node against the definition of its operator in the operator set it imports."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import onnx.defs

from graphopt.graph._onnx_ir import ir

# The domains whose every operator onnx defines; others are left alone.
KNOWN_DOMAINS = frozenset({"", "ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training"})

# ONNX Runtime defines these in ONNX's own domain, and writes them when it optimizes.
_RUNTIME_OPERATORS = frozenset(
    {
        "Affine",
        "Crop",
        "DynamicSlice",
        "GRUUnit",
        "GivenTensorFill",
        "ImageScaler",
        "LayerNormalization",
        "ParametricSoftplus",
        "Scale",
        "ScaledTanh",
        "SimplifiedLayerNormalization",
    }
)

_ATTRIBUTE_KINDS = {
    getattr(onnx.defs.OpSchema.AttrType, kind.name): int(kind)
    for kind in ir.AttributeType
    if kind != ir.AttributeType.UNDEFINED
}

_Option = onnx.defs.OpSchema.FormalParameterOption


@dataclass(frozen=True, slots=True)
class Parameter:
    """A formal input or output: whether it may be left out, and the types it may have."""

    name: str
    required: bool
    variable: str | None
    types: frozenset[str]


@dataclass(frozen=True, slots=True)
class Signature:
    """What onnx.defs says about an operator, in a form that is quick to ask."""

    deprecated: bool
    inputs: tuple[Parameter, ...]
    outputs: tuple[Parameter, ...]
    least_inputs: int
    most_inputs: int
    least_outputs: int
    most_outputs: int
    attributes: dict[str, int]
    required_attributes: tuple[str, ...]


@cache
def signature(op_type: str, version: int, domain: str) -> Signature | None:
    """The signature of an operator in a version of its domain's operator set, if it exists."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    return Signature(
        deprecated=schema.deprecated,
        inputs=tuple(map(_parameter, schema.inputs)),
        outputs=tuple(map(_parameter, schema.outputs)),
        least_inputs=schema.min_input,
        most_inputs=schema.max_input,
        least_outputs=schema.min_output,
        most_outputs=schema.max_output,
        attributes={name: _ATTRIBUTE_KINDS[a.type] for name, a in schema.attributes.items()},
        required_attributes=tuple(
            sorted(name for name, found in schema.attributes.items() if found.required)
        ),
    )


def _parameter(formal: onnx.defs.OpSchema.FormalParameter) -> Parameter:
    # The types of a parameter with a literal type have no variable to be equal under, nor
    # have those of a variadic one that allows a different type at each place.
    bound = "(" not in formal.type_str and formal.is_homogeneous
    return Parameter(
        name=formal.name,
        required=formal.option == _Option.Single,
        variable=formal.type_str if bound else None,
        types=frozenset(formal.types),
    )


def node_problems(node: ir.Node, version: int, types: dict[ir.Value, str]) -> list[str]:
    """What is wrong with a node of a known domain, as ends of a sentence about it.

    Args:
        node: the node.
        version: the version of the node's domain that is imported.
        types: the types found out so far; those of the node's outputs are added.
    """
    known = signature(node.op_type, version, node.domain)
    where = f"opset {version}" if node.domain == "" else f"{node.domain} {version}"
    if known is None:
        if node.domain == "" and node.op_type in _RUNTIME_OPERATORS:
            return []
        return [f"has an operator that {where} does not define"]
    if known.deprecated:
        return [f"has an operator that {where} no longer has"]
    faults: list[str] = []
    inputs = node.inputs
    outputs = [value if value.name != "" else None for value in node.outputs]
    if None in inputs or not known.least_inputs <= len(inputs) <= known.most_inputs:
        faults += _arity_problems(
            "input", inputs, known.inputs, known.least_inputs, known.most_inputs
        )
    if None in outputs or not known.least_outputs <= len(outputs) <= known.most_outputs:
        faults += _arity_problems(
            "output", outputs, known.outputs, known.least_outputs, known.most_outputs
        )
    if node.attributes.data or known.required_attributes:
        faults += _attribute_problems(node, known)
    bound: dict[str, str] = {}
    if known.inputs:
        faults += _type_problems("input", inputs, known.inputs, bound, types)
    if known.outputs:
        faults += _type_problems("output", outputs, known.outputs, bound, types)
    return faults


def _arity_problems(
    kind: str,
    values: Sequence[ir.Value | None],
    parameters: tuple[Parameter, ...],
    least: int,
    most: int,
) -> Iterator[str]:
    count = len(values)
    while count and values[count - 1] is None:
        count -= 1
    if not least <= count <= most:
        bounds = str(least) if least == most else f"{least} to {most}"
        wanted = f"at least {least}" if most > 10**6 else bounds
        yield f"has {count} {kind}s, its operator takes {wanted}"
        return
    for parameter, value in zip(parameters, values, strict=False):
        if value is None and parameter.required:
            yield f"leaves out {kind} '{parameter.name}', which its operator requires"


def _attribute_problems(node: ir.Node, known: Signature) -> Iterator[str]:
    attributes = node.attributes.data
    for name, attribute in attributes.items():
        wanted = known.attributes.get(name)
        if wanted is None:
            # onnx reserves names with two underscores for tools.
            if not name.startswith("__"):
                yield f"has attribute '{name}', which its operator does not have"
        elif attribute.type.value != wanted:
            yield (
                f"has attribute '{name}' of type {attribute.type.name},"
                f" not {ir.AttributeType(wanted).name}"
            )
    for name in known.required_attributes:
        if name not in attributes:
            yield f"lacks attribute '{name}'"


def _type_problems(
    kind: str,
    values: Sequence[ir.Value | None],
    parameters: tuple[Parameter, ...],
    bound: dict[str, str],
    types: dict[ir.Value, str],
) -> list[str]:
    """Check types against the operator's, and bind its type variables to them."""
    faults: list[str] = []
    last = len(parameters) - 1
    for place, value in enumerate(values):
        if value is None:
            continue
        parameter = parameters[place if place < last else last]
        variable = parameter.variable
        found = types.get(value)
        if found is None and (declared := value.type) is not None:
            found = type_name(declared)
        if found is None:
            if kind == "output":
                # An output of a type variable has the type that the inputs gave it.
                if variable is not None and variable in bound:
                    types[value] = bound[variable]
                elif len(parameter.types) == 1:
                    (types[value],) = parameter.types
        elif found not in parameter.types:
            faults.append(
                f"has {kind} '{value.name}' of type {found}, which its operator does not take"
            )
        elif variable is not None and bound.setdefault(variable, found) != found:
            faults.append(
                f"has {kind} '{value.name}' of type {found} where {bound[variable]} is required"
            )
    return faults


_TYPE_NAMES: dict[int, str] = {
    int(dtype): f"tensor({dtype.name.lower()})"
    for dtype in ir.DataType
    if dtype != ir.DataType.UNDEFINED
}


def type_name(kind: ir.TypeProtocol | None) -> str | None:
    """A type as onnx.defs spells it; None where it is unknown."""
    # Exact classes: isinstance on onnx_ir's, which are protocols, takes microseconds.
    if type(kind) is ir.TensorType:
        return _TYPE_NAMES.get(kind.dtype)
    if type(kind) is ir.SparseTensorType:
        inner = _TYPE_NAMES.get(kind.dtype)
        return inner and f"sparse_{inner}"
    if type(kind) is ir.SequenceType:
        inner = type_name(kind.elem_type)
        return inner and f"seq({inner})"
    if type(kind) is ir.OptionalType:
        inner = type_name(kind.elem_type)
        return inner and f"optional({inner})"
    return None
