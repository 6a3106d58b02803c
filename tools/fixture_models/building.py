"""Building a model from ONNX text plus weights, the same bytes on every machine."""

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.parser
import onnx.shape_inference


def weights(seed: int, *shape: int, low: float = -0.5, high: float = 0.5) -> np.ndarray:
    """Uniform float32 weights. RandomState's uniform stream is frozen; a normal's uses libm."""
    return np.random.RandomState(seed).uniform(low, high, shape).astype(np.float32)


def batch_norm(seed: int, channels: int, prefix: str = "bn") -> dict[str, np.ndarray]:
    """The four parameters of a BatchNormalization, named `{prefix}_scale` and so on."""
    return {
        f"{prefix}_scale": weights(seed, channels, low=0.5, high=1.5),
        f"{prefix}_bias": weights(seed + 1, channels),
        f"{prefix}_mean": weights(seed + 2, channels),
        f"{prefix}_var": weights(seed + 3, channels, low=0.5, high=2.0),
    }


def from_text(text: str, initializers: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """Parse a model in ONNX text, give it weights, check it in full."""
    model = onnx.parser.parse_model(text)
    for name, array in (initializers or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.producer_name = "graphopt-fixtures"
    onnx.checker.check_model(model, full_check=True)
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Deterministic bytes of a model."""
    return bytes(model.SerializeToString(deterministic=True))
