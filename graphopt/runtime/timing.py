"""Times sessions side by side."""

import statistics
import time
from collections.abc import Sequence

from graphopt.runtime.session import Feed, Session

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
