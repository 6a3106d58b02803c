"""Evaluates the nodes that need the runtime, all in one model without inputs.

Where the runtime cannot evaluate them (no kernel, an error at run time), halves of them are
tried, so that one node does not keep the others from being folded.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from graphopt.plugin import GraphoptError, constant_tensor, evaluate, ir

from .eligibility import STANDARD_DOMAINS
from .movement_kernels import Array

_MOST_FAILURES = 8
"""After so many nodes that the runtime refuses, the rest is not tried any more."""

_FLOAT = int(ir.DataType.FLOAT)
_BFLOAT16 = ir.DataType.BFLOAT16


def evaluate_pending(
    pending: Sequence[ir.Node], arrays: dict[ir.Value, Array], model: ir.Model
) -> dict[ir.Node, str]:
    """Compute the outputs of `pending` into `arrays`.

    Args:
        pending: nodes in topological order; every input is a constant, in `arrays`, or an
            output of an earlier one.
        arrays: values known; bfloat16 results are put there in float32, unrounded.
        model: whose operator sets and version hold.

    Returns:
        The nodes that could not be evaluated, and why.
    """
    failed: dict[ir.Node, str] = {}
    _evaluate_halves(pending, arrays, model, failed)
    return failed


def _evaluate_halves(
    nodes: Sequence[ir.Node],
    arrays: dict[ir.Value, Array],
    model: ir.Model,
    failed: dict[ir.Node, str],
) -> None:
    ready: list[ir.Node] = []
    produced: set[ir.Value] = set()
    for node in nodes:
        inputs = [value for value in node.inputs if value is not None]
        if all(v in arrays or v in produced or constant_tensor(v) is not None for v in inputs):
            ready.append(node)
            produced.update(node.outputs)
        else:
            failed[node] = "an input of it could not be evaluated"
    if not ready:
        return
    if sum(reason.startswith(_REFUSED) for reason in failed.values()) >= _MOST_FAILURES:
        failed.update(dict.fromkeys(ready, "too many others could not be evaluated"))
        return
    try:
        arrays.update(_Extract(ready, arrays, model).run())
    except GraphoptError as error:
        if len(ready) == 1:
            failed[ready[0]] = f"{_REFUSED}: {error}"
            return
        middle = len(ready) // 2
        _evaluate_halves(ready[:middle], arrays, model, failed)
        _evaluate_halves(ready[middle:], arrays, model, failed)


_REFUSED = "ONNX Runtime cannot evaluate it"


class _Extract:
    """A model of some constant nodes, with bfloat16 widened to float32."""

    def __init__(
        self,
        nodes: Sequence[ir.Node],
        arrays: Mapping[ir.Value, Array],
        model: ir.Model,
    ) -> None:
        self._arrays = arrays
        self._numbers = itertools.count()
        self._nodes: list[ir.Node] = []
        self._constants: dict[str, ir.Value] = {}
        self._values: dict[ir.Value, ir.Value] = {}
        for node in nodes:
            self._add(node)
        self._wanted = _used_outside(nodes)
        versions = model.graph.opset_imports.items()
        imports = {domain: version for domain, version in versions if domain in STANDARD_DOMAINS}
        graph = ir.Graph(
            [],
            [self._values[value] for value in self._wanted],
            nodes=self._nodes,
            initializers=list(self._constants.values()),
            opset_imports=imports,
            name="constants",
        )
        self._model = ir.Model(graph, ir_version=model.ir_version or 8)

    def run(self) -> dict[ir.Value, Array]:
        results = evaluate(self._model)
        return {value: results[self._values[value].name or ""].numpy() for value in self._wanted}

    def _add(self, node: ir.Node) -> None:
        inputs = [None if value is None else self._input(value) for value in node.inputs]
        if node.op_type == "Cast" and node.inputs[0] is not None and inputs[0] is not None:
            # The model rounds here: what comes in must have been rounded to its own type.
            dtype = node.inputs[0].dtype
            if dtype == _BFLOAT16:
                inputs[0] = self._cast(inputs[0], int(_BFLOAT16))
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
        )
        self._nodes.append(copy)
        takes_bfloat16 = any(v is not None and v.dtype == _BFLOAT16 for v in node.inputs)
        for value, made in zip(node.outputs, copy.outputs, strict=True):
            made.name = self._name() if value.name else ""
            made.type = value.type
            if value.dtype == _BFLOAT16:
                if node.op_type == "Cast" or not takes_bfloat16:
                    made = self._cast(made, _FLOAT)
                made.type = ir.TensorType(ir.DataType.FLOAT)
            self._values[value] = made

    def _input(self, value: ir.Value) -> ir.Value:
        known = self._values.get(value)
        if known is not None:
            return known
        tensor = constant_tensor(value)
        if value.dtype == _BFLOAT16 or tensor is None:
            known_array = self._arrays.get(value)
            array = tensor.numpy() if known_array is None and tensor is not None else known_array
            widened = np.float32 if value.dtype == _BFLOAT16 else None
            tensor = ir.tensor(np.array(array, dtype=widened, order="C"))
        name = self._name()
        constant = ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=_renamed(tensor, name),
        )
        self._constants[name] = constant
        self._values[value] = constant
        return constant

    def _cast(self, value: ir.Value, target: int) -> ir.Value:
        attribute = ir.AttrInt64("to", target)
        node = ir.Node("", "Cast", [value], [attribute], num_outputs=1)
        node.outputs[0].name = self._name()
        self._nodes.append(node)
        return node.outputs[0]

    def _name(self) -> str:
        return f"v{next(self._numbers)}"


def _used_outside(nodes: Sequence[ir.Node]) -> list[ir.Value]:
    """The outputs in use of those nodes that something else than `nodes` reads from."""
    inside = set(nodes)
    wanted: list[ir.Value] = []
    for node in nodes:
        used = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        if any(
            value.is_graph_output() or any(use.node not in inside for use in value.uses())
            for value in used
        ):
            wanted.extend(used)
    return wanted


def _renamed(tensor: ir.TensorProtocol, name: str) -> ir.TensorProtocol:
    """The same data under another name; the tensor given keeps its own."""
    if isinstance(tensor, ir.StringTensor):
        return ir.StringTensor(
            tensor.string_data(), shape=ir.Shape(tensor.shape.numpy()), name=name
        )
    return ir.LazyTensor(
        lambda: tensor, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=name
    )
