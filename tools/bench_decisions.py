"""What choosing among variants of a model by predicted latency costs over measuring them all.

    python tools/bench_decisions.py [--device NAME|FILE.json] [--model NAME ...] [--rounds 3]
        [--keep FILE] [--no-measuring] [--json] [--write]

    regret = measured time of the variant with the least predicted time / least measured time - 1

The variants: the model as it is, -O2, -O3, int8 wherever the rules allow it, and pruned by 25, 50
and 75 % of its channels. Two choices are judged: among all, and among those that keep all channels.
Variants are kept in build/decisions and made only where they are not there yet. Rounds are
interleaved over the variants of a model, and what they measured is kept in a file. Without --device
the machine is calibrated first. `--write` puts the table between the marks of docs/benchmarks.md.
"""

import argparse
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
from latency_cases import Case, zoo_cases  # noqa: E402

WORK = ROOT / "build" / "decisions"
PAGE = ROOT / "docs" / "benchmarks.md"
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
        best: the variant with the least measured time.
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


def measure_rounds(
    case: Case, paths: dict[str, Path], rounds: int, threads: int, seconds: float = 0.3
) -> dict[str, float]:
    """The median seconds of each variant, over rounds that take the variants in turn."""
    from graphopt.cost.latency import measure

    taken: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            found = measure(path, threads=threads, feed=case.feed, seconds=seconds)
            taken[name].append(found.seconds)
    return {name: statistics.median(some) for name, some in taken.items()}


def decide(
    model: str, threads: int, predicted: dict[str, float], measured: dict[str, float]
) -> list[Decision]:
    """Choose among all variants, and among those that keep all channels."""
    decisions = []
    for among in ("all", "all channels kept"):
        names = [n for n in measured if among == "all" or not n.startswith("pruned")]
        chosen = min(names, key=predicted.__getitem__)
        best = min(names, key=measured.__getitem__)
        regret = measured[chosen] / measured[best] - 1
        speedup = measured["as it is"] / measured[chosen]
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


def write_section(text: str) -> None:
    """Put the text between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


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
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=WORK / "measured.json")
    parser.add_argument("--no-measuring", action="store_true", help="use what was kept")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
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
        shapes = {name: np.shape(value) for name, value in case.feed.items()}
        for threads in sorted(machine.threads):
            label = f"{case.name}|{threads}"
            if not arguments.no_measuring:
                kept[label] = measure_rounds(case, paths, arguments.rounds, threads)
                arguments.keep.write_text(json.dumps(kept))
            if label not in kept:
                continue
            measured = {name: kept[label][name] for name in paths if name in kept[label]}
            predicted = {
                name: predict(paths[name], machine, threads=threads, input_shapes=shapes).seconds
                for name in measured
            }
            decisions += decide(case.name, threads, predicted, measured)
    if not decisions:
        print("nothing was measured: is the zoo there?", file=sys.stderr)
        return 2
    text = as_markdown(decisions, machine)
    print(json.dumps([asdict(d) for d in decisions], indent=1) if arguments.json else text)
    if arguments.write:
        write_section(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
