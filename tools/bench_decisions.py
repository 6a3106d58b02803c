"""What choosing among variants of a model by predicted latency costs over measuring them all.

    python tools/bench_decisions.py [--device NAME|FILE.json] [--model NAME ...] [--rounds 6]
        [--keep FILE] [--no-measuring] [--json] [--write]

    regret = time of the variant with the least predicted time / time of the one measured least - 1

The variants: the model as it is, -O2, -O3, int8 wherever the rules allow it, and pruned by 25, 50
and 75 % of its channels. Two choices are judged: among all, and among those that keep all channels.
Variants are kept in build/decisions and made only where they are not there yet. Variants of one
graph (where a level or a pruning found nothing to do) are one model and measured as one. Rounds are
interleaved over the variants of a model, each in a session of its own, and what they measured is
kept in a file. Choosing by measurement takes the least median of every other round; the rounds
between tell the times of both choices, as the least of several noisy figures is less than any of
them takes. Without --device the machine is calibrated first. `--write` puts the table between the
marks of docs/benchmarks.md.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from latency_cases import Case, zoo_cases  # noqa: E402

from tools.marked_page import write_between  # noqa: E402

WORK = ROOT / "build" / "decisions"
BEGIN = "<!-- decisions: made by tools/bench_decisions.py -->"
END = "<!-- end of decisions -->"
_QUANTIZE = (
    *("quantize", "--calib", "seeded", "--calib-n", "4", "--no-only-if-faster", "--no-measure"),
    *("--no-spare-outsized", "--rounding", "nearest", "--no-bias-correction"),
)
"""For the graph, not for the numbers in it."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "-O2": ("optimize", "-O2"),
    "-O3": ("optimize", "-O3"),
    "int8": _QUANTIZE,
    "pruned 25%": ("prune", "--ratio", "0.25", "--no-repair", "--no-measure"),
    "pruned 50%": ("prune", "--ratio", "0.5", "--no-repair", "--no-measure"),
    "pruned 75%": ("prune", "--ratio", "0.75", "--no-repair", "--no-measure"),
}
"""The command that makes each variant; none for the model as it is."""


@dataclass(frozen=True)
class Decision:
    """What was chosen for one model with one number of threads.

    Attributes:
        chosen: the variant with the least predicted time.
        best: the variant that measurement chooses.
        regret: relative.
        speedup: of the chosen one over the model as it is.
    """

    model: str
    threads: int
    among: str
    chosen: str
    best: str
    regret: float
    speedup: float


def variants(case: Case) -> dict[str, Path]:
    """The variants of a model that can be made, by name."""
    found = {}
    for name, command in VARIANTS.items():
        if not command:
            found[name] = case.path
            continue
        stem = name.replace(" ", "-").strip("-").replace("%", "")
        path = WORK / f"{case.name}.{stem}.onnx"
        if not path.is_file():
            code = "import sys; from graphopt.cli import main; sys.exit(main())"
            call = [sys.executable, "-c", code, command[0], str(case.path), str(path)]
            done = subprocess.run(
                [*call, *command[1:], "--quiet"], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{case.name}: no {name}: {done.stderr.strip()[-160:]}", file=sys.stderr)
                continue
        found[name] = path
    return found


def same_graphs(paths: dict[str, Path]) -> dict[str, str]:
    """For each variant the first one whose graph differs in nothing that is run."""
    first: dict[bytes, str] = {}
    return {name: first.setdefault(_graph_of(path), name) for name, path in paths.items()}


def _graph_of(path: Path) -> bytes:
    proto = onnx.load(path)
    graph = proto.graph
    described = (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output)
    for part in described:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for name in ("producer_name", "producer_version"):
        proto.ClearField(name)
    for name in ("name", "value_info"):
        graph.ClearField(name)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).digest()


def measure_rounds(
    case: Case, paths: dict[str, Path], rounds: int, threads: int, seconds: float = 0.3
) -> dict[str, list[float]]:
    """The seconds of each variant in each of the rounds, which take the variants in turn."""
    from graphopt.cost.latency import measure

    taken: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            found = measure(path, threads=threads, feed=case.feed, seconds=seconds)
            taken[name].append(found.seconds)
    return taken


