"""int8 by graphopt and by others: speed and accuracy of the same models in one table.

    python tools/bench_quantize.py make     [--only NAME ...] [--tools NAME ...] [--rivals PYTHON]
    python tools/bench_quantize.py judge    [--only NAME ...] [--tools NAME ...]
    python tools/bench_quantize.py time     [--only NAME ...] [--rounds 5]
    python tools/bench_quantize.py table    [--json FILE] [--write]

`make` quantizes every model with every tool from the same calibration samples, and keeps the
files; `--rivals` is the Python of an environment that has NNCF and onnxsim. `judge` measures the
task on samples that calibration did not see (of the exports, which have random weights, the SQNR
of the outputs). `time` runs all variants of a model in turns, with one thread and with two; of the
rounds the median counts. `table` puts it together.
The models are the zoo and exports of tools/export_models.py in build/exports.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import numpy as np  # noqa: E402
from latency_cases import export_cases, zoo_cases  # noqa: E402

from tests.conftest import ZOO  # noqa: E402 - the line above finds it
from tests.zoo_models import loader  # noqa: E402 - the same
from tools.marked_page import write_between  # noqa: E402

EXPORTS = ROOT / "build" / "exports"
WORK = ROOT / "build" / "quantize"
BEGIN = "<!-- quantize: made by tools/bench_quantize.py -->"
END = "<!-- end of quantize -->"
CALIBRATION, JUDGED = 64, 5000
CIFAR = ("cifar_resnet20", "cifar_resnet56", "mlperf_resnet8")
NAMES = ("resnet50", "mobilenet_v2", "convnext_tiny", "vit_small", "bert_encoder")
Feed = dict[str, Any]

Maker = Callable[["Case", list[Feed], Path], str]
"""Quantizes a case with feeds, into a file; says what it did."""


@dataclass(frozen=True)
class Case:
    """One model, and its data.

    Attributes:
        name: the model's name.
        path: its file.
        feed: what it is timed on.
        zoo: whether it is a trained model of the zoo.
    """

    name: str
    path: Path
    feed: Feed
    zoo: bool

    def file(self, tool: str) -> Path:
        """Where the variant of one tool is."""
        return self.path if tool == "float" else WORK / f"{self.name}.{tool}.onnx"

    def batches(self, calibration: bool) -> Iterator[tuple[Feed, Any]]:
        """What calibrates, or what judges: disjoint.

        Of CIFAR-10 training images calibrate and all test images judge; of grey photos pieces
        of Set68 and all of Set12. Of other data every fourth batch calibrates, the others judge;
        exports have random inputs.
        """
        if self.zoo and self.name in CIFAR:
            module = loader(ZOO)
            if calibration:
                path = module.P
                module.P = lambda *parts: str(path(*parts)).replace("_test.npz", "_train10k.npz")
            yield from module.batches(self.name, 1000 if calibration else None)
            return
        if self.name == "dncnn_s25":
            gray = loader(ZOO).gray
            for feed, clean in gray("noisy", 25, "Set68", 24) if calibration else gray("noisy", 25):
                cut = slice(64, 192) if calibration else slice(None)
                yield {"noisy": feed["noisy"][:, :, cut, cut]}, clean
            return
        if self.zoo:
            every = loader(ZOO).batches(self.name, None)
            for index, pair in enumerate(every):
                if (index % 4 == 0) == calibration:
                    yield pair
            return
        random = np.random.default_rng(1 if calibration else 2)
        for _ in range(8 if calibration else 4):
            yield {name: _like(x, random) for name, x in self.feed.items()}, None

    def calibration_feeds(self) -> list[Feed]:
        """The samples to calibrate with, each of batch size 1 where the batch is free."""
        found: list[Feed] = []
        for feed, _ in self.batches(calibration=True):
            cast = {k: np.asarray(v).astype(self.feed[k].dtype) for k, v in feed.items()
                    if k in self.feed}  # fmt: skip
            count = max(len(x) if x.ndim else 1 for x in cast.values())
            whole = all(np.shape(self.feed[k])[:1] == np.shape(v)[:1] for k, v in cast.items())
            if whole or count == 1:
                found.append(cast)
            else:
                found += [{k: v[i : i + 1] for k, v in cast.items()} for i in range(count)]
            if len(found) >= CALIBRATION:
                break
        return found[:CALIBRATION]


def _like(x: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if np.issubdtype(x.dtype, np.integer):
        return x if x.max() <= 1 else random.integers(0, 500, x.shape).astype(x.dtype)
    return random.standard_normal(x.shape).astype(x.dtype)


def cases(only: list[str]) -> list[Case]:
    """The zoo and the exports, in this order."""
    exports = {
        case.name: case
        for unseen in (True, False)
        for case in export_cases(EXPORTS, unseen)
        if case.name in NAMES
    }
    found = [Case(c.name, c.path, c.feed, True) for c in zoo_cases()]
    found += [Case(n, exports[n].path, exports[n].feed, False) for n in NAMES if n in exports]
    return [case for case in found if not only or case.name in only]


def ours(case: Case, feeds: list[Feed], target: Path) -> str:
    """What graphopt quantize makes with its defaults."""
    from graphopt.pipeline import quantize

    report = quantize(case.path, calibration=feeds, output=target, overwrite=True).report
    left = sum(group.precision == "float" for group in report.groups)
    return f"{report.kind}, {left} of {len(report.groups)} groups in float"


def ort_static(activation: str, weight: str, **extra: Any) -> Maker:
    """ONNX Runtime's quantize_static with some of its settings, after quant_pre_process."""

    def make(case: Case, feeds: list[Feed], target: Path) -> str:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

        class Reader(CalibrationDataReader):
            def __init__(self) -> None:
                self._feeds = iter(feeds)

            def get_next(self) -> Feed | None:
                return next(self._feeds, None)

        with tempfile.TemporaryDirectory() as folder:
            source = _pre_processed(case, Path(folder))
            quantize_static(
                source, str(target), Reader(), activation_type=QuantType.from_string(activation),
                weight_type=QuantType.from_string(weight), per_channel=True, **extra,
            )  # fmt: skip
        return ""

    return make


