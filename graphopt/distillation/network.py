"""An ONNX model in PyTorch, whose weights keep their names.

Each node is computed by its form (`graphopt.distillation.operators`), in the order of the graph;
each initializer that a node takes as a weight is trained. `write_back` puts trained numbers
where they came from, so nothing else of the ONNX model changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphopt.distillation.operators import FORMS, Call, Form
from graphopt.errors import UsageError
from graphopt.graph import constant_tensor, ir

WEIGHTS: dict[str, tuple[int, ...]] = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Einsum": (0, 1),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
}
"""The inputs of an operator that are weights where they are constant."""

_STATISTICS = {"BatchNormalization": (3, 4)}
"""Inputs that training changes by observing."""


@dataclass(frozen=True)
class _Step:
    name: str
    op_type: str
    form: Form
    inputs: tuple[str | None, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    done: tuple[str, ...]


class Network:
    """A model in PyTorch.

    Args:
        model: the model; its numbers are copied. Only its main graph is computed.
        fixed: names of initializers that are not to be trained.

    Attributes:
        training: whether batch norms use, and learn, the statistics of the batch.
        weights: the trained tensors by the names of their initializers.
        statistics: running means and variances by the names of theirs.

    Raises:
        UsageError: an operator has no form in PyTorch, or nothing can be trained.
    """

    def __init__(self, model: ir.Model, *, fixed: Sequence[str] = ()) -> None:
        self.training = False
        unknown = sorted(
            {
                node.op_type
                for node in model.graph
                if node.domain not in ("", "ai.onnx")
                or (node.op_type not in FORMS and constant_tensor(node.outputs[0]) is None)
            }
        )
        if unknown:
            raise UsageError(
                f"the model has operators that cannot be trained here: {', '.join(unknown)}"
            )
        constants = _constants(model)
        trainable = _trained(model, constants) - set(fixed)
        self.weights = {
            name: value.requires_grad_() for name, value in constants.items() if name in trainable
        }
        if not self.weights:
            raise UsageError("the model has no floating-point weights that could be trained")
        observed = _places(model, _STATISTICS)
        self.statistics = {name: constants[name] for name in constants if name in observed}
        self._constants = {n: v for n, v in constants.items() if n not in self.weights}
        self._outputs = [value.name or "" for value in model.graph.outputs]
        self._steps = _steps(model, set(constants))

    def __call__(
        self, feed: Mapping[str, torch.Tensor], inner: Sequence[str] = ()
    ) -> dict[str, torch.Tensor]:
        """The outputs, and the tensors named in `inner`, by name.

        Raises:
            UsageError: a node asks for something that has no form in PyTorch.
        """
        wanted = {*self._outputs, *inner}
        values: dict[str, torch.Tensor] = {**self._constants, **self.weights, **feed}
        for step in self._steps:
            missing = [name for name in step.inputs if name is not None and name not in values]
            if missing:
                raise UsageError(f"node '{step.name}' reads '{missing[0]}', which is no number")
            given = [None if name is None else values[name] for name in step.inputs]
            call = Call(given, step.attributes, step.opset, len(step.outputs), self.training)
            try:
                result = step.form(call)
            except NotImplementedError as error:
                raise UsageError(f"node '{step.name}' cannot be trained: {error}") from error
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip(step.outputs, results, strict=False))
            for name in step.done:
                if name not in wanted:
                    values.pop(name, None)
        return {name: values[name] for name in wanted}

    def state(self) -> dict[str, torch.Tensor]:
        """A copy of all that training changes, by the names of the initializers."""
        both = {**self.weights, **self.statistics}
        return {name: value.detach().clone() for name, value in both.items()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over what `state` gave."""
        both = {**self.weights, **self.statistics}
        with torch.no_grad():
            for name, value in state.items():
                both[name].copy_(value)

    def write_back(self, model: ir.Model) -> None:
        """Put the numbers into the initializers (or Constant nodes) that they came from."""
        trained = self.state()
        for name, value in model.graph.initializers.items():
            if name in trained and value.const_value is not None:
                array = trained[name].numpy().astype(value.const_value.dtype.numpy())
                value.const_value = ir.tensor(array, name=name)
        for node in model.graph:
            name = node.outputs[0].name or ""
            if node.op_type == "Constant" and name in trained:
                array = trained[name].numpy()
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(array, name=name))
                for other in [key for key in node.attributes if key != "value"]:
                    del node.attributes[other]


def _constants(model: ir.Model) -> dict[str, torch.Tensor]:
    # An initializer that is an input too is what it is by default.
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    for node in model.graph:
        if node.op_type == "Constant":
            tensors[node.outputs[0].name or ""] = constant_tensor(node.outputs[0])
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != ir.DataType.STRING:
            try:
                found[name] = torch.from_numpy(np.array(tensor.numpy()))
            except TypeError as error:
                raise UsageError(f"PyTorch has no tensors of {tensor.dtype}: '{name}'") from error
    return found


def _places(model: ir.Model, table: Mapping[str, Sequence[int]]) -> set[str]:
    return {
        value.name or ""
        for node in model.graph
        for place in table.get(node.op_type, ())
        if place < len(node.inputs) and (value := node.inputs[place]) is not None
    }


def _trained(model: ir.Model, constants: Mapping[str, torch.Tensor]) -> set[str]:
    """Constants that are weights wherever they are read: not scalars, not shapes, not masks."""
    found = {
        name
        for name in _places(model, WEIGHTS)
        if name in constants and constants[name].dtype == torch.float32
    }
    read = {name: constants[name].numel() > 1 for name in found}
    for node in model.graph:
        for place, value in enumerate(node.inputs):
            name = "" if value is None else value.name or ""
            if name in found and place not in WEIGHTS.get(node.op_type, ()):
                read[name] = False
    return {name for name, weight in read.items() if weight}


def _steps(model: ir.Model, constants: set[str]) -> list[_Step]:
    opset = model.opset_imports.get("", 1)
    nodes = [node for node in model.graph if node.op_type != "Constant"]
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update((value.name or "", index) for value in node.inputs if value is not None)
    steps = []
    for index, node in enumerate(nodes):
        inputs = tuple(None if value is None else value.name for value in node.inputs)
        done = {name for name in inputs if name and last[name] == index and name not in constants}
        steps.append(
            _Step(
                node.name or node.outputs[0].name or "",
                node.op_type,
                FORMS[node.op_type],
                inputs,
                tuple(value.name or "" for value in node.outputs),
                {name: _plain(attribute) for name, attribute in node.attributes.items()},
                opset,
                tuple(sorted(done)),
            )
        )
    return steps


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    if attribute.type == ir.AttributeType.TENSOR:
        return torch.from_numpy(np.array(attribute.as_tensor().numpy()))
    if attribute.type == ir.AttributeType.INTS:
        return [int(item) for item in attribute.as_ints()]
    return value