def decide(
    model: str,
    threads: int,
    predicted: dict[str, float],
    measured: dict[str, list[float]],
    same: dict[str, str],
) -> list[Decision]:
    """Choose among all variants, and among those that keep all channels.

    Args:
        model: its name.
        threads: the number of threads.
        predicted: the seconds of each variant.
        measured: the seconds of each variant's graph in each round.
        same: of `same_graphs`.
    """
    told = {name: statistics.median(measured[first][0::2]) for name, first in same.items()}
    taken = {name: statistics.median(measured[first][1::2]) for name, first in same.items()}
    decisions = []
    for among in ("all", "all channels kept"):
        names = [n for n in same if among == "all" or not n.startswith("pruned")]
        chosen = min(names, key=predicted.__getitem__)
        best = min(names, key=told.__getitem__)
        regret = taken[chosen] / taken[best] - 1
        speedup = taken["as it is"] / taken[chosen]
        decisions.append(Decision(model, threads, among, chosen, best, regret, speedup))
    return decisions


def as_markdown(decisions: list[Decision], machine: Any) -> str:
    """The mean regret of each choice, then every decision that cost more than 1 %."""
    lines = [
        f"Machine: {machine.processor}, {machine.cores} cores, ONNX Runtime {machine.runtime}.",
        "",
        "| among | threads | models | mean regret | largest | right choice | speedup (median) |",
        "|---|---|---|---|---|---|---|",
    ]
    for among in ("all", "all channels kept"):
        for threads in sorted({d.threads for d in decisions}):
            some = [d for d in decisions if d.among == among and d.threads == threads]
            regrets = [d.regret for d in some]
            lines.append(
                f"| {among} | {threads} | {len(some)} | {np.mean(regrets):.1%} "
                f"| {max(regrets):.0%} | {np.mean([r == 0 for r in regrets]):.0%} "
                f"| {statistics.median(d.speedup for d in some):.2f}x |"
            )
    lines += [
        "",
        "Choices that cost more than 1 %:",
        "",
        "| model | threads | among | chosen | fastest | regret |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {d.model} | {d.threads} | {d.among} | {d.chosen} | {d.best} | {d.regret:.0%} |"
        for d in sorted(decisions, key=lambda d: -d.regret)
        if d.regret > 0.01
    ]
    return "\n".join(lines) + "\n"


def _machine(name: str | None) -> Any:
    from graphopt.cost.latency import calibrate, load_profile

    if name is not None:
        return load_profile(name)
    print("calibrating", file=sys.stderr, flush=True)
    machine = calibrate(name="decisions")
    machine.save(WORK / "machine.json")
    return machine


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge choices by predicted latency.")
    parser.add_argument("--device", help="a machine profile")
    parser.add_argument("--model", nargs="+", help="only these")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--keep", type=Path, default=WORK / "measured.json")
    parser.add_argument("--no-measuring", action="store_true", help="use what was kept")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    from graphopt.cost.latency import predict

    machine = _machine(arguments.device)
    kept = json.loads(arguments.keep.read_text()) if arguments.keep.is_file() else {}
    decisions = []
    for case in zoo_cases():
        if arguments.model and case.name not in arguments.model:
            continue
        paths = variants(case)
        same = same_graphs(paths)
        shapes = {name: np.shape(value) for name, value in case.feed.items()}
        for threads in sorted(machine.threads):
            label = f"{case.name}|{threads}"
            if not arguments.no_measuring:
                once = {name: paths[name] for name in dict.fromkeys(same.values())}
                kept[label] = measure_rounds(case, once, arguments.rounds, threads)
                arguments.keep.write_text(json.dumps(kept))
            if label not in kept:
                continue
            predicted = {
                name: predict(path, machine, threads=threads, input_shapes=shapes).seconds
                for name, path in paths.items()
            }
            decisions += decide(case.name, threads, predicted, kept[label], same)
    if not decisions:
        print("nothing was measured: is the zoo there?", file=sys.stderr)
        return 2
    text = as_markdown(decisions, machine)
    print(json.dumps([asdict(d) for d in decisions], indent=1) if arguments.json else text)
    if arguments.write:
        write_between(BEGIN, END, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
