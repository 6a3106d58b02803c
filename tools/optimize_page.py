"""Writes the tables of tools/bench_optimize.py into docs/benchmarks.md."""

from __future__ import annotations

import math
import statistics
from typing import Any

from tools.marked_page import write_between

BEGIN = "<!-- lossless: made by tools/bench_optimize.py -->"
END = "<!-- end of lossless -->"
COUNTED = ("graphopt", "onnxsim", "onnxslim", "onnxscript", "ORT basic")
TIMED = ("graphopt", "onnxsim", "onnxslim")

Record = dict[str, dict[str, Any]]


def write_page(record: Record) -> None:
    """Put the tables between the markers of the page."""
    write_between(BEGIN, END, _tables(record))


def _tables(record: Record) -> str:
    parts = [_summary(record), _nodes(record), _times(record)]
    return "\n".join(parts) + "\n"


def _summary(record: Record) -> str:
    lines = []
    counted = {name: found["nodes"] for name, found in record.items() if "nodes" in found}
    if counted:
        behind = [name for name, nodes in counted.items() if _is_behind(nodes)]
        lines.append(
            f"Nodes: {len(counted) - len(behind)} of {len(counted)} models at or below the best of"
            f" the others{': not ' + ', '.join(behind) if behind else ''}."
        )
    ratios = [found["time"] for found in record.values() if "time" in found]
    if ratios:
        times = [_ratio(time["seconds"]) for time in ratios]
        memory = [_ratio(time["megabytes"]) for time in ratios]
        lines.append(
            f"Time: the median of graphopt's share of the faster rival's is"
            f" {statistics.median(times):.2f}, the largest {max(times):.2f}; memory: median"
            f" {statistics.median(memory):.2f}, largest {max(memory):.2f} of the smaller rival's."
        )
    for threads in ("1", "2"):
        gains, noise = _gains(record, threads, same=False), _gains(record, threads, same=True)
        if not gains:
            continue
        mean = math.exp(statistics.fmean(map(math.log, gains + noise)))
        lines.append(
            f"Latency, {threads} thread{'s' * (threads != '1')}: geometric mean {mean:.3f}x over"
            f" {len(gains + noise)} models. {_span(gains)} where ONNX Runtime runs another graph."
            + (f" {_span(noise)} where it runs the same (=)." if noise else "")
        )
    return "\n\n".join(lines) + "\n"


def _gains(record: Record, threads: str, *, same: bool) -> list[float]:
    """How many times as fast each result is, of those that run the same graph, or of the others."""
    return [
        before / after
        for found in record.values()
        if (latency := found.get("latency")) and latency["same"] is same
        for before, after in [latency[threads]]
    ]


def _span(gains: list[float]) -> str:
    return f"From {min(gains):.2f}x to {max(gains):.2f}x on the {len(gains)}"


def _nodes(record: Record) -> str:
    lines = [
        "| model | before | " + " | ".join(COUNTED) + " | latency, 1 thread | 2 threads |",
        "|---" * (len(COUNTED) + 4) + "|",
    ]
    for name, found in record.items():
        nodes = found.get("nodes")
        if nodes is None:
            continue
        cells = [_cell(nodes.get(tool)) for tool in COUNTED]
        latency = found.get("latency", {})
        for threads in ("1", "2"):
            before, after = latency.get(threads, (0, 0))
            mark = " =" if latency.get("same") else ""
            cells.append(f"{before:.3g} ms, {before / after:.2f}x{mark}" if after else "-")
        lines.append(f"| {name} | {nodes['before']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _times(record: Record) -> str:
    lines = [
        "| model | MB | " + " | ".join(TIMED) + " | share of the faster | with the check |",
        "|---" * (len(TIMED) + 4) + "|",
    ]
    for name, found in record.items():
        time = found.get("time")
        if time is None:
            continue
        cells = [
            f"{time['seconds'][tool]:.2f} s, {time['megabytes'][tool]:.0f} MB"
            if tool in time["seconds"]
            else "fails"
            for tool in TIMED
        ]
        share = f"{_ratio(time['seconds']):.2f}"
        lines.append(
            f"| {name} | {found['megabytes']:.1f} | "
            + " | ".join([*cells, share, f"{time['checked']:.2f} s"])
            + " |"
        )
    return "\n".join(lines) + "\n"


def _is_behind(nodes: dict[str, int | None]) -> bool:
    others = [count for tool in COUNTED[1:] if (count := nodes.get(tool)) is not None]
    own = nodes["graphopt"]
    return own is None or any(count < own for count in others)


def _ratio(by_tool: dict[str, float]) -> float:
    others = [value for tool, value in by_tool.items() if tool != "graphopt"]
    return by_tool["graphopt"] / min(others) if others else float("nan")


def _cell(count: int | None) -> str:
    return "fails" if count is None else str(count)
