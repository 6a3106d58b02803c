"""Evaluates a model that has no inputs: what constant folding computes with."""

from typing import Any

import numpy as np

from graphopt.errors import InvalidModelError
from graphopt.graph import ir
from graphopt.runtime.session import Session


def evaluate(model: ir.Model) -> dict[str, ir.TensorProtocol]:
    """Run a model without inputs once; output name -> tensor, its type kept.

    ONNX Runtime optimizes nothing and uses one thread, so the same model gives the same bits.
    An output that is no tensor (a sequence, a map, an optional) is left out of the result.

    Raises:
        InvalidModelError: the model has an input without a default.
        RuntimeUnavailableError: ONNX Runtime cannot run the model.
    """
    session = Session(model, threads=1)
    if session.input_names:
        names = ", ".join(session.input_names)
        raise InvalidModelError(f"a model to evaluate has no inputs, this one has: {names}")
    return {
        name: _tensor(value, name)
        for name, value in session.run({}).items()
        if isinstance(value, np.ndarray | np.generic)
    }


def _tensor(value: Any, name: str) -> ir.TensorProtocol:
    array = np.asarray(value)
    if array.dtype.kind not in "OUS":
        return ir.tensor(array, name=name)
    texts = [text if isinstance(text, bytes) else str(text).encode() for text in array.reshape(-1)]
    return ir.StringTensor(texts, shape=ir.Shape(array.shape), name=name)
