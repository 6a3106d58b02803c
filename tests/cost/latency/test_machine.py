"""Machine profiles: written, read back, refused, found."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from graphopt.cost.latency import MachineProfile, load_profile, profile_path
from graphopt.cost.latency.machine import Ceilings, ClassFit, ThreadFit
from graphopt.cost.latency.operation import Kernel
from graphopt.cost.latency.reference import reference_fit, reference_machine
from graphopt.cost.latency.regression import Parameters
from graphopt.errors import UsageError


def _profile() -> MachineProfile:
    relu = ClassFit(
        (1e-7, 1e-11), ((1.0, 2.5), (3.0, 0.0)), (0.1, -0.2), (0.01, 0.02), (0, 1),
        Parameters((1.0, 2.0), 0.3, 0.1, 0.05),
    )  # fmt: skip
    fit = ThreadFit(
        Ceilings(1e11, 4e11, 1e11, 1e10, 2e-7), (3e-6, 5e-7), 1e-6, 0.05, (0.5, 0.8),
        {"Relu": relu},
    )  # fmt: skip
    return MachineProfile("here", "a processor", 2, "1.0", "cpu", {1: fit, 2: replace(fit)})


def test_it_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "machine.json"
    _profile().save(path)
    assert load_profile(str(path)) == _profile()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other", "version": 1}', "null"])
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="calibrate-machine"):
        MachineProfile.from_json(text)


def test_another_version_is_refused() -> None:
    data = json.loads(_profile().to_json()) | {"version": 99}
    with pytest.raises(UsageError, match="version 99"):
        MachineProfile.from_json(json.dumps(data))


def test_a_damaged_profile_is_refused() -> None:
    data = json.loads(_profile().to_json())
    del data["threads"]["1"]["ceilings"]
    with pytest.raises(UsageError, match="damaged"):
        MachineProfile.from_json(json.dumps(data))


def _corrected() -> MachineProfile:
    """A profile that says of a class of the reference machine that here it is twice as slow."""
    base = reference_fit(1).classes["Relu"]
    twice = ClassFit(
        (2.0,), base.features[:4], (0.0,) * 4, (0.01,) * 4, (0, 1, 2, 3), base.parameters, base
    )
    fit = replace(_profile().threads[1], classes={"Relu": twice})
    return replace(_profile(), threads={1: fit}, reference=reference_machine().name)


def test_a_correction_of_the_reference_machine_is_read_back() -> None:
    machine = _corrected()
    found = MachineProfile.from_json(machine.to_json())
    assert found == machine
    assert len(machine.to_json()) < 5_000  # the reference is not written with it
    base, twice = reference_fit(1).classes["Relu"], found.at(1).classes["Relu"]
    kernel = Kernel("Relu", base.features[1], (1.0,) * len(base.rates), 0.0, 0.0)
    assert twice.seconds([kernel])[0] == pytest.approx(2 * base.seconds([kernel])[0], rel=0.02)


def test_a_correction_of_another_reference_machine_is_refused() -> None:
    text = replace(_corrected(), reference="reference of old").to_json()
    with pytest.raises(UsageError, match=r"reference of old.*calibrate-machine again"):
        MachineProfile.from_json(text)


def test_the_reference_machine_has_a_fit_for_any_number_of_threads() -> None:
    most = max(reference_machine().threads)
    assert reference_fit(64) is reference_machine().threads[most]
    assert reference_fit(1) is reference_machine().threads[1]


def test_without_a_profile_the_error_says_what_to_do(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="run graphopt calibrate-machine"):
        load_profile()
    with pytest.raises(UsageError, match="--name laptop"):
        load_profile("laptop")
    with pytest.raises(UsageError, match="-o "):
        load_profile(str(tmp_path / "absent.json"))


def test_a_named_profile_is_found(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    _profile().save(profile_path("laptop"))
    assert load_profile("laptop") == _profile()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        profile_path(name)


def test_threads_that_were_not_calibrated_are_refused() -> None:
    assert _profile().at(0) is _profile().threads[2] or _profile().at(0) == _profile().threads[2]
    with pytest.raises(UsageError, match="--threads 3"):
        _profile().at(3)