def ort_dynamic(case: Case, feeds: list[Feed], target: Path) -> str:
    """ONNX Runtime's quantize_dynamic, without Conv: of that its documentation advises against."""
    del feeds
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        source = _pre_processed(case, Path(folder))
        quantize_dynamic(
            source, str(target), weight_type=QuantType.QInt8, per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm", "Gather", "Attention", "LSTM"],
        )  # fmt: skip
    return ""


def _pre_processed(case: Case, folder: Path) -> str:
    """The model after quant_pre_process, or where that fails after a rise to opset 13."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(case.path)
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    source = folder / "source.onnx"
    if version < 13:
        model = onnx.version_converter.convert_version(model, 13)
    onnx.save(model, source)
    target = folder / "processed.onnx"
    for skip in (False, True):
        try:
            quant_pre_process(str(source), str(target), skip_symbolic_shape=skip)
            return str(target)
        except Exception as error:
            print(f"{case.name}: quant_pre_process: {str(error)[:90]}", file=sys.stderr)
    return str(source)


def rival(name: str) -> Maker:
    """A tool that runs in an environment of its own."""

    def make(case: Case, feeds: list[Feed], target: Path) -> str:
        with tempfile.TemporaryDirectory() as folder:
            for index, feed in enumerate(feeds):
                np.savez(Path(folder) / f"{index:04}.npz", **feed)
            script = str(ROOT / "tools" / "quantize_rivals.py")
            command = [RIVALS, script, name, str(case.path), str(target), folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RuntimeError(lines[-1][:150])
        return ""

    return make


RIVALS = ""
TOOLS: dict[str, Maker] = {
    "graphopt": ours,
    "ort-s8s8": ort_static("QInt8", "QInt8"),
    "ort-u8s8": ort_static("QUInt8", "QInt8"),
    "ort-u8s8-reduced": ort_static("QUInt8", "QInt8", reduce_range=True),
    "ort-u8u8": ort_static("QUInt8", "QUInt8"),
    "ort-dynamic": ort_dynamic,
    "nncf": rival("nncf"),
    "onnxsim-static": rival("onnxsim-static"),
    "onnxsim-dynamic": rival("onnxsim-dynamic"),
}
FAMILIES = {
    "ours": ("graphopt",),
    "ORT static": ("ort-s8s8", "ort-u8s8", "ort-u8s8-reduced", "ort-u8u8"),
    "ORT dynamic": ("ort-dynamic",),
    "NNCF": ("nncf",),
    "onnxsim": ("onnxsim-static", "onnxsim-dynamic"),
}


def make(chosen: list[Case], tools: list[str], again: bool) -> None:
    """Quantize, where that was not done yet; what failed is kept as the reason."""
    WORK.mkdir(parents=True, exist_ok=True)
    for case in chosen:
        feeds = case.calibration_feeds()
        for tool in tools:
            target, note = case.file(tool), WORK / f"{case.name}.{tool}.json"
            if note.is_file() and not again:
                continue
            if tool in ("nncf", "onnxsim-static", "onnxsim-dynamic") and not RIVALS:
                print(f"{tool} is skipped: --rivals names no Python that has it", file=sys.stderr)
                continue
            target.unlink(missing_ok=True)
            start = time.perf_counter()
            try:
                said, failure = TOOLS[tool](case, feeds, target), ""
            except Exception as error:
                said, failure = "", f"{type(error).__name__}: {str(error)[:150]}"
            taken = {"seconds": time.perf_counter() - start, "said": said, "failure": failure}
            note.write_text(json.dumps(taken))
            print(f"{case.name} {tool}: {failure or 'made'} ({taken['seconds']:.0f} s)", flush=True)


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def judge(chosen: list[Case], tools: list[str]) -> None:
    """The task's measure, and the SQNR of the outputs, on what calibration did not see."""
    for case in chosen:
        wanted = [t for t in ("float", *tools) if case.file(t).is_file()]
        reference = _outputs(_session(case.file("float"), 0), case)
        for tool in wanted:
            found: dict[str, Any] = {"metric": "-", "value": None}
            try:
                session = _session(case.file(tool), 0)
                answers = _outputs(session, case)
                found["sqnr"] = _sqnr(reference, answers)
                if found["sqnr"] is None:
                    found |= {"metric": "agreement", "value": _agreement(reference, answers)}
                task = _task(case, session) if case.zoo else {}
                if task.get("value") is not None:
                    found |= task
            except Exception as error:
                found["failure"] = str(error)[:150]
            (WORK / f"{case.name}.{tool}.judged.json").write_text(json.dumps(found))
            print(case.name, tool, found, flush=True)


