"""Flags that the commands share that make a model smaller."""

from __future__ import annotations

import click

from graphopt.cli.invocation import speaking_options
from graphopt.cli.options import Decorated, output_options, shape_options, together


def file_arguments(command: Decorated) -> Decorated:
    """Add what is read and what is written."""
    return together(
        click.argument("source", metavar="IN.onnx"),
        click.argument("target", metavar="[OUT.onnx]", required=False),
        click.option(
            "-o", "--output", metavar="OUT.onnx", help="Where to write  [default: IN.pruned.onnx]."
        ),
    )(command)


def judging_options(command: Decorated) -> Decorated:
    """Add the flags that say how both models are judged, and what is written and printed."""
    return together(
        click.option(
            "--metric",
            metavar="agreement|sqnr|module:function",
            help="What --max-drop is about  [default: agreement with the original].",
        ),
        click.option(
            "--calib-n",
            type=click.IntRange(min=1),
            default=1024,
            show_default=True,
            help="How many feeds of --calib to read.",
        ),
        shape_options,
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Of random choices.",
        ),
        click.option(
            "--measure/--no-measure", default=True, show_default=True, help="Time both models."
        ),
        click.option(
            "--threads",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Threads to time with; 0 is ONNX Runtime's choice.",
        ),
        output_options("Overwrite what exists."),
        speaking_options,
    )(command)
