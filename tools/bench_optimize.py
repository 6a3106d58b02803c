"""Nodes, time, memory and latency of what graphopt makes, beside other optimizers.

    python tools/bench_optimize.py [MODEL.onnx ...] [--what nodes time latency] [--rounds 5]
                                   [--onnxscript PYTHON] [--tools NAME ...]
                                   [--results FOLDER] [--page]

By default the zoo, then every export in build/exports and its folder `architectures`. Each
command is a fresh process with warm bytecode; rounds are interleaved, so that a slow spell of
the machine hits all alike. Constants do not count as nodes. `time` runs graphopt with
`--check off`, as the others do not prove their results, and once more with its usual check.
`latency` runs original and result in ONNX Runtime with all its optimizations, turn by turn, with
one thread and with two, in several pairs of sessions, and asks whether ONNX Runtime runs the same
graph in both: what differs then is noise. What is measured is kept in
build/bench_optimize.json (`--record`), where a later run adds to it; `--page` writes the tables of
docs/benchmarks.md from there.
onnxscript runs where `--onnxscript` names a Python that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.conftest import ZOO  # noqa: E402 - the line above finds it
from tests.zoo_models import zoo_models  # noqa: E402 - the line above finds it
from tools.optimize_page import write_page  # noqa: E402 - the line above finds it
from tools.runtime_graph import run_the_same  # noqa: E402 - the line above finds it

EXPORTS = ROOT / "build" / "exports"
RECORD = ROOT / "build" / "bench_optimize.json"
TIMED = ("graphopt", "onnxsim", "onnxslim")
THREADS = (1, 2)
LONGEST_SECONDS = 300.0
# Two sessions of the same model differ by up to a tenth, for as long as they live.
SESSIONS = 5

# Linux starts a child's peak at the size of the process that forked it, so a small one does.
LAUNCHER = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""

Found = dict[str, Any]


def _script(name: str) -> str:
    """The console script beside this Python, as a user of the virtual environment runs it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is not installed beside {sys.executable}")
    return found


def _commands(source: Path, target: Path, onnxscript: str | None) -> dict[str, list[str]]:
    """Every tool's command; all but the first three only count."""
    paths = [str(source), str(target)]
    rivals = str(ROOT / "tools" / "optimize_rivals.py")
    optimize = [_script("graphopt"), "optimize", *paths, "--force"]
    commands = {
        "graphopt": [*optimize, "--check", "off"],
        "onnxsim": [_script("onnxsim"), *paths],
        "onnxslim": [_script("onnxslim"), *paths],
        "graphopt, checked": optimize,
        "ORT basic": [sys.executable, rivals, "ort-basic", *paths],
    }
    if onnxscript:
        commands["onnxscript"] = [onnxscript, rivals, "onnxscript", *paths]
    return commands


def run(command: list[str]) -> tuple[float, float]:
    """Run a command once: its wall time in seconds, and its peak resident set in MB.

    Raises:
        RuntimeError: the command failed; the message is the last line it wrote.
    """
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, "timeout", str(LONGEST_SECONDS), *command],
        env=environment,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [""]
        raise RuntimeError(f"exit {done.returncode} {lines[-1][:80]}")
    seconds, peak = map(float, done.stdout.split())
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return seconds, peak / unit


def _nodes(path: Path) -> int:
    """Nodes, those in subgraphs and functions too; a Constant is data, and does not count."""
    model = onnx.load(path, load_external_data=False)
    bodies = [model.graph.node, *(function.node for function in model.functions)]
    count = 0
    while bodies:
        for node in bodies.pop():
            count += node.op_type != "Constant"
            for attribute in node.attribute:
                bodies += [graph.node for graph in (attribute.g, *attribute.graphs)]
    return count


def measure_nodes(source: Path, onnxscript: str | None, tools: list[str]) -> Found:
    """Nodes of the model, and of what each tool makes of it; None where the tool fails."""
    found: Found = {"before": _nodes(source)}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        for name, command in _commands(source, target, onnxscript).items():
            if name == "graphopt, checked" or (tools and name not in tools):
                continue
            target.unlink(missing_ok=True)
            try:
                run(command)
                found[name] = _nodes(target)
            except (RuntimeError, OSError):
                found[name] = None
    return found


