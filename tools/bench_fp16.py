"""Convert every model of the zoo to float16, and hold it against its task and other converters.

    python tools/bench_fp16.py [NAME ...] [--zoo DIR] [--samples N] [--rivals PYTHON] [--level N]

Prints two markdown tables. The first: exit, largest error relative to the output's scale on the
zoo's data, NaN or infinity that the original lacks, the task's measure before and after, bytes
of weights and of the file, Casts, nodes in float32. With --rivals, a Python that has
onnxconverter-common, onnxruntime and modelopt, the second: Casts of each converter, with
float32 inputs and outputs kept (k) and not, or why it failed. Exit code 1 if a model misses: it
converts, loads, has no new NaN, an error of at most 1e-2 (or the measure within 0.1 points),
and no more Casts than any converter whose result loads.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.conftest import ZOO  # noqa: E402 - the line above finds it
from tests.zoo_models import ZooModel, batches, loader, session, zoo_models  # noqa: E402

TOLERANCE = 1e-2
POINTS = {"top1": 0.001, "plate": 0.001, "map50": 0.001, "psnr": 0.02, "ppl": 0.002}
"""How far a measure may move: 0.1 points of a share; 0.02 dB; 0.2% of a perplexity of 1."""
RIVALS = ("onnxconverter-common", "onnxruntime", "modelopt")


@dataclass
class Row:
    """What came of one model."""

    name: str
    error: float = float("nan")
    new_nan: int = 0
    measure: tuple[str, float | None, float | None] = ("none", None, None)
    weights: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)
    casts: dict[bool, int] = field(default_factory=dict)
    float32: int = 0
    fallen_back: int = 0
    seconds: float = 0.0
    problem: str = ""
    rivals: dict[tuple[str, bool], str] = field(default_factory=dict)

    def misses(self) -> list[str]:
        """What the model fails at."""
        found = [self.problem] if self.problem else []
        if self.new_nan:
            found.append("NaN")
        _, before, after = self.measure
        allowed = POINTS.get(self.measure[0], 0.0)
        moved = None if before is None or after is None else abs(after - before)
        if not self.error <= TOLERANCE and (moved is None or moved > allowed):
            found.append(f"error {self.error:.2g}")
        if moved is not None and moved > allowed:
            found.append(f"measure moved {moved:.2g}")
        for (rival, keep), text in self.rivals.items():
            if text.isdigit() and int(text) < self.casts.get(keep, 0):
                found.append(f"{rival} has fewer Casts")
        return found


def count_casts(path: Path) -> int:
    """Cast nodes of a file, those in subgraphs and functions included."""

    def within(nodes: Any) -> int:
        return sum(
            (node.op_type == "Cast") + sum(within(a.g.node) for a in node.attribute if a.g.node)
            for node in nodes
        )

    model = onnx.load(path, load_external_data=False)
    return within(model.graph.node) + sum(within(f.node) for f in model.functions)


def rival_casts(python: str, rival: str, source: Path, target: Path, keep: bool) -> str:
    """How many Casts another converter leaves, or why its result is none."""
    script = ROOT / "tools" / "rivals_fp16.py"
    flags = ["--keep-io-types"] if keep else []
    done = subprocess.run(
        [python, str(script), rival, str(source), str(target), *flags],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode or not target.exists():
        return "fails"
    try:
        session(target.read_bytes(), threads=1)
    except Exception:
        return f"({count_casts(target)}, does not load)"
    return str(count_casts(target))


def compare(row: Row, zoo: Path, model: ZooModel, result: Path, samples: int) -> None:
    """Run original and result on the zoo's data."""
    first, second = session(model.path.read_bytes()), session(result.read_bytes())
    kinds = {i.name: np.float16 if "float16" in i.type else None for i in second.get_inputs()}
    names = [output.name for output in first.get_outputs()]
    taken = {i.name: i.type for i in first.get_inputs()}
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    types["tensor(uint8)"] = np.uint8
    worst = 0.0
    for given, _ in batches(zoo, model.name, samples):
        feed = {
            name: np.asarray(given[name]).astype(types.get(kind, given[name].dtype))
            for name, kind in taken.items()
        }
        halved = {k: v if kinds[k] is None else v.astype(kinds[k]) for k, v in feed.items()}
        for one, two in zip(first.run(names, feed), second.run(names, halved), strict=True):
            if one.dtype.kind != "f":
                worst = max(worst, float(np.mean(one != two)))
                continue
            two = two.astype(np.float64)
            row.new_nan += int((~np.isfinite(two) & np.isfinite(one)).sum())
            scale = max(float(np.abs(one).max(initial=0.0)), 1e-12)
            worst = max(worst, float(np.abs(one - two).max(initial=0.0)) / scale)
    row.error = worst
    module = loader(zoo)
    figures = [module.evaluate(model.name, item, samples) for item in (first, second)]
    row.measure = (figures[0]["metric"], figures[0]["value"], figures[1]["value"])


