"""`graphopt calibrate-machine`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options

if TYPE_CHECKING:
    from graphopt.cost.latency import MachineProfile


@click.command(
    name="calibrate-machine", short_help="Measure this machine, so that latencies can be predicted."
)
@click.option("--name", default="default", show_default=True, help="What to call the profile.")
@click.option(
    "-o", "--output", metavar="FILE.json", help="Write it there instead of the user's cache folder."
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=10, max=3600),
    default=60.0,
    show_default=True,
    help="About how long to take.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    multiple=True,
    help="A number of threads to calibrate for. Repeatable.  [default: 1 and all cores]",
)
@speaking_options
@click.pass_context
def calibrate_machine(
    context: click.Context,
    /,
    name: str,
    output: str | None,
    seconds: float,
    threads: tuple[int, ...],
) -> int:
    """Run small networks of many kinds in ONNX Runtime, and keep what their kernels took.

    Nothing else should run meanwhile: what disturbs the measurement disturbs every prediction.
    """
    invocation = context.ensure_object(Invocation)

    from graphopt.cost.latency import calibrate, profile_path

    path = Path(output) if output else profile_path(name)
    with _Bar(invocation) as bar:
        profile = calibrate(name=name, threads=threads, seconds=seconds, progress=bar)
    profile.save(path)
    if invocation.json:
        print_json({"ok": True, "path": str(path), **_summary(profile)})
    elif not invocation.quiet:
        _print(profile, path)
    return 0


def _summary(profile: MachineProfile) -> dict[str, object]:
    """The profile without its samples."""
    return {
        "name": profile.name,
        "processor": profile.processor,
        "cores": profile.cores,
        "runtime": profile.runtime,
        "provider": profile.provider,
        "threads": {
            str(count): {
                "flops": fit.ceilings.flops,
                "integer_flops": fit.ceilings.integer_flops,
                "near_bandwidth": fit.ceilings.near_bandwidth,
                "far_bandwidth": fit.ceilings.far_bandwidth,
                "dispatch_seconds": fit.ceilings.dispatch,
                "spread": fit.spread,
                "classes": len(fit.classes),
                "samples": sum(len(found.targets) for found in fit.classes.values()),
            }
            for count, fit in sorted(profile.threads.items())
        },
    }


def _print(profile: MachineProfile, path: Path) -> None:
    from graphopt.cli.render import make_console, print_line, print_table

    console = make_console()
    print_line(console, f"{profile.processor}, ONNX Runtime {profile.runtime}", "bold")
    rows = []
    for count, fit in sorted(profile.threads.items()):
        ceilings = fit.ceilings
        rows.append(
            (
                str(count),
                f"{ceilings.flops / 1e9:,.0f} GFLOP/s",
                f"{ceilings.integer_flops / 1e9:,.0f} GOP/s",
                f"{ceilings.near_bandwidth / 1e9:,.0f} GB/s",
                f"{ceilings.far_bandwidth / 1e9:,.0f} GB/s",
                f"{sum(len(found.targets) for found in fit.classes.values()):,}",
                f"{100 * fit.spread:.0f} %",
            )
        )
    heads = ("threads", "fp32", "int8", "near memory", "far memory", "samples", "spread")
    print_table(console, heads, rows, right=heads)
    print_line(console, f"written to {path}")


class _Bar:
    """A progress bar on a terminal's stderr; nothing elsewhere, or under -q."""

    def __init__(self, invocation: Invocation) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            # The bar is drawn by hand: a thread that draws would be measured too.
            auto_refresh=False,
            disable=invocation.quiet or not terminal,
        )
        self._task = self._progress.add_task("starting", total=1.0)

    def __call__(self, step: str, share: float) -> None:
        """Show what is being done, and how much of the time has passed."""
        self._progress.update(self._task, description=step, completed=min(share, 1.0))
        self._progress.refresh()

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
