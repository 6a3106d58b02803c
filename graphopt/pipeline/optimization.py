"""optimize: load, run passes, prove the result, save. compare and bisect stand beside it."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from graphopt.catalog import PassLike
from graphopt.errors import (
    EquivalenceError,
    RuntimeUnavailableError,
    UsageError,
)
from graphopt.graph import ModelSource, ir, opset_version, patient_collector, raise_opset
from graphopt.pipeline.bisection import Culprit
from graphopt.pipeline.check import Checker
from graphopt.pipeline.guard import interface_change, interface_of
from graphopt.pipeline.memory import Memory, latency_bytes, weight_bytes
from graphopt.pipeline.model_files import (
    as_written,
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.pipeline.offers import Speed, measured_speed, plan_and_offers, take_offers
from graphopt.pipeline.run import Run, make_plan
from graphopt.pipeline.statistics import size_on_disk, statistics_of
from graphopt.plugin import Pass
from graphopt.report import CheckReport, CheckStatus, InterfaceChange, OfferReport, Report
from graphopt.shapes import infer_shapes

if TYPE_CHECKING:
    from graphopt.pipeline.preprocessing import Normalization, Preprocessed
    from graphopt.runtime import Feed, Session

Check = Literal["off", "final", "per-pass"]
CHECKS = get_args(Check)
_HELD_TWICE = 64 << 20
"""Two sessions that optimize are alive together where neither model has more bytes of weights."""

InputShapes = Mapping[str, Sequence[int | str | None]]


@dataclass(frozen=True)
class Result:
    """What `optimize` gives back; unpacks as `model, ok`.

    Attributes:
        model: the optimized model, of the kind that was given: `bytes` for bytes, a
            `ModelProto` for one, the path of the written file for a path with an output. An
            `ir.Model` otherwise.
        ok: whether every pass stayed and no check failed.
        report: what was done, declined and proved.
    """

    model: Any
    ok: bool
    report: Report

    def __iter__(self) -> Iterator[Any]:
        yield self.model
        yield self.ok


@patient_collector()
def optimize(
    source: ModelSource,
    *,
    output: str | os.PathLike[str] | None = None,
    level: int = 2,
    passes: str | Sequence[PassLike] | None = None,
    skip: str | Sequence[str] = (),
    target_opset: int | None = None,
    provider: str | None = None,
    input_shapes: InputShapes | None = None,
    dims: Mapping[str, int] | None = None,
    normalize: Normalization | None = None,
    input_layout: str | None = None,
    input_dtype: str | None = None,
    image_inputs: str | Sequence[str] = (),
    input_data: Any = None,
    check: Check = "final",
    check_count: int | None = None,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    strict: bool = False,
    force: bool = False,
    overwrite: bool = False,
    external_data: bool | None = None,
    measure: bool = False,
    max_memory: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Result:
    """Optimize a model, and prove that the result computes what the original does.

    The argument is never changed, and nothing is written unless `output` is given.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        output: where to write the result.
        level: the preset, 0 to 3, where `passes` is not given.
        passes: specs (`"a,b{x=1}"` or a sequence), or anything else that runs as a pass.
        skip: names of passes to leave out (`"a,b"` or a sequence).
        target_opset: raise the model to this version of ONNX's operator set first, so that passes
            may use what newer ones have; None to keep it.
        provider: at level 3, measure on this provider of ONNX Runtime ("cpu", "cuda", ...) which
            of `graphopt.presets.OFFERS` make the model faster, and keep these; None to measure
            nothing. The result may then have operators that ONNX Runtime alone knows, and another
            run, or another machine, may decide otherwise.
        input_shapes: shapes by input name; a dim is an int, a symbol, or None to keep it.
        dims: sizes for symbolic dims by name.
        normalize: `mean`, `std` and `scale`, each a number or one for each channel: the result
            takes x, and computes on (x * scale - mean) / std what the model computed on x.
        input_layout: "nhwc" or "nchw": the layout of the pictures that the result takes.
        input_dtype: "uint8": the type of the pictures that the result takes.
        image_inputs: the input or inputs that the last three are meant for; where none is named,
            those that a convolution or the like reads as pictures.
        input_data: inputs to compare on instead of seeded ones, as the result takes them: a path,
            `module:function`, or an iterable of feeds (an iterator's are kept, as both models read
            them).
        check: "final" compares at the end, "per-pass" after every pass that changed something
            as well, "off" not at all.
        check_count: how many inputs to compare on; by default three seeded ones, or all of
            `input_data`.
        seed: of the seeded inputs.
        rtol: tolerance of each output, relative to its largest magnitude.
        atol: absolute tolerance.
        strict: a pass that has to be undone is an error.
        force: give the result back, and write it, although the comparison failed.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        measure: count the MACs and the activation memory of both models, and time them as ONNX
            Runtime runs them by default.
        max_memory: bytes that the process may hold at most. What is known to take more is not
            begun: the latency is left out then, and the report says so.
        progress: called with a line about what is being done.

    Raises:
        UsageError: an option, pass or shape is wrong, or the opset cannot be raised.
        MemoryLimitError: the check would not fit in `max_memory`, or the run has grown past it.
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        ShapeError: the shapes given contradict the model.
        EquivalenceError: the result differs from the original and cannot be repaired.
        PassError: a pass was undone in a strict run.
        OutputError: the result cannot be written.
        RuntimeUnavailableError: this build of ONNX Runtime does not have the provider.
    """
    started = time.perf_counter()
    if check not in CHECKS:
        raise UsageError(f"there is no check '{check}'; it is one of {', '.join(CHECKS)}")
    memory = Memory(max_memory)
    tell = memory.watched(progress or _silent)
    plan, offers = plan_and_offers(level, passes, skip, provider)
    if output is not None:
        check_output(source, output, overwrite)
        # A pass might change the current folder.
        output = Path(output).absolute()
    tell("loading")
    original = load_valid(source)
    described = described_values(original)
    file_bytes = size_on_disk(source, original)
    infer_shapes(original, input_shapes=input_shapes, dims=dims)
    changes: list[InterfaceChange] = []
    warnings: list[str] = []
    reference: Callable[[], Session] | None = None
    made = _preprocessed(original, normalize, input_layout, input_dtype, image_inputs)
    if made is not None:
        original, changes, warnings = made.model, made.changes, made.warnings
        reference = made.reference
    checker = None
    if check != "off" or measure or offers:
        tell("preparing inputs")
        checker = Checker(
            original,
            input_data=input_data,
            count=check_count,
            seed=seed,
            rtol=rtol,
            atol=atol,
            reference=reference,
            memory=memory,
        )
    start = original
    if target_opset is not None:
        tell("raising the opset")
        start = _raised(original, target_opset, None if check == "off" else checker)

    def begin(passes: tuple[Pass, ...]) -> Run:
        return Run(
            start,
            passes,
            None if check == "off" else checker,
            per_pass=check == "per-pass",
            strict=strict,
            tell=tell,
        )

    run = begin(plan)
    model = run.until_equivalent()
    tried: list[OfferReport] = []
    feed = _feed_to_time(original, checker, input_data, seed) if offers else None
    if feed is not None:
        race = partial(measured_speed, feed=feed, provider=provider or "cpu")
        speed_of = partial(_speed_that_fits, race=race, memory=memory)
        run, model, tried = take_offers(
            offers, plan, run, model, begin=begin, speed_of=speed_of, tell=tell
        )
    report = Report(
        before=statistics_of(original, file_bytes, count=measure),
        after=statistics_of(model, None, count=measure),
        passes=run.pass_reports(),
        offers=tried,
        check=run.check_report,
        interface=changes,
        warnings=warnings,
    )
    if offers and feed is None:
        report.warnings.append("no offer was measured: the original runs on no input here")
    if report.check.status is CheckStatus.FAILED and not force:
        raise EquivalenceError(
            f"the result differs from the original ({report.check.reason}); nothing was "
            "written; look for the cause with `graphopt bisect` and the same flags, or write it "
            "with --force"
        )
    memory.look("the last step")
    tell = progress or _silent  # what follows is left out where it does not fit, or takes little
    if measure and checker is not None:
        tell("measuring latency")
        _measure([original, model], described, checker, report, memory)
    result = deliver(
        model,
        report,
        source,
        described,
        output=output,
        overwrite=overwrite,
        external_data=external_data,
        started=started,
        tell=tell,
    )
    excess = memory.excess()
    if excess is not None:
        report.warnings.append(f"the run {excess}, while it measured or saved")
    return result


def deliver(
    model: ir.Model,
    report: Report,
    source: ModelSource,
    described: frozenset[str],
    *,
    output: str | os.PathLike[str] | None,
    overwrite: bool,
    external_data: bool | None,
    started: float,
    tell: Callable[[str], None],
) -> Result:
    """Write a result that was proved, and finish its report.

    Inner types of `model` that `described` does not name are taken out of it; `started` is what
    `time.perf_counter()` gave when the run began. The other arguments are those of `optimize`.

    Raises:
        OutputError: it cannot be written.
    """
    forget_inferred(model, described)
    given, size = give_back(model, source, output, overwrite, external_data, tell)
    report.after = dataclasses.replace(report.after, file_bytes=size)
    report.output = None if output is None else os.fspath(output)
    report.seconds = time.perf_counter() - started
    return Result(given, report.ok, report)


def _feed_to_time(
    original: ir.Model, checker: Checker | None, input_data: Any, seed: int
) -> Feed | None:
    """The first input of the user's, or one of a usual size; None where there is none."""
    from graphopt.runtime import usual_feed

    if checker is None or checker.unavailable is not None:
        return None
    if input_data is not None:
        return next(checker.feeds(), None)
    return usual_feed(original, seed=seed)


