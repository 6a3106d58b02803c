"""A whole random model: its inputs, opset, outputs, and the feeds to run it with."""

import functools
import random
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper

# Importing them registers their emitters.
from tests.generate import elementwise, in_parts, neural, reducing, shaping, symbolic  # noqa: F401
from tests.generate.control import grow
from tests.generate.scope import (
    BATCHES,
    BOOL,
    DOUBLE,
    FLOAT,
    HALF,
    INT64,
    Dims,
    Scope,
    Shared,
    Value,
    fixed,
    numpy_type,
)

Feed = dict[str, Any]
OLDEST_OPSET = 11


class InvalidGraph(Exception):  # noqa: N818 - a graph that the generator got wrong
    """The generator made a model that ONNX or ONNX Runtime refuses."""


@functools.cache
def newest_opset() -> int:
    """The newest opset that both onnx and the installed ONNX Runtime know."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    for version in range(onnx.defs.onnx_opset_version(), OLDEST_OPSET, -1):
        text = (
            f'<ir_version: 8, opset_import: ["" : {version}]>'
            "g (float[1] x) => (float[1] y) { y = Relu (x) }"
        )
        try:
            onnxruntime.InferenceSession(
                onnx.parser.parse_model(text).SerializeToString(),
                providers=["CPUExecutionProvider"],
            )
        except Exception:
            continue
        return version
    return OLDEST_OPSET


def _inputs(scope: Scope) -> list[Value]:
    """An image, a few tensors of other ranks and dtypes, most with the dynamic dim N first."""
    channels = scope.random.choice((2, 3, 4))
    side = scope.random.choice((4, 5, 6))
    n = BATCHES if scope.chance(0.8) else fixed(2)[0]
    choices: list[tuple[int, Dims]] = [
        (FLOAT, (n, *fixed(channels, side, side))),
        (FLOAT, (n, *fixed(channels, side))),
        (FLOAT, (n, *fixed(4))),
        (FLOAT, (n, *fixed(3, 4))),
        (FLOAT, fixed(3, 4)),
        (FLOAT, fixed(4)),
        (FLOAT, (n,)),
        (INT64, (n, *fixed(3))),
        (INT64, fixed(3)),
        (DOUBLE, (n, *fixed(3))),
        (HALF, (n, *fixed(4))),
        (BOOL, ()),
        (BOOL, (n, *fixed(1))),
        (FLOAT, ()),
    ]
    first = choices[0] if scope.chance(0.6) else choices[2]
    picked = [first, *scope.random.sample(choices[1:], scope.random.randint(1, 3))]
    magnitude = {BOOL: 1.0, INT64: 4.0}
    return [
        Value(scope.name("x"), dtype, dims, magnitude.get(dtype, 2.0), exact=True)
        for dtype, dims in picked
    ]


def _overridable(scope: Scope) -> list[Value]:
    """An initializer that is an input as well: a default, which must never be folded."""
    if not scope.chance(0.15):
        return []
    array = (scope.numpy.randint(-64, 65, 4) / 64).astype(np.float32)
    value = Value(scope.name("d"), FLOAT, fixed(4), 2.0, exact=True)
    scope.initializers[value.name] = array
    return [value]


def _feed(rng: np.random.RandomState, value: Value, index: int) -> np.ndarray:
    shape = [dim[index] for dim in value.dims]
    if value.dtype == BOOL:
        return np.asarray(rng.randint(0, 2, shape), np.bool_)
    if value.dtype == INT64:
        return np.asarray(rng.randint(-4, 5, shape), np.int64)
    # On a grid of 1/64: exact in float16 as well, and never a tie of almost equal numbers.
    return np.asarray(rng.randint(-128, 129, shape) / 64, numpy_type(value.dtype))


def _outputs(scope: Scope, inputs: list[Value]) -> list[Value]:
    """Unused values and a few intermediate ones; at times an input, an initializer, a twin."""
    produced = {name for node in scope.nodes for name in node.output}
    candidates = [value for value in scope.values if value.name in produced]
    if not candidates:
        return []
    leaves = [value for value in candidates if value.name not in scope.used]
    chosen = [value for value in leaves if scope.chance(0.85)]
    chosen += scope.random.sample(candidates, min(len(candidates), scope.random.randrange(3)))
    chosen = chosen or [candidates[-1]]
    if scope.chance(0.15):
        twin = scope.random.choice(chosen)
        name = scope.name("twin")
        scope.nodes.append(onnx.helper.make_node("Identity", [twin.name], [name]))
        chosen.append(Value(name, twin.dtype, twin.dims))
    if scope.chance(0.08):
        chosen.append(scope.random.choice(inputs))
    plain = [value for value in scope.constants if value.name in scope.initializers]
    if plain and scope.chance(0.08):
        chosen.append(scope.random.choice(plain))
    unique = list({value.name: value for value in chosen}.values())
    scope.random.shuffle(unique)
    return unique


def _info(scope: Scope, value: Value, *, output: bool) -> onnx.ValueInfoProto:
    """Declare N by name; at times an output's dims are left unknown."""
    unknown = output and scope.chance(0.15)
    shape: list[int | str | None] = []
    for dim in value.dims:
        if unknown:
            shape.append(None)
        elif dim == BATCHES:
            shape.append("N")
        elif len(set(dim)) > 1:
            shape.append(None)
        else:
            shape.append(dim[0])
    return onnx.helper.make_tensor_value_info(value.name, value.dtype, shape)


def random_model(seed: int, *, size: int | None = None) -> tuple[onnx.ModelProto, list[Feed]]:
    """A random valid model and a feed for each of BATCHES. The same seed gives the same model.

    Args:
        seed: anything from 0 on.
        size: about how many constructs; each is one to a dozen nodes. None: 3 to 25.

    Raises:
        InvalidGraph: the checker refuses the model: a defect of the generator.
    """
    rng = random.Random(seed)
    opset = rng.randint(OLDEST_OPSET, newest_opset())
    shared = Shared(opset, rng, np.random.RandomState(seed))
    scope = Scope(shared)
    inputs = _inputs(scope)
    overridable = _overridable(scope)
    scope.values += [*inputs, *overridable]
    grow(scope, size or rng.randint(3, 25))
    outputs = _outputs(scope, inputs)
    graph = onnx.helper.make_graph(
        scope.nodes,
        f"random_{seed}",
        [_info(scope, value, output=False) for value in (*inputs, *overridable)],
        [_info(scope, value, output=True) for value in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in scope.initializers.items()],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    if shared.functions:
        imports.append(onnx.helper.make_opsetid("local", 1))
    model = onnx.helper.make_model(
        graph,
        opset_imports=imports,
        functions=list(shared.functions.values()),
        ir_version=max(8, onnx.helper.find_min_ir_version_for(imports[:1])),
    )
    feeds = []
    for index in range(len(BATCHES)):
        feed: Feed = {value.name: _feed(shared.numpy, value, index) for value in inputs}
        if index == 1:  # one of the feeds overrides the defaults
            feed |= {value.name: _feed(shared.numpy, value, index) for value in overridable}
        feeds.append(feed)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise InvalidGraph(f"seed {seed}: {error}") from error
    return model, feeds