def _task(case: Case, session: Any) -> dict[str, Any]:
    """The zoo's own measure, over the held-out batches."""
    module = loader(ZOO)

    def held_out(name: str, count: int | None = None) -> Iterator[tuple[Feed, Any]]:
        del name, count
        seen = 0
        for feed, labels in case.batches(calibration=False):
            yield feed, labels
            seen += len(labels) if isinstance(labels, list | np.ndarray) else 1
            if seen >= JUDGED:
                return

    module.batches = held_out
    found: dict[str, Any] = module.evaluate(case.name, session)
    return found


def _outputs(session: Any, case: Case) -> list[list[np.ndarray]]:
    answers = []
    for index, (feed, _) in enumerate(case.batches(calibration=False)):
        if index == 6:
            break
        cast = {k: np.asarray(v).astype(case.feed[k].dtype) for k, v in feed.items()
                if k in case.feed}  # fmt: skip
        answers.append([np.asarray(x) for x in session.run(None, cast)])
    return answers


def _sqnr(reference: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> float | None:
    """Of the worst float output, in dB."""
    figures = []
    for index, output in enumerate(reference[0]):
        if output.dtype.kind != "f":
            continue
        signal = sum(float((a[index].astype(np.float64) ** 2).sum()) for a in reference)
        noise = sum(
            float(((a[index].astype(np.float64) - b[index]) ** 2).sum())
            for a, b in zip(reference, found, strict=True)
        )
        if signal:
            figures.append(10 * np.log10(signal / max(noise, 1e-12 * signal)))
    return float(min(figures)) if figures else None


def _agreement(reference: list[list[np.ndarray]], found: list[list[np.ndarray]]) -> float:
    """The share of the elements of all outputs that are the same."""
    same = [
        (a == b).ravel()
        for expected, actual in zip(reference, found, strict=True)
        for a, b in zip(expected, actual, strict=True)
    ]
    return float(np.concatenate(same).mean())


def take_times(chosen: list[Case], rounds: int, budget: float) -> None:
    """All variants in turns; kept as seconds by tool, threads and round."""
    from graphopt.graph import load
    from graphopt.quantization.stopwatch import RunningStopwatch
    from graphopt.runtime.profiling import run_times

    for case in chosen:
        tools = [t for t in ("float", *TOOLS) if case.file(t).is_file()]
        if _times_of(case) is not None:
            continue  # so that an interrupted run goes on
        target = WORK / f"{case.name}.times.json"
        models = {}
        for tool in tools:
            try:
                model = load(case.file(tool))
                run_times(model, case.feed, 1, 1)
                models[tool] = model
            except Exception as error:
                print(f"{case.name} {tool}: does not run: {str(error)[:100]}", file=sys.stderr)
        # All run all rounds: what is slow is in the table too.
        watch = RunningStopwatch(models["float"], case.feed, seconds=budget, lost=math.inf)
        races = {str(threads): watch.race(models, threads, rounds) for threads in (1, 2)}
        taken = {
            tool: {threads: race.seconds[tool] for threads, race in races.items()}
            for tool in models
        }
        target.write_text(json.dumps(taken))
        shown = {t: round(_typical(v["1"]) * 1e3, 3) for t, v in taken.items()}
        print(case.name, shown, flush=True)


def _times_of(case: Case) -> dict[str, dict[str, list[float]]] | None:
    """What was measured of a case; None if a variant has been made again since."""
    file = WORK / f"{case.name}.times.json"
    made = [case.file(tool) for tool in TOOLS if case.file(tool).is_file()]
    if not file.is_file() or any(one.stat().st_mtime > file.stat().st_mtime for one in made):
        return None
    found: dict[str, dict[str, list[float]]] = json.loads(file.read_text())
    return found


def _typical(rounds: Sequence[float]) -> float:
    return float(np.median(rounds))


@dataclass(frozen=True)
class Row:
    """One family of tools on one model: its fastest setting."""

    tool: str
    ratios: dict[str, float]
    value: float | None
    sqnr: float | None


def rows(case: Case) -> dict[str, Row]:
    """Family -> its fastest setting, by the geometric mean over the numbers of threads.

    Of those that lose more than 1% of the task's measure none is taken where there is another.
    """
    taken = _times_of(case) or {}
    found: dict[str, Row] = {}
    for family, tools in FAMILIES.items():
        best = [_row(case, tool, taken) for tool in tools if tool in taken]
        best = [row for row in best if _keeps_measure(case, row)] or best
        if best:
            found[family] = min(best, key=lambda row: row.ratios["1"] * row.ratios["2"])
    return found


def _keeps_measure(case: Case, row: Row) -> bool:
    judged = _judged(case, "float")
    base = judged.get("value")
    if base is None or row.value is None:
        return base is None
    return row.value <= 1.01 * base if judged["metric"] == "ppl" else row.value >= 0.99 * base


def _row(case: Case, tool: str, taken: dict[str, dict[str, list[float]]]) -> Row:
    from graphopt.quantization.stopwatch import Race

    ratios = {
        threads: Race(int(threads), {tool: taken[tool][threads], "float": base}).ratio(
            tool, "float"
        )
        for threads, base in taken["float"].items()
    }
    judged = _judged(case, tool)
    return Row(tool, ratios, judged.get("value"), judged.get("sqnr"))


def _judged(case: Case, tool: str) -> dict[str, Any]:
    path = WORK / f"{case.name}.{tool}.judged.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def table(chosen: list[Case]) -> tuple[str, dict[str, Any]]:
    """The table, and the same as JSON."""
    head = ["model", "float, ms (1 / 2 threads)", "measure", "float", *FAMILIES]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    whole: dict[str, Any] = {}
    for case in chosen:
        taken = _times_of(case)
        if taken is None:
            continue
        base = {k: _typical(v) for k, v in taken["float"].items()}
        judged = _judged(case, "float")
        found = rows(case)
        metric = judged.get("metric", "-")
        metric = "SQNR, dB" if metric in ("-", "none") else metric
        cells = [case.name, f"{base['1'] * 1e3:.2f} / {base['2'] * 1e3:.2f}", metric]
        cells.append("" if metric == "SQNR, dB" else f"{judged['value']:.4g}")
        for family in FAMILIES:
            row = found.get(family)
            cells.append("fails" if row is None else _cell(row, metric))
        lines.append("| " + " | ".join(cells) + " |")
        whole[case.name] = {
            "float": {"seconds": base, **judged},
            **{family: vars(row) for family, row in found.items()},
        }
    return "\n".join(lines), whole


def _cell(row: Row, metric: str) -> str:
    speed = " / ".join(f"{1 / row.ratios[threads]:.2f}x" for threads in ("1", "2"))
    figure = row.sqnr if metric == "SQNR, dB" else row.value
    shown = "?" if figure is None else f"{figure:.1f}" if metric == "SQNR, dB" else f"{figure:.4g}"
    return f"{speed}, {shown}" + (f" ({row.tool})" if row.tool.startswith("o") else "")


def main() -> int:
    global RIVALS
    parser = argparse.ArgumentParser(description="int8: speed and accuracy beside other tools.")
    parser.add_argument("stage", choices=("make", "judge", "time", "table"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these models only")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--rivals", default="", metavar="PYTHON", help="has NNCF and onnxsim")
    parser.add_argument("--again", action="store_true", help="make what is there already, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a variant in a round")
    parser.add_argument("--json", type=Path, help="also write the table's figures there")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    RIVALS = arguments.rivals
    chosen = cases(arguments.only)
    if arguments.stage == "make":
        make(chosen, arguments.tools, arguments.again)
    elif arguments.stage == "judge":
        judge(chosen, arguments.tools)
    elif arguments.stage == "time":
        take_times(chosen, arguments.rounds, arguments.seconds)
    else:
        text, whole = table(chosen)
        print(text)
        if arguments.json:
            arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
        if arguments.write:
            write_between(BEGIN, END, f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
