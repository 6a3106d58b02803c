"""The input that models are timed on: sizes as they are used, where the model takes them."""

from __future__ import annotations

import onnx
import pytest

from graphopt.graph import load
from graphopt.runtime import usual_feed

# Positions are added: no other number of them fits.
FIXED = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,T] x) => (float[N,T] y) <float[1,64] positions = {...}> { y = Add (x, positions) }
""".replace("...", ", ".join(["1"] * 64))
FREE = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,3,H,W] x, int64[N] t) => (float[N,3,H,W] y) { y = Relu (x) }
"""
NEVER = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,3] x) => (float[7] y) <int64[1] size = {7}> { y = Reshape (x, size) }
"""


@pytest.mark.parametrize(
    ("text", "shapes"),
    [(FIXED, {"x": (1, 64)}), (FREE, {"x": (1, 3, 128, 128), "t": (1,)})],
)
def test_free_dims_are_of_a_usual_size(text: str, shapes: dict[str, tuple[int, ...]]) -> None:
    feed = usual_feed(load(onnx.parser.parse_model(text)))
    assert feed is not None
    assert {name: value.shape for name, value in feed.items()} == shapes


def test_a_model_that_runs_on_nothing_has_no_feed() -> None:
    assert usual_feed(load(onnx.parser.parse_model(NEVER))) is None
