"""`graphopt cost IN`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import shape_options
from graphopt.cli.text_output import check_free, write_text
from graphopt.errors import UsageError

if TYPE_CHECKING:
    from graphopt.cli.cost_subject import Subject
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
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write; stdout, but IN.cost.html for html."
)
@click.option("--force", is_flag=True, help="Overwrite FILE if it exists.")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=30,
    show_default=True,
    help="Rows of the table; 0 for all.",
)
@click.option(
    "--sort",
    type=click.Choice(["flops", "macs", "bytes", "params"]),
    help="What rows are ranked by  [default: flops, or bytes where nothing is computed].",
)
@click.option(
    "--device",
    metavar="NAME|FILE",
    help="Predict the latency on this machine: cpu for this one, or the name or file of a "
    "profile that calibrate-machine wrote.",
)
@click.option("--measure", is_flag=True, help="Run the model and time every node.")
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Threads within one operator, for --device and --measure; 0 for one per core.",
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
    **shown: Any,
) -> int:
    """Count what a model costs, exactly; free dims stay symbols until --dim fixes them."""
    invocation = context.ensure_object(Invocation)
    if invocation.json:
        style = "json"
    if after is not None and style != "html":
        raise UsageError("two models are compared by --format html only; add it, or give one model")
    if output is not None and style == "table":
        raise UsageError("-o needs --format json, csv or html")
    target = output
    if style == "html" and target is None:
        target = str(Path(source).with_suffix(".cost.html"))
    if target is not None:
        check_free(Path(target), overwrite=force)

    from graphopt.cli.cost_subject import Subject

    subject = Subject(source, input_shape, dim, shown["device"], shown["threads"])
    if style == "table":
        if not invocation.quiet:
            _print(subject, by, shown, invocation.verbose > 0)
        return 0
    if style == "html":
        other = None
        if after is not None:
            other = Subject(after, input_shape, dim, shown["device"], shown["threads"])
        text = _page(subject, other)
    elif style == "csv":
        text = _csv_text(subject.cost, by)
    else:
        document = {"ok": True, "model": source, **subject.to_dict(measure=shown["measure"])}
        if target is None:
            print_json(document)
            return 0
        text = json.dumps(document, indent=2) + "\n"
    write_text(text, target, overwrite=force)
    if target is not None and not invocation.quiet:
        click.echo(f"wrote {target}", err=invocation.json)
    return 0


def _print(subject: Subject, by: str, shown: dict[str, Any], verbose: bool) -> None:
    from graphopt.cli.cost_table import print_cost
    from graphopt.cli.latency_table import print_arena, print_latency, print_measured

    top = shown["top"]
    print_cost(subject.cost, subject.example, by, top, sort=shown["sort"], verbose=verbose)
    if shown["measure"]:
        print_measured(subject.measured(), subject.threads, top, verbose=verbose)
    elif subject.profile is not None:
        print_latency(subject.latency(), top, verbose=verbose)
    if shown["measure"] or subject.profile is not None:
        print_arena(subject.arena())


def _page(subject: Subject, after: Subject | None) -> str:
    from graphopt.cost.page import cost_page

    timed = subject.profile is not None
    return cost_page(
        subject.example.cost,
        title=subject.title,
        after=None if after is None else after.example.cost,
        after_title=None if after is None else after.title,
        latency=subject.latency() if timed else None,
        after_latency=after.latency() if timed and after is not None else None,
        machine=subject.profile,
    )


def _csv_text(cost: Cost, by: str) -> str:
    """One line for each node, op type or module; numbers with free dims are expressions."""
    from graphopt.cli.cost_table import rows_by
    from graphopt.cost.result import Group, NodeCost, shape_text

    rows = rows_by(cost, by)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    names = [field.name for field in dataclasses.fields(Group if by != "node" else NodeCost)]
    writer.writerow(names)
    for row in rows:
        cells = {name: getattr(row, name) for name in names}
        if "shape" in cells:
            cells["shape"] = shape_text(cells["shape"])
        writer.writerow(cells.values())
    return out.getvalue()
