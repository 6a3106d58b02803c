"""The command line: one file per subcommand; what is heavy is imported where it is used."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any

import click

from graphopt.cli.invocation import run

_NAMES = (
    "bench",
    "bisect",
    "calibrate-machine",
    "compare",
    "cost",
    "distill",
    "extract",
    "fp16",
    "inspect",
    "layout",
    "merge",
    "optimize",
    "passes",
    "prune",
    "prune-blocks",
    "quantize",
)
"""The subcommands; each stands in the file of its name, and is called so there."""


class _Commands(click.Group):
    """Imports the file of a subcommand when it is asked for: only `--help` asks for all."""

    def __init__(self, **settings: Any) -> None:
        # Names alone, so that click can say which one was meant.
        super().__init__(commands=dict.fromkeys(_NAMES, click.Command(None)), **settings)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _NAMES:
            return None
        file = name.replace("-", "_")
        command: click.Command = getattr(import_module(f"graphopt.cli.{file}"), file)
        return command


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        import graphopt

        click.echo(f"graphopt {graphopt.__version__}")
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
