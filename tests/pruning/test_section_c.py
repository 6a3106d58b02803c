"""Channels that are zero in effect can go without a trace, or are declined with the reason."""

import pytest

from tests.pruning.pruning_models import assert_declined, assert_exact
from tests.pruning.section_c_situations import DECLINED, EXACT


@pytest.mark.parametrize("name", EXACT)
def test_prunes_exactly(name: str) -> None:
    assert_exact(EXACT[name]())


@pytest.mark.parametrize("name", DECLINED)
def test_declines_with_the_reason(name: str) -> None:
    assert_declined(DECLINED[name]())
