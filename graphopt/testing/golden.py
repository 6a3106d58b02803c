"""Golden cases: a model before and after a pass, as ONNX text in one file.

    # One sentence: why this case exists.
    # pass: fuse-conv-batchnorm{option=1}
    <ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,3,8,8] x) => (float[N,4,6,6] y) <float[4,3,3,3] w = {...}> { ... }
    # ---- becomes ----
    <...>

A case in which the pass leaves the model alone ends, in place of the second half, with one
line for each reason that the pass gives, and with a bare `# unchanged` if it gives none:

    # unchanged, because: Conv output 't' is a graph output

`w = {...}` stands for small numbers that depend on the name and the shape alone. A line
`# not run, because: ONNX Runtime has no bfloat16 Conv` ahead of the model says that the
numbers cannot be compared; it is an error where they can.
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphopt.catalog import resolve
from graphopt.errors import GraphoptError, UsageError
from graphopt.graph import from_text, ir, verify
from graphopt.shapes import infer_shapes
from graphopt.testing.trial import Trial, run_trial, without_inner_types

SUFFIX = ".onnxtxt"

_BECOMES = "# ---- becomes ----"
_UNCHANGED = "# unchanged"
_BECAUSE = "# unchanged, because: "
_PASS = "# pass: "  # noqa: S105 - a heading, not a password
_NOT_RUN = "# not run, because: "
_FILLER = re.compile(r"(\w+)\[([\d,\s]*)\]\s+(\"[^\"]+\"|[\w.]+)\s*=\s*\{\s*\.\.\.\s*\}")


class GoldenMismatch(AssertionError):  # noqa: N818 - a failed assertion, as test runners know it
    """A pass did something else than the golden case says; the message shows the difference."""


@dataclass(frozen=True)
class Case:
    """One golden case.

    Attributes:
        path: the file.
        why: the sentence at its top.
        spec: the pass with its options.
        before: the model as written, in ONNX text.
        after: the model expected, in ONNX text; None where the pass is to change nothing.
        reasons: why it is to change nothing, as its journal says.
        not_run: why the numbers cannot be compared; None if they are.
    """

    path: Path
    why: str
    spec: str
    before: str
    after: str | None
    reasons: tuple[str, ...]
    not_run: str | None

    @property
    def name(self) -> str:
        """The folder, which is the pass's name by convention, and the file's stem."""
        return f"{self.path.parent.name}/{self.path.stem}"

    def check(self) -> None:
        """Run the pass on the left half and compare with the right one.

        Both halves are run in ONNX Runtime too, and have to agree as the pass promises.

        Raises:
            GoldenMismatch: the result, the reasons or the numbers differ, or the result is
                not valid.
            GraphoptError: the file itself is at fault.
        """
        trial = self._trial()
        if trial.problem is not None:
            raise GoldenMismatch(f"{self.spec} on {self.path}: {trial.problem}")
        difference = self._difference(trial)
        if difference is not None:
            raise GoldenMismatch(f"{self.path}: {difference}")
        if trial.not_run is not None and self.not_run is None and self.after is not None:
            raise GoldenMismatch(
                f"{self.path}: the numbers cannot be compared ({trial.not_run}); "
                f"if that has to be, write '{_NOT_RUN}...' ahead of the model"
            )
        if trial.not_run is None and self.not_run is not None:
            raise GoldenMismatch(
                f"{self.path}: says '{_NOT_RUN}{self.not_run}', but it ran; remove the line"
            )

    def update(self) -> bool:
        """Write what the pass does as the right half; whether that changed the file.

        Raises:
            GoldenMismatch: the result is wrong in itself, so there is nothing to write.
            GraphoptError: the file itself is at fault.
        """
        trial = self._trial()
        if trial.problem is not None:
            raise GoldenMismatch(f"{self.spec} on {self.path}: {trial.problem}")
        old = self.path.read_text("utf-8")
        head = re.split(rf"(?m)^{_BECOMES}|^{_UNCHANGED}", old)[0]
        new = head.rstrip() + "\n" + _ending(trial)
        if new != old:
            self.path.write_text(new, "utf-8")
        return new != old

    def _trial(self) -> Trial:
        return run_trial(resolve(self.spec), _model(self.before, f"{self.path}, left half"))

    def _difference(self, trial: Trial) -> str | None:
        """How the trial differs from what the case says; None if it does not."""
        if self.after is None:
            if trial.changed:
                done = "; ".join(rewrite.detail for rewrite in trial.journal.rewrites)
                return f"is to stay unchanged, but {self.spec} did: {done}"
            expected, actual = sorted(self.reasons), sorted(_reasons(trial))
            if expected == actual:
                return None
            return _diff(_because(expected), _because(actual))
        if not trial.changed:
            return f"{self.spec} changed nothing; {_because(_reasons(trial)).strip()}"
        expected_text = without_inner_types(_model(self.after, f"{self.path}, right half"))
        actual_text = without_inner_types(trial.result)
        return None if expected_text == actual_text else _diff(expected_text, actual_text)


def golden_cases(folder: str | Path) -> list[Case]:
    """Every golden case under a folder, in order of path.

    Raises:
        UsageError: a file is no golden case; the message says what it lacks.
    """
    return [read_case(path) for path in sorted(Path(folder).rglob(f"*{SUFFIX}"))]


def read_case(path: str | Path) -> Case:
    """Read one golden case.

    A file without an ending is a case whose right half is yet to be written by `update`; it
    is read as `# unchanged`.

    Raises:
        UsageError: the file is no golden case; the message says what it lacks.
    """
    path = Path(path)
    text = path.read_text("utf-8")
    left, becomes, right = text.partition(f"\n{_BECOMES}\n")
    why: list[str] = []
    model: list[str] = []
    reasons: list[str] = []
    spec = not_run = None
    for line in left.splitlines():
        if line.startswith(_PASS):
            spec = line.removeprefix(_PASS).strip()
        elif line.startswith(_NOT_RUN):
            not_run = line.removeprefix(_NOT_RUN).strip()
        elif line.startswith(_BECAUSE):
            reasons.append(line.removeprefix(_BECAUSE).strip())
        elif line.startswith(_UNCHANGED):
            if line.rstrip() != _UNCHANGED:
                raise UsageError(f"{path}: '{line}' is neither '{_UNCHANGED}' nor '{_BECAUSE}...'")
        elif line.startswith("#") and not model:
            why.append(line.lstrip("# ").rstrip())
        else:
            model.append(line)
    if not why:
        raise UsageError(f"{path}: the first line must say why the case exists: '# ...'")
    if spec is None:
        raise UsageError(f"{path}: there is no line '{_PASS}name'")
    if reasons and becomes:
        raise UsageError(f"{path}: a case is either unchanged or becomes something")
    return Case(
        path=path,
        why=" ".join(why),
        spec=spec,
        before="\n".join(model),
        after=right if becomes else None,
        reasons=tuple(reasons),
        not_run=not_run,
    )


def _model(text: str, place: str) -> ir.Model:
    """The model that half a case describes, checked, its shapes inferred."""
    try:
        model = from_text(_FILLER.sub(_filled, text))
        problems = verify(model)
        if not problems:
            infer_shapes(model)
            return model
    except GraphoptError as error:
        raise type(error)(f"{place}: {error}") from error
    raise UsageError(f"{place}: {problems[0]}")


def _filled(declaration: re.Match[str]) -> str:
    """`type[shape] name = {numbers}` for a declaration that leaves the numbers open."""
    kind, dims, name = declaration.groups()
    shape = [int(dim) for dim in dims.split(",") if dim.strip()]
    generator = np.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    whole = generator.integers(-8, 9, size=int(np.prod(shape)))
    if kind in ("float", "double"):
        numbers: Iterable[object] = (whole / 4).tolist()
    elif kind in ("float16", "bfloat16"):
        # The notation has the bits of these types, as integers.
        dtype = ir.DataType[kind.upper()].numpy()
        numbers = (whole / 4).astype(dtype).view(np.uint16).tolist()
    elif kind == "bool":
        numbers = (whole > 0).astype(int).tolist()
    elif kind.startswith("uint"):
        numbers = abs(whole).tolist()
    else:
        numbers = whole.tolist()
    return f"{kind}[{dims}] {name} = {{{', '.join(map(str, numbers))}}}"


def _reasons(trial: Trial) -> list[str]:
    return list(dict.fromkeys(decline.reason for decline in trial.journal.declined))


def _because(reasons: Iterable[str]) -> str:
    lines = [f"{_BECAUSE}{reason}" for reason in reasons]
    return "\n".join(lines or [_UNCHANGED]) + "\n"


def _ending(trial: Trial) -> str:
    if not trial.changed:
        return _because(_reasons(trial))
    return f"{_BECOMES}\n{without_inner_types(trial.result)}"


def _diff(expected: str, actual: str) -> str:
    lines = difflib.unified_diff(
        expected.splitlines(), actual.splitlines(), "expected", "actual", lineterm="", n=2
    )
    return "the pass did something else (pytest --update writes it)\n" + "\n".join(lines)
