"""Compare the estimate of ONNX Runtime's arena with what the arena reports.

    python tools/bench_memory.py [--threads 1 2] [--out FILE] [MODEL.onnx ...]

Without models: the zoo of trained models where it is there, on its own data, the exports in
build/exports that tools/export_models.py makes, and the fixtures. Prints a Markdown table; exits
with 1 where a model is off by more than 15%.

"requested" is what tensors ask the arena for, "peak" what it hands out at most: padding and the
scratch space of kernels are in it. Weights and inputs are in neither.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from graphopt.cost.arena_plan import ArenaUse, arena_use
from graphopt.errors import GraphoptError
from graphopt.graph import clone, ir, load
from graphopt.runtime import Feed, Session, runnable_feeds
from graphopt.runtime.arena import ArenaPeak, arena_peak
from graphopt.runtime.executed import executed_model
from graphopt.shapes import infer_shapes

ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT.parent / "shared" / "zoo"
EXPORTS = ROOT / "build" / "exports"
ALLOWED = 0.15
FIGURES = (
    "requested_estimate",
    "requested",
    "requested_ratio",
    "peak_estimate",
    "peak",
    "peak_ratio",
)
sys.path.insert(0, str(ROOT))


def compare(model: ir.Model, feed: Feed, threads: int) -> tuple[ArenaUse, ArenaPeak]:
    """The estimate for a model and a feed, and what the arena reports."""
    sized = clone(model)
    shapes = {name: list(np.shape(value)) for name, value in feed.items()}
    infer_shapes(sized, input_shapes=shapes)
    executed = executed_model(model, sized=sized, threads=threads)
    return arena_use(executed, model, threads=threads), arena_peak(model, feed, threads=threads)


def any_feed(model: ir.Model) -> Feed | None:
    """A seeded feed that the model runs on."""
    found = runnable_feeds(model, Session(model, threads=1), count=1, override_defaults=False)
    return found[0] if found else None


def exported_feed(model: ir.Model, name: str) -> Feed | None:
    """A seeded feed of the sizes that the export is meant for."""
    from tools.export_models import MODELS

    sizes = {exported.name: exported.sizes for exported in MODELS}.get(name)
    if not sizes:
        return any_feed(model)
    sized = clone(model)
    for value in sized.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape(
                sizes.get(str(dim.value), 1) if isinstance(dim, ir.SymbolicDim) else dim
                for dim in value.shape
            )
    return any_feed(sized)


def zoo_feeds() -> Iterator[tuple[str, Path, Feed]]:
    """Each zoo model with one sample of its data."""
    from tests.zoo_models import batches, zoo_models

    for model in zoo_models(ZOO):
        dtypes = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in onnx.load(model.path, load_external_data=False).graph.input
        }
        for given, _ in batches(ZOO, model.name, 1):
            feed = {
                name: np.asarray(value).astype(dtypes[name])
                for name, value in given.items()
                if name in dtypes
            }
            yield model.name, model.path, feed
            break


def cases(paths: list[Path]) -> Iterator[tuple[str, ir.Model, Feed | None]]:
    """Name, model and feed of everything to compare."""
    if paths:
        for path in paths:
            model = load(path)
            yield path.stem, model, exported_feed(model, path.stem)
        return
    if (ZOO / "MANIFEST.json").is_file():
        for name, path, feed in zoo_feeds():
            yield f"zoo/{name}", load(path), feed
    for path in sorted(EXPORTS.glob("*.onnx")):
        model = load(path)
        yield f"exports/{path.stem}", model, exported_feed(model, path.stem)
    for path in sorted((ROOT / "fixtures").glob("digits_*.onnx")):
        model = load(path)
        yield f"fixtures/{path.stem}", model, any_feed(model)


def text_of(figure: float | None) -> str:
    """A cell of the table: bytes, or a ratio."""
    if figure is None:
        return "not readable"
    return f"{figure:,}" if isinstance(figure, int) else f"{figure:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    arguments = parser.parse_args()
    print(
        "| model | threads | requested: estimate | arena | ratio | peak: estimate | arena | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    start = time.perf_counter()
    for name, model, feed in cases(arguments.models):
        for threads in arguments.threads:
            try:
                if feed is None:
                    raise GraphoptError("no feed found that it runs on")  # noqa: TRY301
                estimate, arena = compare(model, feed, threads)
            except GraphoptError as error:
                print(f"| {name} | {threads} | {error} | | | | | |")
                continue
            row = {
                "model": name,
                "threads": threads,
                "requested_estimate": estimate.requested_bytes,
                "requested": arena.requested_bytes,
                "requested_ratio": estimate.requested_bytes / max(arena.requested_bytes, 1),
                "peak_estimate": estimate.peak_bytes,
                "peak": arena.peak_bytes,
                "peak_ratio": arena.peak_bytes and estimate.peak_bytes / arena.peak_bytes,
                "later_peak": arena.later_peak_bytes,
                "unsized": len(estimate.unsized),
            }
            rows.append(row)
            cells = [
                "-"
                if row[key] is None
                else f"{row[key]:.3f}"
                if "ratio" in key
                else f"{row[key]:,}"
                for key in FIGURES
            ]
            print(f"| {name} | {threads} | {' | '.join(cells)} |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")
    for figure in ("requested", "peak"):
        ratios = [row[f"{figure}_ratio"] for row in rows if row[figure] is not None]
        within = sum(abs(ratio - 1) <= ALLOWED for ratio in ratios)
        exact = ratios.count(1)
        print(f"{figure}: {within} of {len(ratios)} within {ALLOWED:.0%}, {exact} to the byte")
    print(f"{time.perf_counter() - start:.0f} s")
    return int(within < len(ratios))


if __name__ == "__main__":
    sys.exit(main())
