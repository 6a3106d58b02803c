"""Where the tests find their models: the fixtures in the project and the zoo beside it."""

import gc
from pathlib import Path

import pytest

pytest_plugins = ["graphopt.testing.pytest_plugin"]
# A project of its own, with its own conftest; test_plugin.py installs it and runs its tests.
collect_ignore = ["plugin"]

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
ZOO = ROOT.parent / "shared" / "zoo"


def pytest_collection_finish() -> None:
    """Take what collecting the tests made out of the garbage collector's sight.

    Thousands of cases stay in memory throughout; looking through them again and again takes time
    that tests of linear growth would put down to what they test.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of the small models that tools/make_fixtures.py makes."""
    return FIXTURES


@pytest.fixture(scope="session")
def zoo() -> Path:
    """The folder of real trained models; tests that need it are skipped where it is absent."""
    if not (ZOO / "MANIFEST.json").is_file():
        pytest.skip(f"the zoo of trained models is not at {ZOO}")
    return ZOO
