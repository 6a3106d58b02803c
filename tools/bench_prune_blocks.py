"""Replace residual blocks of models of the zoo, and hold what is left against the original.

    python tools/bench_prune_blocks.py [NAME ...] [--counts N ...] [--samples N] [--test N]

For each model and number of blocks one row: the blocks and what stands for them, the multiply-
accumulates, top-1 with the answers that changed (paired), and the change where as many multiply-
accumulates are saved by pruning channels instead. The data to calibrate on and to test on is that
of tools/bench_prune.py.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from bench_prune import Subject, measured  # noqa: E402 - the line above finds it

from graphopt.graph import clone, ir  # noqa: E402
from graphopt.pipeline.prune_blocks import prune_blocks  # noqa: E402
from graphopt.pipeline.prune_check import Judge  # noqa: E402
from graphopt.pruning.block_fit import BlockFitter  # noqa: E402
from graphopt.pruning.residual_blocks import find_blocks, split_sums  # noqa: E402
from tests.conftest import ZOO  # noqa: E402

NAMES = ("cifar_resnet56", "mnist_vit")


def change(subject: Subject, model: ir.Model) -> str:
    """Top-1 of a model in points, its change, and the answers that became right and wrong."""
    value, right = measured(subject.module, subject.name, model, subject.pairs)
    pairs = list(zip(subject.right, right, strict=True))
    gained = sum(new and not old for old, new in pairs)
    lost = sum(old and not new for old, new in pairs)
    moved = 100 * (value - subject.before)
    return f"{100 * value:.2f} | {moved:+.2f} (+{gained} -{lost})"


def rows(subject: Subject, counts: Sequence[int], *, channels: bool) -> Any:
    """A line for each number of blocks; the steps of the longest run are those of the others."""
    feeds = subject.feeds
    done = prune_blocks(subject.original, calibration=feeds, count=max(counts)).report
    model = clone(subject.model)
    split_sums(model)
    blocks, _ = find_blocks(model.graph)
    fitter = BlockFitter(model, blocks, Judge(subject.original, calibration=feeds).feeds)
    for count in counts:
        steps = done.replaced[:count]
        smaller, _ = fitter.build({step.name: step.kind for step in steps})
        speedup = done.macs[0] / steps[-1].macs
        what = ", ".join(f"{step.name} ({step.kind})" for step in steps)
        line = f"| {count} | {1 / speedup:.1%} | {change(subject, smaller)} |"
        if channels:
            row = subject.row("second-order", speedup)
            line += f" {row.measure - row.before:+.2f} (+{row.gained} -{row.lost}) |"
        yield f"{line} {what} |"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", default=[])
    parser.add_argument("--zoo", type=Path, default=ZOO)
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--test", type=int)
    parser.add_argument("--channels", action="store_true", help="prune channels beside it")
    arguments = parser.parse_args()
    for name in arguments.names or NAMES:
        subject = Subject(arguments.zoo, name, arguments.samples, arguments.test)
        print(f"{name}: {100 * subject.before:.2f} on {len(subject.right)} samples", flush=True)
        for line in rows(subject, arguments.counts, channels=arguments.channels):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
