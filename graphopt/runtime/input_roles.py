"""Finds out what a graph input is for, from the operators that its values reach.

An integer that ends up as an index, a length or a target shape, possibly after casts, reshapes
and inside a subgraph, has to be a valid one, or the model cannot run and nothing is checked.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from graphopt.graph import ir
from graphopt.graph.constants import constant_array
from graphopt.graph.walk import all_nodes, subgraphs

_MOST_CHOICES = 64
_MOST_PLACES = 20_000

# Operators that hand on the values of these inputs, unchanged, to every output.
_HANDS_ON: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            *("Cast", "CastLike", "Reshape", "Unsqueeze", "Squeeze", "Identity", "Transpose"),
            *("Flatten", "Slice", "Split", "Gather", "GatherElements", "GatherND", "Expand"),
            *("Tile", "Pad", "Dropout", "ReverseSequence", "Trilu", "Clip", "ReduceMax"),
            *("ReduceMin", "Optional", "OptionalGetElement", "DepthToSpace", "SpaceToDepth"),
        ),
        (0,),
    ),
    "Concat": tuple(range(64)),
    "Where": (1, 2),
    "Max": tuple(range(8)),
    "Min": tuple(range(8)),
    "Compress": (0,),
    "ScatterND": (0, 2),
    "ScatterElements": (0, 2),
    "SequenceConstruct": tuple(range(16)),
    "SequenceAt": (0,),
    "SequenceInsert": (0, 1),
    "ConcatFromSequence": (0,),
}

# (operator, input position) -> what the value there has to be; see input_values.
_PURPOSES: dict[tuple[str, int], str] = {
    ("Gather", 1): "index",
    ("GatherElements", 1): "index",
    ("ScatterElements", 1): "index",
    ("Scatter", 1): "index",
    ("GatherND", 1): "index",
    ("ScatterND", 1): "index",
    ("EmbedLayerNormalization", 0): "index",
    ("EmbedLayerNormalization", 1): "index",
    ("RotaryEmbedding", 3): "index",
    ("RoiAlign", 2): "index",
    ("NegativeLogLikelihoodLoss", 1): "index",
    ("SoftmaxCrossEntropyLoss", 1): "index",
    ("OneHot", 0): "index",
    ("OneHot", 1): "count",
    ("TopK", 1): "k",
    ("Reshape", 1): "target_shape",
    ("Expand", 1): "expand_shape",
    ("Tile", 1): "repeats",
    ("ConstantOfShape", 0): "sizes",
    ("CenterCropPad", 1): "sizes",
    ("AffineGrid", 1): "grid_size",
    ("Col2Im", 1): "image_shape",
    ("Col2Im", 2): "one",
    ("Slice", 1): "starts",
    ("Slice", 2): "ends",
    ("Slice", 3): "axes",
    ("Slice", 4): "steps",
    ("Pad", 1): "pads",
    ("Pad", 3): "axes",
    ("Resize", 2): "scales",
    ("Upsample", 1): "scales",
    ("Resize", 3): "resize_sizes",
    ("Split", 1): "split",
    ("SplitToSequence", 1): "split",
    ("Squeeze", 1): "squeeze_axes",
    ("Unsqueeze", 1): "axes",
    ("CumSum", 1): "zero",
    ("CumProd", 1): "zero",
    ("SequenceAt", 1): "zero",
    ("SequenceErase", 1): "zero",
    ("SequenceInsert", 2): "zero",
    ("Trilu", 1): "zero",
    ("TensorScatter", 2): "zero",
    ("Loop", 0): "count",
    ("HannWindow", 0): "count",
    ("HammingWindow", 0): "count",
    ("BlackmanWindow", 0): "count",
    ("NonMaxSuppression", 2): "count",
    ("NonMaxSuppression", 3): "fraction",
    ("NonMaxSuppression", 4): "fraction",
    ("Dropout", 1): "fraction",
    ("Dropout", 2): "false",
    ("Bernoulli", 0): "fraction",
    ("BatchNormalization", 4): "positive",
    ("QuantizeLinear", 1): "small_positive",
    ("DequantizeLinear", 1): "small_positive",
    ("QLinearConv", 1): "small_positive",
    ("QLinearConv", 4): "small_positive",
    ("QLinearConv", 6): "small_positive",
    ("QLinearMatMul", 1): "small_positive",
    ("QLinearMatMul", 4): "small_positive",
    ("QLinearMatMul", 6): "small_positive",
    ("Range", 0): "zero",
    ("Range", 1): "count",
    ("Range", 2): "one",
    ("LSTM", 4): "lengths",
    ("GRU", 4): "lengths",
    ("RNN", 4): "lengths",
    ("ReverseSequence", 1): "lengths",
    ("Div", 1): "divisor",
    ("Mod", 1): "divisor",
    ("Pow", 1): "exponent",
    ("BitShift", 1): "exponent",
    ("Clip", 1): "low",
    ("Clip", 2): "high",
    ("STFT", 1): "count",
    ("STFT", 3): "count",
    ("DFT", 1): "count",
    ("DFT", 2): "one",
    ("MelWeightMatrix", 0): "count",
    ("MelWeightMatrix", 1): "window_length",
    ("MelWeightMatrix", 2): "sample_rate",
    ("MelWeightMatrix", 3): "zero",
    ("MelWeightMatrix", 4): "upper_frequency",
    ("Log", 0): "mostly_positive",
    ("Sqrt", 0): "mostly_positive",
    ("Asin", 0): "mostly_within_one",
    ("Acos", 0): "mostly_within_one",
    ("Atanh", 0): "mostly_within_one",
    ("Acosh", 0): "mostly_above_one",
    **{(f"Reduce{kind}", 1): "axes" for kind in ("Sum", "Mean", "Max", "Min", "Prod")},
    **{(f"Reduce{kind}", 1): "axes" for kind in ("L1", "L2", "LogSum", "LogSumExp", "SumSquare")},
}
# Where the tensor is on whose shape the value depends: (operator, position) -> its position.
_SUBJECTS = {
    ("EmbedLayerNormalization", 0): 2,
    ("EmbedLayerNormalization", 1): 4,
    ("RotaryEmbedding", 3): 1,
    ("OneHot", 0): 1,
}
_COMPARISONS = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
_VOCABULARIES = (
    *("keys_strings", "keys_int64s", "keys_floats", "cats_strings", "cats_int64s"),
    *("pool_strings", "pool_int64s", "classlabels_strings", "classlabels_int64s"),
)
# Purposes that any number serves: the value may then be negative or large.
_UNBOUND = frozenset({"", "divisor", "mostly_positive", "mostly_within_one", "mostly_above_one"})


@dataclass(frozen=True)
class Place:
    """One place that an input's values reach.

    Attributes:
        purpose: what the value has to be there, a word of `input_values`.
        node: the operator.
        subject: the tensor on whose shape the value depends, where there is one.
        shift: what was added to the input's value on the way.
    """

    purpose: str
    node: ir.Node
    subject: ir.Value | None
    shift: int = 0


@dataclass
class Role:
    """What an input is for.

    Attributes:
        places: the places its values reach that ask for something.
        choices: constants that its values are compared with or looked up in.
        mask: whether it looks like a mask of zeros and ones.
        free: whether any number will do, as far as can be seen.
    """

    places: list[Place] = field(default_factory=list)
    choices: list[float | int | str] = field(default_factory=list)
    mask: bool = False
    free: bool = True


def find_roles(model: ir.Model) -> dict[str, Role]:
    """The role of each input of the main graph, by name."""
    sources = _sources(model)
    return {value.name or "": _role(model, value, sources) for value in model.graph.inputs}


_Sources = dict[ir.Value, list[ir.Value]]


def _sources(model: ir.Model) -> _Sources:
    """For each input of a function or of a loop's body, what callers give for it."""
    sources: _Sources = {}
    for node in all_nodes(model):
        for position, value in enumerate(node.inputs):
            if value is not None:
                for inner in _inner_values(model, node, position):
                    sources.setdefault(inner, []).append(value)
    return sources


