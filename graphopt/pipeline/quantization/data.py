"""Splits the data of a calibration: what the ranges are made from, and what checks the result.

Every eighth sample is held out (of fewer the last), so that a result is never judged by the data it
was fitted to. Of one sample nothing can be.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from graphopt.errors import UsageError
from graphopt.graph import ir

if TYPE_CHECKING:
    from graphopt.runtime import Feed

HOLD_OUT = 8
"""One of so many samples checks the result, or one of all where there are fewer."""

CHECKED = 32
"""So many samples check the result, if there are as many."""

CHECKED_FOR_DROP = 512
"""So many where a drop is to be kept within bounds: of 32 answers one is 3 %."""

REPAIRED_WITH = 32
"""So many samples are enough for the second moments that weights are rounded by."""

AVERAGED_OVER = 16
"""So many samples are enough for means and for the spread of channels."""

_KEPT_BYTES = 1 << 30


class Feeds:
    """Feeds that can be read again and again; each reading streams them anew."""

    def __init__(self, start: Callable[[], Iterator[Feed]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[Feed]:
        return self._start()

    def first(self, count: int) -> Feeds:
        """Only the first `count` of them."""
        return Feeds(lambda: itertools.islice(self._start(), count))


class CalibrationData:
    """The feeds of a calibration, and those that check the result.

    Attributes:
        calibration: what ranges are made from.
        check: what the result is checked on: `test` if it is given, else what was held out, else
            (where there is one sample) the calibration data itself.
        disjoint: whether the two have no sample in common.
    """

    def __init__(
        self,
        model: ir.Model,
        source: Any,
        *,
        test: Any = None,
        count: int | None = None,
        check_count: int | None = None,
    ) -> None:
        """Open the data.

        Args:
            model: the model to be fed.
            source: the calibration data.
            test: further data to check the result on.
            count: use at most so many samples of the source.
            check_count: check on at most so many; None for `CHECKED`, or all of `test`.

        Raises:
            UsageError: the data cannot be read, or holds no sample.
        """
        feeds = _repeatable(model, source).first(count) if count else _repeatable(model, source)
        if next(iter(feeds), None) is None:
            raise UsageError("the calibration data holds no sample")
        self.disjoint = True
        if test is not None:
            self.calibration = feeds
            self.check = _repeatable(model, test)
            if check_count is not None:
                self.check = self.check.first(check_count)
            return
        every = sum(1 for _ in feeds.first(HOLD_OUT))
        if every == 1:
            self.calibration = self.check = feeds
            self.disjoint = False
            return
        self.calibration = Feeds(
            lambda: (feed for number, feed in enumerate(feeds, 1) if number % every)
        )
        self.check = Feeds(lambda: itertools.islice(feeds, every - 1, None, every)).first(
            check_count or CHECKED
        )


def _repeatable(model: ir.Model, source: Any) -> Feeds:
    from graphopt.runtime import read_feeds

    reader = read_feeds(source, model=model)
    if reader.repeatable:
        return Feeds(lambda: iter(reader))
    kept, size = [], 0
    for feed in reader:
        size += sum(getattr(value, "nbytes", 0) for value in feed.values())
        if size > _KEPT_BYTES:
            raise UsageError(
                "the calibration data is an iterator of more than 1 GB, and is needed more than "
                "once: give a function that returns it, or a file"
            )
        kept.append(feed)
    return Feeds(lambda: iter(kept))


def seeded_data(model: ir.Model, seed: int, count: int = 16) -> list[Feed]:
    """Made-up inputs that the model runs on: for speed and structure, not for accuracy.

    Raises:
        UsageError: it runs on none.
    """
    from graphopt.runtime import Session, runnable_feeds

    feeds = list(runnable_feeds(model, Session(model), count=count, seed=seed))
    if not feeds:
        raise UsageError("the model runs on none of the inputs made up for it; give --calib data")
    # What has a default keeps it: in old models every weight is such an input.
    defaults = model.graph.initializers
    return [{name: x for name, x in feed.items() if name not in defaults} for feed in feeds]
