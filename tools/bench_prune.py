"""Prune models of the zoo without fine-tuning, and hold what is left against the original.

    python tools/bench_prune.py [NAME ...] [--zoo DIR] [--methods M ...] [--speedups X ...]
                                [--samples N] [--test N] [--again] [--write]

For each model, method and reduction of the MACs one row: the task's measure, its change, how many
answers changed for the better and for the worse (paired, where there are labels), and seconds of
processor time, all steps included (what rows of a method share is counted in each). Methods:
`second-order`, `l1`, `l2`, `geometric-median`, `bn-scale` and `random` are importance measures,
allocated by what each group does to the outputs and repaired; `one-share` takes the same share of
every group by second-order importance, repaired; `l1 alone` and `l1 merged` see no data: the same
share of every group, without repair and with data-free merging. Data to calibrate on and to test on
are disjoint: the CIFAR training side and test images; photos of Set68 and Set12; elsewhere the
zoo's samples, split by a seeded shuffle.

Rows are kept in build/prune, one file each, and made anew with --again; --write puts the tables of
all that are kept into docs/benchmarks.md.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from graphopt.graph import clone, ir  # noqa: E402 - the line above finds it
from graphopt.pipeline.model_files import load_valid  # noqa: E402
from graphopt.pipeline.prune import prepared  # noqa: E402
from graphopt.pruning.allocation_choice import MEASURES, Choice, make_choice  # noqa: E402
from graphopt.pruning.coupling import find_groups  # noqa: E402
from graphopt.pruning.coupling_costs import PruningCosts, counts_of  # noqa: E402
from graphopt.pruning.groups import Groups  # noqa: E402
from graphopt.pruning.merging import merge  # noqa: E402
from graphopt.pruning.repair import repair  # noqa: E402
from graphopt.pruning.surgery import kept_indices, prune  # noqa: E402
from graphopt.pruning.uniform import uniform_kept  # noqa: E402
from graphopt.runtime import Feed, Session  # noqa: E402
from tests.conftest import ZOO  # noqa: E402
from tests.zoo_models import loader  # noqa: E402
from tools.marked_page import write_between  # noqa: E402

WORK = ROOT / "build" / "prune"
BEGIN = "<!-- prune: made by tools/bench_prune.py -->"
END = "<!-- end of prune -->"
SEED = 0
BATCH = 32
METHODS = (*MEASURES, "one-share", "l1 alone", "l1 merged")
SPEEDUPS = {
    "cifar_resnet56": (1.5, 2.0, 2.5),
    "lprnet": (1.5, 2.0, 2.5),
    "dncnn_s25": (1.5, 2.0, 2.5),
    "mobilenetv2_tv_deq": (1.2, 1.5),
    "mobilenet_v1_0.5_160_deq": (1.2, 1.5),
}
SCALES = {"top1": 100.0, "plate": 100.0, "psnr": 1.0}

UNMADE = (0.0, 0.0, 0.0, None, None, 0.0)

Kept = dict[str, np.ndarray]
Sample = tuple[Feed, Any]


@dataclass
class Row:
    """One pruning of one model; `gained` and `lost` count answers that became right and wrong."""

    model: str
    method: str
    wanted: float
    reached: float
    before: float
    measure: float
    gained: int | None
    lost: int | None
    seconds: float

    @property
    def file(self) -> Path:
        """Where the row is kept."""
        method = self.method.replace(" ", "-")
        return WORK / f"{self.model}-{self.wanted:g}-{method}.json"


def data_of(
    module: Any,
    name: str,
    samples: int,
    test: int | None,
    dtypes: dict[str, Any],
    *,
    fixed_batch: bool,
) -> tuple[list[Feed], list[Any]]:
    """Feeds to calibrate on, and pairs of feed and labels to test on."""
    random = np.random.default_rng(SEED)
    if name.startswith("cifar_resnet"):
        images = np.load(Path(module.D) / "cifar10_train10k.npz")["x"]
        chosen = images[random.permutation(len(images))[:samples]]
        scaled = (chosen.astype(np.float32) / 255 - module.IM) / module.IS
        rows = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        return batched(rows, "input"), list(module.batches(name, test))
    if name == "dncnn_s25":
        return noisy_patches(module, samples, random), list(module.gray("noisy", 25, "Set12", test))
    pairs = [
        ({key: value.astype(dtypes.get(key, value.dtype)) for key, value in feed.items()}, labels)
        for feed, labels in module.batches(name)
    ]
    order = random.permutation(len(pairs))
    calibration, tested = order[: len(order) // 2][:samples], order[len(order) // 2 :][:test]
    key = next(iter(pairs[0][0]))
    feeds = [pairs[index][0] for index in calibration]
    if not fixed_batch:
        feeds = batched(np.concatenate([feed[key] for feed in feeds]), key)
    return feeds, [pairs[index] for index in tested]


def batched(rows: np.ndarray, key: str) -> list[Feed]:
    """Feeds of a few samples each."""
    return [{key: rows[start : start + BATCH]} for start in range(0, len(rows), BATCH)]


def noisy_patches(module: Any, samples: int, random: np.random.Generator) -> list[Feed]:
    """Patches of 64 x 64 from photos, with the noise that the model removes."""
    photos = [clean[0, 0] for _, clean in module.gray("noisy", 25, "Set68")]
    patches = np.empty((min(samples, 256), 1, 64, 64), np.float32)
    for patch in patches:
        photo = photos[random.integers(len(photos))]
        top, left = (random.integers(size - 63) for size in photo.shape)
        patch[0] = photo[top : top + 64, left : left + 64]
    noise = random.normal(0, 25 / 255, patches.shape)
    return batched((patches + noise).astype(np.float32), "noisy")


def measured(
    module: Any, name: str, model: ir.Model, pairs: list[Sample]
) -> tuple[float, list[bool]]:
    """The task's measure, and whether each answer is right (where answers are right or wrong)."""
    kind = module.B[name][1]
    session = Session(model, optimized=True)
    right: list[bool] = []
    total = 0.0
    for feed, labels in pairs:
        output = next(iter(session.run(feed).values()))
        if kind == "top1":
            right += (output.reshape(len(labels), -1).argmax(1) == labels).tolist()
        elif kind == "plate":
            right += [
                module.ctc(one.argmax(0)) == label
                for one, label in zip(output, labels, strict=True)
            ]
        else:
            total += 10 * math.log10(1 / np.mean((np.clip(output, 0, 1) - labels) ** 2))
    return (float(np.mean(right)) if right else total / len(pairs)), right


