"""`graphopt compare A B`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import comparison_options, existing_data, read_dims, read_shapes
from graphopt.errors import EquivalenceError, RuntimeUnavailableError

if TYPE_CHECKING:
    from graphopt.report import CheckReport


@click.command(short_help="Run two models on the same inputs; exit 4 if they differ.")
@click.argument("expected", metavar="A.onnx")
@click.argument("actual", metavar="B.onnx")
@comparison_options
@click.option(
    "--all-tensors",
    is_flag=True,
    help="Compare every tensor that both have, too; the first bad layer comes first.",
)
@click.option(
    "--least-sqnr",
    type=float,
    default=20.0,
    show_default=True,
    help="With --all-tensors: a tensor below so many dB is bad.",
)
@speaking_options
@click.pass_context
def compare(
    context: click.Context,
    /,
    expected: str,
    actual: str,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
    input_data: str | None,
    check_n: int | None,
    all_tensors: bool,
    least_sqnr: float,
    **passed_on: Any,
) -> int:
    """Run A.onnx and B.onnx on the same inputs and compare their outputs by name.

    With --all-tensors every layer is compared as well, for any two models of which one was made
    of the other (optimized, fp16, int8): by name, or by what the nodes say they were made of.
    """
    invocation = context.ensure_object(Invocation)
    data = existing_data(input_data)
    dims = read_dims(dim)
    shapes = read_shapes(input_shape, expected)

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline import compare as run
    from graphopt.pipeline import compare_tensors
    from graphopt.report import CheckStatus

    with ProgressLine(invocation) as progress:
        progress("comparing")
        check = run(
            expected,
            actual,
            input_shapes=shapes,
            dims=dims,
            input_data=data,
            count=check_n,
            **passed_on,
        )
        tensors = None
        if all_tensors and check.status is not CheckStatus.NOT_VERIFIED:
            tensors = compare_tensors(
                expected,
                actual,
                input_shapes=shapes,
                dims=dims,
                input_data=data,
                count=check_n,
                seed=passed_on["seed"],
                least=least_sqnr,
                progress=lambda feeds: progress(f"comparing all tensors ({feeds})"),
            )
    if check.status is CheckStatus.NOT_VERIFIED:
        raise RuntimeUnavailableError(f"the models could not be compared: {check.reason}")
    same = check.status is CheckStatus.VERIFIED
    if invocation.json:
        document = {"ok": same, "expected": expected, "actual": actual, **as_data(check)}
        if tensors is not None:
            document["tensors"] = tensors.to_dict()
        print_json(document)
    elif not invocation.quiet:
        if tensors is not None:
            from graphopt.cli.tensor_table import print_tensors

            print_tensors(tensors)
        _print(check)
    return 0 if same else EquivalenceError.exit_code


def as_data(check: CheckReport) -> dict[str, Any]:
    """A check as the plain data that its report would hold."""
    from graphopt.report import ModelStatistics, Report

    nothing = ModelStatistics(0, {}, 0, 0, None)
    data: dict[str, Any] = json.loads(Report(nothing, nothing, check=check).to_json())["check"]
    return data


def _print(check: CheckReport) -> None:
    from graphopt.cli.render import check_style, check_text, make_console, print_line, print_table

    console = make_console()
    if check.outputs:
        print_table(
            console,
            ("output", "max abs error", "of the scale", "result"),
            [
                (
                    output.name,
                    f"{output.max_abs_error:.2e}",
                    f"{output.relative_error:.2e}",
                    "same" if output.ok else f"DIFFERENT: {output.reason}",
                )
                for output in check.outputs
            ],
            right=("max abs error", "of the scale"),
        )
        print_line(console)
    print_line(console, check_text(check), check_style(check))
