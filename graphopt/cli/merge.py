"""`graphopt merge A B ... -o OUT`."""

from __future__ import annotations

from collections.abc import Sequence
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
    help="chain: each takes what the one before gives. parallel: side by side, inputs of one name "
    "are one. mean, vote: an ensemble.",
)
@click.option(
    "--map",
    "pairs",
    metavar="OUT:IN",
    multiple=True,
    help="In a chain of two, an output of the first and the input of the second that it goes to "
    "[default: by name, or the only ones]. Repeatable.",
)
@click.option("--weights", metavar="2,1", help="Of an ensemble's models  [default: equal].")
@click.option(
    "--vote-axis",
    type=int,
    metavar="N",
    help="The axis of the classes  [default: 1, of outputs with two axes].",
)
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
    vote_axis: int | None,
    force: bool,
) -> int:
    """Make one model of several, and prove it against running them one by one."""
    invocation = context.ensure_object(Invocation)
    mapped = _mapped(pairs, sources)
    try:
        shares = None if weights is None else [float(text) for text in weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights '{weights}' are no numbers; write 2,1") from None

    from graphopt.pipeline.merging import merge as run

    result = run(
        sources,
        mode=mode,
        pairs=mapped,
        weights=shares,
        vote_axis=vote_axis,
        output=output,
        overwrite=force,
    )
    show(result, invocation, " + ".join(sources), Path(output), notes=result.notes)
    return 0


def _mapped(pairs: Sequence[str], sources: Sequence[str]) -> dict[str, str] | None:
    """Input of the second model -> output of the first; names may hold colons themselves."""
    found: dict[str, str] = {}
    for text in pairs:
        parts = text.split(":")
        splits = [(":".join(parts[:i]), ":".join(parts[i:])) for i in range(1, len(parts))]
        splits = [(source, target) for source, target in splits if source and target]
        if len(splits) > 1 and len(sources) == 2:
            splits = _existing(splits, sources) or splits
        if len(splits) != 1:
            raise UsageError(f"--map '{text}': write OUTPUT:INPUT")
        [(source, target)] = splits
        if target in found:
            raise UsageError(f"--map gives the input '{target}' two outputs")
        found[target] = source
    return found or None


def _existing(splits: Sequence[tuple[str, str]], sources: Sequence[str]) -> list[tuple[str, str]]:
    from graphopt.graph import load

    first, second = (load(source, need_data=False).graph for source in sources)
    outputs, inputs = {v.name for v in first.outputs}, {v.name for v in second.inputs}
    return [(source, target) for source, target in splits if source in outputs and target in inputs]
