"""Holds what infer_shapes claims against what ONNX Runtime does.

Every value of the main graph becomes an output, the model runs, and each claimed dtype, dim
and symbolic value is evaluated at the sizes of that run.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from graphopt.graph import ir
from graphopt.shapes import evaluate_dim, infer_shapes, known_shape, symbolic_value
from graphopt.shapes.dim_text import declared_name
from graphopt.shapes.expression import Expression
from graphopt.shapes.interface import read_interface
from tests.backend_suite import Runner


def with_all_outputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every value that a node of the main graph makes as an output."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    present = {output.name for output in model.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in present:
                present.add(name)
                exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    return exposed


class Claims:
    """The claims about a model, made once and checked against any number of runs."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = ir.from_proto(model)
        self.interface = read_interface(self.model)
        infer_shapes(self.model)
        values = {v.name: v for node in self.model.graph for v in node.outputs if v.name}
        self.values: dict[str, ir.Value] = {str(name): value for name, value in values.items()}
        self.checked_dims = 0
        self.checked_elements = 0

    def sizes(self, feed: dict[str, Any]) -> dict[str, int]:
        """What the symbols stand for in a run with this feed."""
        sizes: dict[str, int] = {}
        for value, dims in self.interface.dims.items():
            if dims is None or not isinstance(feed.get(str(value.name)), np.ndarray):
                continue
            for dim, size in zip(dims, feed[str(value.name)].shape, strict=True):
                if isinstance(dim, Expression):
                    sizes[declared_name(str(dim.symbol))] = size
        return sizes

    def violations(self, name: str, actual: Any, sizes: dict[str, int]) -> list[str]:
        """What is claimed of a value and is not so."""
        value = self.values[name]
        if not isinstance(actual, np.ndarray):
            return []
        found = []
        expected = ir.DataType.from_numpy(actual.dtype) if actual.dtype.kind in "fiub" else None
        if value.dtype is not None and expected is not None and value.dtype != expected:
            found.append(f"{name}: claimed {value.dtype}, is {expected}")
        shape = known_shape(value)
        if shape is not None:
            if len(shape) != actual.ndim:
                return [*found, f"{name}: claimed {shape}, is {actual.shape}"]
            for dim, size in zip(shape, actual.shape, strict=True):
                claimed = evaluate_dim(dim, sizes)
                if isinstance(dim, ir.SymbolicDim) and dim.value is not None and claimed is None:
                    found.append(f"{name}: {dim} is no expression in {sizes}")
                if claimed is not None:
                    self.checked_dims += 1
                    if claimed != size:
                        found.append(f"{name}: claimed {shape}, is {actual.shape} at {sizes}")
        elements = symbolic_value(value)
        if elements is not None:
            if elements.shape != actual.shape:
                return [*found, f"{name}: claimed elements {elements}, is {actual}"]
            for element, number in zip(elements.flat, actual.flat, strict=True):
                claimed = evaluate_dim(element, sizes)
                if claimed is not None:
                    self.checked_elements += 1
                    if claimed != int(number):
                        found.append(f"{name}: claimed {elements}, is {actual} at {sizes}")
        return found


def check(
    model: onnx.ModelProto, feeds: Sequence[Sequence[Any]]
) -> tuple[list[str], Claims | None]:
    """Violations over all runs that ONNX Runtime does; (.., None) where it does none.

    `feeds` has the inputs of each run in order. A model that infer_shapes refuses and ONNX
    Runtime runs is a violation.
    """
    try:
        runner = Runner(with_all_outputs(model))
    except Exception:
        return [], None
    runs = []
    for inputs in feeds:
        try:
            runs.append((inputs, dict(zip(runner.names, runner.run(inputs), strict=True))))
        except Exception:
            continue
    if not runs:
        return [], None
    try:
        claims = Claims(model)
    except Exception as error:
        return [f"refused or crashed: {type(error).__name__}: {error}"], None
    names = [value.name for value in runner.session.get_inputs()]
    found: list[str] = []
    for inputs, outputs in runs:
        sizes = claims.sizes(dict(zip(names, map(as_array, inputs), strict=False)))
        for name, actual in outputs.items():
            if name in claims.values:
                found += claims.violations(name, actual, sizes)
    return found, claims


