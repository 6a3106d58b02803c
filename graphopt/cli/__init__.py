"""The command line: one file per subcommand; what is heavy is imported where it is used."""

from __future__ import annotations

import gc
import sys

import click

from graphopt.cli.bench import bench
from graphopt.cli.bisect import bisect
from graphopt.cli.calibrate_machine import calibrate_machine
from graphopt.cli.compare import compare
from graphopt.cli.cost import cost
from graphopt.cli.distill import distill
from graphopt.cli.extract import extract
from graphopt.cli.fp16 import fp16
from graphopt.cli.inspect import inspect
from graphopt.cli.invocation import run
from graphopt.cli.optimize import optimize
from graphopt.cli.passes import passes
from graphopt.cli.prune import prune
from graphopt.cli.quantize import quantize


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        import graphopt

        click.echo(f"graphopt {graphopt.__version__}")
        context.exit()


@click.group(
    commands=[
        optimize,
        quantize,
        fp16,
        prune,
        distill,
        cost,
        compare,
        bench,
        extract,
        inspect,
        passes,
        bisect,
        calibrate_machine,
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
def commands() -> None:
    """Optimize exported ONNX models, and prove the result.

    Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the model is unreadable or invalid;
    4 outputs differ; 5 a pass was undone under --strict.
    """


def main() -> None:
    """Run the command line on `sys.argv` and leave with its exit code."""
    # So that `module:Class` finds what stands in the current folder, as under `python -m`; last,
    # so that nothing there can stand in for an installed module.
    if "" not in sys.path:
        sys.path.append("")
    code = run(commands, sys.argv[1:])
    # Python looks for cycles in all that is loaded, more than once, while it ends: a tenth of a
    # short command's time. Nothing is left that needs it.
    gc.freeze()
    sys.exit(code)
