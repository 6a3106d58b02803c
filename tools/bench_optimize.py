"""Time and peak memory of whole commands: graphopt, onnxsim, onnxslim, one run after the other.

    python tools/bench_optimize.py MODEL.onnx ... [--zoo DIR] [--rounds 5] [--larger-than 5]

Each command is a fresh process with warm bytecode. Rounds are interleaved, so that a slow spell of
the machine hits all three alike; the table shows medians, the ratio to the faster rival, and the
largest resident set. graphopt runs with `--check off`, as the others do not prove their results.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.conftest import ZOO  # noqa: E402 - the line above finds it
from tests.zoo_models import zoo_models  # noqa: E402 - the line above finds it


@dataclass
class Runs:
    """What the rounds of one command on one model gave."""

    seconds: list[float] = field(default_factory=list)
    peak_megabytes: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        """Seconds; NaN where no round came through."""
        return statistics.median(self.seconds) if self.seconds else float("nan")

    def __str__(self) -> str:
        if self.failure or not self.seconds:
            return f"failed: {self.failure}"
        return f"{self.median:.2f} s, {max(self.peak_megabytes):.0f} MB"


def _script(name: str) -> str:
    """The console script beside this Python, as a user of the virtual environment runs it."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is not installed beside {sys.executable}")
    return found


def _commands(source: Path, target: Path) -> dict[str, list[str]]:
    paths = [str(source), str(target)]
    return {
        "graphopt": [_script("graphopt"), "optimize", *paths, "--check", "off", "--force"],
        "onnxsim": [_script("onnxsim"), *paths],
        "onnxslim": [_script("onnxslim"), *paths],
    }


def run(command: list[str], runs: Runs) -> None:
    """Run a command once; its wall time and peak resident set go into `runs`."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        # wait4 has reaped the process: tell Popen, or it would wait for it again.
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines() or [""]
            runs.failure = f"exit {process.returncode} {lines[-1][:80]}"
            return
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    runs.seconds.append(seconds)
    runs.peak_megabytes.append(usage.ru_maxrss / unit)


def measure(source: Path, rounds: int) -> dict[str, Runs]:
    """Every command on one model, `rounds` times in turn, after one round that warms caches."""
    results = {name: Runs() for name in ("graphopt", "onnxsim", "onnxslim")}
    with tempfile.TemporaryDirectory() as folder:
        for index in range(rounds + 1):
            for name, command in _commands(source, Path(folder) / "out.onnx").items():
                runs = results[name]
                if runs.failure:
                    continue
                run(command, runs if index else Runs())
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="Time graphopt beside onnxsim and onnxslim.")
    parser.add_argument("models", nargs="*", type=Path, help="models; the whole zoo by default")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--larger-than", type=float, default=0.0, metavar="MB")
    arguments = parser.parse_args()
    models = arguments.models
    if not models:
        if not (arguments.zoo / "MANIFEST.json").is_file():
            print(f"there is no zoo at {arguments.zoo}: name models instead", file=sys.stderr)
            return 2
        models = [model.path for model in zoo_models(arguments.zoo)]
    print("| model | MB | graphopt | onnxsim | onnxslim | graphopt / faster rival |")
    print("|---|---|---|---|---|---|", flush=True)
    for path in models:
        megabytes = path.stat().st_size / 1e6
        if megabytes < arguments.larger_than:
            continue
        results = measure(path, arguments.rounds)
        rivals = [r.median for name, r in results.items() if name != "graphopt" and r.seconds]
        ratio = results["graphopt"].median / min(rivals) if rivals else float("nan")
        cells = " | ".join(str(results[name]) for name in ("graphopt", "onnxsim", "onnxslim"))
        print(f"| {path.stem} | {megabytes:.2f} | {cells} | {ratio:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
