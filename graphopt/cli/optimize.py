"""`graphopt optimize IN [OUT]`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from graphopt.cli.config import config_options, write_config
from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import (
    comparison_options,
    existing_data,
    output_options,
    read_dims,
    read_shapes,
)
from graphopt.cli.preprocessing import preprocessing_options, read_normalization
from graphopt.errors import OutputError, UsageError


@click.command(short_help="Optimize a model and prove the result.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option("-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.opt.onnx].")
@click.option(
    "-O",
    "level",
    type=click.IntRange(0, 3),
    default=2,
    show_default=True,
    help="0 check only, 1 fold and clean, 2 and fuse, 3 the most there is.",
)
@click.option("--passes", metavar="a,b{x=1}", help="Run these passes instead of a level's.")
@click.option("--skip", metavar="a,b", help="Leave these passes out.")
@click.option(
    "--target-opset",
    type=click.IntRange(min=1),
    help="Raise the model to this opset first, for what newer ones can express.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt", "openvino"]),
    help="With -O3: try what pays on some models only, and keep what measures faster here.",
)
@click.option(
    "--fold-limit",
    metavar="SIZE",
    help="The largest constant that folding may add, 64KB or 1MB.",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="Hold at most 500MB or 2GB: what takes more is left out, or ends the run.",
)
@preprocessing_options
@comparison_options
@click.option(
    "--check",
    type=click.Choice(["off", "final", "per-pass"]),
    default="final",
    show_default=True,
    help="When to compare the outputs with the original's.",
)
@click.option(
    "--measure/--no-measure",
    default=None,
    help="Count MACs, and time both models in ONNX Runtime  [default: yes, unless --check off].",
)
@click.option(
    "--strict/--no-strict", default=False, help="Fail where a pass would be undone (exit 5)."
)
@output_options("Overwrite what exists, IN included; write although the outputs differ.")
@config_options("optimize")
@speaking_options
@click.pass_context
def optimize(context: click.Context, /, print_config: bool, **flags: Any) -> int:
    """Optimize IN.onnx and prove, by running both, that the result computes the same.

    The result goes to IN.opt.onnx beside the input, or to OUT.onnx. A result that differs
    is not written. Where nothing could be proved (the model cannot be run here, or --check
    off), the output says so.
    """
    invocation = context.ensure_object(Invocation)
    _settle(context, flags)
    if print_config:
        text = write_config(context, flags)
        if invocation.json:
            print_json({"config": text})
        else:
            click.echo(text)
        return 0
    return _run(invocation, **flags)


def _settle(context: click.Context, flags: dict[str, Any]) -> None:
    """Resolve flags that speak of one thing: the positional output, and -O with --passes."""
    target = flags.pop("target")
    if target is not None:
        if context.get_parameter_source("output") is ParameterSource.COMMANDLINE:
            raise UsageError("the output is given twice; leave out OUT.onnx or --output")
        flags["output"] = target
        context.set_parameter_source("output", ParameterSource.COMMANDLINE)
    if flags["passes"] is None:
        return
    level_source = context.get_parameter_source("level")
    if level_source is ParameterSource.COMMANDLINE:
        if context.get_parameter_source("passes") is ParameterSource.COMMANDLINE:
            raise UsageError("-O and --passes both say what to run; give one")
        flags["passes"] = None  # the flag wins over the config file
    elif level_source is ParameterSource.DEFAULT_MAP and (
        context.get_parameter_source("passes") is ParameterSource.DEFAULT_MAP
    ):
        raise UsageError("the config gives both 'level' and 'passes'; give one")
    else:
        context.set_parameter_source("level", ParameterSource.DEFAULT)


def _run(
    invocation: Invocation,
    *,
    source: str,
    output: str | None,
    level: int,
    passes: str | None,
    skip: str | None,
    fold_limit: str | None,
    max_memory: str | None,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
    normalize: tuple[str, ...],
    input_layout: str | None,
    input_dtype: str | None,
    image_input: tuple[str, ...],
    input_data: str | None,
    check_n: int | None,
    measure: bool | None,
    external_data: bool | None,
    report: str | None,
    dry_run: bool,
    force: bool,
    **passed_on: Any,
) -> int:
    if not source:
        raise UsageError("IN.onnx is empty; name a model")
    target = Path(output) if output is not None else default_output(Path(source))
    # Everything that can be refused is refused before the imports, which take a second.
    if not dry_run:
        refuse_output(Path(source), target, force)
    if report is not None:
        refuse_report(Path(report), target, force)
    data = existing_data(input_data)
    dims = read_dims(dim)
    shapes = read_shapes(input_shape, source)
    numbers = read_normalization(normalize)
    most = None if max_memory is None else _read_size(max_memory, "--max-memory")

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline import optimize as run

    with ProgressLine(invocation) as progress:
        result = run(
            source,
            output=None if dry_run else target,
            level=level,
            passes=_with_fold_limit(passes, level, fold_limit),
            skip=skip or "",
            input_shapes=shapes,
            dims=dims,
            normalize=numbers,
            input_layout=input_layout,
            input_dtype=input_dtype,
            image_inputs=image_input,
            input_data=data,
            check_count=check_n,
            measure=measure if measure is not None else passed_on["check"] != "off",
            external_data=external_data,
            max_memory=most,
            overwrite=force,
            force=force,
            progress=progress,
            **passed_on,
        )
    if report is not None and not dry_run:
        write_report(Path(report), result.report.to_json(indent=2))
    if invocation.json:
        print_json({"input": source, **json.loads(result.report.to_json())})
    elif not invocation.quiet:
        from graphopt.cli.summary import print_summary

        print_summary(source, result.report, verbose=invocation.verbose)
    return 0


def default_output(source: Path) -> Path:
    """`model.onnx` -> `model.opt.onnx`, beside it."""
    stem = source.name.removesuffix(".onnx")
    return source.parent / f"{stem}.opt.onnx"


def refuse_output(source: Path, target: Path, force: bool) -> None:
    """Refuse before the work a target that could not be written after it.

    Raises:
        OutputError: it exists and `force` is off, or is no file.
    """
    if not target.exists() or target.is_dir():
        return  # a folder is refused by the pipeline, --force or not
    if not target.is_file():
        raise OutputError(f"'{target}' is a device or a pipe; name a file")
    if force:
        return
    if source.exists() and target.samefile(source):
        raise OutputError(
            f"'{target}' is the input itself; name another file, or replace it with --force"
        )
    raise OutputError(f"'{target}' exists already; name another file, or overwrite with --force")


def refuse_report(path: Path, target: Path, force: bool) -> None:
    """Refuse before the work a report that could not be written after it.

    Raises:
        UsageError: it is not named as JSON, or is the output.
        OutputError: it exists and `force` is off, or its folder does not.
    """
    if path.suffix.lower() != ".json":
        raise UsageError(f"--report '{path}': reports are JSON; name a file that ends in .json")
    if path == target:
        raise UsageError(f"--report '{path}' is the output too; name another file")
    if not path.parent.is_dir():
        raise OutputError(f"the folder '{path.parent}' does not exist; make it first")
    if path.exists() and not force:
        raise OutputError(f"'{path}' exists already; name another file, or overwrite with --force")


def write_report(path: Path, text: str) -> None:
    """Write a report, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write the report '{path}': {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def _with_fold_limit(passes: str | None, level: int, limit: str | None) -> str | list[str] | None:
    """The plan with the limit put into fold-constants; None leaves it to the level."""
    if limit is None:
        return passes
    from graphopt.catalog import split_specs
    from graphopt.presets import LEVELS

    size = _read_size(limit, "--fold-limit")
    specs = list(LEVELS[level]) if passes is None else split_specs(passes)
    if not any(spec.partition("{")[0] == "fold-constants" for spec in specs):
        raise UsageError("--fold-limit needs fold-constants, which is not among the passes")
    return [_limited(spec, size) for spec in specs]


def _read_size(text: str, flag: str) -> int:
    """The bytes that a flag speaks of.

    Raises:
        UsageError: it is no size.
    """
    from graphopt.catalog import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _limited(spec: str, size: int) -> str:
    name, _, options = spec.partition("{")
    if name != "fold-constants":
        return spec
    given = [part.strip() for part in options.rstrip("} ").split(",") if part.strip()]
    if any(part.partition("=")[0].strip() == "limit" for part in given):
        raise UsageError(f"--fold-limit and '{spec}' both give the limit; give one")
    return f"{name}{{{','.join([*given, f'limit={size}'])}}}"