class Subject:
    """A model with its groups, its data, and the choices that its rows share."""

    def __init__(self, zoo: Path, name: str, samples: int, test: int | None) -> None:
        self.module = loader(zoo)
        self.name = name
        self.original = load_valid(zoo / "models" / f"{name}.onnx")
        dtypes = {
            value.name or "": value.dtype.numpy()
            for value in self.original.graph.inputs
            if value.dtype is not None
        }
        shape = self.original.graph.inputs[0].shape
        fixed = shape is not None and isinstance(shape[0], int)
        self.feeds, self.pairs = data_of(
            self.module, name, samples, test, dtypes, fixed_batch=fixed
        )
        self.model = prepared(self.original)
        self.groups: Groups = find_groups(self.model)
        sizes = {
            dim.value: size
            for value in self.original.graph.inputs
            for dim, size in zip(
                value.shape or (), self.feeds[0][value.name or ""].shape, strict=True
            )
            if isinstance(dim, ir.SymbolicDim) and dim.value
        }
        self.costs = PruningCosts(self.model, self.groups, sizes)
        self.before, self.right = measured(self.module, name, self.original, self.pairs)
        self._choices: dict[tuple[str, bool], tuple[Choice, float]] = {}

    def choice(self, measure: str, *, data: bool) -> tuple[Choice, float]:
        """The rankings of a measure and the seconds they took."""
        key = measure, data
        if key not in self._choices:
            started = time.process_time()
            feeds = self.feeds if data else []
            found = make_choice(
                self.model, self.original, self.groups, self.costs, feeds, measure=measure
            )
            self._choices[key] = found, time.process_time() - started
        return self._choices[key]

    def row(self, method: str, speedup: float) -> Row:
        """Prune and measure."""
        data = method not in ("l1 alone", "l1 merged")
        measure = method if method in MEASURES else "second-order" if data else "l1"
        choice, shared = self.choice(measure, data=data)
        started = time.process_time()
        same_share = not data or method == "one-share"
        kept = self.kept(choice, speedup, same_share=same_share)
        pruned = clone(self.model)
        if method == "l1 merged":
            merge(pruned, self.groups, kept)
        prune(pruned, self.groups, kept)
        if data:
            repair(pruned, self.model, self.feeds, kept_indices(self.groups, kept), seed=SEED)
        seconds = shared + time.process_time() - started
        value, right = measured(self.module, self.name, pruned, self.pairs)
        scale = SCALES[self.module.B[self.name][1]]
        paired = list(zip(self.right, right, strict=True))
        return Row(
            self.name,
            method,
            speedup,
            self.costs.macs_before / self.costs.macs(counts_of(kept)),
            self.before * scale,
            value * scale,
            sum(new and not old for old, new in paired) if right else None,
            sum(old and not new for old, new in paired) if right else None,
            seconds,
        )

    def kept(self, choice: Choice, speedup: float, *, same_share: bool) -> Kept:
        """The units that stay at a reduction of the MACs."""
        target = self.costs.macs_before / speedup
        if not same_share:
            counts = choice.path.counts(target)
            return {name: choice.rankings[name].kept(count) for name, count in counts.items()}
        scores = {name: np.argsort(ranking.order) for name, ranking in choice.rankings.items()}

        def at(share: float) -> Kept:
            found: Kept = uniform_kept(self.groups, scores, share)
            return found

        return bisected(at, lambda kept: self.costs.macs(counts_of(kept)) <= target)


