"""Passes that are wrong on purpose, to be run as `tests.cli.wrong_passes:NAME`."""

from __future__ import annotations

import time

import numpy as np

from graphopt.graph import ir


def scale_weight(model: ir.Model) -> None:
    """Double the first float initializer: valid, and wrong on every input."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype is ir.DataType.FLOAT and tensor.size:
            value.const_value = ir.tensor(np.asarray(tensor.numpy() * 2), name=value.name)
            return


def raise_always(model: ir.Model) -> None:
    """Raise with a message of several lines."""
    raise RuntimeError(f"first line about {model.graph.name}\nsecond line")


def interrupt(model: ir.Model) -> None:
    """What Ctrl-C during a pass does."""
    raise KeyboardInterrupt


def linger(model: ir.Model) -> None:
    """Take longer than a person waits without a sign of life."""
    time.sleep(1.5)
