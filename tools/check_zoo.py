"""Run `graphopt optimize` on every model of the zoo and hold it against all of the zoo's data.

    python tools/check_zoo.py [NAME ...] [--zoo DIR] [--samples N] [--check off]

Prints a markdown table: exit code, largest error relative to the output's scale, answers that
changed (paired, sample by sample), accuracy before and after, and nodes beside onnxsim's and
onnxslim's. Exit code 1 if any model misses: exit 0, error <= 1e-4, no changed answer, interface
kept, at most 10% more nodes than the smaller of the two others.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.checker

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.conftest import ZOO  # noqa: E402 - the line above finds it
from tests.generate import interface_changes  # noqa: E402 - the line above finds it
from tests.zoo_models import (  # noqa: E402 - the line above finds it
    Agreement,
    ZooModel,
    compare,
    count_nodes,
    keeps_defaults,
    rival_nodes,
    session,
    zoo_models,
)

TOLERANCE = 1e-4
NODE_MARGIN = 1.10
HEADER = (
    "| model | exit | error / scale | samples | changed answers | correct before -> after "
    "| nodes | ours | onnxsim | onnxslim | verdict |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Row:
    """One line of the table."""

    model: ZooModel
    exit_code: int
    agreement: Agreement
    nodes: int
    ours: int
    rivals: dict[str, int]
    misses: list[str]

    def __str__(self) -> str:
        found = self.agreement
        correct = "-" if found.correct is None else f"{found.correct[0]} -> {found.correct[1]}"
        changed = "-" if found.changed is None else str(found.changed)
        sim, slim = (self.rivals.get(name, "-") for name in ("onnxsim", "onnxslim"))
        return (
            f"| {self.model.name} | {self.exit_code} | {found.error:.1e} | {found.samples} "
            f"| {changed} | {correct} | {self.nodes} | {self.ours} | {sim} | {slim} "
            f"| {'; '.join(self.misses) or 'ok'} |"
        )


def examine(zoo: Path, model: ZooModel, folder: Path, samples: int | None, check: str) -> Row:
    """Optimize one model with the command line and compare the file it writes."""
    target = folder / f"{model.name}.onnx"
    command = [sys.executable, "-m", "graphopt", "optimize", str(model.path), str(target)]
    done = subprocess.run([*command, "--check", check, "-q"], capture_output=True, text=True)
    original = onnx.load(model.path)
    if done.returncode or not target.is_file():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Row(model, done.returncode, Agreement(), count_nodes(original), 0, {}, [last[:200]])
    optimized = onnx.load(target)
    misses = interface_changes(original, optimized, keep_defaults=keeps_defaults(original))[:1]
    try:
        onnx.checker.check_model(optimized, full_check=True)
    except onnx.checker.ValidationError as error:
        misses.append(f"invalid: {error}")
    found = compare(zoo, model.name, session(original), session(optimized), samples)
    misses += found.shapes[:1]
    if found.error > TOLERANCE or found.integer_differences:
        misses.append(f"wrong by {found.error:.1e}, {found.integer_differences} integers")
    if found.changed:
        misses.append(f"{found.changed} answers changed")
    rivals = rival_nodes(original)
    ours = count_nodes(optimized)
    if rivals and ours > NODE_MARGIN * min(rivals.values()):
        misses.append("too many nodes")
    return Row(model, done.returncode, found, count_nodes(original), ours, rivals, misses)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check graphopt on the zoo of trained models.")
    parser.add_argument("names", nargs="*", help="models to check; all by default")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--samples", type=int, help="samples for each model; all by default")
    parser.add_argument("--check", default="final", help="graphopt's own check (off: passes only)")
    arguments = parser.parse_args()
    if not (arguments.zoo / "MANIFEST.json").is_file():
        print(f"there is no zoo at {arguments.zoo}: give its folder with --zoo", file=sys.stderr)
        return 2
    models = zoo_models(arguments.zoo)
    unknown = set(arguments.names) - {model.name for model in models}
    if unknown:
        print(f"not in the zoo: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    print(HEADER, flush=True)
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            if not arguments.names or model.name in arguments.names:
                row = examine(
                    arguments.zoo, model, Path(folder), arguments.samples, arguments.check
                )
                missed += bool(row.misses)
                print(row, flush=True)
    print(f"\n{missed} models missed a condition" if missed else "\nevery model is ok")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
