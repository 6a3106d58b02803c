"""`graphopt fp16 IN [OUT]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import existing_data, output_options
from graphopt.errors import OutputError, UsageError


@click.command(short_help="Convert a model to half precision and prove the result.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option("-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.fp16.onnx].")
@click.option("--bf16", is_flag=True, help="bfloat16 in place of float16, where the opset has it.")
@click.option(
    "--keep-io-types/--no-keep-io-types",
    default=False,
    help="Leave float32 inputs and outputs of the model float32.",
)
@click.option(
    "--storage-only",
    is_flag=True,
    help="Store weights in half, cast each once, compute in float32: for CPUs.",
)
@click.option(
    "--calib",
    "--calibration-data",
    "calibration",
    metavar="DATA",
    help="Measure ranges, and compare, on these inputs: .npz, a folder, or module:function.",
)
@click.option(
    "--check-n",
    type=click.IntRange(min=1),
    help="How many inputs to use  [default: 3, or all of the data].",
)
@click.option("--op-block-list", metavar="A,B", help="Leave these op types in float32.")
@click.option(
    "--node-block-list",
    multiple=True,
    metavar="RE",
    help="Leave nodes in float32 whose name, or an output's, matches as a whole. Repeatable.",
)
@click.option(
    "--provider",
    type=click.Choice(["any", "cpu", "cuda", "tensorrt"]),
    default="any",
    show_default=True,
    help="Whose kernels to go by.",
)
@click.option(
    "-O",
    "level",
    type=click.IntRange(0, 3),
    default=2,
    show_default=True,
    help="What to do to the model before: as for `optimize`.",
)
@click.option(
    "--rtol",
    type=click.FloatRange(min=0),
    default=1e-2,
    show_default=True,
    help="Tolerance relative to an output's largest magnitude.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of made-up inputs."
)
@click.option(
    "--metric",
    metavar="METRIC",
    help="Judge by agreement, or by module:function, in place of the tolerance.",
)
@click.option("--max-drop", metavar="DROP", help="How far the metric may fall: 1% or 0.5.")
@click.option("--check/--no-check", default=True, help="Whether to compare with the original.")
@output_options("Overwrite what exists; write although the outputs differ.")
@speaking_options
@click.pass_context
def fp16(context: click.Context, /, **flags: Any) -> int:
    """Convert IN.onnx to half precision with the fewest Casts, and prove the result.

    What half cannot hold stays float32, and the output says why. The result goes to
    IN.fp16.onnx (IN.bf16.onnx) beside the input, or to OUT.onnx.
    """
    return _run(context.ensure_object(Invocation), **flags)


def _run(
    invocation: Invocation,
    *,
    source: str,
    target: str | None,
    output: str | None,
    bf16: bool,
    calibration: str | None,
    check_n: int | None,
    op_block_list: str | None,
    node_block_list: tuple[str, ...],
    external_data: bool | None,
    report: str | None,
    dry_run: bool,
    force: bool,
    **passed_on: Any,
) -> int:
    if target is not None and output is not None:
        raise UsageError("the output is given twice; leave out OUT.onnx or --output")
    precision = "bf16" if bf16 else "fp16"
    written = Path(target or output or _default_output(Path(source), precision))
    if not dry_run and written.exists() and not force:
        raise OutputError(
            f"'{written}' exists already; name another file, or overwrite with --force"
        )
    if report is not None and not report.lower().endswith(".json"):
        raise UsageError(f"--report '{report}': reports are JSON; name a file that ends in .json")
    if report is not None and not dry_run:
        _check_report(Path(report), force)
    _check_patterns(node_block_list)
    data = existing_data(calibration, "--calib")
    op_types = tuple(part.strip() for part in (op_block_list or "").split(",") if part.strip())

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline.half import HalfOptions, convert_half

    options = HalfOptions(
        precision=precision,
        op_block_list=op_types,
        node_block_list=node_block_list,
        calibration=data,
        count=check_n,
        **passed_on,
    )
    with ProgressLine(invocation) as progress:
        result = convert_half(
            source,
            options,
            output=None if dry_run else written,
            force=force,
            overwrite=force,
            external_data=external_data,
            progress=progress,
        )
    if report is not None and not dry_run:
        _write_report(Path(report), result.report.to_json(indent=2))
    if invocation.json:
        print_json({"input": source, **json.loads(result.report.to_json())})
    elif not invocation.quiet:
        from graphopt.cli.fp16_summary import print_half_summary

        print_half_summary(source, result.report, verbose=invocation.verbose)
    return 0


def _default_output(source: Path, precision: str) -> Path:
    """`model.onnx` -> `model.fp16.onnx`, beside it."""
    return source.parent / f"{source.name.removesuffix('.onnx')}.{precision}.onnx"


def _check_patterns(patterns: tuple[str, ...]) -> None:
    import re

    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(
                f"--node-block-list '{pattern}' is no regular expression: {error}"
            ) from error


def _check_report(path: Path, force: bool) -> None:
    """Say that a report cannot be written before anything is done for it."""
    if path.exists() and not force:
        raise OutputError(f"'{path}' exists already; name another file, or overwrite with --force")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write the report: there is no folder '{path.parent}'")


def _write_report(path: Path, text: str) -> None:
    try:
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write the report '{path}': {error.strerror}") from error
