"""`graphopt extract IN [OUT] --outputs T`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.pipeline.extraction import ExtractResult
    from graphopt.pipeline.merging import MergeResult


@click.command(short_help="Cut a part out of a model, between named tensors.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option("-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.part.onnx].")
@click.option("--inputs", metavar="A,B", help="Tensors that become inputs  [default: IN's own].")
@click.option("--outputs", metavar="C,D", help="Tensors that become outputs  [default: IN's own].")
@click.option("--force/--no-force", default=False, help="Overwrite what exists.")
@speaking_options
@click.pass_context
def extract(
    context: click.Context,
    /,
    *,
    source: str,
    target: str | None,
    output: str | None,
    inputs: str | None,
    outputs: str | None,
    force: bool,
) -> int:
    """Write the part of IN.onnx that computes --outputs from --inputs.

    It is run on tensors of the whole model before it is written. `graphopt inspect` and Netron show
    the names of tensors.
    """
    invocation = context.ensure_object(Invocation)
    if inputs is None and outputs is None:
        raise UsageError("say where to cut: --inputs, --outputs, or both")
    if target is not None and output is not None:
        raise UsageError("the output is given twice; leave out OUT.onnx or --output")
    path = Path(source)
    written = Path(output or target or path.with_name(f"{path.stem}.part.onnx"))

    from graphopt.pipeline.extraction import extract as run

    result = run(
        source, inputs=_names(inputs), outputs=_names(outputs), output=written, overwrite=force
    )
    show(result, invocation, source, written)
    return 0


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"'{text}' names no tensor between its commas; write A,B")
    return names


def show(
    result: ExtractResult | MergeResult,
    invocation: Invocation,
    source: str,
    written: Path,
    notes: Sequence[str] = (),
) -> None:
    """Print the interface of what was made, and whether it was proved."""
    if invocation.json:
        document: dict[str, Any] = {
            "ok": True,
            "input": source,
            "output": str(written),
            "inputs": result.inputs,
            "outputs": result.outputs,
            "verified": result.verified,
            "reason": result.unverified_reason or None,
            "notes": list(notes),
            "file_bytes": result.file_bytes,
        }
        print_json(document)
        return
    if invocation.quiet:
        return

    from graphopt.cli.render import make_console, print_line, print_table, size_text

    console = make_console()
    print_line(console, f"{source} -> {written}", "bold")
    print_line(console)
    rows = [("input", name, kind) for name, kind in result.inputs.items()]
    rows += [("output", name, kind) for name, kind in result.outputs.items()]
    print_table(console, ("", "name", "type"), rows)
    print_line(console)
    for note in notes:
        print_line(console, note)
    if result.verified:
        print_line(
            console, f"verified on {result.verified} inputs: the outputs are the same", "green"
        )
    else:
        print_line(console, f"not verified: {result.unverified_reason}", "yellow")
    print_line(console, f"wrote {written} ({size_text(result.file_bytes)})")