def _preprocessed(
    original: ir.Model,
    normalize: Normalization | None,
    layout: str | None,
    dtype: str | None,
    names: str | Sequence[str],
) -> Preprocessed | None:
    """The model with what is done to its pictures inside; None where nothing is asked for."""
    if not (normalize or layout or dtype or names):
        return None
    from graphopt.pipeline.preprocessing import Request, preprocess

    names = [names] if isinstance(names, str) else names
    return preprocess(original, Request(normalize, layout, dtype, names))


def _raised(original: ir.Model, version: int, checker: Checker | None) -> ir.Model:
    """The original in a newer opset; ONNX's converter is not believed where there is a checker."""
    present = opset_version(original.graph, original)
    if version < present:
        raise UsageError(
            f"the model has opset {present}; --target-opset {version} would lower it, which is not "
            "supported"
        )
    raised = raise_opset(original, version)
    if raised is not original:
        infer_shapes(raised)
        found = None if checker is None else checker.compare(raised)
        if found is not None and found.status is CheckStatus.FAILED:
            raise EquivalenceError(
                f"raising the opset from {present} to {version} changes what the model computes "
                f"({found.reason}): choose another --target-opset"
            )
    return raised


def compare(
    expected: ModelSource,
    actual: ModelSource,
    *,
    input_shapes: InputShapes | None = None,
    dims: Mapping[str, int] | None = None,
    input_data: Any = None,
    count: int | None = None,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> CheckReport:
    """Run two models on the same inputs in ONNX Runtime and compare their outputs by name.

    The arguments are those of `optimize`. A model whose outputs have other names, or that
    takes other inputs, fails with a reason that says so.

    Raises:
        UnreadableModelError: a source is no model.
        InvalidModelError: a source breaks the rules of ONNX.
    """
    first, second = load_valid(expected), load_valid(actual)
    infer_shapes(first, input_shapes=input_shapes, dims=dims)
    report = CheckReport(rtol=rtol, atol=atol)
    change = _name_change(first, second)
    if change is not None:
        report.status = CheckStatus.FAILED
        report.reason = f"the models have different interfaces: {change}"
        return report
    checker = Checker(first, input_data=input_data, count=count, seed=seed, rtol=rtol, atol=atol)
    return checker.compare(second)


def bisect(
    source: ModelSource,
    *,
    level: int = 2,
    passes: str | Sequence[PassLike] | None = None,
    skip: str | Sequence[str] = (),
    target_opset: int | None = None,
    input_shapes: InputShapes | None = None,
    dims: Mapping[str, int] | None = None,
    normalize: Normalization | None = None,
    input_layout: str | None = None,
    input_dtype: str | None = None,
    image_inputs: str | Sequence[str] = (),
    input_data: Any = None,
    count: int | None = None,
    seed: int = 0,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    progress: Callable[[str], None] | None = None,
) -> Culprit | None:
    """Find the pass, and within it the rewrite, that changes what the model computes.

    The arguments are those of `optimize`.

    Returns:
        The first culprit; None if the result is equivalent.

    Raises:
        RuntimeUnavailableError: the original cannot be run here, so nothing can be compared.
        EquivalenceError: the result differs, and no pass is to blame.
    """
    tell = progress or _silent
    plan = make_plan(level, passes, skip)
    original = load_valid(source)
    infer_shapes(original, input_shapes=input_shapes, dims=dims)
    made = _preprocessed(original, normalize, input_layout, input_dtype, image_inputs)
    if made is not None:
        original = made.model
    checker = Checker(
        original,
        input_data=input_data,
        count=count,
        seed=seed,
        rtol=rtol,
        atol=atol,
        reference=None if made is None else made.reference,
    )
    start = original if target_opset is None else _raised(original, target_opset, checker)
    return Run(start, plan, checker, tell=tell).first_culprit(checker)


def _name_change(first: ir.Model, second: ir.Model) -> str | None:
    """What a feed or a reader of the outputs would trip over, types and shapes aside."""

    def bare(entries: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        return tuple((name, "") for name, _ in entries)

    one, two = interface_of(first), interface_of(second)
    return interface_change(
        type(one)(bare(one.inputs), (), bare(one.outputs)),
        type(two)(bare(two.inputs), (), bare(two.outputs)),
        drops_defaults=True,
    )


def _speed_that_fits(
    before: ir.Model,
    after: ir.Model,
    *,
    race: Callable[[ir.Model, ir.Model], Speed],
    memory: Memory,
) -> Speed:
    """The speed of an offer, whose sessions are alive together.

    Raises:
        RuntimeUnavailableError: that cannot be measured, or takes more memory than there may be.
    """
    lack = memory.lack(latency_bytes(before) + latency_bytes(after))
    if lack is not None:
        raise RuntimeUnavailableError(f"that {lack}")
    return race(before, after)


def _measure(
    models: Sequence[ir.Model],
    described: frozenset[str],
    checker: Checker,
    report: Report,
    memory: Memory,
) -> None:
    """Time the original and the result, interleaved, as ONNX Runtime runs them for its users."""
    from statistics import median

    from graphopt.runtime import Session, speedup, speedups, turns_apart, turns_interleaved

    feed = next(checker.feeds(), None)
    if feed is None or checker.unavailable is not None:
        reason = checker.unavailable or "there is no input to run on"
        if report.check.status is CheckStatus.OFF:  # else the check tells the same
            report.warnings.append(f"the latency could not be measured: {reason}")
        return
    needed = [latency_bytes(item) for item in models]
    in_turns = max(map(weight_bytes, models)) > _HELD_TWICE or memory.lack(sum(needed)) is not None
    lack = memory.lack(max(needed))
    if lack is not None:
        report.warnings.append(f"the latency was not measured: that {lack}")
        return
    written = [as_written(item, described) for item in models]
    makers = [partial(Session, item, optimized=True) for item in written]
    try:
        if in_turns:
            turns = turns_apart(makers, feed)
        else:
            turns = turns_interleaved([make() for make in makers], feed)
    except RuntimeUnavailableError as error:
        report.warnings.append(f"the latency could not be measured: {error}")
        return
    report.latency_before = median(turns[0])
    report.latency_after = report.latency_before / speedup(*turns)
    report.speedups = speedups(*turns)


def _silent(_: str) -> None:
    """Say nothing."""
