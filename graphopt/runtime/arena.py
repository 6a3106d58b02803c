"""Reads what ONNX Runtime's CPU arena held while a model ran.

Since its profiles tell so (1.31 does), they have for each node what the arena has handed out
after the node, and the most it ever has. Weights lie in the arena too: they are what is there
before the first node runs, and are taken off. The inputs of a run are not in it.

In later runs of a session ONNX Runtime takes one block for all tensors, packed as the first run
was seen to use them. That block is as large as the packing is good, not as the liveness is.
"""

import dataclasses
import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphopt.errors import RuntimeUnavailableError
from graphopt.graph import ir
from graphopt.runtime.executed import name_nodes
from graphopt.runtime.ort_errors import runtime_reason
from graphopt.runtime.session import (
    Feed,
    import_onnxruntime,
    make_session,
    proto_of,
    provider_names,
)
from graphopt.runtime.weights import share_weights

_RUNS = 3
_QUIET = 4
_KERNEL = "_kernel_time"


@dataclass(frozen=True, slots=True)
class ArenaPeak:
    """What the arena held, weights not counted.

    Attributes:
        peak_bytes: the most that it had handed out at once in the first run, padding and scratch
            space of kernels included; None where making the session took more, which hides it.
        requested_bytes: the most that was asked for at the end of any node of the first run:
            tensors, without padding and scratch space.
        later_peak_bytes: the most that it had handed out in three runs; None as above.
        weight_bytes: the bytes of weights in it.
        timeline: for each node that ran, in order, its name and the bytes asked for at its end, in
            the first run; the nodes of a body come before the node that holds it.
    """

    peak_bytes: int | None
    requested_bytes: int
    later_peak_bytes: int | None
    weight_bytes: int
    timeline: tuple[tuple[str, int], ...]


def arena_peak(model: ir.Model, feed: Feed, *, threads: int = 1) -> ArenaPeak:
    """Run a model in a session of its own, and read what its arena held.

    Args:
        model: the model; not changed. It runs as its users run it, optimized.
        feed: its inputs.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.

    Raises:
        RuntimeUnavailableError: the model does not run, or the arena cannot be read; one line
            says why.
    """
    found = _read(_profiled(model, feed, threads, packing=True))
    if found.peak_bytes is not None:
        return found
    # Packing the weights may have taken more than the run. Kernels take unpacked ones as well.
    unpacked = _read(_profiled(model, feed, threads, packing=False))
    return dataclasses.replace(
        found, peak_bytes=unpacked.peak_bytes, later_peak_bytes=unpacked.later_peak_bytes
    )


def _read(events: Iterable[dict[str, Any]]) -> ArenaPeak:
    runs = _runs(events)
    if not runs or not runs[0]:
        raise RuntimeUnavailableError("the arena cannot be read: no kernel ran")
    first, start = runs[0], runs[0][0]
    if "mem_in_use_peak" not in start:
        raise RuntimeUnavailableError(
            "the arena cannot be read: this version of ONNX Runtime does not profile memory "
            "(1.31 does: pip install -U onnxruntime)"
        )
    weights = int(start["mem_bytes_in_use"]) - int(start["mem_in_use_delta"])
    asked = int(start["mem_bytes_requested_in_use"]) - int(start["mem_requested_in_use_delta"])
    held = [int(node["mem_bytes_requested_in_use"]) - asked for node in first]
    peak = int(first[-1]["mem_in_use_peak"])
    # The peak is since the session was made, which may take more than a run does.
    of_run = peak > int(start["mem_in_use_peak"]) or peak == max(
        int(node["mem_bytes_in_use"]) for node in first
    )
    return ArenaPeak(
        peak_bytes=peak - weights if of_run else None,
        requested_bytes=max(held),
        later_peak_bytes=int(runs[-1][-1]["mem_in_use_peak"]) - weights if of_run else None,
        weight_bytes=weights,
        timeline=tuple((node["node"], size) for node, size in zip(first, held, strict=True)),
    )


def _profiled(model: ir.Model, feed: Feed, threads: int, *, packing: bool) -> list[dict[str, Any]]:
    """What the profiler writes of some runs in a new session."""
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    if not packing:
        options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        with share_weights(model, in_place=False) as weights:
            weights.lend(runtime, options)
            proto = proto_of(weights, ())
            name_nodes(proto)
            session = make_session(runtime, proto, options, provider_names(runtime, "cpu"))
        try:
            for _ in range(_RUNS):
                session.run(None, feed)
        except Exception as error:
            reason = runtime_reason(error)
            raise RuntimeUnavailableError(f"cannot run the model: {reason}") from error
        finally:
            path = Path(session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return events


def _runs(events: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """What the profile says of each node, run by run; the node's name is its "node"."""
    runs: list[list[dict[str, Any]]] = [[]]
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL):
            runs[-1].append({**event["args"], "node": event["name"].removesuffix(_KERNEL)})
        elif event["name"] == "model_run":
            runs.append([])
    return runs[:-1]
