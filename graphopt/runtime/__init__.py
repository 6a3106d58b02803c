"""Runs models: sessions, inputs, comparison, timing, calibration. Only here is ONNX Runtime used.

Importing this package does not import onnxruntime; making a `Session` does. The names below are
imported when they are first used: constant folding needs no more than `evaluate`.
"""

from typing import TYPE_CHECKING

from graphopt.lazy import lazy_names
from graphopt.runtime.evaluate import evaluate
from graphopt.runtime.session import Feed, Session, has_provider

if TYPE_CHECKING:
    from graphopt.runtime.collection import collect
    from graphopt.runtime.compare import OutputDifference, compare_outputs
    from graphopt.runtime.data import FeedReader, read_feeds
    from graphopt.runtime.histogram import Histogram
    from graphopt.runtime.inputs import runnable_feeds, seeded_feeds, usual_feed
    from graphopt.runtime.moments import MomentRequest, Patches, SecondMoment
    from graphopt.runtime.statistics import (
        ChannelStatistics,
        TensorStatistics,
        load_statistics,
        save_statistics,
    )
    from graphopt.runtime.tapping import tapped_pairs
    from graphopt.runtime.timing import (
        speedup,
        speedups,
        time_interleaved,
        turns_apart,
        turns_interleaved,
    )

__all__ = [
    "ChannelStatistics",
    "Feed",
    "FeedReader",
    "Histogram",
    "MomentRequest",
    "OutputDifference",
    "Patches",
    "SecondMoment",
    "Session",
    "TensorStatistics",
    "collect",
    "compare_outputs",
    "evaluate",
    "has_provider",
    "load_statistics",
    "read_feeds",
    "runnable_feeds",
    "save_statistics",
    "seeded_feeds",
    "speedup",
    "speedups",
    "tapped_pairs",
    "time_interleaved",
    "turns_apart",
    "turns_interleaved",
    "usual_feed",
]

_LATER = {
    "ChannelStatistics": "statistics",
    "FeedReader": "data",
    "Histogram": "histogram",
    "MomentRequest": "moments",
    "OutputDifference": "compare",
    "Patches": "moments",
    "SecondMoment": "moments",
    "TensorStatistics": "statistics",
    "collect": "collection",
    "compare_outputs": "compare",
    "load_statistics": "statistics",
    "read_feeds": "data",
    "runnable_feeds": "inputs",
    "save_statistics": "statistics",
    "seeded_feeds": "inputs",
    "speedup": "timing",
    "speedups": "timing",
    "tapped_pairs": "tapping",
    "time_interleaved": "timing",
    "turns_apart": "timing",
    "turns_interleaved": "timing",
    "usual_feed": "inputs",
}
"""Where the names live."""


__getattr__ = lazy_names(__name__, _LATER)
