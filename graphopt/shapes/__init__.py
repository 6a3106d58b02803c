"""What is known about each value: dtype, shape with symbolic dims, small constant values."""

from graphopt.shapes.comparing import same_dim, same_shape, static_shape
from graphopt.shapes.dim_text import evaluate as evaluate_dim
from graphopt.shapes.inference import infer_shapes, known_shape, symbolic_value

__all__ = [
    "evaluate_dim",
    "infer_shapes",
    "known_shape",
    "same_dim",
    "same_shape",
    "static_shape",
    "symbolic_value",
]
