"""Ask `graphopt prune` for a latency, and measure what came out once more, with its task's measure.

    python tools/bench_prune_latency.py [NAME ...] [--zoo DIR] [--share 75] [--threads 1]
        [--rounds 7] [--write]

One half of a model's samples, drawn with a seed, is calibrated on, the other half is judged: top-1,
map50, perplexity, and where there are no labels how often the answer is the original's (speech or
silence in each window of a stream, the class of each pixel). The latency is measured after the
command has ended, in other sessions: the median over `--rounds` pairs of sessions of the ratio to
the original, and their range. `--write` puts the table into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import graphopt  # noqa: E402 - the line above finds it
from graphopt.errors import GraphoptError  # noqa: E402
from graphopt.graph import ir, load  # noqa: E402
from graphopt.runtime import Feed, Session, speedup, turns_interleaved  # noqa: E402
from tests.conftest import ZOO  # noqa: E402
from tests.zoo_models import loader  # noqa: E402
from tools.marked_page import write_between  # noqa: E402

WORK = ROOT / "build" / "prune_latency.json"
BEGIN = "<!-- prune latency: made by tools/bench_prune_latency.py -->"
END = "<!-- end of prune latency -->"
SEED = 0
SECONDS = 2.0
TASKS = {
    "fastestdet": ("detector", "map50"),
    "deeplabv3_mnv2_dm05_pascal_deq": ("segmentation", "same pixels"),
    "silero_vad_16k_op15": ("audio", "same windows"),
    "stories260k": ("language model", "perplexity"),
    "mnist_vit": ("transformer", "top-1"),
    "cifar_resnet20": ("classifier", "top-1"),
}
"""By model what it does, and the measure of it."""
Sample = tuple[Feed, Any]
Row = dict[str, Any]


def stream(original: ir.Model, samples: list[Sample]) -> list[Sample]:
    """The samples of a model with a state, each with the state that the original left."""
    session, state, found = Session(original), None, []
    for feed, labels in samples:
        carried = feed if state is None else {**feed, "state": state}
        found.append((carried, labels))
        state = list(session.run(carried).values())[1]
    return found


def measure(
    module: Any, name: str, original: ir.Model, model: ir.Model, samples: list[Sample]
) -> float:
    """The task's measure over the samples, or the share of answers that are the original's."""
    session, reference = Session(model, optimized=True), Session(original, optimized=True)
    kind = TASKS[name][1]
    right = total = 0.0
    predictions, truths = [], []
    for feed, labels in samples:
        outputs = list(session.run(feed).values())
        answer = outputs[0]
        if kind == "top-1":
            right += float((answer.reshape(len(labels), -1).argmax(1) == labels).sum())
            total += len(labels)
        elif kind == "perplexity":
            shares = module.softmax(answer.astype(np.float64))
            right -= float(np.log(np.take_along_axis(shares, labels[..., None], -1)).sum())
            total += labels.size
        elif kind == "map50":
            predictions.append(module.dec_fastest(outputs))
            truths.append(labels)
        else:
            wanted = next(iter(reference.run(feed).values()))
            if kind == "same windows":
                same = (answer > 0.5) == (wanted > 0.5)
            else:
                same = answer.argmax(-1) == wanted.argmax(-1)
            right += float(same.sum())
            total += same.size
    if kind == "map50":
        return float(module.map50(predictions, truths))
    return math.exp(right / total) if kind == "perplexity" else right / total


def latency(
    original: ir.Model, model: ir.Model, feed: Feed, threads: int, rounds: int
) -> list[float]:
    """The latency of the model over the original's, of each pair of sessions."""
    found = []
    for _ in range(rounds):
        sessions = [Session(each, optimized=True, threads=threads) for each in (original, model)]
        found.append(1.0 / speedup(*turns_interleaved(sessions, feed, seconds=SECONDS)))
    return found


def row(zoo: Path, name: str, share: float, threads: int, rounds: int) -> Row:
    """Prune one model, and measure what came out."""
    module = loader(zoo)
    path = zoo / "models" / f"{name}.onnx"
    original = load(path)
    types = {v.name: v.dtype.numpy() for v in original.graph.inputs if v.dtype is not None}
    samples = [
        ({key: value.astype(types[key]) for key, value in feed.items()}, labels)
        for feed, labels in itertools.islice(module.batches(name), 400)
    ]
    if name.startswith("silero"):
        samples = stream(original, samples)
    order = np.random.default_rng(SEED).permutation(len(samples))
    half = len(samples) // 2
    calibrated, judged = ([samples[i] for i in part] for part in (order[:half], order[half:]))
    started = time.perf_counter()
    made: Row = {"model": name, "share": share, "threads": threads, "measure": TASKS[name][1]}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pruned.onnx"
        try:
            report = graphopt.prune(
                path,
                output=target,
                target_latency=f"{share:g}%",
                calibration=[feed for feed, _ in calibrated],
                seed=SEED,
                threads=threads,
                progress=lambda line: print(f"  {line}", file=sys.stderr),
            ).report
        except GraphoptError as error:
            return {**made, "refused": str(error)}
        made["seconds"] = time.perf_counter() - started
        made["macs"] = report.macs[1] / report.macs[0]
        pruned = load(target)
        made["latency"] = latency(original, pruned, judged[0][0], threads, rounds)
        made["before"] = measure(module, name, original, original, judged)
        made["after"] = measure(module, name, original, pruned, judged)
    return made


def table(rows: list[Row]) -> str:
    """The rows as markdown."""
    lines = [
        "| model | task | asked | threads | measured | range | MACs | by | before | after | s |",
        "|---|---|---:|---:|---:|---|---:|---|---:|---:|---:|",
    ]
    for each in rows:
        start = f"| {each['model']} | {TASKS[each['model']][0]} | {each['share']:g}% | "
        start += f"{each['threads']} |"
        if "refused" in each:
            lines.append(f"{start} | {each['refused'].split(';')[0]} | | | | | |")
            continue
        found = each["latency"]
        lines.append(
            f"{start} {median(found):.1%} | {min(found):.0%} to {max(found):.0%} | "
            f"{each['macs']:.0%} | {each['measure']} | {each['before']:.4g} | "
            f"{each['after']:.4g} | {each['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--share", type=float, default=75.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    kept = json.loads(WORK.read_text(encoding="utf-8")) if WORK.exists() else {}
    for name in arguments.names or TASKS:
        kept[name] = row(arguments.zoo, name, arguments.share, arguments.threads, arguments.rounds)
        WORK.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(kept[name]), flush=True)
    if arguments.write:
        write_between(BEGIN, END, table([kept[name] for name in TASKS if name in kept]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
