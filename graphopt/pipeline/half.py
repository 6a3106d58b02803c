"""fp16: load, prepare, measure ranges, place, convert, prove, fall back, save."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from graphopt.errors import EquivalenceError, InvalidModelError, UsageError
from graphopt.graph import (
    ModelSource,
    all_graphs,
    clone,
    inline_functions,
    ir,
    patient_collector,
    save,
)
from graphopt.pipeline.execute import execute
from graphopt.pipeline.half_check import RTOL, HalfChecker
from graphopt.pipeline.half_measure import half_on_this_cpu, measured_ranges
from graphopt.pipeline.half_report import HalfReport, Task, cpu_note, loads_in_runtime
from graphopt.pipeline.half_search import find_culprits
from graphopt.pipeline.model_files import (
    check_output,
    described_values,
    forget_inferred,
    give_back,
    load_valid,
)
from graphopt.pipeline.run import make_plan as make_pass_plan
from graphopt.pipeline.statistics import size_on_disk, statistics_of
from graphopt.pipeline.task_metric import Drop, Run, TaskMetric, read_metric
from graphopt.precision import (
    Blocked,
    Measurements,
    Plan,
    Request,
    convert,
    count_casts,
    format_named,
    kernels_of,
    make_plan,
)
from graphopt.precision.clusters import flow_of
from graphopt.precision.evidence import Evidence
from graphopt.precision.scaling import move_scales
from graphopt.precision.simulation import simulated
from graphopt.precision.storage import storage_plan, store
from graphopt.report import CheckReport, CheckStatus
from graphopt.rewrite import Journal
from graphopt.shapes import infer_shapes

_LARGE = 128 << 20


@dataclass(frozen=True)
class HalfOptions:
    """What is wanted of a conversion to half precision.

    Attributes:
        precision: "fp16" or "bf16".
        keep_io_types: float32 inputs and outputs of the model stay float32.
        storage_only: weights are stored in half and cast once; everything computes in float32.
        op_block_list: operators to leave in float32.
        node_block_list: regular expressions for names of nodes, or of their outputs.
        provider: whose kernels to go by: any, cpu, cuda, tensorrt.
        level: which exact and equivalent passes run before, see `graphopt.optimize`.
        calibration: data that ranges are measured and results compared on; see `read_feeds`.
        count: how many inputs to compare on.
        seed: of the inputs that are made up where there is no data.
        rtol: tolerance of an output relative to its scale.
        atol: absolute tolerance.
        check: whether to compare at all.
        metric: "agreement", "sqnr", `module:function` or a function; see `read_metric`.
        max_drop: how far the metric may fall, "1%" or "0.5".
    """

    precision: str = "fp16"
    keep_io_types: bool = False
    storage_only: bool = False
    op_block_list: Sequence[str] = ()
    node_block_list: Sequence[str] = ()
    provider: str = "any"
    level: int = 2
    calibration: Any = None
    count: int | None = None
    seed: int = 0
    rtol: float = RTOL
    atol: float = 1e-6
    check: bool = True
    metric: str | Callable[[Run], float] | None = None
    max_drop: str | None = None


@dataclass(frozen=True)
class HalfResult:
    """What `convert_half` gives back; unpacks as `model, ok`.

    Attributes:
        model: the model in half precision, of the kind that was given (see `Result`).
        ok: whether no check failed.
        report: what was done, and why not more.
    """

    model: Any
    ok: bool
    report: HalfReport

    def __iter__(self) -> Iterator[Any]:
        yield self.model
        yield self.ok


def convert_half(
    source: ModelSource,
    options: HalfOptions | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    force: bool = False,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> HalfResult:
    """Convert a model to half precision, and prove that it computes what the original does.

    The argument is never changed, and nothing is written unless `output` is given.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        options: what is wanted.
        output: where to write the result.
        force: give the result back, and write it, although the comparison failed.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.

    Raises:
        UsageError: an option is wrong.
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        EquivalenceError: no placement was found that is right.
        OutputError: the result cannot be written.
    """
    started = time.perf_counter()
    options = options or HalfOptions()
    half = format_named(options.precision)
    kernels_of(options.provider)
    if options.storage_only and options.keep_io_types:
        options = replace(options, keep_io_types=False)  # nothing else is ever done
    tell = progress or (lambda _: None)
    if output is not None:
        check_output(source, output, overwrite)
        output = Path(output).absolute()
    with patient_collector():
        tell("loading")
        original, external = _loaded(source)
        if external_data is None:
            external_data = external
        described = described_values(original)
        file_bytes = size_on_disk(source, original)
        infer_shapes(original)
        tell("preparing")
        prepared = _prepared(original, options.level)
        work = _Work(original, prepared, options, tell)
        report = HalfReport(
            half.name,
            statistics_of(original, file_bytes),
            statistics_of(original, file_bytes),
            storage_only=options.storage_only,
            casts_before=count_casts(original),
        )
        culprits = work.settle(report, force=force)
        tell("converting")
        model = clone(prepared)
        del prepared
        journal = Journal("convert-half")
        plan = work.convert(model, journal, culprits, report)
        report.half = [rewrite.site for rewrite in journal.rewrites]
        report.float32 = dict(plan.reasons)
        report.clamped = {v.name or "": bound for v, bound in plan.masks.bounds.items()}
        report.casts_after = count_casts(model)
        if not report.half:
            report.notes.append(f"nothing went to {half.name}: the result is the float32 model")
        feed = work.first_feed()
        work.close()
        if options.check:
            loads_in_runtime(model, feed, report, half)
        if not options.storage_only and not half_on_this_cpu():
            cpu_note(model, plan, options.provider, report)
        forget_inferred(model, described)
        given, after_bytes = give_back(model, source, output, overwrite, external_data, tell)
        report.after = statistics_of(model, after_bytes)
    report.output = None if output is None else os.fspath(output)
    report.seconds = time.perf_counter() - started
    return HalfResult(given, report.ok, report)


def _loaded(source: ModelSource) -> tuple[ir.Model, bool | None]:
    """The model, and whether its result is to have a data file (None: as its size wants it).

    Large weights that lie in memory go to a file that is mapped, and removed when nobody reads
    it any more: ONNX Runtime would copy them for each session, and uses mapped ones as they are.
    """
    model = load_valid(source)
    tensors = [
        value.const_value
        for graph in all_graphs(model)
        for value in graph.initializers.values()
        if value.const_value is not None
    ]
    if any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors):
        return model, True
    if sum(tensor.nbytes for tensor in tensors) < _LARGE or isinstance(source, ir.Model):
        return model, None
    with tempfile.TemporaryDirectory(prefix="graphopt-") as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, external_data=True)
        del model, tensors
        gc.collect()  # a graph is a cycle, and the collector is told to be patient
        return load_valid(path), False


def _prepared(original: ir.Model, level: int) -> ir.Model:
    """The model after the passes of a level, functions inlined where they can be."""
    passes = make_pass_plan(level, None)
    model = execute(original, passes)[0] if passes else clone(original)
    if model.functions:
        inlined = clone(model)
        try:
            inline_functions(inlined)
        except InvalidModelError:
            return model  # their calls stay float32
        infer_shapes(inlined)
        return inlined
    return model


@dataclass
class _Work:
    """The steps between loading and saving, on one model."""

    original: ir.Model
    prepared: ir.Model
    options: HalfOptions
    tell: Callable[[str], None]
    _checker: HalfChecker | None = None
    _measurements: Measurements | None = None
    _metric: TaskMetric | None = None
    _reference: float = 0.0
    _drop: Drop | None = None
    _last: CheckReport = field(default_factory=CheckReport)
    _task: Task | None = None
    _runs: int = 0

    def settle(self, report: HalfReport, *, force: bool) -> frozenset[str]:
        """Prepare, prove, and find what has to stay float32 beyond what is known to."""
        options = self.options
        self._drop = None if options.max_drop is None else Drop.parse(options.max_drop)
        if not options.check:
            if options.metric is not None or self._drop is not None:
                raise UsageError("a metric is checked on data; leave --check on")
            return frozenset()
        self.tell("preparing inputs")
        self._checker = HalfChecker(
            self.original,
            input_data=options.calibration,
            count=options.count,
            seed=options.seed,
            rtol=options.rtol,
            atol=options.atol,
        )
        if self._checker.unavailable is None and not options.storage_only:
            self.tell("measuring ranges")
            self._measurements = measured_ranges(
                self.prepared, self._checker, real=options.calibration is not None
            )
            if self._measurements is not None:
                report.measured = len(self._measurements.by_name)
                half = format_named(options.precision)
                self._measurements, report.scales_moved = move_scales(
                    self.prepared, self._measurements, half
                )
        self._prepare_metric()
        self.tell("comparing with the original")
        accepted = self._accepts(frozenset())
        report.check, report.task = self._last, self._task
        culprits: frozenset[str] | None = frozenset()
        if not accepted:
            self.tell("looking for what has to stay float32")
            report.first_check = self._last
            culprits = find_culprits(self._plan(frozenset()).half_sites(), self._accepts)
            if culprits is not None:
                self._accepts(culprits)
                report.check, report.task = self._last, self._task
                report.fallen_back = sorted(culprits)
        report.runs = self._runs
        if culprits is None:
            if not force:
                reason = report.check.reason or f"{report.task}"
                raise EquivalenceError(
                    f"{options.precision} does not compute what the original does ({reason}); "
                    "nothing was written; raise --rtol or --max-drop, or write it with --force"
                )
            return frozenset()
        return culprits

    def convert(
        self, model: ir.Model, journal: Journal, culprits: frozenset[str], report: HalfReport
    ) -> Plan:
        """Convert a copy of the prepared model in place."""
        request = self._request(culprits)
        if self.options.storage_only:
            flow = flow_of(model, request.half)
            evidence = Evidence(model, request.half, None)
            plan, done = store(model, flow, evidence, request.half, journal)
        else:
            plan, done = convert(model, request, journal)
        report.half_nodes = done.half_nodes
        return plan

    def first_feed(self) -> Any:
        """An input to run the result on; None if there is none."""
        if self._checker is None or self._checker.unavailable is not None:
            return None
        return next(self._checker.feeds(), None)

    def close(self) -> None:
        """Let go of the sessions."""
        self._checker = self._metric = None

    def _request(self, culprits: frozenset[str]) -> Request:
        options = self.options
        reason = "the outputs moved too far with it in half"
        return Request(
            format_named(options.precision),
            options.keep_io_types,
            options.provider,
            Blocked(
                tuple(options.op_block_list),
                tuple(options.node_block_list),
                dict.fromkeys(sorted(culprits), reason),
            ),
            self._measurements,
        )

    def _plan(self, culprits: frozenset[str]) -> Plan:
        request = self._request(culprits)
        if self.options.storage_only:
            flow = flow_of(self.prepared, request.half)
            plan = storage_plan(flow, Evidence(self.prepared, request.half, None))
            for cluster in plan.flow.clusters:
                plan.placement[cluster] = cluster.site not in culprits
            return plan
        return make_plan(self.prepared, request)

    def _accepts(self, culprits: frozenset[str]) -> bool:
        """Whether the rounded model is right with these sites in float32."""
        if self._checker is None or self._checker.unavailable is not None:
            self._last = CheckReport(
                CheckStatus.NOT_VERIFIED,
                "" if self._checker is None else str(self._checker.unavailable),
            )
            return True
        self._runs += 1
        plan = self._plan(culprits)
        candidate = simulated(self.prepared, plan, format_named(self.options.precision))
        self._last = self._checker.compare(self._checker.exposed(candidate), stop_early=False)
        if self._last.status is CheckStatus.FAILED and self._metric is None:
            return False
        if self._metric is None:
            return True
        value = self._metric.measure(candidate)
        drop = self._drop or Drop.parse("1%")
        allowed = drop.allows(self._reference, value)
        self._task = Task(self._metric.name, self._reference, value, str(drop), allowed)
        if allowed and self._last.status is CheckStatus.FAILED:
            # The task decides; what moved is still told.
            self._last.status = CheckStatus.VERIFIED
            self._last.reason = f"by the task's measure; {self._last.reason}"
        return allowed

    def _prepare_metric(self) -> None:
        options, checker = self.options, self._checker
        if checker is None or (options.metric is None and self._drop is None):
            return
        if options.calibration is None and not callable(options.metric):
            spec = options.metric or ""
            if ":" not in spec:
                raise UsageError("a metric needs data to be measured on: give --calib")
        data = list(checker.feeds())
        self._metric = read_metric(options.metric, original=self.original, data=data)
        self._reference = self._metric.measure(self.original)
        if not self._metric.bounded:
            raise UsageError(
                f"{self._metric.name} has no figure of the original to drop from; "
                "use agreement or module:function"
            )
