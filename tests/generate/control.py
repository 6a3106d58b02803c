"""If, Loop and Scan with captures, and calls of local functions."""

import contextlib

import numpy as np
import onnx
import onnx.helper

from tests.generate import forms
from tests.generate.registry import EMITTERS, emitter
from tests.generate.scope import (
    BOOL,
    FLOAT,
    INT64,
    Dims,
    NotApplicable,
    Result,
    Scope,
    Value,
    broadcast,
    fixed,
    is_static,
)

MAX_DEPTH = 2


def grow(scope: Scope, nodes: int) -> None:
    """Add about `nodes` constructs to a scope, chosen by the emitters' weights."""
    weights = [weight for weight, _ in EMITTERS]
    misses = 0
    while nodes > 0 and misses < 60:
        _, function = scope.random.choices(EMITTERS, weights)[0]
        nodes_before, values_before = len(scope.nodes), len(scope.values)
        try:
            function(scope)
        except NotApplicable:
            # What it had added by then is valid and stays: dead ends are part of the game.
            misses += 1
            continue
        nodes -= 1 if len(scope.nodes) > nodes_before else 0
        for value in scope.values[values_before:]:
            if value.dtype in (FLOAT,) and value.magnitude > 40:
                _squash(scope, value)


def _squash(scope: Scope, value: Value) -> None:
    """Replace a value that has grown too large by a scaled one."""
    scope.values.remove(value)
    factor = scope.scalar(2.0 ** -int(np.ceil(np.log2(value.magnitude / 2))))
    scope.one("Mul", [value, factor], Result(value.dtype, value.dims, 2.0))


def _graph(scope: Scope, name: str, inputs: list[Value], outputs: list[Value]) -> onnx.GraphProto:
    """The body as a GraphProto; output shapes are stated at times."""
    return onnx.helper.make_graph(
        scope.nodes,
        name,
        [_info(value, named_dims=value.rank == 0 or scope.chance(0.5)) for value in inputs],
        [_info(value, named_dims=scope.chance(0.4)) for value in outputs],
        [onnx.numpy_helper.from_array(array, key) for key, array in scope.initializers.items()],
    )


def _info(value: Value, *, named_dims: bool) -> onnx.ValueInfoProto:
    """The declaration of a body's input or output; the rank is always stated."""
    shape = [dim[0] if named_dims and is_static(dim) else None for dim in value.dims]
    return onnx.helper.make_tensor_value_info(value.name, value.dtype, shape)


def _own(scope: Scope, value: Value) -> Value:
    """`value` as something this scope computes: a body's output must be made inside it."""
    produced = {name for node in scope.nodes for name in node.output}
    if value.name in produced:
        return value
    return scope.one("Identity", [value], Result(value.dtype, value.dims, value.magnitude))


def _converted(scope: Scope, dims: Dims) -> Value:
    """A float value of exactly `dims`, made in this scope from whatever suits."""
    base = scope.pick(where=lambda v: broadcast(v.dims, dims) == dims)
    if base.dims == dims:
        return _own(scope, base)
    full = scope.pick(where=lambda v: v.dims == dims)
    return scope.one("Add", [full, base], Result(FLOAT, dims, full.magnitude + base.magnitude))


def _branch(scope: Scope, dims: Dims | None) -> tuple[Scope, Value]:
    """A branch that gives a float of `dims`, or of any dims where that is None."""
    body = Scope(scope.shared, scope)
    grow(body, scope.random.randint(0, 3))
    if dims is None:
        return body, _own(body, body.pick())
    return body, _converted(body, dims)


@emitter(1.5)
def if_(scope: Scope) -> None:
    """If: its condition constant (then the branches may differ in rank), or from data."""
    if scope.depth >= MAX_DEPTH:
        raise NotApplicable
    x = scope.pick()
    constant = scope.chance(0.5)
    taken = scope.chance(0.5)
    condition = scope.constant(np.array(taken)) if constant else _condition(scope)
    loose = constant and scope.chance(0.3)
    start = scope.shared.counter
    then_body, then_out = _branch(scope, None if loose and not taken else x.dims)
    after_then = scope.shared.counter
    if scope.chance(0.3):
        scope.shared.counter = start  # the branches may use the same names
    else_body, else_out = _branch(scope, None if loose and taken else x.dims)
    scope.shared.counter = max(after_then, scope.shared.counter)
    scope.one(
        "If",
        [condition],
        Result(FLOAT, x.dims, max(then_out.magnitude, else_out.magnitude)),
        then_branch=_graph(then_body, scope.name("then"), [], [then_out]),
        else_branch=_graph(else_body, scope.name("else"), [], [else_out]),
    )
    _mark(scope, then_body, else_body)


def _condition(scope: Scope) -> Value:
    """A scalar that data decides."""
    scalar = Result(BOOL, (), 1.0, exact=True)
    try:
        if scope.chance(0.4):
            return scope.pick((BOOL,), rank=(0,))
    except NotApplicable:
        pass
    x = scope.pick(rank=(1, 2, 3), where=lambda v: v.exact)
    largest = forms.reduce(scope, "ReduceMax", x, None, 0, x.magnitude)
    return scope.one("Greater", [largest, scope.scalar(1.2)], scalar)


def _mark(scope: Scope, *bodies: Scope) -> None:
    """What a body uses of the outer scope is used."""
    for body in bodies:
        scope.used |= body.used


