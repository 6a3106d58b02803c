"""Times a model as it is used, and each of its kernels by ONNX Runtime's profiler.

The profiler is not free: writing down what a kernel did takes microseconds, some of them inside
the kernel's own time, and it disturbs the caches. So the whole run is timed without it as well,
in a session of its own. Sessions with several threads are never alive at the same time: their
threads wait for work by spinning, and would take the cores from one another.
"""

import gc
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ir
from graphopt.runtime.cores import available_cores, first_core
from graphopt.runtime.executed import name_nodes, read_executed, write_executed
from graphopt.runtime.ort_errors import runtime_reason
from graphopt.runtime.session import (
    Feed,
    import_onnxruntime,
    make_session,
    proto_of,
    provider_names,
)
from graphopt.runtime.weights import share_weights

_QUIET = 4
_KERNEL = "_kernel_time"
_EXECUTED = "executed.onnx"


@dataclass(frozen=True, slots=True)
class Profile:
    """What was measured of one model.

    Attributes:
        seconds: the median time of a run without the profiler.
        quartiles: the first and third quartile of those times, in seconds.
        runs: how many runs these are of.
        node_seconds: for each executed node the mean of the middle half of its times, under the
            profiler, in seconds. Nodes of nested graphs are in it; their time is in that of the
            node that holds them too.
        executed: the graph that ran under the profiler (see `executed_model`). The names that
            ONNX Runtime makes up differ from one session to the next, so the names in
            `node_seconds` are the names of this graph alone.
    """

    seconds: float
    quartiles: tuple[float, float]
    runs: int
    node_seconds: dict[str, float]
    executed: ir.Model


def profile(
    model: ir.Model,
    feed: Feed,
    *,
    sized: ir.Model | None = None,
    threads: int = 0,
    provider: str = "cpu",
    seconds: float = 1.0,
    minimum_runs: int = 10,
    maximum_runs: int = 1000,
) -> Profile:
    """Run a model with and without ONNX Runtime's profiler.

    Args:
        model: the model; not changed.
        feed: the inputs of every run.
        sized: a copy of it with the shapes of this feed, where it has free dims.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        provider: "cpu", or another that this build of ONNX Runtime has.
        seconds: about how long to run, half of it with the profiler.
        minimum_runs: how often to run at least, with and without it.
        maximum_runs: how often to run at most, with and without it.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load or run the model; one line says why.
    """
    runs = (minimum_runs, maximum_runs)
    with _Runner(model, threads, provider) as runner:
        times = runner.times(feed, seconds / 2, runs)
    nodes, executed = profile_kernels(
        model,
        feed,
        sized=sized,
        threads=threads,
        provider=provider,
        seconds=seconds / 2,
        minimum_runs=minimum_runs,
        maximum_runs=maximum_runs,
    )
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return Profile(
        statistics.median(times), (quartiles[0], quartiles[2]), len(times), nodes, executed
    )


def profile_kernels(
    model: ir.Model,
    feed: Feed,
    *,
    sized: ir.Model | None = None,
    threads: int = 0,
    provider: str = "cpu",
    seconds: float = 0.5,
    minimum_runs: int = 10,
    maximum_runs: int = 1000,
) -> tuple[dict[str, float], ir.Model]:
    """The part of `profile` that is under the profiler: `node_seconds` and `executed`.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load or run the model; one line says why.
    """
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        with _Runner(model, threads, provider, Path(folder)) as runner:
            runner.times(feed, seconds, (minimum_runs, maximum_runs))
            nodes = _kernel_seconds(runner.end_profiling())
        executed = read_executed(Path(folder) / _EXECUTED, sized or model)
    return nodes, executed


def run_times(
    model: ir.Model,
    feed: Feed,
    threads: int,
    runs: int,
    provider: str = "cpu",
    *,
    seconds: float = 0.0,
) -> list[float]:
    """Seconds of each of some runs of a session of its own, after two that warm up.

    Args:
        model: the model; not changed.
        feed: the inputs of every run.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        runs: how many runs, at least.
        provider: "cpu", or another that this build of ONNX Runtime has.
        seconds: about how long to run, where that is longer.

    Raises:
        RuntimeUnavailableError: ONNX Runtime cannot load or run the model; one line says why.
    """
    with _Runner(model, threads, provider) as runner:
        return runner.times(feed, seconds, (runs, 300 if seconds else runs))


class _Runner:
    """A session of ONNX Runtime as its users make it: optimized, nothing else set."""

    def __init__(
        self, model: ir.Model, threads: int, provider: str, profile_in: Path | None = None
    ) -> None:
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = _QUIET
        # Asked for all cores by number, ONNX Runtime leaves its threads wherever the system puts
        # them, which may be on one core; by default it gives each thread a core of its own.
        options.intra_op_num_threads = 0 if threads == available_cores() else threads
        if profile_in is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_in / "profile")
            write_executed(options, profile_in / _EXECUTED)
        with share_weights(model, in_place=False) as weights:
            weights.lend(runtime, options)
            proto = proto_of(weights, ())
            name_nodes(proto)
            self._session: Any = make_session(
                runtime, proto, options, provider_names(runtime, provider)
            )
        self._weights = weights
        self._spreads = threads != 1 and options.intra_op_num_threads == 0

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *_: object) -> None:
        # The threads end with the session, and spin until then.
        self._session = None
        gc.collect(0)

    def times(self, feed: Feed, seconds: float, runs: tuple[int, int]) -> list[float]:
        """Seconds of each run after two (or, with short ones, some more) that warm up."""
        minimum, maximum = runs
        with first_core(self._spreads):
            return self._times(feed, seconds, minimum, maximum)

    def _times(self, feed: Feed, seconds: float, minimum: int, maximum: int) -> list[float]:
        try:
            begin = time.perf_counter()
            warm = 0
            while warm < 2 or (time.perf_counter() - begin < 0.2 * seconds and warm < 20):
                self._session.run(None, feed)
                warm += 1
            times: list[float] = []
            end = time.perf_counter() + 0.8 * seconds
            while len(times) < minimum or (time.perf_counter() < end and len(times) < maximum):
                start = time.perf_counter()
                self._session.run(None, feed)
                times.append(time.perf_counter() - start)
        except Exception as error:
            reason = runtime_reason(error)
            raise RuntimeUnavailableError(f"cannot run the model: {reason}") from error
        return times

    def end_profiling(self) -> list[dict[str, Any]]:
        """What the profiler wrote."""
        path = Path(self._session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return events


def _kernel_seconds(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds by node; nodes that share a name share the sum of their times, run by run."""
    runs = 0
    samples: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            samples[event["name"][: -len(_KERNEL)]].append(event["dur"])
        runs += event["name"] == "model_run"
    return {name: _typical(times) * 1e-6 for name, times in samples.items() if runs}


def _typical(times: Sequence[int]) -> float:
    """The mean of the middle half: the profiler counts whole microseconds, which a median keeps."""
    ordered = sorted(times)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)
