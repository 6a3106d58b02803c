"""Convert every model to float16, and hold it against its task, its size and other converters.

    python tools/bench_fp16.py [NAME ...] [--rivals PYTHON] [--again | --missing]
    python tools/bench_fp16.py --large                                   half a gigabyte, timed
    python tools/bench_fp16.py --table | --write                         what was found so far

The models are the zoo and the exports of tools/export_models.py and tools/export_architectures.py
that are in build. What is found goes to build/fp16, one JSON for each model, and --missing goes on
where a run was stopped; --write puts the tables into docs/benchmarks.md. With --rivals, a Python
that has onnxconverter-common, onnxruntime, modelopt and onnxslim (or --converters of them), their
Casts are counted as well, and whether their results load and are right. Exit code 1 if a model
misses: it converts, loads, has no new NaN or infinity, an error of at most 1e-2 of its scale (or
its measure within 0.1 points), half the weights' bytes, the file's within 2%, where nothing is
blocked, and no more Casts than any converter whose result loads and is right on the same inputs.
Ranges, and the rounding of weights, are from an eighth of them, at least FEWEST.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from half_cases import Case, cases, count_casts, difference, measures, task_metric  # noqa: E402
from half_large import measure_large  # noqa: E402

from tests.conftest import ZOO  # noqa: E402 - the lines above find them
from tools.marked_page import write_between  # noqa: E402

WORK = ROOT / "build" / "fp16"
BEGIN = "<!-- fp16: made by tools/bench_fp16.py -->"
END = "<!-- end of fp16 -->"
TOLERANCE = 1e-2
POINTS = {"top1": 0.001, "plate": 0.001, "map50": 0.001, "psnr": 0.02, "ppl": 0.002}
"""How far a measure may move: 0.1 points of a share; 0.02 dB; 0.2% of a perplexity of 1."""
_BY_ERROR = ("ppl", "map50")
"""A perplexity is better where it is lower, and 64 photos do not tell 0.1 points of a map50."""
RIVALS = ("onnxconverter-common", "onnxruntime", "modelopt", "onnxslim")
RIVAL_SECONDS = 200
FEWEST = 4
"""Inputs that the conversion is given at least."""
EXPORT_INPUTS = 12
"""Inputs that an export's results are judged on: random, so few tell as much as many."""
FILES = 0.02


@dataclass
class Row:
    """What came of one model; pairs are with float32 inputs and outputs kept, and without."""

    name: str
    error: list[float] = field(default_factory=list)
    new_nan: list[int] = field(default_factory=list)
    measure: list[Any] | None = None
    weights: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    casts: list[int] = field(default_factory=list)
    float32: dict[str, int] = field(default_factory=dict)
    fallen_back: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""
    rivals: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def misses(self) -> list[str]:
        """What the model fails at."""
        if self.problem:
            return [self.problem]
        found = []
        if any(self.new_nan):
            found.append("NaN")
        moved, allowed = None, 0.0
        if self.measure is not None:
            allowed = POINTS[self.measure[0]]
            moved = abs(self.measure[2] - self.measure[1])
        if not max(self.error) <= TOLERANCE and (moved is None or moved > allowed):
            found.append(f"error {max(self.error):.2g}")
        # Nodes and names keep their size, and the passes before may take some of them out.
        expected = self.files[0] - self.weights[0] / 2
        if not self.float32 and self.files[1] > (1 + FILES) * expected:
            found.append(f"file {self.size:.3f}")
        for rival, variants in self.rivals.items():
            for ours, theirs in zip(self.casts, variants, strict=False):  # none: not tried
                if _is_right(theirs) and theirs["casts"] < ours:
                    found.append(f"{rival} has {theirs['casts']} Casts")
        return found

    @property
    def size(self) -> float:
        """The file's bytes as a share of the original's."""
        return self.files[1] / self.files[0]


def _is_right(found: dict[str, Any]) -> bool:
    """Whether a rival's result loads, and computes what the original does."""
    return bool(found.get("loads")) and not found["nan"] and found["error"] <= TOLERANCE


def examine(case: Case, arguments: argparse.Namespace, folder: Path) -> Row:
    """Convert one model, with float32 inputs and outputs kept and without."""
    from graphopt.errors import GraphoptError
    from graphopt.pipeline.half import HalfOptions

    row = Row(case.name)
    samples = judged_on(case, arguments.samples)
    calibration = calibrated_on(case, samples)
    for keep in (True, False):
        target = folder / f"ours.{keep}.onnx"
        options = HalfOptions(keep_io_types=keep, calibration=calibration)
        try:
            report = _converted(case, options, target, arguments.samples)
        except GraphoptError as error:
            row.problem = str(error)
            return row
        row.casts.append(count_casts(target))
        try:
            found = difference(case, target, samples)
        except Exception as error:
            row.problem = f"does not load or run: {str(error).splitlines()[0][:150]}"
            return row
        row.error.append(max(found.error, found.others if found.others > TOLERANCE else 0.0))
        row.new_nan.append(found.new_nan)
        row.seconds = report.seconds
        row.fallen_back = report.fallen_back
        row.float32 = _by_kind(report.float32)
        row.weights = [report.before.parameter_bytes, report.after.parameter_bytes]
        row.files = [case.path.stat().st_size, target.stat().st_size]
    with contextlib.redirect_stdout(io.StringIO()):
        figures = measures(case, folder / "ours.True.onnx", arguments.samples)
    row.measure = None if figures is None else list(figures)
    return row


def judged_on(case: Case, samples: int) -> int:
    """How many inputs judge a model's results."""
    return samples if case.zoo is not None else min(samples, EXPORT_INPUTS)