@emitter(0.8)
def loop(scope: Scope) -> None:
    """Loop: a carried state, an outer weight, perhaps a scan output, perhaps no iteration."""
    if scope.depth >= MAX_DEPTH:
        raise NotApplicable
    state = scope.pick(rank=(1, 2))
    body = Scope(scope.shared, scope)
    number = Value(scope.name("i"), INT64, (), 4.0, exact=True)
    go = Value(scope.name("go"), BOOL, (), 1.0)
    inner = Value(scope.name("state"), FLOAT, state.dims, 2.0)
    body.values += [number, inner]
    grow(body, scope.random.randint(0, 3))
    following = _converted(body, state.dims)
    following = body.one("Tanh", [following], Result(FLOAT, state.dims, 1.0))
    if scope.chance(0.3):
        # The same in every trip, and at times the same as what the graph around computes.
        with contextlib.suppress(NotApplicable):
            outer = scope.pick(where=lambda v: v.dims == state.dims)
            fixed_part = body.one("Sigmoid", [outer], Result(FLOAT, state.dims, 1.0))
            fixed_part = body.one("Add", [fixed_part, outer], Result(FLOAT, state.dims, 3.0))
            following = body.one("Mul", [following, fixed_part], Result(FLOAT, state.dims, 3.0))
    keep_going = body.one("Identity", [go], Result(BOOL, (), 1.0))
    outputs = [keep_going, following]
    trips = scope.random.choice((0, 1, 1, 2, 3))
    results = [Result(FLOAT, state.dims, max(1.0, state.magnitude))]
    if trips and scope.chance(0.6):
        seen = _own(body, body.pick())
        if seen is following and scope.chance(0.5):
            seen = body.one("Identity", [following], Result(FLOAT, state.dims, 1.0))
        if all(seen is not output for output in outputs):
            outputs.append(seen)
            results.append(Result(FLOAT, fixed(trips) + seen.dims, seen.magnitude))
    condition = scope.scalar(True, np.bool_) if scope.chance(0.5) else None
    scope.emit(
        "Loop",
        [scope.scalar(trips, np.int64), condition, state],
        *results,
        body=_graph(body, scope.name("body"), [number, go, inner], outputs),
    )
    _mark(scope, body)


@emitter(0.8)
def scan(scope: Scope) -> None:
    """Scan along the first axis: a running sum, both outputs maybe one value."""
    if scope.depth >= MAX_DEPTH:
        raise NotApplicable
    x = scope.pick(rank=(2, 3))
    if max(x.dims[0]) > 8:
        raise NotApplicable
    start = scope.pick(where=lambda v: v.dims == x.dims[1:]) if scope.chance(0.3) else None
    if start is None:
        shape = [dim[0] for dim in x.dims[1:]]
        if any(len(set(dim)) > 1 for dim in x.dims[1:]):
            raise NotApplicable
        start = scope.weight(*shape)
    body = Scope(scope.shared, scope)
    running = Value(scope.name("sum"), FLOAT, start.dims, 8.0)
    element = Value(scope.name("step"), FLOAT, start.dims, x.magnitude)
    body.values += [running, element]
    grow(body, scope.random.randint(0, 2))
    bound = x.magnitude * max(x.dims[0]) + start.magnitude
    total = body.one("Add", [running, element], Result(FLOAT, start.dims, bound))
    seen = body.one("Identity", [total], Result(FLOAT, start.dims, bound))
    scope.emit(
        "Scan",
        [start, x],
        Result(FLOAT, start.dims, bound),
        Result(FLOAT, (x.dims[0], *start.dims), bound),
        num_scan_inputs=1,
        body=_graph(body, scope.name("body"), [running, element], [total, seen]),
    )
    _mark(scope, body)


@emitter(1)
def call_function(scope: Scope) -> None:
    """A call of a local function: attribute reference, default, nested call, shadowing name."""
    name = scope.random.choice(("Scaled", "Nested", "Relu", "Twins"))
    x = scope.pick()
    _define(scope, name)
    result = Result(FLOAT, x.dims, x.magnitude + 1)
    if name == "Scaled":
        scope.one(name, [x], result, domain="local", alpha=scope.random.choice((0.25, 0.5)))
    elif name == "Twins":
        scope.emit(name, [x], result, result, domain="local")
    else:
        scope.one(name, [x], result, domain="local")


def _define(scope: Scope, name: str) -> None:
    """Add a function to the model once."""
    functions = scope.shared.functions
    if name in functions:
        return
    node = onnx.helper.make_node
    attributes: list[str] = []
    outputs = ["out"]
    if name == "Scaled":
        slope = node("LeakyRelu", ["x"], ["leaky"])
        slope.attribute.append(_reference("alpha", onnx.AttributeProto.FLOAT))
        attributes = ["alpha"]
        half = onnx.helper.make_tensor("half", FLOAT, [], [0.5])
        constant = node("Constant", [], ["half"], value=half)
        nodes = [slope, constant, node("Mul", ["leaky", "half"], ["out"])]
    elif name == "Nested":
        _define(scope, "Scaled")
        nodes = [
            node("Scaled", ["x"], ["inner"], domain="local", alpha=0.125),
            node("Identity", ["inner"], ["same"]),
            node("Dropout", ["same"], ["out"]),
        ]
    elif name == "Relu":
        nodes = [node("Tanh", ["x"], ["out"])]
    else:
        outputs = ["a", "b"]
        nodes = [
            node("Sigmoid", ["x"], ["a"]),
            node("Sigmoid", ["x"], ["again"]),
            node("Add", ["again", "a"], ["b"]),
        ]
    functions[name] = onnx.helper.make_function(
        "local",
        name,
        ["x"],
        outputs,
        nodes,
        [onnx.helper.make_opsetid("", scope.opset), onnx.helper.make_opsetid("local", 1)],
        attributes,
    )


def _reference(name: str, kind: int) -> onnx.AttributeProto:
    attribute = onnx.AttributeProto()
    attribute.name = name
    attribute.ref_attr_name = name
    attribute.type = kind
    return attribute
