"""`graphopt bisect IN --passes a,b -o repro/`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graphopt.cli.invocation import Invocation, print_json, speaking_options
from graphopt.cli.options import comparison_options, existing_data, read_dims, read_shapes
from graphopt.cli.preprocessing import preprocessing_options, read_normalization
from graphopt.errors import EquivalenceError, OutputError

if TYPE_CHECKING:
    from graphopt.pipeline import Culprit
    from graphopt.runtime import Feed

FILES = ("before.onnx", "after.onnx", "inputs.npz", "REPORT.txt")


@click.command(short_help="Find the pass and the rewrite that change what a model computes.")
@click.argument("source", metavar="IN.onnx")
@click.option("--passes", metavar="a,b{x=1}", help="The passes to run; without it, those of -O.")
@click.option("-O", "level", type=click.IntRange(0, 3), default=2, show_default=True)
@click.option("--skip", metavar="a,b", help="Leave these passes out.")
@click.option(
    "--target-opset", type=click.IntRange(min=1), help="Raise the model to this opset first."
)
@click.option(
    "-o",
    "--output",
    default="repro",
    show_default=True,
    metavar="FOLDER",
    help=f"Where a culprit is written: {', '.join(FILES)}.",
)
@click.option("--force", is_flag=True, help="Overwrite the files of an earlier run.")
@preprocessing_options
@comparison_options
@speaking_options
@click.pass_context
def bisect(
    context: click.Context,
    /,
    source: str,
    passes: str | None,
    level: int,
    skip: str | None,
    output: str,
    force: bool,
    input_shape: tuple[str, ...],
    dim: tuple[str, ...],
    normalize: tuple[str, ...],
    image_input: tuple[str, ...],
    input_data: str | None,
    check_n: int | None,
    **passed_on: Any,
) -> int:
    """Find the first rewrite that changes what IN.onnx computes, and write a reproduction.

    Flags that `graphopt optimize` has too mean the same: give those of the run that failed.

    Exits 0 where nothing is wrong, and 4 with a culprit.
    """
    invocation = context.ensure_object(Invocation)
    folder = Path(output)
    _refuse(folder, force)
    data = existing_data(input_data)
    dims = read_dims(dim)
    shapes = read_shapes(input_shape, source)
    numbers = read_normalization(normalize)

    from graphopt.cli.progress import ProgressLine
    from graphopt.pipeline import bisect as run

    with ProgressLine(invocation) as progress:
        culprit = run(
            source,
            level=level,
            passes=passes,
            skip=skip or "",
            input_shapes=shapes,
            dims=dims,
            normalize=numbers,
            image_inputs=image_input,
            input_data=data,
            count=check_n,
            progress=progress,
            **passed_on,
        )
        if culprit is not None:
            progress("writing the reproduction")
            written = _write(folder, source, culprit)
    if culprit is None:
        if invocation.json:
            print_json({"ok": True, "culprit": None})
        elif not invocation.quiet:
            click.echo("nothing is wrong: the outputs agree with the original's")
        return 0
    if invocation.json:
        from graphopt.cli.compare import as_data

        found = {
            "pass": culprit.spec,
            "site": culprit.site,
            "detail": culprit.detail,
            "check": as_data(culprit.check),
            "files": [str(path) for path in written],
        }
        print_json({"ok": False, "culprit": found})
    elif not invocation.quiet:
        from graphopt.cli.render import make_console, print_line

        console = make_console()
        print_line(console, f"culprit: {culprit}", "bold red")
        print_line(console, f"wrote {', '.join(map(str, written))}")
    return EquivalenceError.exit_code


def _refuse(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file; name a folder")
    if not folder.parent.is_dir():
        raise OutputError(f"the folder '{folder.parent}' does not exist; make it first")
    taken = next((folder / name for name in FILES if (folder / name).exists()), None)
    if taken is not None and not force:
        raise OutputError(f"'{taken}' exists already; name another folder, or add --force")


def _write(folder: Path, source: str, culprit: Culprit) -> list[Path]:
    from graphopt.graph import save

    try:
        folder.mkdir(exist_ok=True)
        written = [
            *save(culprit.before, folder / "before.onnx", overwrite=True),
            *save(culprit.after, folder / "after.onnx", overwrite=True),
        ]
        notes = ["no single input shows the difference"]
        if culprit.feed is not None:
            notes = _write_feed(folder / "inputs.npz", culprit.feed)
            written.append(folder / "inputs.npz")
        report = folder / "REPORT.txt"
        report.write_text("\n".join(_report(source, culprit, notes)) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write into '{folder}': {error.strerror}") from error
    return [*written, report]


def _write_feed(path: Path, feed: Feed) -> list[str]:
    """Write a feed so that --input-data reads it back: one sample along a new first axis."""
    import numpy as np

    notes: list[str] = []
    # Not np.savez: to that, an input named "file" is its own argument.
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in feed.items():
            if not isinstance(value, np.ndarray):
                notes.append(f"input '{name}' is a sequence or absent, which .npz cannot hold")
                continue
            # Objects would be pickled, which nobody should have to load.
            array = value.astype(str) if value.dtype == object else value
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array[np.newaxis], allow_pickle=False)
    return notes


def _report(source: str, culprit: Culprit, notes: Iterable[str]) -> list[str]:
    lines = [f"model:   {source}", f"pass:    {culprit.spec}"]
    if culprit.site is not None:
        lines += [f"place:   {culprit.site}", f"rewrite: {culprit.detail}"]
    lines += [f"differs: {culprit.check.reason}", ""]
    for output in culprit.check.outputs:
        verdict = "same" if output.ok else f"DIFFERENT: {output.reason}"
        lines.append(f"output '{output.name}': {verdict}")
    lines += [f"note: {note}" for note in notes]
    return [
        *lines,
        "",
        "before.onnx is the model just before that rewrite, after.onnx just after it. See it:",
        "  graphopt compare before.onnx after.onnx --inputs inputs.npz",
    ]
