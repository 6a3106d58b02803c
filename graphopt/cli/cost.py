"""`graphopt cost IN`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import read_dims, read_shapes, shape_options
from graphopt.cli.text_output import check_free, write_text
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.cost import Cost

FORMATS = ("table", "json", "csv", "html")


@click.command(short_help="Count what a model costs: MACs, FLOPs, bytes, memory, latency.")
@click.argument("source", metavar="IN.onnx")
@click.argument("after", metavar="[AFTER.onnx]", required=False)
@shape_options
@click.option(
    "--by",
    type=click.Choice(["node", "type", "module"]),
    default="node",
    show_default=True,
    help="What a row of the table stands for.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="html: one page with charts, and a comparison where AFTER.onnx is given.",
)
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Rows of the table; 0 for all.",
)
@speaking_options
@click.pass_context
def cost(
    context: click.Context,
    /,
    source: str,
    after: str | None,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
    by: str,
    style: str,
    output: str | None,
    force: bool,
    top: int,
) -> int:
    """Count what a model costs, exactly; free dims stay symbols until --dim fixes them."""
    invocation = context.ensure_object(Invocation)
    if invocation.json:
        style = "json"
    if after is not None and style != "html":
        raise UsageError("two models are compared by --format html only; add it, or give one model")
    target = output
    if style == "html" and target is None:
        target = str(Path(source).with_suffix(".cost.html"))
    if target is not None:
        check_free(Path(target), overwrite=force)

    from graphopt.cli.cost_example import Example, example_of
    from graphopt.cost import estimate_cost

    def count(path: str, further: dict[str, int] | None = None) -> Cost:
        dims = {**(read_dims(dim) or {}), **(further or {})}
        return estimate_cost(path, input_shapes=read_shapes(input_shape, path), dims=dims)

    def example(path: str, found: Cost) -> Example:
        return example_of(found, lambda sizes: count(path, sizes))

    found = count(source)
    if style == "table":
        if target is not None:
            raise UsageError("-o needs --format json, csv or html")
        if not invocation.quiet:
            from graphopt.cli.cost_table import print_cost

            shown = example(source, found)
            print_cost(found, shown, by, top, verbose=invocation.verbose > 0)
        return 0
    if style == "html":
        from graphopt.cost.page import cost_page

        models = [source] if after is None else [source, after]
        examples = [example(path, count(path)) for path in models]
        titles = [
            f"{Path(path).name} at {shown.text}" if shown.text else Path(path).name
            for path, shown in zip(models, examples, strict=True)
        ]
        text = cost_page(
            examples[0].cost,
            title=titles[0],
            after=examples[1].cost if after is not None else None,
            after_title=titles[1] if after is not None else None,
        )
    elif style == "csv":
        text = _csv_text(found, by)
    elif target is None:
        print_json({"ok": True, "model": source, **found.to_dict()})
        return 0
    else:
        text = json.dumps({"ok": True, "model": source, **found.to_dict()}, indent=2) + "\n"
    write_text(text, target, overwrite=force)
    if target is not None and not invocation.quiet:
        click.echo(f"wrote {target}", err=invocation.json)
    return 0


def _csv_text(cost: Cost, by: str) -> str:
    """One line for each node, op type or module; numbers with free dims are expressions."""
    from graphopt.cli.cost_table import rows_by
    from graphopt.cost.result import Group, NodeCost, shape_text

    rows = rows_by(cost, by)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [field.name for field in dataclasses.fields(Group if by != "node" else NodeCost)]
    writer.writerow(names)
    for row in rows:
        cells = {name: getattr(row, name) for name in names}
        if "shape" in cells:
            cells["shape"] = shape_text(cells["shape"])
        writer.writerow(cells.values())
    return out.getvalue()