def examine(model: ZooModel, arguments: argparse.Namespace, folder: Path) -> Row:
    """Convert one model both ways."""
    from graphopt.errors import GraphoptError
    from graphopt.pipeline.half import HalfOptions, convert_half

    row = Row(model.name)
    zoo = Path(arguments.zoo)
    calibration = [feed for feed, _ in batches(zoo, model.name, arguments.calibration)]
    for keep in (True, False):
        target = folder / f"{model.name}.{keep}.onnx"
        options = HalfOptions(
            keep_io_types=keep, level=arguments.level, calibration=_fitted(model, calibration)
        )
        try:
            report = convert_half(model.path, options, output=target).report
        except GraphoptError as error:
            row.problem = str(error)
            return row
        row.casts[keep] = count_casts(target)
        row.seconds = report.seconds
        row.float32, row.fallen_back = len(report.float32), len(report.fallen_back)
        row.weights = (report.before.parameter_bytes, report.after.parameter_bytes)
        row.files = (report.before.file_bytes or 0, report.after.file_bytes or 0)
        if report.runtime not in ("loads", "loads and runs"):
            row.problem = report.runtime
    with contextlib.redirect_stdout(io.StringIO()):
        compare(row, zoo, model, folder / f"{model.name}.True.onnx", arguments.samples)
    for rival in RIVALS if arguments.rivals else ():
        for keep in (True, False):
            target = folder / f"{model.name}.{rival}.{keep}.onnx"
            row.rivals[rival, keep] = rival_casts(arguments.rivals, rival, model.path, target, keep)
    return row


def _fitted(model: ZooModel, feeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {
        value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        for value in onnx.load(model.path).graph.input
    }
    return [
        {
            name: np.asarray(value).astype(kinds[name])
            for name, value in feed.items()
            if name in kinds
        }
        for feed in feeds
    ]


def report(row: Row) -> str:
    """A row of the first table."""
    metric, before, after = row.measure
    figures = "-" if before is None else f"{metric} {before:.4f} -> {after:.4f}"
    weights = row.weights[1] / row.weights[0] if row.weights[0] else float("nan")
    size = row.files[1] / row.files[0] if row.files[0] else float("nan")
    return (
        f"| {row.name} | {row.error:.1e} | {row.new_nan} | {figures} | {weights:.3f} | {size:.3f} "
        f"| {row.casts.get(True)} / {row.casts.get(False)} | {row.float32} | {row.fallen_back} "
        f"| {row.seconds:.1f} | {'; '.join(row.misses()) or 'ok'} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--zoo", default=str(ZOO))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--calibration", type=int, default=4)
    parser.add_argument("--level", type=int, default=2)
    parser.add_argument("--rivals", metavar="PYTHON")
    arguments = parser.parse_args()
    rows = []
    print(
        "| model | error / scale | new NaN | measure | weights | file | Casts k / - | float32 "
        "| fell back | s | result |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for model in zoo_models(Path(arguments.zoo)):
            if arguments.names and model.name not in arguments.names:
                continue
            rows.append(examine(model, arguments, Path(folder)))
            print(report(rows[-1]), flush=True)
    if arguments.rivals:
        print(f"\n| model | graphopt k / - | {' k / - | '.join(RIVALS)} k / - |")
        print("|---|---|---|---|---|")
        for row in rows:
            cells = [f"{row.rivals[r, True]} / {row.rivals[r, False]}" for r in RIVALS]
            ours = f"{row.casts.get(True)} / {row.casts.get(False)}"
            print(f"| {row.name} | {ours} | {' | '.join(cells)} |")
    return int(any(row.misses() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