def _origins(value: ir.Value | None, sources: _Sources) -> list[ir.Value | None]:
    """The values outside of functions and loops that `value` may be; itself, if it is one."""
    if value is None or value not in sources:
        return [value]
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    stack = [value]
    while stack:
        current = stack.pop()
        if current in seen:
            continue
        seen.add(current)
        if current in sources:
            stack.extend(sources[current])
        else:
            found[current] = None
    return list(found)


def _role(model: ir.Model, value: ir.Value, sources: _Sources) -> Role:
    role = Role(mask="mask" in (value.name or "").lower())
    seen: set[tuple[int, int]] = set()
    stack: list[tuple[ir.Value, int]] = [(value, 0)]
    while stack and len(seen) < _MOST_PLACES:
        current, shift = stack.pop()
        if (id(current), shift) in seen:
            continue
        seen.add((id(current), shift))
        for node, position in current.uses():
            stack.extend(_visit(model, node, position, shift, role, sources))
    role.choices = list(dict.fromkeys(role.choices))[:_MOST_CHOICES]
    role.free = not role.places and not role.choices and not _reaches_purpose(model, value)
    return role


def _visit(
    model: ir.Model, node: ir.Node, position: int, shift: int, role: Role, sources: _Sources
) -> Iterator[tuple[ir.Value, int]]:
    """Note what `node` asks of its input; yield where the same values go from here."""
    op = node.op_type
    purpose = _purpose(node, position)
    if purpose:
        for subject in _origins(_subject(node, position), sources):
            role.places.append(Place(purpose, node, subject, shift))
    role.choices.extend(
        choice if isinstance(choice, str) else choice - shift for choice in _choices(node, position)
    )
    if op == "Sub" and position == 1 and _constant(node.inputs[0]) == 1:
        role.mask = True
    elif op in ("Add", "Sub") and (op == "Add" or position == 0):
        step = _constant(node.inputs[1 - position])
        if step is not None and step == int(step):
            yield node.outputs[0], shift + int(step if op == "Add" else -step)
    if position in _HANDS_ON.get(op, ()):
        yield from ((output, shift) for output in node.outputs)
    yield from ((inner, shift) for inner in _inner_values(model, node, position))


