"""Times sessions side by side.

    speedup = median over rounds of (one's time / the other's in the same round)

A machine's pace changes from one second to the next by more than what is looked for. It hits both
sessions of a round alike where the round is short, so it is their ratio that is told apart best,
and better than the ratio of two medians.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median

from graphopt.runtime.cores import first_core
from graphopt.runtime.session import Feed, Session
from graphopt.runtime.trimming import trim

_TURN_SECONDS = 0.004
"""Short, so that both turns of a round see the same pace of the machine."""


def time_interleaved(
    sessions: Sequence[Session], feed: Feed, *, seconds: float = 1.0
) -> list[float]:
    """The median time of one run of each session, in seconds; see `turns_interleaved`."""
    turns = turns_interleaved(sessions, feed, seconds=seconds)
    return list(map(median, turns))


def turns_interleaved(
    sessions: Sequence[Session], feed: Feed, *, seconds: float = 1.0
) -> list[list[float]]:
    """The median time of one run in each turn of each session, in seconds.

    They take turns, so that what else the machine does hits all alike, and every second round goes
    in reverse, so that none is always the one after another. The first run of a turn is not
    counted: it fetches into the caches what the session before pushed out. At least one round is
    run, however slow the models are.

    Args:
        sessions: the sessions to time.
        feed: the inputs of every run.
        seconds: the time to spend on all of them together.
    """
    turns: list[list[float]] = [[] for _ in sessions]
    if not sessions:
        return []
    end = time.perf_counter() + seconds
    order = list(range(len(sessions)))
    while not turns[0] or time.perf_counter() < end:
        for index in order:
            turns[index].append(turn(sessions[index], feed))
        order.reverse()
    return turns


def turns_apart(
    makers: Sequence[Callable[[], Session]], feed: Feed, *, seconds: float = 1.0
) -> list[list[float]]:
    """As `turns_interleaved`, of sessions of which no two are alive at the same time.

    Each turn has a session of its own, so there are few and they are long: forward and back, as in
    A, B, A.

    Args:
        makers: make the sessions to time; to make them does not count.
        feed: the inputs of every run.
        seconds: the time to spend on the runs of all of them together.
    """
    turns: list[list[float]] = [[] for _ in makers]
    order = [*range(len(makers)), *reversed(range(len(makers) - 1))]
    for index in order:
        session = makers[index]()
        turns[index].append(turn(session, feed, seconds / len(order)))
        del session
        trim()
    return turns


def turn(session: Session, feed: Feed, seconds: float = _TURN_SECONDS) -> float:
    """The median time of one run, in seconds, of those in so many seconds but the first."""
    with first_core(session.ties_threads):
        session.run(feed)
        times = []
        end = time.perf_counter() + seconds
        while True:
            start = time.perf_counter()
            session.run(feed)
            now = time.perf_counter()
            times.append(now - start)
            if now >= end:
                return median(times)


def speedup(before: Sequence[float], after: Sequence[float]) -> float:
    """How many times as fast one session was as another: the median over the rounds.

    Args:
        before: the times of the turns of one session.
        after: those of the other.
    """
    return median(_ratios(before, after))


def speedups(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """By how much one session was faster than another from turn to turn.

    Args:
        before: the times of the turns of one session.
        after: those of the other.

    Returns:
        The tenth and the ninetieth percentile of `before / after` by rounds. What lies between
        the two says nothing.
    """
    ratios = sorted(_ratios(before, after))
    margin = len(ratios) // 10
    return ratios[margin], ratios[-1 - margin]


def _ratios(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """By round; of all pairs where one has more turns, as `turns_apart` gives."""
    paired = len(before) == len(after)
    rounds = zip(before, after, strict=True) if paired else itertools.product(before, after)
    return [one / other for one, other in rounds]
