"""Calibration: streamed, resumed, and the same whatever happened on the way."""

import itertools

import numpy as np
import pytest

from graphopt.errors import UsageError
from graphopt.graph import from_text
from graphopt.quantization.calibration import calibrate
from graphopt.quantization.clipping import METHODS

MODEL = from_text(
    '<ir_version: 9, opset_import: ["" : 18]> g (float[N, 8] x) => (float[N, 8] z)'
    " { a = Sin(x) y = Mul(x, a) z = Relu(y) }"
)
NAMES = ["x", "a", "y", "z"]


def feeds(count=20):
    rng = np.random.default_rng(0)
    for index in range(count):
        yield {"x": (rng.standard_normal((4, 8)) * (1 + index % 3)).astype(np.float32)}


class StoppedError(Exception):
    pass


def failing_after(count):
    for index, feed in enumerate(feeds()):
        if index == count:
            raise StoppedError
        yield feed


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_calibration_goes_on(method, tmp_path):
    state = tmp_path / "state"
    options = {"method": method, "resume_file": state, "save_every": 0.0}
    whole = calibrate(MODEL, feeds(), NAMES, method=method)
    for stop in (3, 3, 11):  # the second time it does not get any further
        with pytest.raises(StoppedError):
            calibrate(MODEL, failing_after(stop), NAMES, **options)
        assert state.exists()
    told = []
    resumed = calibrate(MODEL, feeds(), NAMES, progress=told.append, **options)
    assert told[0] == 11
    assert told[-1] == resumed.samples == 20
    assert resumed == whole
    assert not state.exists()
    assert list(tmp_path.iterdir()) == []


def test_feeds_already_seen_are_not_run_again(tmp_path):
    state = tmp_path / "state"
    with pytest.raises(StoppedError):
        calibrate(MODEL, failing_after(15), NAMES, resume_file=state, save_every=0.0)
    poisoned = [
        {"x": feed["x"] * (1000 if index < 15 else 1)} for index, feed in enumerate(feeds())
    ]
    resumed = calibrate(MODEL, poisoned, NAMES, resume_file=state)
    assert resumed == calibrate(MODEL, feeds(), NAMES)


def test_the_state_of_another_calibration_is_refused(tmp_path):
    state = tmp_path / "state"
    with pytest.raises(StoppedError):
        calibrate(MODEL, failing_after(5), NAMES, resume_file=state, save_every=0.0)
    for names, method in ((NAMES[:2], "mse"), (NAMES, "minmax")):
        with pytest.raises(UsageError, match="delete it"):
            calibrate(MODEL, feeds(), names, method=method, resume_file=state)
    # What ranges are chosen by does not matter to what is collected for them.
    calibrate(MODEL, feeds(), NAMES, method="entropy", resume_file=state)


def test_ranges_are_those_of_the_data():
    ranges = calibrate(MODEL, feeds(), NAMES, method="minmax")
    x = np.stack([feed["x"] for feed in feeds()])
    assert (ranges["x"].minimum, ranges["x"].maximum) == (x.min(), x.max())
    y = x * np.sin(x)
    assert ranges["y"].minimum == pytest.approx(y.min(), rel=1e-5)
    assert ranges["z"].minimum == 0
    assert list(ranges) == NAMES
    assert (ranges.samples, ranges.method) == (20, "minmax")


def test_little_memory_gives_the_same():
    assert calibrate(MODEL, feeds(), NAMES, max_bytes=1) == calibrate(MODEL, feeds(), NAMES)


def test_a_broken_sample_is_told():
    data = list(feeds(30))
    clean = calibrate(MODEL, data, NAMES)
    assert clean.warnings == ()
    data[7] = {"x": data[7]["x"] * 1e4}
    broken = calibrate(MODEL, data, NAMES)
    assert any("far outside" in warning for warning in broken.warnings)
    assert broken["x"].maximum <= 1.1 * clean["x"].maximum
    data[7]["x"][0, 0] = np.nan
    told = calibrate(MODEL, data, NAMES).warnings
    assert any("NaN or infinite" in warning for warning in told)


def test_data_and_requests_that_are_wrong():
    with pytest.raises(UsageError, match="no sample"):
        calibrate(MODEL, [], NAMES)
    with pytest.raises(UsageError, match="no method 'best'"):
        calibrate(MODEL, feeds(), NAMES, method="best")
    with pytest.raises(UsageError, match="no value 'q'"):
        calibrate(MODEL, itertools.islice(feeds(), 1), ["q"])