def as_array(value: Any) -> Any:
    """A TensorProto as numpy, anything else as it is."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


# Variants of one model ----------------------------------------------------------------------

Variant = tuple[onnx.ModelProto, list[Any]]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    return copied


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    initialized = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initialized]


def with_symbolic_inputs(model: onnx.ModelProto, inputs: list[Any]) -> Variant:
    """Every dim of every input becomes a symbol of its own; outputs are declared without shape."""
    copied = _copy(model)
    for number, value in enumerate(_real_inputs(copied)):
        tensor = value.type.tensor_type
        if value.type.HasField("tensor_type") and tensor.HasField("shape"):
            for axis, dim in enumerate(tensor.shape.dim):
                dim.dim_param = f"s{number}_{axis}"
    _forget_outputs(copied)
    return copied, inputs


def _forget_outputs(model: onnx.ModelProto) -> None:
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def with_unknown_inputs(model: onnx.ModelProto, inputs: list[Any]) -> Variant:
    """The rank of every input is unknown."""
    copied = _copy(model)
    for value in _real_inputs(copied):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    _forget_outputs(copied)
    return copied, inputs


def with_constant_numbers(model: onnx.ModelProto, inputs: list[Any]) -> Variant:
    """Integer inputs and small ones become initializers, the dims of the others symbols."""
    copied = _copy(model)
    kept: list[Any] = []
    for value, given in zip(_real_inputs(model), inputs, strict=False):
        array = as_array(given)
        small = isinstance(array, np.ndarray) and array.size <= 16 and array.ndim <= 1
        if small and isinstance(array, np.ndarray) and array.dtype.kind in "iubf":
            tensor = onnx.numpy_helper.from_array(array, value.name)
            copied.graph.initializer.append(tensor)
            declared = next(v for v in copied.graph.input if v.name == value.name)
            copied.graph.input.remove(declared)
        else:
            kept.append(given)
    return with_symbolic_inputs(copied, kept)


def with_numbers_from_dims(
    negate: Callable[[int], bool],
) -> Callable[[onnx.ModelProto, list[Any]], Variant]:
    """Every small integer input is computed in the graph from dims of new, symbolic inputs.

    A negative number for which `negate` holds is Neg of such a dim, another one a constant.
    """

    def variant(model: onnx.ModelProto, inputs: list[Any]) -> Variant:
        copied = _copy(model)
        kept: list[Any] = []
        added_inputs: list[onnx.ValueInfoProto] = []
        added_feeds: list[Any] = []
        nodes: list[onnx.NodeProto] = []
        for value, given in zip(_real_inputs(model), inputs, strict=False):
            array = as_array(given)
            wanted = (
                isinstance(array, np.ndarray)
                and array.dtype in (np.int64, np.int32)
                and array.ndim <= 1
                and 0 < array.size <= 16
            )
            if not wanted:
                kept.append(given)
                continue
            declared = next(v for v in copied.graph.input if v.name == value.name)
            copied.graph.input.remove(declared)
            parts = []
            for index, number in enumerate(int(item) for item in array.flat):
                stem = f"{value.name}_{index}"
                if abs(number) > 64 or (number < 0 and not negate(number)):
                    nodes.append(
                        onnx.helper.make_node("Constant", [], [f"{stem}_n"], value_ints=[number])
                    )
                else:
                    added_inputs.append(
                        onnx.helper.make_tensor_value_info(f"{stem}_d", 1, [f"d_{stem}"])
                    )
                    added_feeds.append(np.zeros(abs(number), np.float32))
                    nodes.append(onnx.helper.make_node("Shape", [f"{stem}_d"], [f"{stem}_s"]))
                    operator = "Neg" if number < 0 else "Identity"
                    nodes.append(onnx.helper.make_node(operator, [f"{stem}_s"], [f"{stem}_n"]))
                parts.append(f"{stem}_n")
            name = f"{value.name}_all"
            nodes.append(onnx.helper.make_node("Concat", parts, [name], axis=0))
            if array.ndim == 0:
                nodes.append(onnx.helper.make_node("Constant", [], [f"{name}_z"], value_int=0))
                nodes.append(onnx.helper.make_node("Gather", [name, f"{name}_z"], [f"{name}_g"]))
                name = f"{name}_g"
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            nodes.append(onnx.helper.make_node("Cast", [name], [value.name], to=kind))
        if not nodes:
            raise ValueError("no integer input")
        originals = list(copied.graph.node)
        del copied.graph.node[:]
        copied.graph.node.extend(itertools.chain(nodes, originals))
        copied.graph.input.extend(added_inputs)
        symbolic, feed = with_symbolic_inputs(copied, kept)
        for value in symbolic.graph.input:
            for original in added_inputs:
                if value.name == original.name:
                    value.CopyFrom(original)
        return symbolic, [*feed, *added_feeds]

    return variant
