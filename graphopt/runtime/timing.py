"""Times sessions side by side."""

import statistics
import time
from collections.abc import Sequence

from graphopt.runtime.session import Feed, Session


def time_interleaved(
    sessions: Sequence[Session], feed: Feed, *, seconds: float = 1.0
) -> list[float]:
    """The median time of one run of each session, in seconds.

    Every round runs each session once, so that what else the machine does hits all alike, and
    every second round goes in reverse, so that none is always the one after another. The first
    round warms up and is not counted; at least one more follows, however slow the models are.

    Args:
        sessions: the sessions to time.
        feed: the inputs of every run.
        seconds: the time to spend on all of them together.
    """
    times: list[list[float]] = [[] for _ in sessions]
    if not sessions:
        return []
    end = time.perf_counter() + seconds
    for session in sessions:
        session.run(feed)
    order = list(range(len(sessions)))
    while not times[0] or time.perf_counter() < end:
        for index in order:
            start = time.perf_counter()
            sessions[index].run(feed)
            times[index].append(time.perf_counter() - start)
        order.reverse()
    return [statistics.median(samples) for samples in times]
