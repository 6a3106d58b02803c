"""`graphopt inspect IN`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.errors import InvalidModelError

if TYPE_CHECKING:
    from graphopt.graph import ir


@click.command(short_help="Show what a model holds, and what is wrong with it.")
@click.argument("source", metavar="IN.onnx")
@speaking_options
@click.pass_context
def inspect(context: click.Context, /, source: str) -> int:
    """Show a model's interface, op types, weights and problems; exit 3 if it is invalid."""
    invocation = context.ensure_object(Invocation)

    from graphopt.graph import load, verify

    try:
        model = load(source)
    except InvalidModelError as error:
        if not error.problems:
            raise
        # Too broken to be turned into a graph; its problems are all there is to show.
        data: dict[str, Any] = {"problems": list(error.problems)}
    else:
        data = describe(model, source)
        data["problems"] = [str(problem) for problem in verify(model)]
    valid = not data["problems"]
    if invocation.json:
        print_json({"ok": valid, "model": source, **data})
    elif not invocation.quiet:
        _print(source, data)
    return 0 if valid else InvalidModelError.exit_code


def describe(model: ir.Model, source: str) -> dict[str, Any]:
    """What a model holds, as plain data; no weight is read."""
    from graphopt.graph import all_graphs
    from graphopt.pipeline.statistics import size_on_disk, statistics_of

    statistics = statistics_of(model, size_on_disk(source, model))
    tensors = [
        value.const_value
        for graph in all_graphs(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    types: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        types[str(tensor.dtype)] += 1
        sizes[str(tensor.dtype)] += tensor.nbytes
    return {
        "ir_version": model.ir_version,
        "producer": " ".join(filter(None, (model.producer_name, model.producer_version))),
        "opsets": dict(model.opset_imports),
        "inputs": [_signature(value) for value in model.graph.inputs],
        "outputs": [_signature(value) for value in model.graph.outputs],
        "nodes": statistics.nodes,
        "operators": dict(statistics.operators),
        "parameters": statistics.parameters,
        "parameter_bytes": statistics.parameter_bytes,
        "file_bytes": statistics.file_bytes,
        "weights": {name: {"tensors": types[name], "bytes": sizes[name]} for name in sorted(types)},
        "functions": [
            {"name": f"{function.domain}::{function.name}", "nodes": len(function)}
            for function in model.functions.values()
        ],
        "external_data": _external_files(tensors),
        "metadata": dict(model.metadata_props),
    }


def _signature(value: ir.Value) -> dict[str, Any]:
    shape = (
        None
        if value.shape is None
        else [dim if isinstance(dim, int) else dim.value for dim in value.shape]
    )
    return {
        "name": value.name,
        "type": "unknown" if value.type is None else str(value.type),
        "shape": shape,
        "has_default": value.is_initializer(),
    }


def _external_files(tensors: list[Any]) -> list[str]:
    from graphopt.graph import ir

    return sorted(
        {str(tensor.location) for tensor in tensors if isinstance(tensor, ir.ExternalTensor)}
    )


def _print(source: str, data: dict[str, Any]) -> None:
    from graphopt.cli.render import make_console, print_line, print_table, size_text

    console = make_console()
    if "nodes" in data:
        opsets = ", ".join(
            f"{domain or 'ai.onnx'} {number}" for domain, number in data["opsets"].items()
        )
        made_by = f", made by {data['producer']}" if data["producer"] else ""
        print_line(console, f"{source}: opset {opsets}; IR {data['ir_version']}{made_by}", "bold")
        print_line(console)
        rows = [
            (
                kind,
                value["name"] or "",
                value["type"] + " (has a default)" * value["has_default"],
                _shape_text(value["shape"]),
            )
            for kind, values in (("input", data["inputs"]), ("output", data["outputs"]))
            for value in values
        ]
        print_table(console, ("", "name", "type", "shape"), rows)
        print_line(console)
        operators = [(name, f"{count:,}") for name, count in data["operators"].items()]
        print_table(
            console,
            ("op type", "nodes"),
            [*operators, ("in total", f"{data['nodes']:,}")],
            right=("nodes",),
            bold_last=1,
        )
        print_line(console)
        print_table(
            console,
            ("weights", "tensors", "size"),
            [
                (name, f"{held['tensors']:,}", size_text(held["bytes"]))
                for name, held in data["weights"].items()
            ],
            right=("tensors", "size"),
        )
        print_line(
            console,
            f"{data['parameters']:,} parameters; the file is {size_text(data['file_bytes'])}",
        )
        for function in data["functions"]:
            print_line(console, f"function {function['name']}: {function['nodes']} nodes")
        for name in data["external_data"]:
            print_line(console, f"weights in {name}")
        for key, value in data["metadata"].items():
            print_line(console, f"metadata {key}: {value}")
    for problem in data["problems"]:
        print_line(console, f"problem: {problem}", "red")
    if not data["problems"]:
        print_line(console, "valid", "green")


def _shape_text(shape: list[Any] | None) -> str:
    if shape is None:
        return "unknown"
    return " x ".join("?" if dim is None else str(dim) for dim in shape) or "scalar"
