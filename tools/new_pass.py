"""Begin a pass: `python tools/new_pass.py cancel-double-negation`.

Writes `passes/graphopt_passes/<name>.py`, its first golden case, and the pass's place in the
tuple PASSES. What it writes runs and is tested as it stands; replace the rewrite by yours.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "passes" / "graphopt_passes"
CASES = ROOT / "tests" / "passes"

VERBS = (
    "cancel",
    "convert",
    "eliminate",
    "fold",
    "fuse",
    "inline",
    "insert",
    "merge",
    "prune",
    "quantize",
    "sink",
)
LONGEST = 36
"""With a longer name the import of the class would not fit on a line."""

PASS = '''\
"""Say here in one sentence what becomes of what, and below as a formula.

    Neg(Neg(x))  ->  x

Say when it does not hold, and is declined.
"""

from __future__ import annotations

from graphopt.plugin import Match, Promise, RewritePass, Rewriter, op, variable


class {class_name}(RewritePass):
    """What the list of passes says of it, on one line."""

    name = "{name}"
    promise = Promise.EXACT
    patterns = (op("Neg", op("Neg", variable("x"))),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Say what it does with a match, or raise NotApplicable with the reason."""
        rewriter.replace(match.root, match.value("x"))
'''

CASE = """\
# Say here in one sentence why this case exists.
# pass: {name}
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,4] x) => (float[N,4] y)
{{
   a = Exp (x)
   b = Neg (a)
   c = Neg (b)
   y = Relu (c)
}}
# ---- becomes ----
<
   ir_version: 8,
   opset_import: ["" : 17]
>
agraph (float[N,4] x) => (float[N,4] y) {{
   a = Exp (x)
   y = Relu (a)
}}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Begin a pass.")
    parser.add_argument("name", help=f"verb first, with hyphens; verbs: {', '.join(VERBS)}")
    name: str = parser.parse_args().name
    problem = objection(name)
    if problem is not None:
        print(f"new_pass: {problem}", file=sys.stderr)
        return 2
    module = name.replace("-", "_")
    class_name = "".join(part.capitalize() for part in name.split("-"))
    source = SOURCE / f"{module}.py"
    case = CASES / name / "first.onnxtxt"
    registry = SOURCE / "__init__.py"
    listed = with_pass(registry.read_text("utf-8"), module, class_name)
    case.parent.mkdir(parents=True, exist_ok=True)
    source.write_text(PASS.format(name=name, class_name=class_name), "utf-8")
    case.write_text(CASE.format(name=name), "utf-8")
    registry.write_text(listed, "utf-8")
    for written in (source, case, registry):
        print(f"wrote {written.relative_to(ROOT)}")
    print(f"next: pytest tests/passes/{name}; then python tools/list_passes.py")
    return 0


def objection(name: str) -> str | None:
    """Why there can be no new pass of this name; None if there can."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)+", name):
        return f"'{name}' must be lower-case words with hyphens, as in fold-constants"
    if name.split("-", 1)[0] not in VERBS:
        return f"'{name}' must begin with a verb: {', '.join(VERBS)}"
    if len(name) > LONGEST:
        return f"'{name}' is longer than {LONGEST} characters; find a shorter name"
    module = SOURCE / name.replace("-", "_")
    for taken in (module, module.with_suffix(".py"), CASES / name):
        if taken.exists():
            return f"there is a {taken.relative_to(ROOT)} already; choose another name"
    return None


def with_pass(text: str, module: str, class_name: str) -> str:
    """The text of the package with the pass imported and listed, both in order."""
    lines = text.splitlines()
    statement = f"from graphopt_passes.{module} import {class_name}"
    imports = [n for n, line in enumerate(lines) if line.startswith("from graphopt_passes.")]
    place = next((n for n in imports if lines[n] > statement), imports[-1] + 1 if imports else 1)
    lines.insert(place, statement)
    first = lines.index("PASSES = (") + 1
    last = lines.index(")", first)
    entry = f"    {class_name},"
    lines.insert(next((n for n in range(first, last) if lines[n] > entry), last), entry)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
