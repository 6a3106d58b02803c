"""What a calibration found out about a machine: a small file that can be named and shipped.

The file is JSON. It holds the samples that were measured (a few hundred at most for a kernel
class), reduced to features and the ratio of time to a guess, and the parameters fitted to them.
Where the guess is what the reference machine (see `reference`) takes, the file says so, and by
which of them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.cost.latency.operation import Kernel
from graphopt.cost.latency.regression import GaussianProcess, Parameters
from graphopt.errors import OutputError, UsageError

FORMAT = "graphopt-machine-profile"
VERSION = 2
_UNMEASURED = 0.2
"""The standard deviation of how a class differs from the others that none of its samples tells."""
DEFAULT_NAME = "default"


@dataclass(frozen=True)
class Ceilings:
    """The best that was seen at one number of threads.

    Attributes:
        flops: floating-point operations per second.
        integer_flops: operations per second on 8-bit integers.
        near_bandwidth: bytes per second where they fit the core's own caches.
        far_bandwidth: bytes per second where they do not.
        dispatch: seconds that the smallest kernel takes.
    """

    flops: float
    integer_flops: float
    near_bandwidth: float
    far_bandwidth: float
    dispatch: float

    def bound(self, kernel: Kernel) -> float:
        """Seconds that the kernel would take at the ceilings: its work, its traffic, its start."""
        return self.compute(kernel) + kernel.bytes / self.near_bandwidth + self.dispatch

    def compute(self, kernel: Kernel) -> float:
        """Seconds of its arithmetic alone, at the ceiling."""
        return kernel.flops / (self.integer_flops if kernel.integer else self.flops)


@dataclass(frozen=True)
class ClassFit:
    """The samples of one kernel class at one number of threads, and what was fitted to them.

    Attributes:
        rates: seconds for each unit of the terms of a kernel; their sum is the first guess. One
            factor where there is a base.
        features: a row for each sample.
        targets: for each sample log(seconds / first guess), or the ratio less 1 where that is
            uncertain.
        spreads: the standard deviation of the measurement, of each target.
        groups: for each sample a number of the model that it was measured in.
        parameters: those of the Gaussian process.
        base: the fit of another machine; its prediction times the factor is the first guess, and
            all there is where nothing was measured here.
    """

    rates: tuple[float, ...]
    features: tuple[tuple[float, ...], ...]
    targets: tuple[float, ...]
    spreads: tuple[float, ...]
    groups: tuple[int, ...]
    parameters: Parameters
    base: ClassFit | None = None

    def guesses(self, kernels: Sequence[Kernel]) -> np.ndarray:
        """Seconds of each kernel before what the process corrects."""
        if self.base is not None:
            terms = self.base.seconds(kernels)[:, None]
        else:
            terms = np.array([kernel.terms for kernel in kernels])
        guesses: np.ndarray = terms @ np.array(self.rates)
        return guesses

    def seconds(self, kernels: Sequence[Kernel]) -> np.ndarray:
        """What each kernel is predicted to take."""
        guesses = self.guesses(kernels)
        if self.features:
            mean = self.process.mean(np.array([kernel.features for kernel in kernels]))
            guesses *= np.exp(self._within(mean))
        return guesses

    def correction(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For rows of features the logarithm that corrects the guess, and its covariance."""
        mean, covariance = np.zeros(len(rows)), np.full((len(rows),) * 2, _UNMEASURED**2)
        if self.features:
            mean, covariance = self.process.predict(rows)
            mean = self._within(mean)
        if self.base is not None:  # whose guess is uncertain too
            covariance = covariance + self.base.correction(rows)[1]
        return mean, covariance

    def _within(self, mean: np.ndarray) -> np.ndarray:
        """Nothing is slower or faster than its guess by more than any sample was."""
        clipped: np.ndarray = np.clip(mean, min(0.0, *self.targets), max(0.0, *self.targets))
        return clipped

    @cached_property
    def process(self) -> GaussianProcess:
        """The process, conditioned on the samples."""
        features, targets, spreads, groups = map(
            np.array, (self.features, self.targets, self.spreads, self.groups)
        )
        return GaussianProcess(features, targets, spreads, groups, self.parameters)


@dataclass(frozen=True)
class ThreadFit:
    """All that is known of the machine at one number of threads.

    Attributes:
        ceilings: its best rates.
        run_overhead: seconds that a run takes beside its kernels, and seconds more for each input
            and output of the graph.
        profiler_charge: seconds that ONNX Runtime's profiler adds to a kernel.
        spread: the standard deviation of log(measured / predicted) over whole models that the
            kernels do not explain.
        typical: mean and standard deviation of log(seconds / bound) over all samples, for a
            class that has none.
        classes: the fit of each kernel class.
    """

    ceilings: Ceilings
    run_overhead: tuple[float, float]
    profiler_charge: float
    spread: float
    typical: tuple[float, float]
    classes: dict[str, ClassFit]


