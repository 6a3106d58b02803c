"""Every built-in pass has golden cases of both kinds, and falls into no trap.

The cases themselves, `<pass>/*.onnxtxt`, are collected by graphopt.testing.pytest_plugin.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from graphopt_passes import PASSES

from graphopt.plugin import Pass
from graphopt.testing import golden_cases, run_traps

CASES = Path(__file__).resolve().parent
OURS = [item for item in PASSES if item.name != "onnxsim"]  # its results are not ours to pin


@pytest.mark.parametrize("item", OURS, ids=lambda item: item.name)
def test_a_pass_has_cases_that_change_and_cases_that_do_not(item: type[Pass]) -> None:
    cases = golden_cases(CASES / item.name)
    assert any(case.after is not None for case in cases)
    assert any(case.after is None for case in cases)


def test_each_case_stands_in_the_folder_of_its_pass() -> None:
    names = {item.name for item in PASSES}
    for case in golden_cases(CASES):
        assert case.path.parent.name in names
        assert case.spec.split("{")[0] == case.path.parent.name


def test_no_two_cases_of_a_pass_have_one_left_half() -> None:
    seen: dict[tuple[str, str], str] = {}
    for case in golden_cases(CASES):
        other = seen.setdefault((case.spec, case.before.strip()), case.name)
        assert other == case.name


@pytest.mark.parametrize("item", OURS, ids=lambda item: item.name)
def test_a_pass_falls_into_no_trap(item: type[Pass]) -> None:
    assert [result for result in run_traps(item) if not result.ok] == []
