"""Scales and zero points, against ONNX Runtime's own QuantizeLinear."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import ir
from graphopt.quantization.parameters import (
    SMALLEST_SCALE,
    Parameters,
    limits,
    parameters_of_range,
    parameters_of_weight,
)
from graphopt.runtime import Session

from .quantizing import model_of, normal

TYPES = [ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, 1])
def test_integers_and_floats_are_those_of_onnx_runtime(
    dtype: ir.DataType, symmetric: bool, axis: int | None
) -> None:
    array = normal(5, 7, 3, scale=2)
    array[0, 0] = [1e9, -1e9, 0]  # beyond the range: clipped
    low, high = (-1.5, 3.0) if axis is None else (np.linspace(-2, 0, 7), np.linspace(0, 3, 7))
    found = parameters_of_range(low, high, dtype, symmetric=symmetric, axis=axis)
    along = "" if axis is None else f"<axis = {axis}>"
    model = model_of(
        f"""<ir_version: 10, opset_import: ["" : 21]> g (float[5,7,3] x) => (q, y) {{
            q = QuantizeLinear {along} (x, s, z) y = DequantizeLinear {along} (q, s, z) }}""",
        {"s": found.scale, "z": found.zero_point},
    )
    outputs = Session(model, threads=1).run({"x": array})
    assert np.array_equal(found.quantize(array), outputs["q"])
    assert np.array_equal(found.fake_quantize(array), outputs["y"])


@pytest.mark.parametrize("dtype", [*TYPES, ir.DataType.UINT4, ir.DataType.INT4])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 3), (-3, -1), (-1, 1), (0, 0), (-1e-40, 1e-42), (-3e38, 3e38), (0, 6)]
)
def test_zero_is_exact_and_the_range_is_covered(
    dtype: ir.DataType, symmetric: bool, low: float, high: float
) -> None:
    found = parameters_of_range(low, high, dtype, symmetric=symmetric)
    assert found.dequantize(found.quantize(np.zeros(1, np.float32))) == 0
    assert np.isfinite(found.scale)
    assert found.scale >= SMALLEST_SCALE
    assert found.is_symmetric or not symmetric
    ends = np.array([low, high], np.float32)
    assert np.abs(found.fake_quantize(ends) - ends).max() <= 0.51 * float(found.scale)


def test_a_symmetric_range_leaves_out_the_lowest_integer() -> None:
    found = parameters_of_range(-2, 1, ir.DataType.INT8, symmetric=True)
    assert found.quantize(np.array([-2, 2], np.float32)).tolist() == [-127, 127]
    unsigned = parameters_of_range(-2, 1, ir.DataType.UINT8, symmetric=True)
    assert unsigned.quantize(np.array([-2, 0, 2], np.float32)).tolist() == [1, 128, 255]


def test_a_range_of_zeros_has_scale_one() -> None:
    found = parameters_of_range(
        np.array([0.0, -1.0]), np.array([0.0, 1.0]), ir.DataType.INT8, symmetric=True, axis=0
    )
    assert found.scale[0] == 1


@pytest.mark.parametrize(("low", "high"), [(0, np.inf), (np.nan, 1), (2, 1), (-np.inf, 0)])
def test_no_range(low: float, high: float) -> None:
    with pytest.raises(UsageError, match="range"):
        parameters_of_range(low, high, ir.DataType.INT8, symmetric=True)


def test_weights_have_the_extremes_of_their_channels() -> None:
    weight = normal(4, 3, 2)
    found = parameters_of_weight(weight, ir.DataType.INT8, axis=-2)
    assert np.allclose(found.scale, np.abs(weight).max(axis=(0, 2)) / 127)
    assert parameters_of_weight(np.zeros((0, 3), np.float32), ir.DataType.INT8).scale == 1


@pytest.mark.parametrize("axis", [None, 0])
def test_through_json_to_the_bit(axis: int | None) -> None:
    found = parameters_of_range(
        -0.1 if axis is None else normal(5) - 9,
        0.3 if axis is None else normal(5) + 9,
        ir.DataType.UINT8,
        symmetric=False,
        axis=axis,
    )
    again = Parameters.from_json(found.to_json())
    assert again == found
    assert hash(again) == hash(found)
    with pytest.raises(UsageError, match="parameters"):
        Parameters.from_json({"dtype": "uint8"})


def test_other_types() -> None:
    with pytest.raises(UsageError, match="use one of"):
        limits(ir.DataType.FLOAT)
