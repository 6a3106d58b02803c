"""`graphopt quantize IN [OUT] --calib DATA`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from graphopt.cli.config import config_options, write_config
from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.optimize import refuse_output, refuse_report, write_report
from graphopt.cli.options import (
    existing_data,
    output_options,
    read_dims,
    read_shapes,
    shape_options,
)
from graphopt.errors import UsageError

_METHODS = ("minmax", "moving-average", "percentile", "entropy", "mse")
_BACKENDS = ("ort-cpu", "ort-cuda", "tensorrt", "openvino", "generic")


class _Strength(click.ParamType[float | str]):
    name = "strength"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if value in ("auto", "off"):
            return str(value)
        return click.FloatRange(0, 1).convert(value, param, ctx)


@click.command(short_help="Quantize a model to int8, where it is faster and accurate.")
@click.argument("source", metavar="IN.onnx")
@click.argument("target", metavar="[OUT.onnx]", required=False)
@click.option("-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.int8.onnx].")
@click.option(
    "--calib",
    metavar="DATA",
    help="Calibration data: .npz, a folder of them, module:function, or `seeded` (made-up inputs: "
    "for speed alone). Every eighth sample is held out to check the result on.",
)
@click.option("--calib-n", type=click.IntRange(min=1), help="Use at most so many samples of it.")
@click.option(
    "--dynamic",
    is_flag=True,
    help="Matrix products measure the range of their input as they run: no data needed.",
)
@click.option(
    "--weight-only",
    is_flag=True,
    help="Weights of matrix products in few bits, activations in float: no data needed.",
)
@click.option(
    "--bits",
    type=click.Choice(["4", "8"]),
    default="4",
    show_default=True,
    help="For --weight-only.",
)
@click.option(
    "--block-size",
    type=click.Choice(["16", "32", "64", "128"]),
    default="32",
    show_default=True,
    help="For --weight-only: weights that share a scale.",
)
@click.option(
    "--method",
    type=click.Choice(_METHODS),
    default="mse",
    show_default=True,
    help="How the range of an activation is chosen.",
)
@click.option(
    "--percentile",
    type=float,
    default=0.9999,
    show_default=True,
    help="For --method percentile: the share of the values to cover.",
)
@click.option(
    "--backend",
    type=click.Choice(_BACKENDS),
    default="ort-cpu",
    show_default=True,
    help="Where the result will run.",
)
@click.option(
    "--nodes-to-exclude",
    metavar="REGEX",
    multiple=True,
    help="Leave nodes float whose name, or an output's, this matches. Repeatable.",
)
@click.option(
    "--op-types-to-quantize", metavar="T,U", help="Quantize these operators only: Conv,MatMul."
)
@click.option("--ranges", metavar="FILE.json", help="Use the ranges of an earlier run.")
@click.option("--save-ranges", metavar="FILE.json", help="Write the ranges, for --ranges.")
@click.option(
    "--save-plan",
    metavar="FILE.json",
    help="Write every scale and choice, for `optimize --passes insert-qdq{plan=FILE.json}`.",
)
@click.option(
    "--resume",
    "resume_file",
    metavar="FILE",
    help="Keep the state of the calibration here; an interrupted one goes on from it.",
)
@click.option(
    "--equalize/--no-equalize",
    default=False,
    help="Even out the weights of consecutive layers first.",
)
@click.option(
    "--smoothquant",
    "smooth",
    metavar="STRENGTH",
    type=_Strength(),
    is_flag=False,
    flag_value="0.5",
    default="auto",
    show_default=True,
    help="Move the spread of activations into the weights: 0 to 1, off, or auto (0.5, where there "
    "are depthwise Convs)  [0.5 if nothing is given].",
)
@click.option(
    "--rounding",
    type=click.Choice(["auto", "nearest", "second-order"]),
    default="auto",
    show_default=True,
    help="How weights are rounded: second-order changes the layers' outputs least; auto is that "
    "where there are no depthwise Convs.",
)
@click.option(
    "--bias-correction/--no-bias-correction",
    default=True,
    show_default=True,
    help="Give biases back what rounding moved the mean by.",
)
@click.option(
    "--max-drop",
    metavar="1%|0.5",
    help="How far the metric may fall; groups are left float until it does not.",
)
@click.option(
    "--metric",
    metavar="module:function",
    help="What --max-drop is of: a function of run(feed) -> outputs, agreement (of the top "
    "class), or sqnr  [default: agreement, where there are class scores].",
)
@click.option(
    "--least-sqnr",
    type=float,
    metavar="DB",
    help="Leave groups float until the outputs have this signal-to-noise ratio.",
)
@click.option(
    "--spare-outsized/--no-spare-outsized",
    default=True,
    show_default=True,
    help="Leave the few groups float that make most of the noise at the outputs.",
)
@click.option(
    "--test-data",
    metavar="DATA",
    help="Check the result on these inputs instead of held-out calibration data.",
)
@click.option("--check-n", type=click.IntRange(min=1), help="Check on at most so many inputs.")
@click.option(
    "--only-if-faster/--no-only-if-faster",
    default=None,
    help="Leave float what measurably does not gain  [default: where the backend runs here].",
)
@shape_options
@click.option(
    "--measure/--no-measure", default=True, show_default=True, help="Time both models at the end."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of random draws."
)
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Threads while calibrating  [default: as ONNX Runtime chooses].",
)
@output_options("Overwrite what exists, IN included; write although the accuracy is not reached.")
@config_options("quantize")
@speaking_options
@click.pass_context
def quantize(context: click.Context, /, print_config: bool, **flags: Any) -> int:
    """Quantize IN.onnx: 8-bit integers where they are faster and accurate enough, else floats.

    The result goes to IN.int8.onnx beside the input, or to OUT.onnx, as QuantizeLinear and
    DequantizeLinear nodes that ONNX Runtime fuses into integer kernels. With --max-drop the
    exit code is 4, and nothing is written, where no mixture is accurate enough.
    """
    invocation = context.ensure_object(Invocation)
    target = flags.pop("target")
    if target is not None:
        if context.get_parameter_source("output") is ParameterSource.COMMANDLINE:
            raise UsageError("the output is given twice; leave out OUT.onnx or --output")
        flags["output"] = target
        context.set_parameter_source("output", ParameterSource.COMMANDLINE)
    if print_config:
        text = write_config(context, flags)
        if invocation.json:
            print_json({"config": text})
        else:
            click.echo(text)
        return 0
    return _run(invocation, **flags)


def _run(
    invocation: Invocation,
    *,
    source: str,
    output: str | None,
    calib: str | None,
    calib_n: int | None,
    dynamic: bool,
    weight_only: bool,
    bits: str,
    block_size: str,
    op_types_to_quantize: str | None,
    test_data: str | None,
    check_n: int | None,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
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
    if dynamic and weight_only:
        raise UsageError("--dynamic and --weight-only are two things; give one")
    kind = "dynamic" if dynamic else "weight-only" if weight_only else "static"
    if kind == "static" and calib is None and passed_on["ranges"] is None:
        raise UsageError(
            "quantization needs data to find the range of every activation: give --calib with a "
            ".npz, a folder of them or module:function (key = input name, first axis = sample); "
            "--dynamic needs none"
        )
    data = calib if calib == "seeded" else existing_data(calib, "--calib")
    test = existing_data(test_data, "--test-data")
    dims = read_dims(dim)
    shapes = read_shapes(input_shape, source)

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline import quantize as run

    with ProgressLine(invocation) as progress:
        result = run(
            source,
            kind=kind,
            bits=int(bits),
            block_size=int(block_size),
            calibration=data,
            output=None if dry_run else target,
            calibration_count=calib_n,
            test_data=test,
            check_count=check_n,
            input_shapes=shapes,
            dims=dims,
            force=force,
            overwrite=force,
            external_data=external_data,
            op_types_to_quantize=_listed(op_types_to_quantize),
            progress=progress,
            **passed_on,
        )
    if report is not None and not dry_run:
        write_report(Path(report), result.report.to_json(indent=2))
    if invocation.json:
        print_json({"input": source, **result.report.to_dict()})
    elif not invocation.quiet:
        from graphopt.cli.quantize_summary import print_quantization

        print_quantization(source, result.report, verbose=invocation.verbose)
    return 0


def default_output(source: Path) -> Path:
    """`model.onnx` -> `model.int8.onnx`, beside it."""
    return source.parent / f"{source.name.removesuffix('.onnx')}.int8.onnx"


def _listed(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [part.strip() for part in text.split(",") if part.strip()]
