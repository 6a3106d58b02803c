"""What an optimizer must not do: crash, break the model, change its interface or its results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.checker
from onnx import TensorProto

from tests.generate.model import Feed, InvalidGraph

Optimizer = Callable[[onnx.ModelProto], onnx.ModelProto]
TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2
FIRST_IR_WITH_DEFAULTS = 4


def run(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
    """The outputs by name for each feed, in ONNX Runtime with its own optimizations off."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, feed), strict=True)) for feed in feeds]


def check_model(model: onnx.ModelProto, feeds: Sequence[Feed], optimize: Optimizer) -> str | None:
    """What `optimize` does wrong on `model`, in one line, or None.

    Raises:
        InvalidGraph: the model itself does not run, or its results are not finite.
    """
    try:
        expected = run(model, feeds)
    except Exception as error:
        raise InvalidGraph(f"ONNX Runtime refuses the original: {_line(error)}") from error
    if not all(_finite(value) for outputs in expected for value in outputs.values()):
        raise InvalidGraph("the original's results are not finite")
    before = model.SerializeToString()
    try:
        optimized = optimize(model)
    except Exception as error:
        return f"crash: {type(error).__name__}: {_line(error)}"
    if model.SerializeToString() != before:
        return "argument changed: the optimizer modified the model it was given"
    try:
        onnx.checker.check_model(optimized, full_check=True)
    except Exception as error:
        return f"invalid: {_line(error)}"
    changes = interface_changes(model, optimized)
    if changes:
        return f"interface: {changes[0]}"
    try:
        actual = run(optimized, feeds)
    except Exception as error:
        return f"does not run: {_line(error)}"
    tolerance = HALF_TOLERANCE if _uses_half(model) else TOLERANCE
    for index, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
        for name, value in wanted.items():
            difference = _difference(value, got[name], tolerance)
            if difference:
                return f"wrong: feed {index}, output {name}: {difference}"
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


def _finite(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _uses_half(model: onnx.ModelProto) -> bool:
    """Whether float16 appears anywhere: then results are as coarse as it is."""

    def in_graph(graph: onnx.GraphProto) -> bool:
        if any(t.data_type == TensorProto.FLOAT16 for t in graph.initializer):
            return True
        if any(i.type.tensor_type.elem_type == TensorProto.FLOAT16 for i in graph.input):
            return True
        return any(
            (a.name == "to" and a.i == TensorProto.FLOAT16)
            or (a.type == onnx.AttributeProto.TENSOR and a.t.data_type == TensorProto.FLOAT16)
            or (a.type == onnx.AttributeProto.GRAPH and in_graph(a.g))
            for node in graph.node
            for a in node.attribute
        )

    return in_graph(model.graph)


def _difference(expected: Any, actual: Any, tolerance: float) -> str | None:
    """How two results differ, or None: floats relative to the scale of the whole output."""
    left, right = np.asarray(expected), np.asarray(actual)
    if left.dtype != right.dtype:
        return f"dtype {left.dtype} became {right.dtype}"
    if left.shape != right.shape:
        return f"shape {left.shape} became {right.shape}"
    if left.dtype.kind != "f":
        wrong = int((left != right).sum())
        return f"{wrong} of {left.size} elements differ" if wrong else None
    if not left.size:
        return None
    wide, other = left.astype(np.float64), right.astype(np.float64)
    scale = max(float(np.abs(wide).max()), 1e-2)
    with np.errstate(invalid="ignore"):
        error = float(np.abs(wide - other).max()) / scale
    return None if error <= tolerance else f"error {error:.3g} of the output's scale {scale:.3g}"


def _dims(info: onnx.ValueInfoProto) -> list[int | str | None] | None:
    if not info.type.tensor_type.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in info.type.tensor_type.shape.dim
    ]


def _kind(info: onnx.ValueInfoProto) -> Mapping[str, Any] | bytes:
    """The type without its shape."""
    stripped = onnx.TypeProto()
    stripped.CopyFrom(info.type)
    if stripped.HasField("tensor_type"):
        stripped.tensor_type.ClearField("shape")
        return stripped.SerializeToString()
    return stripped.WhichOneof("value") or b""


def interface_changes(
    before: onnx.ModelProto, after: onnx.ModelProto, *, keep_defaults: bool = True
) -> list[str]:
    """How inputs and outputs differ: names, order, types, shapes, defaults.

    A dim that the original leaves unknown may become known; nothing else may change. Below IR
    version 4 every initializer had to be listed as an input, so that list holds no defaults;
    `keep_defaults=False` reads a newer model the same way.
    """
    changes = []
    constants: list[set[str]] = [{t.name for t in m.graph.initializer} for m in (before, after)]
    inputs = [list(m.graph.input) for m in (before, after)]
    if keep_defaults and before.ir_version >= FIRST_IR_WITH_DEFAULTS:
        defaults = [
            sorted(known & {value.name for value in values})
            for known, values in zip(constants, inputs, strict=True)
        ]
        if defaults[0] != defaults[1]:
            changes.append(f"inputs with defaults {defaults[0]} became {defaults[1]}")
    else:
        inputs = [
            [value for value in values if value.name not in known]
            for known, values in zip(constants, inputs, strict=True)
        ]
    # A name that is input and output at once has one shape: what either states is known.
    twice = {i.name for i in before.graph.input} & {o.name for o in before.graph.output}
    for what, olds, news in (
        ("input", inputs[0], inputs[1]),
        ("output", before.graph.output, after.graph.output),
    ):
        names = [[info.name for info in infos] for infos in (olds, news)]
        if names[0] != names[1]:
            changes.append(f"{what}s {names[0]} became {names[1]}")
            continue
        for old, new in zip(olds, news, strict=True):
            if _kind(old) != _kind(new):
                changes.append(f"{what} {old.name} changed its type")
            dims, now = _dims(old), _dims(new)
            refinable = what == "output" or old.name in twice
            if dims is None and (refinable or now is None):
                continue
            kept = (
                dims is not None
                and now is not None
                and len(dims) == len(now)
                and all(a == b or (a is None and refinable) for a, b in zip(dims, now, strict=True))
            )
            if not kept:
                changes.append(f"{what} {old.name}: shape {dims} became {now}")
    return changes
