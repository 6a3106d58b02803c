"""Run an optimizer on thousands of random models; shrink and keep what fails.

    python tools/fuzz.py --seeds 0..5000 --jobs 2 --keep /tmp/failures
    python tools/fuzz.py --seeds 17                               one seed
    python tools/fuzz.py --optimizer onnxsim:simplify             another optimizer, to compare

A worker process that dies (a crash inside a library) counts as a failure of the seed it was at.
Exit code 1 if any seed failed, or if fewer than 95% of the seeds gave a valid model.
"""

import argparse
import importlib
import multiprocessing
import sys
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.generate import InvalidGraph, check_model, random_model, save_failure, shrink

LEAST_VALID = 0.95


@dataclass(frozen=True)
class Outcome:
    """What became of one seed: ok, invalid (the generator's fault) or failed."""

    seed: int
    kind: str
    message: str = ""


def load_optimizer(spec: str, options: dict[str, Any]) -> Any:
    """`module:function` as a function from ModelProto to ModelProto."""
    module, _, name = spec.partition(":")
    function = getattr(importlib.import_module(module), name)

    def optimize(model: onnx.ModelProto) -> onnx.ModelProto:
        result = function(model, **options)
        if hasattr(result, "model"):
            result = result.model
        return result[0] if isinstance(result, tuple) else result

    return optimize


def _category(failure: str) -> str:
    """The kind of a failure: shrinking must not drift to another one."""
    return failure.partition(":")[0]


def examine(seed: int, optimize: Any, keep: Path | None) -> Outcome:
    """Make the model of a seed, check the optimizer on it, shrink and save a failure."""
    try:
        model, feeds = random_model(seed)
        failure = check_model(model, feeds, optimize)
    except InvalidGraph as error:
        return Outcome(seed, "invalid", str(error))
    if failure is None:
        return Outcome(seed, "ok")
    if keep is not None:
        kind = _category(failure)

        def fails(candidate: onnx.ModelProto, fed: Any) -> bool:
            onnx.checker.check_model(candidate, full_check=True)
            found = check_model(candidate, fed, optimize)
            return found is not None and _category(found) == kind

        small, fed = shrink(model, feeds, fails)
        reason = check_model(small, fed, optimize) or failure
        path = save_failure(keep, f"seed{seed}", small, fed, reason)
        failure = f"{reason} [{len(small.graph.node)} nodes: {path}]"
    return Outcome(seed, "failed", failure)


def _work(connection: Connection, spec: str, options: dict[str, Any], keep: Path | None) -> None:
    """A worker: seeds in, outcomes out, until None comes."""
    optimize = load_optimizer(spec, options)
    while (seed := connection.recv()) is not None:
        try:
            connection.send(examine(seed, optimize, keep))
        except Exception as error:
            message = f"the harness raised {type(error).__name__}: {error}"
            connection.send(Outcome(seed, "failed", message))


class Worker:
    """A process and the seed it is at."""

    def __init__(self, context: Any, arguments: tuple[Any, ...]) -> None:
        self.connection, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, *arguments), daemon=True)
        self.process.start()
        other.close()
        self.seed: int | None = None
        self.since = time.monotonic()

    def give(self, seed: int | None) -> None:
        """Hand over the next seed; None ends the process."""
        self.seed = seed
        self.since = time.monotonic()
        self.connection.send(seed)

    def outcome(self) -> Outcome | None:
        """The outcome of the seed, or None where the process died over it."""
        try:
            received = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return None
        assert isinstance(received, Outcome)
        return received


class Campaign:
    """Seeds handed to workers, workers replaced when they die or hang."""

    def __init__(self, jobs: int, arguments: tuple[Any, ...], timeout: float) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.arguments = arguments
        self.jobs = jobs
        self.timeout = timeout

    def outcomes(self, seeds: range) -> Any:
        """One outcome for every seed, as they come."""
        todo = iter(seeds)
        workers: list[Worker] = []
        for seed in todo:
            workers.append(self._start(seed))
            if len(workers) == self.jobs:
                break
        while workers:
            ready = wait([worker.connection for worker in workers], timeout=1.0)
            for worker in list(workers):
                if worker.connection in ready:
                    outcome = worker.outcome()
                elif time.monotonic() - worker.since > self.timeout:
                    outcome = Outcome(worker.seed or 0, "failed", f"over {self.timeout:.0f} s")
                    worker.process.kill()
                else:
                    continue
                alive = (
                    outcome is not None and worker.process.is_alive() and worker.connection in ready
                )
                yield outcome or self._died(worker)
                following = next(todo, None)
                if alive and following is not None:
                    worker.give(following)
                    continue
                workers.remove(worker)
                if alive:
                    worker.give(None)
                if following is not None:
                    workers.append(self._start(following))

    def _start(self, seed: int) -> Worker:
        worker = Worker(self.context, self.arguments)
        worker.give(seed)
        return worker

    def _died(self, worker: Worker) -> Outcome:
        worker.process.join(10)
        code = worker.process.exitcode
        return Outcome(worker.seed or 0, "failed", f"the process died with exit code {code}")


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    return range(int(first), int(last) if dots else int(first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run an optimizer on random models.")
    parser.add_argument("--seeds", type=_seeds, default=range(1000), metavar="A..B")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for failures, shrunk")
    parser.add_argument("--optimizer", default="graphopt:optimize", metavar="MODULE:FUNCTION")
    parser.add_argument(
        "--check", default="off", help="graphopt's own guard: off judges the passes"
    )
    parser.add_argument("--level", type=int, default=3, help="graphopt's -O level")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one seed")
    arguments = parser.parse_args()
    options: dict[str, Any] = {}
    if arguments.optimizer.startswith("graphopt:"):
        options = {"check": arguments.check, "level": arguments.level}
    campaign = Campaign(
        arguments.jobs, (arguments.optimizer, options, arguments.keep), arguments.timeout
    )
    counts: Counter[str] = Counter()
    start = time.monotonic()
    for done, outcome in enumerate(campaign.outcomes(arguments.seeds), 1):
        counts[outcome.kind] += 1
        if outcome.kind == "failed":
            print(f"seed {outcome.seed} FAILED: {outcome.message}", flush=True)
        elif outcome.kind == "invalid":
            print(f"seed {outcome.seed} is not valid: {outcome.message[:160]}", flush=True)
        if done % 250 == 0:
            print(f"{done}/{len(arguments.seeds)} {dict(counts)}", flush=True)
    total = sum(counts.values())
    print(
        f"{total} seeds in {time.monotonic() - start:.0f} s: {counts['ok']} ok, "
        f"{counts['failed']} failed, {counts['invalid']} not valid"
    )
    if counts["invalid"] > (1 - LEAST_VALID) * total:
        print(f"fewer than {LEAST_VALID:.0%} of the seeds are valid: repair the generator")
        return 1
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
