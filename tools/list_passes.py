"""Write passes/README.md, the catalogue of the built-in passes, from the passes themselves.

`--check` writes nothing and fails where the file is not what would be written.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

from graphopt.catalog import PassInfo, describe

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "passes" / "README.md"

HEAD = """\
# Passes

<!-- Written by tools/list_passes.py from the docstrings and options of the passes. -->

What a pass promises about the numbers: **exact**, the same bits; **equivalent**, the same up
to the order of floating-point operations; **lossy**, different within a budget that you give.
`graphopt optimize --passes NAME{option=value},...` runs passes of your choice; `graphopt
passes show NAME` prints what stands here.

| pass | promise | what it does |
| --- | --- | --- |
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Write passes/README.md.")
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    check: bool = parser.parse_args().check
    text = page()
    current = PAGE.read_text("utf-8") if PAGE.exists() else ""
    if current == text:
        return 0
    if check:
        print("passes/README.md is out of date: run python tools/list_passes.py", file=sys.stderr)
        return 1
    PAGE.write_text(text, "utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def page() -> str:
    """The whole catalogue."""
    # The checkout's own passes, whatever else is installed.
    sys.path.insert(0, str(ROOT / "passes"))
    from graphopt_passes import PASSES

    infos = sorted((describe(item) for item in PASSES), key=lambda info: info.name)
    rows = [f"| [{i.name}](#{i.name}) | {i.promise} | {_cell(i.summary)} |\n" for i in infos]
    return HEAD + "".join(rows) + "".join(section(info) for info in infos)


def section(info: PassInfo) -> str:
    """What the catalogue says about one pass."""
    lines = [f"\n## {info.name}\n", f"Promise: {info.promise}.\n", f"{info.description.strip()}\n"]
    if info.options:
        lines.append("| option | type | default | what it does |\n| --- | --- | --- | --- |")
        lines.extend(
            f"| `{option.name}` | {_cell(option.type_name)} "
            f"| {'required' if option.required else f'`{option.default}`'} | {_cell(option.help)} |"
            for option in info.options
        )
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return inspect.cleandoc(text).replace("\n", " ").replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main())