def _purpose(node: ir.Node, position: int) -> str:
    """What the node asks of the value at `position`; "" where it takes any."""
    return _PURPOSES.get((node.op_type, position), "")


def _subject(node: ir.Node, position: int) -> ir.Value | None:
    other = _SUBJECTS.get((node.op_type, position), 0)
    return node.inputs[other] if other != position and other < len(node.inputs) else None


def _choices(node: ir.Node, position: int) -> Iterator[float | int | str]:
    """The values that make `node` behave in different ways."""
    if node.op_type in _COMPARISONS:
        array = constant_array(node.inputs[1 - position], _MOST_CHOICES)
        for item in () if array is None else array.reshape(-1).tolist():
            if isinstance(item, bytes | str):
                yield item.decode() if isinstance(item, bytes) else item
            elif not isinstance(item, bool) and np.isfinite(item):
                yield from (item,) if node.op_type == "Equal" else (item, item - 1, item + 1)
    for name in _VOCABULARIES:
        attribute = node.attributes.get(name)
        if attribute is not None and not attribute.is_ref():
            yield from list(attribute.value)[:_MOST_CHOICES]


def _inner_values(model: ir.Model, node: ir.Node, position: int) -> Iterator[ir.Value]:
    """The values by which a body (of a loop, of a function) knows the input at `position`."""
    if node.op_type == "Loop" and position >= 2:
        for body in subgraphs(node):
            yield body.inputs[position]
    elif node.op_type == "Scan":
        for body in subgraphs(node):
            skipped = len(node.inputs) - len(body.inputs)
            if position >= skipped:
                yield body.inputs[position - skipped]
    function = model.functions.get(node.op_identifier())
    if function is not None and position < len(function.inputs):
        yield function.inputs[position]


def _constant(value: ir.Value | None) -> float | None:
    """The number that a constant holds, if it is a single one."""
    array = constant_array(value, 1)
    if array is None or array.size != 1 or array.dtype.kind not in "iuf":
        return None
    number = float(array.reshape(-1)[0])
    return number if np.isfinite(number) else None


def _reaches_purpose(model: ir.Model, value: ir.Value) -> bool:
    """Whether something computed from `value`, not only its own values, is asked to be special."""
    seen: set[int] = set()
    stack = [value]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        if len(seen) > _MOST_PLACES:
            return True
        seen.add(id(current))
        for node, position in current.uses():
            if _purpose(node, position) not in _UNBOUND:
                return True
            if node.op_type == "Shape":
                continue
            stack.extend(_inner_values(model, node, position))
            stack.extend(
                output
                for output in node.outputs
                if output.dtype is None or output.dtype.is_integer()
            )
    return False
