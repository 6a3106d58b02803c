"""`graphopt merge A B ... -o OUT`."""

from __future__ import annotations

from pathlib import Path

import click

from graphopt.cli.extract import show
from graphopt.cli.invocation import Invocation, speaking_options
from graphopt.errors import UsageError


@click.command(short_help="Make one model of several: a chain, side by side, or an ensemble.")
@click.argument("sources", metavar="A.onnx B.onnx ...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="OUT.onnx", required=True, help="Where to write.")
@click.option(
    "--mode",
    type=click.Choice(["chain", "parallel", "mean", "vote"]),
    default="chain",
    show_default=True,
    help="chain: each behind the one before. parallel: side by side, inputs of one name shared. "
    "mean, vote: an ensemble.",
)
@click.option(
    "--map",
    "pairs",
    metavar="OUT:IN",
    multiple=True,
    help="In a chain of two, the output of the first that goes to an input of the second "
    "[default: by name, or the only ones]. Repeatable.",
)
@click.option("--weights", metavar="1,2", help="Of an ensemble's models  [default: equal].")
@click.option("--force/--no-force", default=False, help="Overwrite what exists.")
@speaking_options
@click.pass_context
def merge(
    context: click.Context,
    /,
    *,
    sources: tuple[str, ...],
    output: str,
    mode: str,
    pairs: tuple[str, ...],
    weights: str | None,
    force: bool,
) -> int:
    """Make one model of several, and prove it against running them one by one."""
    invocation = context.ensure_object(Invocation)
    mapped = dict(_pair(text) for text in pairs) if pairs else None
    if weights is not None and mode not in ("mean", "vote"):
        raise UsageError("--weights are of an ensemble: --mode mean or --mode vote")
    try:
        shares = None if weights is None else [float(text) for text in weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights '{weights}' are no numbers; write 1,2") from None

    from graphopt.pipeline.composition import merge as run

    written = Path(output)
    result = run(sources, mode=mode, pairs=mapped, weights=shares, output=written, overwrite=force)
    show(result, invocation, " + ".join(sources), written)
    return 0


def _pair(text: str) -> tuple[str, str]:
    first, colon, second = text.rpartition(":")
    if not colon or not first or not second:
        raise UsageError(f"--map '{text}': write OUTPUT:INPUT")
    return first, second
