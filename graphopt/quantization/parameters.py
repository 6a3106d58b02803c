"""How real numbers become integers and back.

    q = clip(round(x / scale) + zero_point, lowest, highest)        x' = (q - zero_point) * scale

Rounding is half to even, as QuantizeLinear's. One scale and zero point for a whole tensor, or
one of each for every index along an axis. Zero is always represented exactly: padding, Relu and
absent bias depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import ir

SMALLEST_SCALE = 2.0**-62
"""No scale is smaller: the product of two, the scale of a bias, is still a normal float32."""

_LIMITS: dict[ir.DataType, tuple[int, int]] = {
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT16: (0, 65535),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.INT32: (-(2**31), 2**31 - 1),
}


def limits(dtype: ir.DataType) -> tuple[int, int]:
    """The lowest and the highest integer of a quantized type.

    Raises:
        UsageError: tensors are not quantized to this type.
    """
    if dtype not in _LIMITS:
        known = ", ".join(kind.name.lower() for kind in _LIMITS)
        raise UsageError(f"cannot quantize to {dtype.name.lower()}: use one of {known}")
    return _LIMITS[dtype]


@dataclass(frozen=True, eq=False)
class Parameters:
    """Scale and zero point of a tensor, or of each index along one of its axes.

    Attributes:
        dtype: the integer type.
        scale: float32, shape [] or [channels], positive.
        zero_point: the integer that stands for 0, of the numpy type of `dtype`, shaped as scale.
        axis: the axis that has one scale for each index; None for one scale in all.
    """

    dtype: ir.DataType
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None = None

    def __post_init__(self) -> None:
        limits(self.dtype)
        if self.scale.shape != self.zero_point.shape or self.scale.ndim != (self.axis is not None):
            raise ValueError("scale and zero point have no or one dim, as the axis says")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Parameters)
            and self.dtype == other.dtype
            and self.axis == other.axis
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def __hash__(self) -> int:
        return hash((self.dtype, self.axis, self.scale.tobytes(), self.zero_point.tobytes()))

    @property
    def is_symmetric(self) -> bool:
        """Whether the zero point is the middle of the type (0 of a signed one) throughout."""
        lowest, highest = limits(self.dtype)
        middle = (lowest + highest + 1) // 2
        return bool((self.zero_point.astype(np.int64) == middle).all())

    def quantize(self, array: np.ndarray) -> np.ndarray:
        """The integers of `array`, of the numpy type of `dtype`; any shape with the axis."""
        lowest, highest = limits(self.dtype)
        scale, zero_point = self._along(array.ndim)
        # In float32, as ONNX Runtime divides: in float64 some ties would round otherwise.
        scaled = np.rint(np.asarray(array, np.float32) / scale).astype(np.float64) + zero_point
        clipped: np.ndarray = np.clip(scaled, lowest, highest)
        return clipped.astype(self.dtype.numpy())

    def dequantize(self, array: np.ndarray) -> np.ndarray:
        """The float32 numbers that integers stand for."""
        scale, zero_point = self._along(array.ndim)
        wide = array.astype(np.int64) - zero_point
        return np.asarray(wide.astype(np.float32) * scale, np.float32)

    def fake_quantize(self, array: np.ndarray) -> np.ndarray:
        """What is left of `array` after quantizing and dequantizing, float32."""
        return self.dequantize(self.quantize(array))

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` gives back the same parameters, to the bit."""
        found: dict[str, Any] = {
            "dtype": self.dtype.name.lower(),
            # The shortest decimal of the float64 is exact for a float32.
            "scale": self.scale.astype(np.float64).tolist(),
            "zero_point": self.zero_point.astype(np.int64).tolist(),
        }
        if self.axis is not None:
            found["axis"] = self.axis
        return found

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Parameters:
        """What `to_json` wrote.

        Raises:
            UsageError: it is not.
        """
        try:
            dtype = ir.DataType[content["dtype"].upper()]
            return cls(
                dtype,
                np.asarray(content["scale"], np.float32),
                np.asarray(content["zero_point"], np.int64).astype(dtype.numpy()),
                content.get("axis"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"not quantization parameters: {error}") from error

    def _along(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point (int64) in a shape that broadcasts over a tensor of that rank."""
        zero_point = self.zero_point.astype(np.int64)
        if self.axis is None:
            return self.scale, zero_point
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), zero_point.reshape(shape)


def parameters_of_range(
    minimum: float | np.ndarray,
    maximum: float | np.ndarray,
    dtype: ir.DataType,
    *,
    symmetric: bool,
    axis: int | None = None,
) -> Parameters:
    """The parameters whose integers cover a range.

    Symmetric: scale = max(|minimum|, |maximum|) / highest, the zero point the middle of the
    type, so that the lowest integer is not used. Else scale = (maximum - minimum) / steps with
    the range widened to contain 0, zero_point = lowest - round(minimum / scale). A range of
    zeros gets scale 1; one too narrow for float32 gets SMALLEST_SCALE.

    Args:
        minimum: the smallest number, or an array [channels] of them where `axis` is given.
        maximum: the largest, likewise.
        dtype: the integer type.
        symmetric: whether the zero point has to be the middle of the type.
        axis: the axis that the channels lie along.

    Raises:
        UsageError: a bound is not finite, or a minimum is above its maximum.
    """
    low, high = np.asarray(minimum, np.float64), np.asarray(maximum, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UsageError(f"a range is not finite: {minimum} to {maximum}")
    if (low > high).any():
        raise UsageError(f"a range ends before it begins: {minimum} to {maximum}")
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    lowest, highest = limits(dtype)
    if symmetric:
        middle = (lowest + highest + 1) // 2
        scale = _scale(np.maximum(-low, high), highest - middle)
        zero_point = np.full(scale.shape, middle)
    else:
        scale = _scale(high - low, highest - lowest)
        zero_point = np.clip(lowest - np.rint(low / scale), lowest, highest)
    return Parameters(dtype, scale, zero_point.astype(np.int64).astype(dtype.numpy()), axis)


def _scale(width: np.ndarray, steps: int) -> np.ndarray:
    """The scale width / steps, 1 where the width is 0, within what float32 can multiply."""
    scale = np.where(width > 0, np.maximum(width / steps, SMALLEST_SCALE), 1.0)
    return np.minimum(scale, float(np.finfo(np.float32).max)).astype(np.float32)


def parameters_of_weight(
    array: np.ndarray,
    dtype: ir.DataType,
    *,
    symmetric: bool = True,
    axis: int | None = None,
) -> Parameters:
    """The parameters that cover all numbers of a constant, each channel's own along `axis`.

    Raises:
        UsageError: a number is not finite.
    """
    numbers = np.asarray(array, np.float32)
    over = None if axis is None else tuple(i for i in range(numbers.ndim) if i != axis % array.ndim)
    low, high = numbers.min(axis=over, initial=0.0), numbers.max(axis=over, initial=0.0)
    return parameters_of_range(low, high, dtype, symmetric=symmetric, axis=axis)