def bisected(at: Callable[[float], Kept], enough: Callable[[Kept], bool]) -> Kept:
    """What the least share gives that is enough."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if enough(at(middle)):
            high = middle
        else:
            low = middle
    return at(high)


def kept_rows() -> list[Row]:
    """All rows that were made, in the order of models, methods and reductions."""
    rows = [Row(**json.loads(path.read_text(encoding="utf-8"))) for path in WORK.glob("*.json")]
    models = list(SPEEDUPS)
    return sorted(
        (row for row in rows if row.model in models),
        key=lambda row: (models.index(row.model), METHODS.index(row.method), row.wanted),
    )


def table(rows: list[Row]) -> Iterator[str]:
    """The rows of one model as markdown: a line for each method."""
    first = rows[0]
    unit, decimals = ("points", 1) if first.gained is not None else ("dB", 2)
    speedups = sorted({row.wanted for row in rows})
    yield f"**{first.model}**, original {first.before:.2f}; change in {unit}\n"
    yield "| method |" + "".join(f" {speedup:g}x |" for speedup in speedups) + " s |"
    yield "|---|" + "---:|" * (len(speedups) + 1)
    for method in dict.fromkeys(row.method for row in rows):
        found = {row.wanted: row for row in rows if row.method == method}
        cells = [
            _cell(found[speedup], decimals) if speedup in found else "" for speedup in speedups
        ]
        seconds = max(row.seconds for row in found.values())
        yield f"| {method} |" + "".join(f" {cell} |" for cell in cells) + f" {seconds:.0f} |"


def _cell(row: Row, decimals: int) -> str:
    flips = "" if row.gained is None else f" (+{row.gained} -{row.lost})"
    return f"{row.measure - row.before:+.{decimals}f}{flips}"


def write_page(rows: list[Row]) -> None:
    """Put the tables between the markers of the page."""
    tables = [
        "\n".join(table([row for row in rows if row.model == model]))
        for model in dict.fromkeys(row.model for row in rows)
    ]
    write_between(BEGIN, END, "\n\n".join(tables) + "\n")


def main() -> int:
    """Make the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--speedups", nargs="+", type=float)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--test", type=int)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or SPEEDUPS:
        wanted = [
            (method, speedup)
            for method in arguments.methods
            for speedup in arguments.speedups or SPEEDUPS.get(name, (1.5,))
            if arguments.again or not Row(name, method, speedup, *UNMADE).file.exists()
        ]
        if not wanted:
            continue
        subject = Subject(arguments.zoo, name, arguments.samples, arguments.test)
        for method, speedup in wanted:
            row = subject.row(method, speedup)
            row.file.write_text(json.dumps(asdict(row), indent=1) + "\n", encoding="utf-8")
            print(asdict(row), flush=True)
    if arguments.write:
        write_page(kept_rows())
    return 0


if __name__ == "__main__":
    sys.exit(main())
