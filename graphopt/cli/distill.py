"""`graphopt distill STUDENT --teacher MODEL --data DATA [OUT]`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import existing_data, external_data_option
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.pipeline.distill import DistillReport


@click.command(short_help="Train a (pruned) model towards the original's outputs. Needs torch.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option(
    "-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.distilled.onnx]."
)
@click.option(
    "--teacher",
    "teachers",
    metavar="MODEL.onnx[@WEIGHT]",
    multiple=True,
    required=True,
    help="The model whose outputs are learnt, mostly the original. Repeatable; @2 counts twice.",
)
@click.option(
    "--data",
    metavar="DATA",
    required=True,
    help="Unlabelled inputs: .npz, a folder of them, or module:function.",
)
@click.option("--data-n", type=click.IntRange(min=2), help="Use at most so many samples of it.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Passes over the data.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Samples in a step."
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    help="The largest learning rate  [default: 1e-3 in networks that are trained with batch norms, "
    "else 1e-4].",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=4.0,
    show_default=True,
    help="Softens class scores: higher lets the lesser classes count more.",
)
@click.option(
    "--inner",
    metavar="TENSOR",
    multiple=True,
    help="Learn this tensor too, which both models have. Repeatable.",
)
@click.option(
    "--inner-weight",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="How much such tensors count beside the outputs.",
)
@click.option(
    "--augment",
    metavar="mirror|shift=N",
    multiple=True,
    help="Change images at random: left and right, or by up to N pixels. Repeatable.",
)
@click.option(
    "--view",
    "views",
    metavar="mirror|shift=N",
    multiple=True,
    help="Ask teachers about changed images too, and learn the mean of their answers. Repeatable.",
)
@click.option("--metric", metavar="module:function", help="Keep the epoch that this likes best.")
@click.option(
    "--resume", metavar="FILE", help="Keep the state of the training here; go on from it."
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Of PyTorch  [default: its own choice].",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of draws.")
@external_data_option
@click.option("--force/--no-force", default=False, help="Overwrite what exists.")
@speaking_options
@click.pass_context
def distill(
    context: click.Context,
    /,
    *,
    source: str,
    target: str | None,
    output: str | None,
    teachers: tuple[str, ...],
    data: str,
    data_n: int | None,
    views: tuple[str, ...],
    metric: str | None,
    resume: str | None,
    external_data: bool | None,
    force: bool,
    **recipe: Any,
) -> int:
    """Train the weights of IN.onnx until its outputs are those of --teacher, without labels.

    Names, shapes and the graph stay as they are. The epoch that does best on samples which are held
    out is kept, the model as it came in among them. Needs PyTorch: pip install
    'graphopt[distill]'.
    """
    invocation = context.ensure_object(Invocation)
    if target is not None and output is not None:
        raise UsageError(f"both '{target}' and --output '{output}' are given; name one output")
    path = Path(source)
    stem = path.name.removesuffix(".onnx")
    written = Path(output or target or path.with_name(f"{stem}.distilled.onnx"))
    weighted = dict(_teacher(text) for text in teachers)
    existing_data(data, "--data")

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline.distill import Training
    from graphopt.pipeline.distill import distill as run

    with ProgressLine(invocation) as progress:
        result = run(
            source,
            weighted,
            data,
            output=written,
            training=Training(**recipe),
            samples=data_n,
            views=views,
            metric=metric,
            state_file=resume,
            overwrite=force,
            external_data=external_data,
            progress=progress,
        )
    if invocation.json:
        print_json({"ok": True, "input": source, **result.report.to_dict()})
    elif not invocation.quiet:
        _print(result.report, source)
    return 0


def _teacher(text: str) -> tuple[str, float]:
    path, _, weight = text.rpartition("@")
    if not path or Path(text).exists():
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise UsageError(f"--teacher '{text}': '{weight}' is no weight") from None


def _print(report: DistillReport, source: str) -> None:
    from graphopt.cli.render import make_console, print_line, print_table, seconds_text, size_text

    console = make_console()
    print_line(console, f"{source} -> {report.output}", "bold")
    print_line(console)
    rows = [
        (
            str(epoch.number) if epoch.number else "before",
            f"{epoch.loss:.4f}" if epoch.number else "",
            f"{epoch.held_out:.4f}",
            "" if math.isnan(epoch.agreement) else f"{epoch.agreement:.2%}",
            *([] if report.metric is None else [f"{epoch.metric:.4g}"]),
            "kept" if epoch.number == report.best else "",
        )
        for epoch in report.epochs
    ]
    figures = ["epoch", "training loss", "held-out loss", "agreement"]
    if report.metric is not None:
        figures.append(report.metric[0])
    print_table(console, (*figures, ""), rows, right=figures)
    print_line(console)
    trained, held = report.samples
    print_line(
        console, f"{report.weights} tensors trained on {trained:,} samples; {held:,} held out"
    )
    if not report.best:
        print_line(console, "no epoch did better than the model as it came in", "yellow")
    if report.metric is not None:
        name, before, after = report.metric
        print_line(console, f"{name}: {before:.4g} -> {after:.4g}")
    size = size_text(report.file_bytes)
    print_line(console, f"wrote {report.output} ({size}) in {seconds_text(report.seconds)}")
