"""Writes what a tool measured into docs/benchmarks.md, between the marks that are its own."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def write_between(begin: str, end: str, text: str) -> None:
    """Put the text, which ends in a new line, between the marks; the rest of the page stays.

    Raises:
        SystemExit: the page has no such marks.
    """
    page = PAGE.read_text(encoding="utf-8")
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{PAGE} has no '{begin}' and '{end}': write them where it is to go")
    PAGE.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")
