"""Prune a ResNet for CIFAR-10 and train what is left towards the original, without labels.

    python tools/bench_distill.py [--model cifar_resnet56] [--speedups 1 2.1 3] [--two-teachers 3]
        [--epochs 5] [--batch 64] [--rate X] [--json] [--write]

Needs PyTorch (the extra `distill`) and the zoo. The student is pruned and repaired
on 1,024 images of the training side, then trained on all 10,000 of them, mirrored and shifted at
random, against the original's outputs. The unpruned model is trained the same way as a control.
At the speedups of `--two-teachers` the trained control teaches beside the original, and both are
asked about the mirrored image too (`graphopt distill --teacher A --teacher B --view mirror`); it is
trained first where it is not there. The epoch is chosen by the labels of the 512 training-side
images that are held out. Figures are top-1 on the zoo's test images, and how many answers became
right and wrong. Models and the state of each training are kept in build/distill, so that an
interrupted run goes on. `--write` puts the table between the marks of docs/benchmarks.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from graphopt.graph import load  # noqa: E402 - the line above finds it
from graphopt.pipeline.distill import HELD_OUT, MOST_HELD_OUT, Training, distill  # noqa: E402
from graphopt.pipeline.prune import prune  # noqa: E402
from graphopt.runtime import Session  # noqa: E402
from tests.conftest import ZOO  # noqa: E402
from tests.zoo_models import loader  # noqa: E402
from tools.marked_page import write_between  # noqa: E402

WORK = ROOT / "build" / "distill"
BEGIN = "<!-- distillation: made by tools/bench_distill.py -->"
END = "<!-- end of distillation -->"
CALIBRATION = 1024
BATCH = 32


@dataclass(frozen=True)
class Row:
    """One student: top-1 of the original, after pruning and after training, in percent."""

    student: str
    teachers: str
    macs: float
    original: float
    pruned: float
    distilled: float
    gained: int
    lost: int
    epochs: int
    seconds: float


def training_side(module: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images as the model takes them, [10000, 3, 32, 32], and labels, in a fixed random order."""
    data = np.load(Path(module.D) / "cifar10_train10k.npz")
    order = np.random.default_rng(0).permutation(len(data["x"]))
    scaled = (data["x"][order].astype(np.float32) / 255 - module.IM) / module.IS
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), data["y"][order]


def top1_of(images: np.ndarray, labels: np.ndarray) -> Callable[[Any], float]:
    """The metric that chooses the epoch: top-1 on the images that `distill` holds out."""
    chosen = np.arange(0, len(images), HELD_OUT)[:MOST_HELD_OUT]

    def top1(run: Any) -> float:
        right = 0
        for part in np.array_split(chosen, len(chosen) // BATCH):
            (scores,) = run({"input": images[part]}).values()
            right += int((scores.argmax(-1) == labels[part]).sum())
        return right / len(chosen)

    return top1


def answers(module: Any, name: str, path: Path) -> np.ndarray:
    """Whether each test image is classified right."""
    session = Session(load(path), optimized=True)
    right = []
    for feed, labels in module.batches(name):
        (scores,) = session.run(feed).values()
        right.append(scores.argmax(-1) == labels)
    return np.concatenate(right)


def key_of(speedup: float, kind: str, options: argparse.Namespace) -> str:
    """What the files of a student and a recipe are called."""
    recipe = f"{options.epochs}-{options.batch}-{options.rate}-{options.temperature:g}"
    return f"{options.model}-{speedup:g}-{recipe}{kind}"


def row(
    module: Any,
    speedup: float,
    images: np.ndarray,
    labels: np.ndarray,
    options: argparse.Namespace,
) -> Row:
    """Prune by a factor (1: not at all), train, and measure."""
    original = ZOO / "models" / f"{options.model}.onnx"
    student = original
    if speedup > 1:
        student = WORK / f"{options.model}-{speedup:g}.onnx"
        if not student.is_file():
            feeds = [
                {"input": images[start : start + BATCH]} for start in range(0, CALIBRATION, BATCH)
            ]
            prune(
                original,
                output=student,
                target_macs=f"{100 / speedup:.2f}%",
                calibration=feeds,
                progress=lambda line: print(f"{speedup:g}x: {line}", file=sys.stderr, flush=True),
            )
    teachers: list[Path] = [original]
    views: tuple[str, ...] = ()
    two = speedup > 1 and speedup in options.two_teachers
    if two:
        control = WORK / f"{key_of(1.0, '', options)}-distilled.onnx"
        if not control.is_file():
            row(module, 1.0, images, labels, options)
        teachers, views = [original, control], ("mirror",)
    key = key_of(speedup, "-two" if two else "", options)
    trained = WORK / f"{key}-distilled.onnx"
    started = time.perf_counter()

    training = Training(
        epochs=options.epochs,
        batch=options.batch,
        rate=options.rate,
        temperature=options.temperature,
        augment=("mirror", "shift=4"),
        threads=options.threads,
    )
    report = distill(
        student,
        teachers,
        {"input": images},
        output=trained,
        training=training,
        views=views,
        metric=top1_of(images, labels),
        state_file=WORK / f"{key}.state",
        overwrite=True,
        progress=lambda line: print(f"{speedup:g}x: {line}", file=sys.stderr, flush=True),
    ).report
    before, pruned, after = (
        answers(module, options.model, path) for path in (original, student, trained)
    )
    return Row(
        "unpruned (control)" if speedup == 1 else f"pruned {speedup:g}x",
        "original and control, mirrored too" if two else "original",
        speedup,
        100 * float(before.mean()),
        100 * float(pruned.mean()),
        100 * float(after.mean()),
        int((after & ~before).sum()),
        int((before & ~after).sum()),
        report.best,
        time.perf_counter() - started,
    )


def as_markdown(rows: list[Row]) -> str:
    """The table."""
    lines = [
        (
            "| student | taught by | original, top-1 | pruned and repaired | distilled "
            "| change, points | became right / wrong |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.student} | {r.teachers} | {r.original:.2f} | {r.pruned:.2f} | {r.distilled:.2f} "
        f"| {r.distilled - r.original:+.2f} | {r.gained} / {r.lost} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Judge pruning and distillation.")
    parser.add_argument("--model", default="cifar_resnet56")
    parser.add_argument("--speedups", nargs="+", type=float, default=[1.0, 2.1, 3.0])
    parser.add_argument("--two-teachers", nargs="*", type=float, default=[3.0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args()
    if not (ZOO / "MANIFEST.json").is_file():
        print("the zoo is not there", file=sys.stderr)
        return 2
    WORK.mkdir(parents=True, exist_ok=True)
    module = loader(ZOO)
    images, labels = training_side(module)
    rows = [row(module, speedup, images, labels, options) for speedup in options.speedups]
    print(json.dumps([asdict(r) for r in rows], indent=1) if options.json else as_markdown(rows))
    if options.write:
        write_between(BEGIN, END, as_markdown(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
