"""Runs models: sessions, inputs, comparison, timing, calibration. Only here is ONNX Runtime used.

Importing this package does not import onnxruntime; making a `Session` does.
"""

from graphopt.runtime.collect import collect
from graphopt.runtime.compare import OutputDifference, compare_outputs
from graphopt.runtime.data import FeedReader, read_feeds
from graphopt.runtime.evaluate import evaluate
from graphopt.runtime.histogram import Histogram
from graphopt.runtime.imported import imported
from graphopt.runtime.inputs import runnable_feeds, seeded_feeds, usual_feed
from graphopt.runtime.moments import MomentRequest, Patches, SecondMoment
from graphopt.runtime.session import Feed, Session, has_provider
from graphopt.runtime.statistics import (
    ChannelStatistics,
    TensorStatistics,
    load_statistics,
    save_statistics,
)
from graphopt.runtime.tapping import tapped_pairs
from graphopt.runtime.timing import time_interleaved

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
    "imported",
    "load_statistics",
    "read_feeds",
    "runnable_feeds",
    "save_statistics",
    "seeded_feeds",
    "tapped_pairs",
    "time_interleaved",
    "usual_feed",
]
