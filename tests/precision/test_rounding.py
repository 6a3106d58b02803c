"""round_rows: half numbers that change a layer's output least."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.precision.formats import BFLOAT16, FLOAT16, HalfFormat
from graphopt.precision.rounding import round_rows
from graphopt.runtime.compensation import output_error


def rows_and_moment(columns: int, mean: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [1, 16, d], the moment of inputs that are alike, and inputs it has not seen."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((4, columns))
    seen, unseen = (
        random.standard_normal((400, 4)) @ mixing + random.standard_normal((400, columns)) + mean
        for _ in range(2)
    )
    weight = random.standard_normal((1, 16, columns))
    return weight, (seen.T @ seen / 400)[None], unseen


@pytest.mark.parametrize("half", [FLOAT16, BFLOAT16])
@pytest.mark.parametrize(("columns", "mean"), [(9, 1.0), (100, 1.0), (100, 0.0)])
def test_outputs_change_less_than_by_nearest_rounding(
    half: HalfFormat, columns: int, mean: float
) -> None:
    weight, moment, unseen = rows_and_moment(columns, mean)
    chosen = round_rows(weight, moment, half)
    nearest = half.rounded(weight.astype(np.float32)).astype(np.float64)
    np.testing.assert_array_equal(half.rounded(chosen), chosen)
    lost, less = (np.square(unseen @ (made - weight)[0].T).sum() for made in (nearest, chosen))
    assert less < 0.5 * lost
    assert (output_error(chosen - weight, moment) <= output_error(nearest - weight, moment)).all()


def test_weights_make_up_for_a_bias_that_loses_its_digits() -> None:
    # The last column is of ones: 100 is held to 1/32, the weights are a thousand times finer.
    weight, moment, _ = rows_and_moment(10, 1.0)
    weight[:, :, -1] = 100 + np.linspace(0, 1, 16)
    weight[:, :, :-1] *= 0.1
    moment[:, -1, -1] = 1
    moment[:, -1, :-1] = moment[:, :-1, -1] = 1
    nearest = FLOAT16.rounded(weight)
    error = output_error(round_rows(weight, moment, FLOAT16) - weight, moment)
    assert error.sum() < 0.2 * output_error(nearest - weight, moment).sum()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_without_evidence_rounding_is_to_nearest(value: float) -> None:
    weight, moment, _ = rows_and_moment(12, 0.0)
    made = round_rows(weight, np.full_like(moment, value), FLOAT16)
    np.testing.assert_array_equal(made, FLOAT16.rounded(weight))


def test_what_leaves_the_range_is_not_spread_over_the_rest() -> None:
    weight, moment, _ = rows_and_moment(4, 0.0)
    weight[0, 0, 0] = 1e6
    made = round_rows(weight, moment, FLOAT16)
    assert np.isinf(made[0, 0, 0])
    np.testing.assert_array_equal(made[0, 0, 1:], FLOAT16.rounded(weight[0, 0, 1:]))
