"""Compares the outputs of two models.

A float tensor agrees when its largest error is at most `rtol` of its scale, the largest finite
magnitude expected, or at most `atol`. A rounding step of the type itself is no error:
`rtol` is raised to `4 * eps` of the coarser type, eps being the gap from 1 to the next number
(2^-10 for float16, 2^-7 for bfloat16, 2^-3 for float8e4m3: 0.4%, 3%, 50% of the scale; nothing
changes for float32 under the default). NaN has to stand where NaN is expected, and each
infinity where it is, with its sign. Everything else is compared exactly: integers, booleans,
strings, keys, lengths, shapes and types.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_ROUNDING_STEPS = 4


@dataclass(frozen=True)
class OutputDifference:
    """How far one output is from what was expected.

    Attributes:
        name: the output's name.
        max_abs_error: largest absolute error over the elements finite on both sides.
        scale: largest finite magnitude expected.
        relative_error: `max_abs_error / scale`.
        mismatched: how many elements are beyond the tolerance.
        total: how many elements were compared.
        ok: whether the output agrees.
        reason: one line that says what disagrees; empty where it agrees.
    """

    name: str
    max_abs_error: float
    scale: float
    relative_error: float
    mismatched: int
    total: int
    ok: bool
    reason: str


def compare_outputs(
    expected: Mapping[str, Any],
    actual: Mapping[str, Any],
    *,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> list[OutputDifference]:
    """Compare each expected output with the actual one of the same name.

    Args:
        expected: name -> array, list (sequence), dict (map), or None (empty optional).
        actual: the same, of the other model; an output that nobody expects is a difference.
        rtol: largest error allowed, as a fraction of the output's scale.
        atol: error allowed whatever the scale.

    Returns:
        One entry per output, in the order of `expected`, whether it agrees or not.
    """
    differences = []
    for name, value in expected.items():
        if name in actual:
            differences.append(_compare(name, value, actual[name], rtol, atol))
        else:
            differences.append(_disagreement(name, f"output {name!r} is missing"))
    differences.extend(
        _disagreement(name, f"output {name!r} is new") for name in actual if name not in expected
    )
    return differences


def _compare(name: str, expected: Any, actual: Any, rtol: float, atol: float) -> OutputDifference:
    """Compare two values of any ONNX type."""
    kinds = _kind(expected), _kind(actual)
    if kinds[0] != kinds[1]:
        return _disagreement(name, f"{name}: expected {kinds[0]}, got {kinds[1]}")
    if expected is None:
        return OutputDifference(name, 0.0, 0.0, 0.0, 0, 0, True, "")
    if isinstance(expected, list | tuple):
        if len(expected) != len(actual):
            return _disagreement(
                name, f"{name}: expected {len(expected)} elements, got {len(actual)}"
            )
        parts = [
            _compare(f"{name}[{index}]", left, right, rtol, atol)
            for index, (left, right) in enumerate(zip(expected, actual, strict=True))
        ]
        return _combined(name, parts)
    if isinstance(expected, Mapping):
        if expected.keys() != actual.keys():
            return _disagreement(name, f"{name}: the keys of the map differ")
        parts = [
            _compare(f"{name}[{key!r}]", value, actual[key], rtol, atol)
            for key, value in expected.items()
        ]
        return _combined(name, parts)
    return _compare_arrays(name, np.asarray(expected), np.asarray(actual), rtol, atol)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple):
        return "a sequence"
    return "a map" if isinstance(value, Mapping) else "a tensor"


def _combined(name: str, parts: list[OutputDifference]) -> OutputDifference:
    """One entry for the elements of a sequence or a map; the first reason stands for all."""
    return OutputDifference(
        name,
        max((part.max_abs_error for part in parts), default=0.0),
        max((part.scale for part in parts), default=0.0),
        max((part.relative_error for part in parts), default=0.0),
        sum(part.mismatched for part in parts),
        sum(part.total for part in parts),
        all(part.ok for part in parts),
        next((part.reason for part in parts if not part.ok), ""),
    )


def _compare_arrays(
    name: str, expected: np.ndarray, actual: np.ndarray, rtol: float, atol: float
) -> OutputDifference:
    if expected.dtype != actual.dtype and not (_is_text(expected) and _is_text(actual)):
        return _disagreement(name, f"{name}: expected type {expected.dtype}, got {actual.dtype}")
    if expected.shape != actual.shape:
        return _disagreement(
            name, f"{name}: expected shape {list(expected.shape)}, got {list(actual.shape)}"
        )
    if _is_inexact(expected.dtype):
        return _compare_floats(name, expected, actual, rtol, atol)
    return _compare_exactly(name, expected, actual)


def _compare_exactly(name: str, expected: np.ndarray, actual: np.ndarray) -> OutputDifference:
    """Compare integers, booleans or strings, without passing through floats."""
    differs = np.atleast_1d(expected != actual)
    count = int(np.count_nonzero(differs))
    error = scale = 0.0
    if not _is_text(expected) and expected.size:
        # Python's integers neither overflow nor round, whatever the type.
        left = expected[...] if expected.ndim else expected.reshape(1)
        scale = float(max(abs(int(left.max())), abs(int(left.min()))))
        if count:
            pairs = zip(
                np.atleast_1d(expected)[differs][:_LISTED].tolist(),
                np.atleast_1d(actual)[differs][:_LISTED].tolist(),
                strict=True,
            )
            error = float(max(abs(int(a) - int(b)) for a, b in pairs))
    reason = ""
    if count:
        where = _first(differs, expected.shape)
        reason = (
            f"{name}: {count} of {expected.size} elements differ, the first at {where}: "
            f"expected {_at(expected, where)}, got {_at(actual, where)}"
        )
    return OutputDifference(
        name, error, scale, _ratio(error, scale), count, int(expected.size), count == 0, reason
    )


def _compare_floats(
    name: str, expected: np.ndarray, actual: np.ndarray, rtol: float, atol: float
) -> OutputDifference:
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    rtol = max(rtol, _ROUNDING_STEPS * _epsilon(expected.dtype))
    left = np.atleast_1d(expected).astype(wide)
    right = np.atleast_1d(actual).astype(wide)
    finite = np.isfinite(left) & np.isfinite(right)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    errors = np.zeros(left.shape, np.float64)
    np.abs(np.subtract(left, right, where=finite, out=np.zeros_like(left)), out=errors)
    known = np.abs(left[np.isfinite(left)])
    scale = float(known.max()) if known.size else 0.0
    error = float(errors.max()) if errors.size else 0.0
    bound = max(rtol * scale, atol)
    unlike = ~finite & ~same
    beyond = unlike | (errors > bound)
    count = int(np.count_nonzero(beyond))
    reason = ""
    if unlike.any():
        where = _first(unlike, expected.shape)
        reason = (
            f"{name}: {int(np.count_nonzero(unlike))} of {left.size} elements differ in being "
            f"NaN or infinite, the first at {where}: "
            f"expected {_at(expected, where)}, got {_at(actual, where)}"
        )
    elif count:
        where = _first(errors == error, expected.shape)
        reason = (
            f"{name}: largest error {error:.3g} is {_ratio(error, scale):.2g} of the scale "
            f"{scale:.3g} (allowed {rtol:.2g}), at {where}: "
            f"expected {_at(expected, where)}, got {_at(actual, where)}"
        )
    return OutputDifference(
        name, error, scale, _ratio(error, scale), count, int(left.size), count == 0, reason
    )


_LISTED = 1_000_000
"""Differing integers looked at for the largest error; their count is always exact."""


def _first(mask: np.ndarray, shape: tuple[int, ...]) -> list[int]:
    position = np.unravel_index(int(mask.argmax()), shape) if shape else ()
    return [int(index) for index in position]


def _at(array: np.ndarray, position: list[int]) -> Any:
    value = array[tuple(position)]
    return repr(value) if _is_text(array) else value


def _is_text(array: np.ndarray) -> bool:
    return array.dtype.kind in "OUS"


def _is_inexact(dtype: np.dtype) -> bool:
    if dtype.isbuiltin == 2:  # one of ml_dtypes, whose integers are named so
        return "int" not in dtype.name
    return dtype.kind in "fc"


def _epsilon(dtype: np.dtype) -> float:
    """The gap from 1 to the next number of a float type, its real part's for a complex one."""
    if dtype.isbuiltin != 2:
        return float(np.finfo(dtype).eps)
    import ml_dtypes

    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]


def _ratio(error: float, scale: float) -> float:
    if error == 0:
        return 0.0
    return error / scale if scale > 0 else float("inf")


def _disagreement(name: str, reason: str) -> OutputDifference:
    nothing = float("inf")
    return OutputDifference(name, nothing, 0.0, nothing, 0, 0, False, reason)
