"""How far predicted latencies are from measured ones, over models that the fit never saw.

    python tools/bench_latency_model.py [--device NAME|FILE.json ...] [--rounds 9] [--group zoo ...]
        [--keep FILE] [--no-measuring] [--json] [--write]

Without --device the machine is calibrated first; of several profiles the first is judged case by
case, the others by their shares alone. The cases are the zoo and the exports of
tools/export_models.py, in floats and as int8 (made by ONNX Runtime's static quantizer), with one
thread and with all cores. Rounds are interleaved over all cases, and what they measured is kept in
a file, so that rounds of several runs add up. What counts is the mean of their medians: a virtual
machine's cores may be two for a second and one for the next, which the median of few rounds takes
for the one or the other. `--write` puts the table into the section of docs/benchmarks.md between
the marks.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import numpy as np  # noqa: E402
from latency_cases import Case, export_cases, quantized, zoo_cases  # noqa: E402

from tools.marked_page import write_between  # noqa: E402

EXPORTS = ROOT / "build" / "exports"
WORK = ROOT / "build" / "latency"
BEGIN = "<!-- latency: made by tools/bench_latency_model.py -->"
END = "<!-- end of latency -->"
_ROUND_SECONDS = 0.25


@dataclass
class Taken:
    """What one case took with one number of threads, round by round.

    Attributes:
        seconds: the median of each round.
        nodes: seconds of each executed node, by the profiler, of the first round.
    """

    seconds: list[float] = field(default_factory=list)
    nodes: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        """Seconds."""
        return statistics.mean(self.seconds)

    @property
    def spread(self) -> float:
        """The standard deviation of the rounds, relative to their mean."""
        return statistics.stdev(self.seconds) / self.mean if len(self.seconds) > 1 else 0.0


@dataclass(frozen=True)
class Result:
    """Prediction and measurement of one case with one number of threads."""

    label: str
    group: str
    precision: str
    threads: int
    measured: float
    spread: float
    predicted: float
    low: float
    high: float
    spearman: float
    worst: str
    by_kind: dict[str, tuple[float, float, float]]

    @property
    def error(self) -> float:
        """Signed, relative to the measurement."""
        return self.predicted / self.measured - 1


def cases(groups: list[str]) -> list[Case]:
    """The cases of the groups, each in floats and, where it can be quantized, as int8."""
    found: list[Case] = []
    if "zoo" in groups:
        found += zoo_cases()
    if "unseen" in groups:
        found += export_cases(EXPORTS, unseen=True)
    if "development" in groups:
        found += export_cases(EXPORTS, unseen=False)
    return [c for case in found for c in (case, quantized(case, WORK)) if c is not None]


def measure_round(
    every: list[Case], machine: Any, threads: list[int], kept: dict[str, Taken]
) -> None:
    """Measure each case once with each number of threads; the first time its nodes as well."""
    from graphopt.cost.latency import measure
    from graphopt.graph import load
    from graphopt.runtime.profiling import run_times

    for case in every:
        model = load(case.path)
        for count in threads:
            taken = kept.setdefault(f"{case.label}|{count}", Taken())
            if not taken.nodes:
                found = measure(case.path, profile=machine, threads=count, feed=case.feed)
                taken.nodes = [node.seconds for node in found.by_node]
            times = run_times(model, case.feed, count, 3, seconds=_ROUND_SECONDS)
            taken.seconds.append(statistics.median(times))


def weighted_spearman(first: Any, second: Any, weights: Any) -> float:
    """The correlation of the ranks of two samples, each pair weighted."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        return (ends - (counts - 1) / 2)[where]

    a, b, w = ranks(np.asarray(first)), ranks(np.asarray(second)), np.asarray(weights)
    a, b = a - np.average(a, weights=w), b - np.average(b, weights=w)
    scale = np.sqrt(np.average(a * a, weights=w) * np.average(b * b, weights=w))
    return float(np.average(a * b, weights=w) / scale) if scale else 1.0


def judge(
    every: list[Case], machine: Any, threads: list[int], kept: dict[str, Taken]
) -> list[Result]:
    """Predict every case that was measured."""
    from graphopt.cost.latency import predict

    results = []
    for case in every:
        shapes = {name: np.shape(value) for name, value in case.feed.items()}
        for count in threads:
            taken = kept.get(f"{case.label}|{count}")
            if taken is None:
                continue
            latency = predict(case.path, machine, threads=count, input_shapes=shapes)
            predicted = [node.seconds for node in latency.by_node]
            same = len(predicted) == len(taken.nodes)
            nodes = taken.nodes if same else predicted
            # By kernel class: predicted, measured, and by how much nodes are off, in seconds.
            by_kind: dict[str, tuple[float, float, float]] = {}
            for node, seconds in zip(latency.by_node, nodes, strict=True):
                a, b, off = by_kind.get(node.kind, (0.0, 0.0, 0.0))
                by_kind[node.kind] = (
                    a + node.seconds,
                    b + seconds,
                    off + abs(node.seconds - seconds),
                )
            differs = {kind: a - b for kind, (a, b, _) in by_kind.items()}
            worst = max(differs, key=lambda kind: abs(differs[kind]))
            results.append(
                Result(
                    case.label,
                    case.group,
                    case.precision,
                    count,
                    taken.mean,
                    taken.spread,
                    latency.seconds,
                    latency.low,
                    latency.high,
                    weighted_spearman(predicted, nodes, nodes) if same else float("nan"),
                    f"{worst} {1e3 * differs[worst]:+.2f} ms",
                    by_kind,
                )
            )
    return results


