"""Evaluating models without inputs, and timing sessions side by side."""

import itertools
import os
import time
import weakref

import ml_dtypes
import numpy as np
import pytest

from graphopt.errors import InvalidModelError
from graphopt.graph import from_text, ir
from graphopt.runtime import Session, evaluate, speedup, speedups, time_interleaved, turns_apart


def constants(body, outputs="y"):
    return from_text(f'<ir_version: 10, opset_import: ["" : 21]> g () => ({outputs}) {{ {body} }}')


@pytest.mark.parametrize(
    ("number", "dtype"),
    [(1, np.float32), (10, np.float16), (16, ml_dtypes.bfloat16), (17, ml_dtypes.float8_e4m3fn),
     (11, np.float64), (7, np.int64), (2, np.uint8), (9, np.bool_), (22, ml_dtypes.int4)],
)  # fmt: skip
def test_the_type_of_a_result_is_kept(number, dtype):
    body = f"c = Constant<value_floats = [1.0, 0.0, 3.0]>() y = Cast<to = {number}>(c)"
    tensor = evaluate(constants(body))["y"]
    assert tensor.dtype == ir.DataType(number)
    assert tensor.name == "y"
    np.testing.assert_array_equal(tensor.numpy(), np.array([1, 0, 3]).astype(dtype))


def test_strings_and_several_outputs():
    found = evaluate(
        constants(
            'y = Constant<value_strings = ["a", "é"]>() z = Constant<value_int = 3>()', "y, z"
        )
    )
    assert list(found) == ["y", "z"]
    assert found["y"].dtype == ir.DataType.STRING
    assert [text.decode() for text in found["y"].string_data()] == ["a", "é"]
    assert int(found["z"].numpy()) == 3


def test_what_is_no_tensor_is_left_out():
    body = "c = Constant<value_int = 3>() s = SequenceConstruct(c, c) y = SequenceLength(s)"
    found = evaluate(constants(body, "s, y"))
    assert list(found) == ["y"]


def test_the_same_model_gives_the_same_bits():
    model = constants("d = RandomNormal<shape = [50, 50]>() e = MatMul(d, d) y = Sin(e)")
    left, right = (evaluate(model)["y"].numpy() for _ in range(2))
    np.testing.assert_array_equal(left, right)


def test_a_model_with_inputs_is_refused():
    model = from_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N] x) => (float[N] y) { y = Abs(x) }'
    )
    with pytest.raises(InvalidModelError, match="has: x"):
        evaluate(model)


class Sleeper:
    """Stands in for a session: takes a known time, and notes when it ran."""

    ties_threads = False

    def __init__(self, name, seconds, log):
        self.name, self.seconds, self.log = name, seconds, log

    def run(self, feed):
        self.log.append(self.name)
        time.sleep(self.seconds)
        return {}


def test_sessions_are_timed_in_turn():
    log = []
    sessions = [Sleeper("a", 0.002, log), Sleeper("b", 0.006, log)]
    fast, slow = time_interleaved(sessions, {}, seconds=0.15)
    assert 0.002 <= fast < slow
    assert 0.006 <= slow < 0.05
    turns = [(name, len(list(runs))) for name, runs in itertools.groupby(log)]
    assert [name for name, _ in turns[:3]] == ["a", "b", "a"]
    # The second round goes in reverse, so that b has two turns in a row.
    assert turns[0][1] >= 2  # one that wakes it up, and one at least that counts
    assert turns[1][1] >= 4


def test_the_run_that_wakes_a_session_up_is_not_counted():
    class Waking(Sleeper):
        def run(self, feed):
            if not self.log or self.log[-1] != self.name:
                time.sleep(0.05)
            super().run(feed)

    log = []
    times = time_interleaved([Waking("a", 0.002, log), Waking("b", 0.002, log)], {}, seconds=0.1)
    assert max(times) < 0.05


