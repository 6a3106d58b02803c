"""What a pipe gets without rich is what rich would write into it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graphopt.cli import render

TABLES = {
    "figures": ((("pass", "time"), [("fold", "1 ms"), ("fuse-all", "12 ms")]), ("time",), 0),
    "totals": ((("op", "n"), [("Add", "1"), ("nodes", "10"), ("bytes", "3")]), ("n",), 2),
    "totals alone": ((("op", "n"), [("nodes", "10")]), ("n",), 1),
    "empty cells": ((("", "b", "c"), [("x", "", ""), ("", "y", "")]), (), 0),
    "no rows": ((("op", "before"), []), (), 0),
    "just wide enough": ((("a", "b"), [("x" * 59, "y" * 59)]), (), 0),
    "too wide": ((("a", "b"), [("x" * 60, "y" * 59)]), (), 0),
    "wide letters": ((("a", "b"), [("模型", "y"), ("é", "z")]), (), 0),
    "markup and escapes": ((("a", "b"), [("[bold]x[/]", ":smile: \x1b[1m\n")]), (), 0),
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", TABLES)
def test_a_plain_table_is_what_rich_would_write(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (headings, rows), right, totals = TABLES[name]
    render.print_table(render.make_console(), headings, rows, right=right, bold_last=totals)
    plain = capsys.readouterr().out
    monkeypatch.setattr(render, "_plain_table", lambda *_: None)
    render.print_table(render.make_console(), headings, rows, right=right, bold_last=totals)
    assert plain == capsys.readouterr().out
    assert plain.splitlines()


@pytest.mark.parametrize("text", ["", "a line", "x" * 200, "[red]no markup[/] :smile:", "模型"])
def test_a_plain_line_is_what_rich_would_write(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    render.print_line(render.make_console(), text, "bold")
    plain = capsys.readouterr().out
    # rich would write colours into a pipe that is said to be a terminal; none in this one.
    monkeypatch.setattr(render, "_RICH_VARIABLES", ("PATH",))
    render.print_line(render.make_console(), text, "bold")
    assert plain == capsys.readouterr().out == text + "\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_a_terminal_gets_styles() -> None:
    ours, theirs = os.openpty()
    script = (
        "from graphopt.cli.render import *; c = make_console()\n"
        "print_line(c, 'told', 'bold'); print_table(c, ('heading',), [('cell',)])"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        stdout=theirs,
        env={**os.environ, "TERM": "xterm"},
        check=True,
    )
    told = os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert b"\x1b[1mtold" in told
    assert b"\x1b[1mheading" in told