def summary(results: list[Result]) -> dict[str, Any]:
    """Shares of cases within 5, 10 and 20 %, and what else there is to say of them all."""
    errors = np.array([result.error for result in results])
    inside = [r.low <= r.measured <= r.high for r in results]
    return {
        "cases": len(results),
        "within 5%": float(np.mean(np.abs(errors) <= 0.05)),
        "within 10%": float(np.mean(np.abs(errors) <= 0.10)),
        "within 20%": float(np.mean(np.abs(errors) <= 0.20)),
        "median error": float(np.median(errors)),
        "inside the interval": float(np.mean(inside)),
        "spearman": float(np.nanmedian([r.spearman for r in results])),
        "spread of the measurement": float(np.median([r.spread for r in results])),
    }


def by_kind(results: list[Result], most: int = 20) -> list[tuple[str, float, float, float]]:
    """Kernel classes: share of time, bias, and mean error, every case counting the same."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for result in results:
        for kind, seconds in result.by_kind.items():
            sums[kind] += np.array(seconds) / result.measured
    ordered = sorted(sums.items(), key=lambda item: -float(item[1][2]))
    return [
        (kind, float(b) / len(results), float(a / b - 1), float(off / b))
        for kind, (a, b, off) in ordered[:most]
        if b > 0
    ]


def as_markdown(results: list[Result], machine: Any, others: list[list[Result]]) -> str:
    """The summaries by group, the worst kernel classes, and the table of cases, the worst first."""
    from graphopt.cost.latency import INTERVAL

    parts: list[tuple[str, list[Result]]] = [("all", results)]
    for precision in ("fp32", "int8"):
        for count in sorted({r.threads for r in results}):
            some = [r for r in results if r.precision == precision and r.threads == count]
            if some:
                parts.append((f"{precision}, {count} threads", some))
    heads = list(summary(results))
    lines = [
        (
            f"Machine: {machine.processor}, {machine.cores} cores, ONNX Runtime {machine.runtime}. "
            f"Intervals are meant to hold {100 * INTERVAL:.0f} % of the cases."
        ),
        "",
        "| | " + " | ".join(heads) + " |",
        "|---" * (len(heads) + 1) + "|",
    ]
    parts += [
        (f"only {group}", [r for r in results if r.group == group])
        for group in sorted({r.group for r in results})
    ]
    parts += [(f"all, calibration {2 + index}", other) for index, other in enumerate(others)]
    for title, some in parts:
        values = summary(some).items()
        cells = [f"{v:.2f}" if k == "spearman" else f"{v:.0%}" for k, v in values if k != "cases"]
        lines.append(f"| {title} | {len(some)} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Kernel classes, those first that add most to the errors (every case counts the same):",
        "",
        "| class | share of the time | bias | error of a node |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {share:.1%} | {bias:+.0%} | {off:.0%} |"
        for kind, share, bias, off in by_kind(results)
    ]
    lines += [
        "",
        (
            "| model | threads | measured, ms | rounds differ by | predicted, ms | interval "
            "| error | farthest off in |"
        ),
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in sorted(results, key=lambda result: -abs(result.error)):
        lines.append(
            f"| {r.label} | {r.threads} | {1e3 * r.measured:.3f} | {r.spread:.0%} "
            f"| {1e3 * r.predicted:.3f} | {1e3 * r.low:.3f} to {1e3 * r.high:.3f} "
            f"| {r.error:+.0%} | {r.worst} |"
        )
    return "\n".join(lines) + "\n"


def _machines(names: list[str]) -> list[Any]:
    from graphopt.cost.latency import calibrate, load_profile

    if names:
        return [load_profile(name) for name in names]
    print("calibrating", file=sys.stderr, flush=True)
    machine = calibrate(name="benchmark")
    machine.save(WORK / "machine.json")
    return [machine]


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge the latency model.")
    parser.add_argument("--device", nargs="+", default=[], help="machine profiles")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--group", nargs="+", default=["zoo", "unseen"])
    parser.add_argument("--keep", type=Path, default=WORK / "measured.json")
    parser.add_argument("--no-measuring", action="store_true", help="use what was kept")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    machine, *further = _machines(arguments.device)
    threads = sorted(machine.threads)
    every = cases(arguments.group)
    if not every:
        print("there are no models: run tools/export_models.py", file=sys.stderr)
        return 2
    kept: dict[str, Taken] = {}
    if arguments.keep.is_file():
        stored = json.loads(arguments.keep.read_text())
        kept = {label: Taken(**taken) for label, taken in stored.items()}
    for _ in range(0 if arguments.no_measuring else arguments.rounds):
        measure_round(every, machine, threads, kept)
        print("measured a round", file=sys.stderr, flush=True)
        data = {label: asdict(taken) for label, taken in kept.items()}
        arguments.keep.write_text(json.dumps(data))
    results = judge(every, machine, threads, kept)
    others = [judge(every, other, threads, kept) for other in further]
    if arguments.json:
        rows = [{**asdict(result), "error": result.error} for result in results]
        print(json.dumps({"summary": summary(results), "cases": rows}, indent=1))
    else:
        print(as_markdown(results, machine, others))
    if arguments.write:
        write_between(BEGIN, END, as_markdown(results, machine, others))
    return 0


if __name__ == "__main__":
    sys.exit(main())
