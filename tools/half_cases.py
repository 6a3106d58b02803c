"""The models that judge half precision, and what running one beside its original shows."""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from export_architectures import ARCHITECTURES  # noqa: E402 - the line above finds them
from latency_cases import export_cases  # noqa: E402

from tests.zoo_models import batches, loader, session, zoo_models  # noqa: E402

Feed = dict[str, Any]

_NUMPY = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


@dataclass(frozen=True)
class Case:
    """One model, its inputs, and the zoo it is judged by.

    Attributes:
        name: what it is called.
        path: the float32 model.
        zoo: the zoo's folder, whose data and measure it has; None for an export.
        feed: the one input of an export; None for a model of the zoo.
    """

    name: str
    path: Path
    zoo: Path | None
    feed: Feed | None = None

    def feeds(self, count: int) -> Iterator[Feed]:
        """Inputs with the model's own types: the zoo's data, or seeded numbers.

        Those of an export are independent random numbers: after the first, the same ones in
        another order.
        """
        if self.zoo is None:
            yield self.feed or {}
            random = np.random.default_rng(1)
            for _ in range(1, count):
                yield {
                    name: random.permutation(np.ravel(array)).reshape(np.shape(array))
                    for name, array in (self.feed or {}).items()
                }
            return
        graph = onnx.load(self.path, load_external_data=False).graph
        kinds = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in graph.input
        }
        for given, _ in batches(self.zoo, self.name, count):
            yield {k: np.asarray(v).astype(kinds[k]) for k, v in given.items() if k in kinds}


def cases(zoo: Path, exports: list[Path]) -> list[Case]:
    """The zoo's models, then what tools/export_models.py and export_architectures.py made.

    Args:
        zoo: the zoo's folder.
        exports: folders with exports; those of architectures are in `architectures` below one.
    """
    found = []
    if (zoo / "MANIFEST.json").is_file():
        found = [Case(model.name, model.path, zoo) for model in zoo_models(zoo)]
    made: dict[str, Case] = {}
    for folder in exports:
        for unseen in (True, False):
            for case in export_cases(folder, unseen):
                name = f"export of {case.name}"
                made.setdefault(name, Case(name, case.path, None, case.feed))
        for case in architecture_cases(folder / "architectures"):
            made.setdefault(case.name, case)
    return found + list(made.values())


def architecture_cases(folder: Path) -> Iterator[Case]:
    """Exports of tools/export_architectures.py that are in `folder`, with a seeded batch of one."""
    for name, architecture in ARCHITECTURES.items():
        for path in sorted(folder.glob(f"{name}-*.onnx")):
            random = np.random.default_rng(0)
            shape = (1, *architecture.dims)
            feed: Any = random.standard_normal(shape).astype(np.float32)
            if architecture.integers:
                feed = random.integers(0, 500, shape)
            yield Case(f"export of {path.stem}", path, None, {"x": feed})


@dataclass
class Difference:
    """How the outputs of a converted model differ from the original's.

    Attributes:
        error: largest |difference| of a float output over that output's largest magnitude.
        others: largest share of elements of an integer output that differ.
        new_nan: elements that are NaN or infinite and were not before.
    """

    error: float = 0.0
    others: float = 0.0
    new_nan: int = 0


def difference(case: Case, result: Path, samples: int) -> Difference:
    """Run original and result side by side; inputs are rounded where the result takes half.

    Raises:
        Exception: what ONNX Runtime raises where it cannot load or run the result.
    """
    first = session(case.path.read_bytes(), threads=1)
    second = session(result.read_bytes(), threads=1)
    kinds = {item.name: _NUMPY[item.type] for item in second.get_inputs()}
    names = [output.name for output in first.get_outputs()]
    made = [output.name for output in second.get_outputs()]  # another converter may rename them
    found = Difference()
    for feed in case.feeds(samples):
        rounded = {name: feed[name].astype(kind) for name, kind in kinds.items()}
        for one, two in zip(first.run(names, feed), second.run(made, rounded), strict=True):
            if one.dtype.kind != "f":
                found.others = max(found.others, float(np.mean(one != two)))
                continue
            wide = two.astype(np.float64)
            found.new_nan += int((~np.isfinite(wide) & np.isfinite(one)).sum())
            scale = max(float(np.abs(one).max(initial=0.0)), 1e-12)
            with np.errstate(invalid="ignore"):
                error = float(np.nan_to_num(np.abs(one - wide), nan=0.0).max(initial=0.0)) / scale
            found.error = max(found.error, error)
    return found


def measures(case: Case, result: Path, samples: int) -> tuple[str, float, float] | None:
    """The task's measure of original and result on the zoo's data; None where it has none."""
    if case.zoo is None:
        return None
    module = loader(case.zoo)
    figures = [
        module.evaluate(case.name, session(path.read_bytes()), samples)
        for path in (case.path, result)
    ]
    if figures[0]["value"] is None:
        return None
    return figures[0]["metric"], figures[0]["value"], figures[1]["value"]


def task_metric(case: Case, samples: int) -> Callable[[Any], float]:
    """The measure of a zoo model's task as a function of `run`, for `HalfOptions.metric`."""
    module = loader(case.zoo or Path())
    names = [output.name for output in session(case.path.read_bytes()).get_outputs()]

    class AsSession:
        """What the zoo calls: a session whose run takes names of outputs first."""

        def __init__(self, run: Callable[[Feed], dict[str, Any]]) -> None:
            self._run = run

        def run(self, wanted: list[str] | None, feed: Feed) -> list[Any]:
            made = self._run(feed)
            return [made[name] for name in wanted or names]

        def __getattr__(self, name: str) -> Any:
            return getattr(session(case.path.read_bytes()), name)

    def measure(run: Callable[[Feed], dict[str, Any]]) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return float(module.evaluate(case.name, AsSession(run), samples)["value"])

    measure.__name__ = module.B[case.name][1]
    return measure


def count_casts(path: Path) -> int:
    """Cast nodes of a file, those in subgraphs and functions included."""

    def within(nodes: Any) -> int:
        return sum(
            (node.op_type == "Cast") + sum(within(a.g.node) for a in node.attribute if a.g.node)
            for node in nodes
        )

    model = onnx.load(path, load_external_data=False)
    return within(model.graph.node) + sum(within(function.node) for function in model.functions)
