"""Tells how fast the machine is now, compared with how fast it was.

On a shared machine a core may be lent to others, or two cores may be one: a model on two
threads then takes twice as long, and nothing else gives it away. So a fixed piece of work is
timed before and after each measurement.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from graphopt.graph import ir

_SIDE = 320
_PRODUCTS = 4
_SMALL_SIDE = 64
_SMALL_PRODUCTS = 32
_RUNS = 5
_TOLERANCE = 1.3


class Pace:
    """Times a fixed model of matrix products: a few large ones, and a row of small ones.

    Small ones tell how long two cores take to hear of one another, which may change as well.

    Args:
        threads: the number of threads to time it with.
    """

    def __init__(self, threads: int) -> None:
        names = [f"x{index}" for index in range(_PRODUCTS + 1)]
        nodes = [
            helper.make_node("MatMul", [names[index], "w"], [names[index + 1]])
            for index in range(_PRODUCTS)
        ]
        small = [f"y{index}" for index in range(_SMALL_PRODUCTS + 1)]
        nodes += [
            helper.make_node("MatMul", [small[index], "v"], [small[index + 1]])
            for index in range(_SMALL_PRODUCTS)
        ]
        weight = np.full((_SIDE, _SIDE), 1 / _SIDE, np.float32)
        little = np.full((_SMALL_SIDE, _SMALL_SIDE), 1 / _SMALL_SIDE, np.float32)
        graph = helper.make_graph(
            nodes,
            "pace",
            [
                helper.make_tensor_value_info(names[0], TensorProto.FLOAT, weight.shape),
                helper.make_tensor_value_info(small[0], TensorProto.FLOAT, little.shape),
            ],
            [
                helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, weight.shape),
                helper.make_tensor_value_info(small[-1], TensorProto.FLOAT, little.shape),
            ],
            [
                onnx.numpy_helper.from_array(weight, "w"),
                onnx.numpy_helper.from_array(little, "v"),
            ],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self._model = ir.serde.deserialize_model(proto)
        self._feed = {names[0]: np.ones_like(weight), small[0]: np.ones_like(little)}
        self._threads = threads

    def seconds(self) -> float:
        """The median of a few runs, now."""
        from graphopt.runtime.profiling import run_times

        return float(np.median(run_times(self._model, self._feed, self._threads, _RUNS)))


def undisturbed(paces: Sequence[float]) -> list[bool]:
    """Which measurements were made at the machine's usual pace.

    Args:
        paces: for each measurement the seconds of the fixed work around it.

    Returns:
        True for those at most three tenths over the median: a mean over the others is the pace that
        a user meets.
    """
    if not paces:
        return []
    limit = _TOLERANCE * float(np.median(paces))
    return [pace <= limit for pace in paces]
