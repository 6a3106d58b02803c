"""Times sessions side by side."""

import statistics
import time
from collections.abc import Callable, Sequence

from graphopt.runtime.session import Feed, Session
from graphopt.runtime.trimming import trim

_TURN_SECONDS = 0.02
"""Longer than idle threads of ONNX Runtime spin."""


def time_interleaved(
    sessions: Sequence[Session], feed: Feed, *, seconds: float = 1.0
) -> list[float]:
    """The median time of one run of each session, in seconds.

    They take turns, so that what else the machine does hits all alike, and every second round goes
    in reverse, so that none is always the one after another. The first run of a turn is not
    counted: threads of the session before still spin, waiting for work, and take its cores. At
    least one round is run, however slow the models are.

    Args:
        sessions: the sessions to time.
        feed: the inputs of every run.
        seconds: the time to spend on all of them together.
    """
    times: list[list[float]] = [[] for _ in sessions]
    if not sessions:
        return []
    end = time.perf_counter() + seconds
    order = list(range(len(sessions)))
    while not times[0] or time.perf_counter() < end:
        for index in order:
            sessions[index].run(feed)
            turn_ends = time.perf_counter() + _TURN_SECONDS
            while True:
                start = time.perf_counter()
                sessions[index].run(feed)
                now = time.perf_counter()
                times[index].append(now - start)
                if now >= turn_ends:
                    break
        order.reverse()
    return [statistics.median(samples) for samples in times]


def time_in_turns(
    makers: Sequence[Callable[[], Session]], feed: Feed, *, seconds: float = 1.0
) -> list[float]:
    """As `time_interleaved`, of sessions of which no two are alive at the same time.

    Each turn has a session of its own, so there are few and they are long: forward and back, as in
    A, B, A.

    Args:
        makers: make the sessions to time; to make them does not count.
        feed: the inputs of every run.
        seconds: the time to spend on the runs of all of them together.
    """
    times: list[list[float]] = [[] for _ in makers]
    turns = [*range(len(makers)), *reversed(range(len(makers) - 1))]
    for index in turns:
        session = makers[index]()
        session.run(feed)
        end = time.perf_counter() + seconds / len(turns)
        while True:
            start = time.perf_counter()
            session.run(feed)
            now = time.perf_counter()
            times[index].append(now - start)
            if now >= end:
                break
        del session
        trim()
    return [statistics.median(samples) for samples in times]