@dataclass(frozen=True)
class MachineProfile:
    """A calibrated machine.

    Attributes:
        name: what the user calls it.
        processor: what the system calls its processor.
        cores: how many cores the system shows.
        runtime: the version of ONNX Runtime that was measured.
        provider: the execution provider that was measured.
        threads: the fit by number of threads.
        reference: the name of the machine whose fits some of its classes correct; "" for none.
    """

    name: str
    processor: str
    cores: int
    runtime: str
    provider: str
    threads: dict[int, ThreadFit] = field(default_factory=dict)
    reference: str = ""

    def at(self, threads: int) -> ThreadFit:
        """The fit for a number of threads; 0 means as many as there are cores.

        Raises:
            UsageError: it was not calibrated.
        """
        wanted = threads or self.cores
        if wanted not in self.threads:
            known = ", ".join(map(str, sorted(self.threads)))
            raise UsageError(
                f"machine profile '{self.name}' has no fit for {wanted} threads (it has: {known}); "
                f"run graphopt calibrate-machine --threads {wanted}"
            )
        return self.threads[wanted]

    def to_json(self) -> str:
        """The profile as text; `from_json` reads it back."""
        data = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for fit in data["threads"].values():
            for kind in fit["classes"].values():
                kind["features"] = [[_short(value) for value in row] for row in kind["features"]]
                kind["base"] = kind["base"] is not None
        return json.dumps(data, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, source: str = "the text") -> MachineProfile:
        """The profile in `text`.

        Raises:
            UsageError: it is no machine profile, or of another version.
        """
        try:
            data = json.loads(text)
            right, version = data.pop("format") == FORMAT, data.pop("version")
        except (ValueError, KeyError, TypeError, AttributeError):
            right = False
        if not right:
            raise UsageError(
                f"{source} is no machine profile: run graphopt calibrate-machine to make one"
            )
        if version != VERSION:
            raise UsageError(
                f"{source} has version {version} of the format, this graphopt reads {VERSION}: "
                "run graphopt calibrate-machine again"
            )
        try:
            fits = {int(count): fit for count, fit in data.pop("threads").items()}
            machine = cls(**data)
            bases = _bases(machine.reference, fits, source)
            threads = {count: _thread_fit(fit, bases.get(count, {})) for count, fit in fits.items()}
            return replace(machine, threads=threads)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{source} is damaged ({type(error).__name__}: {error}): "
                "run graphopt calibrate-machine again"
            ) from error

    def save(self, path: Path) -> None:
        """Write the profile, whole or not at all.

        Raises:
            OutputError: the place cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(self.to_json(), encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"cannot write {path}: {error.strerror}") from error


def _short(value: float) -> float | int:
    return int(value) if value == int(value) else round(value, 3)


def _bases(reference: str, threads: Iterable[int], source: str) -> dict[int, dict[str, ClassFit]]:
    """The classes of the reference machine, by number of threads; {} where none is corrected."""
    if not reference:
        return {}
    from graphopt.cost.latency.reference import reference_fit, reference_machine

    if reference != reference_machine().name:
        raise UsageError(
            f"{source} corrects another reference machine ({reference}) than this graphopt has: "
            "run graphopt calibrate-machine again"
        )
    return {count: reference_fit(count).classes for count in threads}


def _thread_fit(data: dict[str, Any], bases: Mapping[str, ClassFit]) -> ThreadFit:
    classes = {}
    for kind, fit in data["classes"].items():
        parameters = dict(fit["parameters"])
        parameters["lengths"] = tuple(parameters["lengths"])
        classes[kind] = ClassFit(
            tuple(fit["rates"]),
            tuple(tuple(map(float, row)) for row in fit["features"]),
            tuple(fit["targets"]),
            tuple(fit["spreads"]),
            tuple(fit["groups"]),
            Parameters(**parameters),
            bases[kind] if fit["base"] else None,
        )
    mean, deviation = data["typical"]
    return ThreadFit(
        Ceilings(**data["ceilings"]),
        (data["run_overhead"][0], data["run_overhead"][1]),
        data["profiler_charge"],
        data["spread"],
        (mean, deviation),
        classes,
    )


def profiles_folder() -> Path:
    """Where named profiles are kept: the user's cache folder, by the system's conventions."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "graphopt" / "machines"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home()) / "graphopt" / "machines"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "graphopt" / "machines"
    return Path.home() / ".cache" / "graphopt" / "machines"


def profile_path(name: str) -> Path:
    """The file of a named profile.

    Raises:
        UsageError: the name has characters that a file's name should not have.
    """
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise UsageError(
            f"'{name}' is no name for a machine profile: use letters, digits, '-', '_' and '.'"
        )
    return profiles_folder() / f"{name}.json"


def load_profile(name_or_path: str | os.PathLike[str] = DEFAULT_NAME) -> MachineProfile:
    """The profile of that name, or in that file (anything that ends in .json).

    Raises:
        UsageError: there is none, or the file holds none.
    """
    text = os.fspath(name_or_path)
    path = Path(text) if text.endswith(".json") else profile_path(text)
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if text.endswith(".json"):
            raise UsageError(
                f"there is no machine profile {text}: run graphopt calibrate-machine -o {text}"
            ) from None
        more = "" if text == DEFAULT_NAME else f" --name {text}"
        raise UsageError(
            f"this machine is not calibrated as '{text}': run graphopt calibrate-machine{more}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the machine profile {path}: {error}") from error
    return MachineProfile.from_json(content, str(path))
