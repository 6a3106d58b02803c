"""Runs a model as someone does who converts its inputs and outputs outside.

What is done at the border of a graph is proved against this: the same conversions in numpy, which
share with the operators what was asked for and nothing that was derived from it, and the model as
it was given between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ir
from graphopt.graph.border import Affine, InputConversion, OutputConversion
from graphopt.runtime import Feed, Session


class ConvertedSession(Session):
    """A session of the original that takes and gives what the converted model does.

    Args:
        original: the model before any conversion.
        inputs: the conversions of its inputs.
        outputs: the conversions of its outputs.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load the model here.
    """

    def __init__(
        self,
        original: ir.Model,
        inputs: Sequence[InputConversion],
        outputs: Sequence[OutputConversion] = (),
    ) -> None:
        super().__init__(original)
        self._dtypes = {value.name: value.dtype for value in original.graph.inputs}
        self._conversions = {conversion.name: conversion for conversion in inputs}
        self._orders = {conversion.name: conversion.order for conversion in outputs}

    def run(self, feed: Feed, output_names: Sequence[str] | None = None) -> dict[str, Any]:
        """Convert the feed, run the original once, and convert its outputs.

        Raises:
            RuntimeUnavailableError: the feed does not fit, or ONNX Runtime fails on it.
        """
        try:
            taken = {name: self._taken(name, value) for name, value in feed.items()}
        except ValueError as error:
            raise RuntimeUnavailableError(f"cannot convert the feed: {error}") from error
        made = super().run(taken, output_names)
        orders = self._orders
        return {
            name: np.transpose(value, orders[name]) if name in orders else value
            for name, value in made.items()
        }

    def _taken(self, name: str, value: Any) -> Any:
        """What the original takes, made of what is fed."""
        conversion = self._conversions.get(name)
        if conversion is None:
            return value
        array = np.asarray(value)
        if conversion.order is not None:
            array = np.ascontiguousarray(np.transpose(array, conversion.order))
        if conversion.affine is not None:
            array = _normalized(array.astype(np.float64), conversion.affine)
        dtype = self._dtypes[name]
        return array if dtype is None else array.astype(dtype.numpy())


def _normalized(array: np.ndarray, affine: Affine) -> np.ndarray:
    """As it is asked for, and not as the graph computes it: (x * scale - mean) / std."""
    channels_last = np.moveaxis(array, affine.axis, -1)
    made = (channels_last * affine.scale - affine.mean) / affine.std
    return np.ascontiguousarray(np.moveaxis(made, -1, affine.axis))
