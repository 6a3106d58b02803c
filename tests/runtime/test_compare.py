"""Outputs compared: what counts as the same, and what is said where they are not."""

import ml_dtypes
import numpy as np
import pytest

from graphopt.runtime import compare_outputs


def difference(expected, actual, **options):
    (found,) = compare_outputs({"y": expected}, {"y": actual}, **options)
    return found


def floats(*values, dtype=np.float32):
    return np.array(values, dtype)


def test_error_is_relative_to_the_scale_of_the_output():
    found = difference(floats(1000, 0), floats(1000, 0.05))
    assert found.ok
    assert found.reason == ""
    assert found.scale == 1000
    assert found.max_abs_error == pytest.approx(0.05)
    assert found.relative_error == pytest.approx(5e-5)
    found = difference(floats(1000, 0), floats(1000, 0.15))
    assert not found.ok
    assert (found.mismatched, found.total) == (1, 2)
    assert "largest error 0.15" in found.reason
    assert "[1]" in found.reason
    assert "\n" not in found.reason


def test_tolerances_are_the_callers():
    assert not difference(floats(1), floats(1.01)).ok
    assert difference(floats(1), floats(1.01), rtol=0.02).ok
    assert difference(floats(1), floats(1.01), atol=0.02).ok
    assert difference(floats(0), floats(1e-7)).ok
    assert not difference(floats(0), floats(1e-5)).ok


def test_an_output_of_zeros_has_no_scale():
    assert difference(floats(0, 0), floats(0, 0)).relative_error == 0
    assert difference(floats(0, 0), floats(0, 1)).relative_error == np.inf


@pytest.mark.parametrize(
    ("expected", "actual", "ok"),
    [
        (np.nan, np.nan, True),
        (np.inf, np.inf, True),
        (-np.inf, -np.inf, True),
        (np.inf, -np.inf, False),
        (np.inf, np.nan, False),
        (np.nan, 1.0, False),
        (1.0, np.nan, False),
        (3e38, np.inf, False),
        (np.inf, 3e38, False),
    ],
)
def test_nan_and_infinity_stay_where_they_are(expected, actual, ok):
    found = difference(floats(expected, 1), floats(actual, 1))
    assert found.ok is ok
    assert found.mismatched == (0 if ok else 1)
    assert found.max_abs_error == 0
    if not ok:
        assert "NaN or infinite" in found.reason


def test_opposite_large_values_do_not_overflow():
    found = difference(floats(3e38), floats(-3e38))
    assert not found.ok
    assert found.max_abs_error == pytest.approx(6e38)
    assert found.relative_error == pytest.approx(2)


@pytest.mark.parametrize(
    ("dtype", "eps"),
    [
        (np.float16, 2.0**-10),
        (ml_dtypes.bfloat16, 2.0**-7),
        (ml_dtypes.float8_e4m3fn, 2.0**-3),
    ],
)
def test_rounding_of_the_type_is_no_error(dtype, eps):
    expected = np.array([1.0, 1.0], dtype)
    assert difference(expected, np.array([1.0, 1.0 + 2 * eps], dtype)).ok
    found = difference(expected, np.array([1.0, 1.0 + 6 * eps], dtype))
    assert not found.ok
    assert found.max_abs_error == pytest.approx(6 * eps)


@pytest.mark.parametrize("dtype", [np.int8, np.uint64, np.int64, ml_dtypes.int4])
def test_integers_are_exact(dtype):
    assert difference(np.array([1, 2], dtype), np.array([1, 2], dtype)).ok
    found = difference(np.array([1, 2], dtype), np.array([1, 3], dtype), rtol=1, atol=9)
    assert not found.ok
    assert (found.max_abs_error, found.scale, found.mismatched) == (1, 2, 1)
    assert "the first at [1]: expected 2, got 3" in found.reason


def test_large_integers_do_not_pass_through_floats():
    found = difference(np.array([2**63 - 1]), np.array([2**63 - 2]))
    assert not found.ok
    assert found.max_abs_error == 1
    extremes = difference(np.array([-(2**63)]), np.array([2**63 - 1]))
    assert extremes.max_abs_error == 2.0**64


def test_booleans_strings_and_complex_numbers():
    assert not difference(np.array(True), np.array(False)).ok
    texts = np.array(["a", "b"], object)
    assert difference(texts, np.array(["a", "b"])).ok
    assert "expected 'b', got 'c'" in difference(texts, np.array(["a", "c"], object)).reason
    assert difference(np.array([3 + 4j]), np.array([3 + 4.0001j])).ok
    assert not difference(np.array([3 + 4j]), np.array([3 + 4.001j])).ok


def test_shape_and_type_have_to_be_equal():
    found = difference(np.ones((2, 1), np.float32), np.ones((1, 2), np.float32))
    assert found.reason == "y: expected shape [2, 1], got [1, 2]"
    found = difference(np.ones(2, np.float32), np.ones(2))
    assert found.reason == "y: expected type float32, got float64"
    assert difference(np.ones((0, 3), np.float32), np.ones((0, 3), np.float32)).ok


def test_sequences_optionals_and_maps():
    one, two = floats(1), floats(2)
    assert difference([one, two], [one, two]).ok
    found = difference([one, two], [one, floats(3)])
    assert found.reason.startswith("y[1]: largest error 1")
    assert (found.total, found.mismatched) == (2, 1)
    assert difference([one], [one, two]).reason == "y: expected 1 elements, got 2"
    assert difference([], []).ok
    assert difference(None, None).ok
    assert difference(None, one).reason == "y: expected nothing, got a tensor"
    assert difference([{"a": 0.5, "b": 1.0}], [{"a": 0.5, "b": 1.0}]).ok
    assert "y[0]['b']" in difference([{"a": 0.5, "b": 1.0}], [{"a": 0.5, "b": 2.0}]).reason
    assert "keys" in difference({"a": 1.0}, {"b": 1.0}).reason
    assert difference({1: 1.0, 2: 2.0}, {2: 2.0, 1: 1.0}).ok


def test_outputs_that_are_missing_or_new():
    missing, new = compare_outputs({"a": floats(1)}, {"b": floats(1)})
    assert not missing.ok
    assert "'a' is missing" in missing.reason
    assert not new.ok
    assert "'b' is new" in new.reason
