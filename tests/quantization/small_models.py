"""Small models with seeded weights, and how far one output is from another."""

from collections.abc import Mapping

import numpy as np
import onnx

from graphopt.graph import ir, verify
from graphopt.shapes import infer_shapes


def model(
    body: str, weights: Mapping[str, tuple[int, ...] | np.ndarray], opset: int = 17
) -> ir.Model:
    """A model from ONNX text; weights are given, or drawn for a shape by their name's order."""
    random = np.random.default_rng(5)
    head = f'<ir_version: {10 if opset > 20 else 8}, opset_import: ["" : {opset}]>'
    proto = onnx.parser.parse_model(f"{head}\nagraph {body}")
    for name, given in weights.items():
        array = np.asarray(given if isinstance(given, np.ndarray) else random.normal(size=given))
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    found = ir.from_proto(proto)
    assert not verify(found)
    infer_shapes(found)
    return found


def normal(shape: tuple[int, ...], count: int, name: str = "x") -> list[dict[str, np.ndarray]]:
    """Feeds whose channels (axis 1) differ in size and in mean."""
    feeds = []
    channels = shape[1]
    along = (1, channels, *[1] * (len(shape) - 2))
    size = np.geomspace(0.2, 4, channels).reshape(along)
    mean = np.linspace(-1, 1, channels).reshape(along)
    for seed in range(count):
        drawn = np.random.default_rng([seed, 9]).normal(size=shape)
        feeds.append({name: (drawn * size + mean).astype(np.float32)})
    return feeds


def sqnr(expected: np.ndarray, actual: np.ndarray) -> float:
    """The ratio of signal to error in dB."""
    error = np.square(expected.astype(np.float64) - actual).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(error, 1e-30)))