def test_a_slow_model_is_timed_once_after_warming_up():
    log = []
    time_interleaved([Sleeper("a", 0.03, log)], {}, seconds=0.0)
    assert len(log) == 2
    assert time_interleaved([], {}) == []


def test_sessions_that_take_turns_are_never_alive_together():
    log, alive = [], weakref.WeakSet()

    def make(name, seconds):
        assert not alive
        session = Sleeper(name, seconds, log)
        alive.add(session)
        return session

    makers = [lambda: make("a", 0.002), lambda: make("b", 0.006)]
    fast, slow = turns_apart(makers, {}, seconds=0.15)
    assert 0.002 <= min(fast) <= max(fast) < min(slow)
    assert 0.006 <= min(slow) <= max(slow) < 0.05
    assert (len(fast), len(slow)) == (2, 1)
    turns = [(name, len(list(runs))) for name, runs in itertools.groupby(log)]
    assert [name for name, _ in turns] == ["a", "b", "a"]
    assert all(count >= 2 for _, count in turns)  # one of each turn does not count
    log.clear()
    turns_apart(makers[:1], {}, seconds=0.0)
    assert log == ["a", "a"]
    assert turns_apart([], {}) == []


class Affinity:
    """Stands in for the system's calls: which cores the calling thread may use."""

    def __init__(self, monkeypatch, cores, *, forbidden=False):
        self.cores, self.forbidden, self.calls = set(cores), forbidden, 0
        monkeypatch.setattr(os, "sched_getaffinity", self.get, raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", self.set, raising=False)

    def get(self, thread):
        self.calls += 1
        return set(self.cores)

    def set(self, thread, cores):
        if self.forbidden:
            raise OSError
        self.cores = set(cores)


@pytest.mark.parametrize(
    ("cores", "forbidden", "during"),
    [({0, 1, 2}, False, {0}), ({1, 2}, False, {1, 2}), ({0, 1}, True, {0, 1})],
    ids=["first core", "no first core", "forbidden"],
)
def test_the_caller_keeps_off_the_cores_of_threads_that_are_tied(
    monkeypatch, cores, forbidden, during
):
    """And has all of them back when the time is taken."""
    system = Affinity(monkeypatch, cores, forbidden=forbidden)
    seen = []

    class Tied(Sleeper):
        ties_threads = True

        def run(self, feed):
            seen.append(system.cores)
            return super().run(feed)

    class Failing(Tied):
        def run(self, feed):
            super().run(feed)
            raise RuntimeError

    time_interleaved([Tied("a", 0.001, [])], {}, seconds=0.0)
    assert system.cores == cores
    with pytest.raises(RuntimeError):
        time_interleaved([Failing("a", 0.001, [])], {}, seconds=0.0)
    assert system.cores == cores
    assert len(seen) >= 3
    assert all(each == during for each in seen)


def test_a_caller_of_a_single_thread_stays_where_it_is(monkeypatch):
    system = Affinity(monkeypatch, {0, 1})
    time_interleaved([Sleeper("a", 0.001, [])], {}, seconds=0.0)
    assert system.calls == 0
    body = constants("y = Constant<value_int = 3>()")
    assert Session(body).ties_threads
    assert not Session(body, threads=1).ties_threads


def test_the_speedup_is_that_of_the_rounds():
    """A slow minute hits both: the ratio of the medians would be 1."""
    assert speedup([2.0, 6.0, 2.0], [1.0, 3.0, 2.0]) == 2.0
    # A, B, A: each turn of one against each of the other.
    assert speedup([3.0, 5.0], [2.0]) == 2.0


def test_speedups_leave_out_the_tenth_at_either_end():
    before = [2.0] * 18 + [20.0, 0.2]
    assert speedups(before, [1.0] * 20) == (2.0, 2.0)
    assert speedups([2.0, 3.0], [1.0, 2.0]) == (1.5, 2.0)
    # A, B, A: each turn of one against each of the other.
    assert speedups([2.0, 3.0], [2.0]) == (1.0, 1.5)