def calibrated_on(case: Case, samples: int) -> list[Any]:
    """An eighth of the inputs, at least FEWEST; of the zoo's, which have an order, from all over.

    The first of a recording are a second of silence.
    """
    count = max(FEWEST, samples // 8)
    feeds = [] if case.zoo is None else list(case.feeds(samples))
    return feeds[:: len(feeds) // count] if len(feeds) > count else list(case.feeds(count))


def _converted(case: Case, options: Any, target: Path, samples: int) -> Any:
    """The report; a model's own task decides, if it has one whose measure is to be high."""
    from graphopt.pipeline.half import convert_half

    if case.zoo is not None:
        metric = task_metric(case, samples)
        if metric.__name__ in POINTS and metric.__name__ not in _BY_ERROR:
            options = replace(options, metric=metric, max_drop=str(POINTS[metric.__name__]))
    return convert_half(case.path, options, output=target).report


def _by_kind(reasons: dict[str, str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in reasons.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def rival(
    python: str, name: str, case: Case, folder: Path, samples: int, keep: bool
) -> dict[str, Any]:
    """What another converter makes of a model: its Casts, and whether the result is right."""
    target = folder / f"{name}.{keep}.onnx"
    command = [python, str(ROOT / "tools" / "rivals_fp16.py"), name, str(case.path), str(target)]
    command += ["--keep-io-types"] if keep else []
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=RIVAL_SECONDS)
        found: dict[str, Any] = {"casts": count_casts(target)}
    except (subprocess.SubprocessError, OSError):
        return {}
    try:
        moved = difference(case, target, samples)
    except Exception as error:
        return found | {"loads": False, "why": str(error)[:200]}
    return found | {"loads": True, "error": moved.error, "nan": moved.new_nan}


def _rival_cell(variants: list[dict[str, Any]]) -> str:
    cells = []
    for found in variants:
        if not found:
            cells.append("fails")
        elif not found["loads"]:
            cells.append(f"({found['casts']})")
        else:
            cells.append(f"{found['casts']}{'' if _is_right(found) else '!'}")
    return " / ".join(cells)


def table(rows: list[Row]) -> str:
    """Both tables in markdown, and the large model's line."""
    lines = [
        f"| model | error / scale | measure | file | float32 | Casts | {' | '.join(RIVALS)} |",
        "|---|---:|---|---:|---:|---:|" + "---:|" * len(RIVALS),
    ]
    for row in rows:
        if row.problem:
            lines.append(f"| {row.name} | {row.problem} |" + " |" * (4 + len(RIVALS)))
            continue
        measure = "-"
        if row.measure is not None:
            measure = f"{row.measure[0]} {row.measure[1]:.4f} to {row.measure[2]:.4f}"
        cells = [_rival_cell(row.rivals.get(name, [])) for name in RIVALS]
        casts = " / ".join(map(str, row.casts))
        lines.append(
            f"| {row.name} | {max(row.error):.1e} | {measure} | {row.size:.3f} "
            f"| {sum(row.float32.values())} | {casts} | {' | '.join(cells)} |"
        )
    missed = [row for row in rows if row.misses()]
    held = len(rows) - len(missed)
    lines += ["", f"{held} of the {len(rows)} models in the table hold every bound."]
    lines += [f"* {row.name}: {'; '.join(row.misses())}" for row in missed]
    for name in RIVALS:
        all_of_it = [variant for row in rows for variant in row.rivals.get(name, [])]
        good = sum(map(_is_right, all_of_it))
        if not all_of_it:
            continue
        asked = len(all_of_it) // (2 if name == "onnxslim" else 1)
        lines.append(f"* {name}: {good} of {asked} results load and are right")
    large = WORK / "large.json"
    if large.is_file():
        lines += ["", *json.loads(large.read_text())["lines"]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rivals", metavar="PYTHON")
    parser.add_argument("--converters", nargs="+", choices=RIVALS, default=RIVALS)
    parser.add_argument("--again", action="store_true", help="rivals that were tried before, too")
    parser.add_argument("--missing", action="store_true", help="only what was not tried yet")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if arguments.large:
        found = measure_large()
        (WORK / "large.json").write_text(json.dumps(found, indent=1))
        print("\n".join(found["lines"]))
        return 0
    rows = []
    for case in cases(arguments.zoo, [ROOT / "build" / "exports", WORK / "exports"]):
        if arguments.names and case.name.removeprefix("export of ") not in arguments.names:
            continue
        kept = WORK / f"{case.name}.json"
        old = Row(**json.loads(kept.read_text())) if kept.is_file() else None
        wanted = not (arguments.table or arguments.write)
        asked = arguments.converters if arguments.rivals else ()
        if arguments.missing and old is not None and all(name in old.rivals for name in asked):
            wanted = False
        if wanted:
            with tempfile.TemporaryDirectory() as folder:
                if arguments.missing and old is not None:
                    row = old  # only its rivals are missing
                else:
                    row = examine(case, arguments, Path(folder))
                row.rivals = {} if old is None or arguments.again else old.rivals
                for name in asked:
                    if name not in row.rivals:
                        row.rivals[name] = [
                            rival(
                                arguments.rivals,
                                name,
                                case,
                                Path(folder),
                                judged_on(case, arguments.samples),
                                keep,
                            )
                            for keep in (True, False)
                        ]
            kept.write_text(json.dumps(asdict(row), indent=1))
            rest = "; ".join(row.misses()) or "ok"
            print(f"{row.name}: {row.casts} Casts, {row.error}, {row.seconds:.1f} s: {rest}",
                  flush=True)  # fmt: skip
            old = row
        if old is not None:
            rows.append(old)
    if arguments.table or arguments.write:
        print(table(rows))
    if arguments.write:
        write_between(BEGIN, END, f"{table(rows)}\n")
    return int(any(row.misses() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