def measure_time(source: Path, rounds: int) -> Found:
    """Median seconds and largest resident set of each command, after one round that warms up."""
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(source, Path(folder) / "out.onnx", None)
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in TIMED}
        for index in range(rounds + 1):
            for name in list(samples):
                try:
                    measured = run(commands[name])
                except RuntimeError:
                    del samples[name]
                    continue
                if index:
                    samples[name].append(measured)
        checked = run(commands["graphopt, checked"])[0]
    return {
        "seconds": {n: statistics.median(s for s, _ in rows) for n, rows in samples.items()},
        "megabytes": {n: max(m for _, m in rows) for n, rows in samples.items()},
        "checked": checked,
    }


def measure_latency(source: Path, seconds: float, kept: Path | None) -> Found:
    """Milliseconds of the original and the result by number of threads; whether both are "same"."""
    from graphopt.graph import load

    with tempfile.TemporaryDirectory() as folder:
        target = (kept or Path(folder)) / f"{source.stem}.onnx"
        if not target.is_file():
            run(_commands(source, target, None)["graphopt"])
        models = [load(source), load(target)]
        found: Found = {}
        for threads in THREADS:
            rounds = []
            for number in range(SESSIONS):
                # Whoever comes second finds another machine: each is second in turn.
                step = 1 if number % 2 == 0 else -1
                rounds.append(_one_round(models[::step], threads, seconds / SESSIONS)[::step])
            if not all(rounds):
                return {}
            found[str(threads)] = [
                1000 * statistics.median(column) for column in zip(*rounds, strict=True)
            ]
        found["same"] = run_the_same(*models)
    return found


def _one_round(models: list[Any], threads: int, seconds: float) -> list[float]:
    """Seconds of a run of each model, in turns; nothing where one cannot run."""
    from graphopt.errors import RuntimeUnavailableError
    from graphopt.runtime import Session, runnable_feeds, speedup, turns_interleaved

    try:
        sessions = [Session(model, optimized=True, threads=threads) for model in models]
        feeds = runnable_feeds(models[0], sessions[0], count=1, override_defaults=False)
        if not feeds:
            return []
        before, after = turns_interleaved(sessions, feeds[0], seconds=seconds)
        return [statistics.median(before), statistics.median(before) / speedup(before, after)]
    except RuntimeUnavailableError:
        return []


def _models(given: list[Path], zoo: Path) -> list[Path]:
    if given:
        return given
    models = []
    if (zoo / "MANIFEST.json").is_file():
        models = [model.path for model in zoo_models(zoo)]
    return [*models, *sorted(EXPORTS.glob("*.onnx")), *sorted(EXPORTS.glob("*/*.onnx"))]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare graphopt with other optimizers.")
    parser.add_argument("models", nargs="*", type=Path, help="models; zoo and exports by default")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument(
        "--what", nargs="*", choices=("nodes", "time", "latency"), default=("nodes",)
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of --what time")
    parser.add_argument("--seconds", type=float, default=4.0, help="each latency takes this long")
    parser.add_argument("--onnxscript", metavar="PYTHON", help="a Python that has onnxscript")
    parser.add_argument(
        "--tools", nargs="+", default=[], metavar="NAME", help="count what these tools make only"
    )
    parser.add_argument("--record", type=Path, default=RECORD, help="where the figures are kept")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="latency takes graphopt's results from here, and puts there what is missing",
    )
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md")
    arguments = parser.parse_args()
    place: Path = arguments.record
    record: dict[str, Found] = json.loads(place.read_text()) if place.is_file() else {}
    models = _models(arguments.models, arguments.zoo)
    for path in models if arguments.what else ():
        found = record.setdefault(path.stem, {"megabytes": path.stat().st_size / 1e6})
        if "nodes" in arguments.what:
            counted = measure_nodes(path, arguments.onnxscript, arguments.tools)
            found["nodes"] = found.get("nodes", {}) | counted
        if "time" in arguments.what:
            found["time"] = measure_time(path, arguments.rounds)
        if "latency" in arguments.what:
            found["latency"] = measure_latency(path, arguments.seconds, arguments.results)
        print(path.stem, {key: found[key] for key in arguments.what}, flush=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(record, indent=1) + "\n")
    if arguments.page:
        write_page(record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
