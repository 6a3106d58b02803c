"""A golden case fails where anything about it is not as it says, and --update writes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphopt.errors import GraphoptError, UsageError
from graphopt.testing import Case, GoldenMismatch, golden_cases, read_case

SPEC = "tests.testing.careless_passes:"
TWICE = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,2] x) => (float[N,2] y)
{
   a = Relu (x)
   b = Neg (a)
   c = Neg (b)
   y = Relu (c)
}
"""
ONCE = """
<ir_version: 8, opset_import: ["" : 17]>
agraph (float[N,2] x) => (float[N,2] y)
{
   a = Relu (x)
   y = Relu (a)
}
"""


@pytest.fixture
def case(tmp_path: Path):
    def write(spec: str, before: str, ending: str = "", *, head: str = "") -> Case:
        path = tmp_path / "case.onnxtxt"
        text = f"# Why.\n# pass: {SPEC}{spec}\n{head}{before.strip()}\n{ending}"
        path.write_text(text, "utf-8")
        return read_case(path)

    return write


def becomes(after: str) -> str:
    return f"# ---- becomes ----\n{after}"


def test_a_right_case_passes(case) -> None:
    case("CancelDoubleNegation", TWICE, becomes(ONCE)).check()


def test_another_result_fails_with_a_diff(case) -> None:
    wrong = becomes(ONCE.replace("y = Relu (a)", "y = Abs (a)"))
    with pytest.raises(GoldenMismatch, match=r"(?s)-   y = Abs \(a\).*\+   y = Relu \(a\)"):
        case("CancelDoubleNegation", TWICE, wrong).check()


def test_another_constant_fails(case) -> None:
    before = TWICE.replace("{", "<float[2] k = {1, 2}> {", 1).replace("(c)", "(k, c)")
    before = before.replace("y = Relu", "y = Add")
    after = "<float[2] k = {1, 3}> {"
    right = ONCE.replace("y = Relu (a)", "y = Add (k, a)").replace("{", after, 1)
    case("CancelDoubleNegation", before, becomes(right.replace("3}", "2}"))).check()
    with pytest.raises(GoldenMismatch, match="k ="):
        case("CancelDoubleNegation", before, becomes(right)).check()


def test_no_change_where_one_is_expected_fails(case) -> None:
    with pytest.raises(GoldenMismatch, match="changed nothing"):
        case("CancelDoubleNegation", ONCE, becomes(ONCE)).check()


def test_a_change_where_none_is_expected_fails(case) -> None:
    with pytest.raises(GoldenMismatch, match="is to stay unchanged, but"):
        case("CancelDoubleNegation", TWICE, "# unchanged\n").check()


@pytest.mark.parametrize(
    ("ending", "right"),
    [
        ("# unchanged, because: Neg output 'b' is a graph output\n", True),
        ("# unchanged, because: Neg output 'b' is\n", False),
        ("# unchanged, because: of something else\n", False),
        ("# unchanged\n", False),
    ],
)
def test_the_reason_has_to_be_the_one_given(case, ending: str, right: bool) -> None:
    declined = TWICE.replace("(float[N,2] y)", "(float[N,2] y, float[N,2] b)")
    checked = case("CancelDoubleNegation", declined, ending)
    if right:
        checked.check()
    else:
        with pytest.raises(GoldenMismatch, match="is a graph output"):
            checked.check()


def test_wrong_numbers_fail_even_if_the_text_is_as_expected(case) -> None:
    before = ONCE.replace("y = Relu (a)", "b = Neg (a)\n y = Relu (b)")
    with pytest.raises(GoldenMismatch, match="output 'y' is not the same bits"):
        case("CancelAnyNegation", before, becomes(ONCE)).check()


def test_exact_means_the_same_bits(case) -> None:
    before = ONCE.replace("{", "<float a1 = {0.1}, float b1 = {1000.3}> {", 1)
    before = before.replace("y = Relu (a)", "b = Add (a, a1)\n y = Add (b, b1)")
    after = ONCE.replace("{", "<float total = {1000.39996}> {", 1)
    after = after.replace("y = Relu (a)", "y = Add (a, total)")
    case("ReorderSumEquivalent", before, becomes(after)).check()
    with pytest.raises(GoldenMismatch, match="not the same bits, which the pass promises"):
        case("ReorderSum", before, becomes(after)).check()


def test_an_invalid_left_half_fails(case) -> None:
    dangling = ONCE.replace("{", "<float[2] w> {", 1).replace("(a)", "(w)")
    with pytest.raises(GraphoptError, match="left half"):
        case("CancelDoubleNegation", dangling, "# unchanged\n").check()


def test_what_cannot_be_run_has_to_be_said(case) -> None:
    custom = TWICE.replace('["" : 17]', '["" : 17, "own" : 1]').replace("= Relu (c)", "= own.R (c)")
    result = ONCE.replace('["" : 17]', '["" : 17, "own" : 1]').replace("= Relu (a)", "= own.R (a)")
    said = "# not run, because: nobody has it\n"
    with pytest.raises(GoldenMismatch, match="the numbers cannot be compared"):
        case("CancelDoubleNegation", custom, becomes(result)).check()
    case("CancelDoubleNegation", custom, becomes(result), head=said).check()
    with pytest.raises(GoldenMismatch, match="but it ran"):
        case("CancelDoubleNegation", TWICE, becomes(ONCE), head=said).check()


def test_update_writes_the_right_half(case) -> None:
    unfinished = case("CancelDoubleNegation", TWICE)
    assert unfinished.update()
    written = read_case(unfinished.path)
    written.check()
    assert "Neg" not in (written.after or "Neg")
    assert written.before.strip() == TWICE.strip()
    assert not written.update()


def test_update_writes_the_reasons(case) -> None:
    declined = TWICE.replace("(float[N,2] y)", "(float[N,2] y, float[N,2] b)")
    unfinished = case("CancelDoubleNegation", declined, becomes(ONCE))
    assert unfinished.update()
    assert read_case(unfinished.path).reasons == ("Neg output 'b' is a graph output",)


def test_update_does_not_write_what_is_wrong(case) -> None:
    before = ONCE.replace("y = Relu (a)", "b = Neg (a)\n y = Relu (b)")
    wrong = case("CancelAnyNegation", before)
    old = wrong.path.read_text()
    with pytest.raises(GoldenMismatch, match="same bits"):
        wrong.update()
    assert wrong.path.read_text() == old


def test_open_numbers_are_filled_the_same_way_each_time(case) -> None:
    text = TWICE.replace("{", "<float[2,3] w = {...}, float16[2] h = {...}> {", 1)
    text = text.replace("(float[N,2] y)", "(float[N,2] y, float[2,3] v, float16[2] g)")
    text = text.replace("y = Relu (c)", "y = Relu (c) v = Neg (w) g = Neg (h)")
    first = case("CancelDoubleNegation", text)
    first.update()
    written = first.path.read_text()
    first.path.write_text(written.split("# ----")[0])
    read_case(first.path).update()
    assert first.path.read_text() == written
    assert "{...}" not in written.split("# ----")[1]


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("# pass: a\n", "why the case exists"),
        ("# Why.\n<...>\n", "no line '# pass: name'"),
        ("# Why.\n# pass: a\n# unchanged because of this\n", "is neither"),
        ("# Why.\n# pass: a\n# unchanged, because: x\n# ---- becomes ----\n<>", "either"),
    ],
)
def test_a_malformed_case_is_an_error(tmp_path: Path, text: str, lacks: str) -> None:
    (tmp_path / "case.onnxtxt").write_text(text)
    with pytest.raises(UsageError, match=lacks):
        golden_cases(tmp_path)
