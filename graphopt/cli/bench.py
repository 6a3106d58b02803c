"""`graphopt bench A [B ...]`."""

from __future__ import annotations

from statistics import median
from typing import Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import existing_data, read_dims, read_shapes, shape_options
from graphopt.errors import RuntimeUnavailableError, UsageError


@click.command(short_help="Time models side by side, as ONNX Runtime runs them.")
@click.argument("sources", metavar="A.onnx [B.onnx ...]", nargs=-1, required=True)
@click.option(
    "--threads",
    metavar="N,M",
    default="1,0",
    show_default=True,
    help="Threads within an operator; 0 is ONNX Runtime's choice.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=2.0,
    show_default=True,
    help="Time to spend on each model and number of threads.",
)
@click.option(
    "--provider", type=click.Choice(["cpu", "cuda", "tensorrt", "openvino"]), default="cpu"
)
@click.option(
    "--input-data",
    "--inputs",
    "input_data",
    metavar="DATA",
    help="Time on the first input of these.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of a made-up input.")
@shape_options
@speaking_options
@click.pass_context
def bench(
    context: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    threads: str,
    seconds: float,
    provider: str,
    input_data: str | None,
    seed: int,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
) -> int:
    """Time models in turn, run by run, and print medians and ratios to the first.

    All run on the same input, with ONNX Runtime's optimizations on. What else the machine does hits
    all of them alike, so believe the ratios before the milliseconds.
    """
    invocation = context.ensure_object(Invocation)
    try:
        counts = [int(text) for text in threads.split(",")]
    except ValueError:
        raise UsageError(f"--threads '{threads}' are no numbers; write 1,2") from None
    if any(count < 0 for count in counts):
        raise UsageError("--threads cannot be negative")
    data = existing_data(input_data)
    shapes, dims = read_shapes(input_shape, sources[0]), read_dims(dim)

    from graphopt.cli.progress import ProgressLine
    from graphopt.graph import clone, load
    from graphopt.runtime import (
        Session,
        read_feeds,
        runnable_feeds,
        speedup,
        turns_interleaved,
    )
    from graphopt.shapes import infer_shapes

    with ProgressLine(invocation) as progress:
        progress("loading")
        models = [load(source) for source in sources]
        sized = clone(models[0])  # what is timed has no types that its file does not have
        infer_shapes(sized, input_shapes=shapes, dims=dims)
        if data is not None:
            feed = next(iter(read_feeds(data, model=sized)), None)
        else:
            session = Session(sized, provider=provider)
            feed = next(iter(runnable_feeds(sized, session, count=1, seed=seed)), None)
            del session
        if feed is None:
            raise RuntimeUnavailableError(
                "there is no input to run on; give some with --input-data"
            )
        rows: list[dict[str, Any]] = []
        for count in counts:
            progress(f"timing with {count or 'the default'} threads")
            sessions = [
                Session(model, optimized=True, threads=count, provider=provider) for model in models
            ]
            turns = turns_interleaved(sessions, feed, seconds=seconds * len(models))
            rows += [
                {
                    "model": source,
                    "threads": count,
                    "seconds": median(times),
                    "ratio": speedup(turns[0], times),
                }
                for source, times in zip(sources, turns, strict=True)
            ]
    if invocation.json:
        print_json({"ok": True, "models": list(sources), "runs": rows})
    elif not invocation.quiet:
        _print(rows)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    from graphopt.cli.render import make_console, print_table, seconds_text, short_name

    print_table(
        make_console(),
        ("model", "threads", "median", "times as fast as the first"),
        [
            (
                short_name(row["model"], whole=False),
                str(row["threads"] or "default"),
                seconds_text(row["seconds"]),
                f"{row['ratio']:.2f}x",
            )
            for row in rows
        ],
        right=("threads", "median", "times as fast as the first"),
    )
