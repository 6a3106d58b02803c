"""Finds a placement that is right: measure, round, compare with the original, fall back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from graphopt.errors import EquivalenceError, UsageError
from graphopt.graph import clone, ir
from graphopt.pipeline.half_check import HalfChecker, share_of_tolerance
from graphopt.pipeline.half_measure import measured_ranges
from graphopt.pipeline.half_noise import QuantizedChecker, half_checker
from graphopt.pipeline.half_options import HalfOptions
from graphopt.pipeline.half_report import HalfReport, Task
from graphopt.pipeline.half_rounding import rounded_weights
from graphopt.pipeline.half_search import find_culprits
from graphopt.pipeline.half_source import blocked_sites, prepared_for_half
from graphopt.pipeline.task_metric import Drop, TaskMetric, read_metric
from graphopt.precision import (
    Blocked,
    Measurements,
    Plan,
    Request,
    convert,
    format_named,
    make_plan,
)
from graphopt.precision.angles import has_angles, reduce_angles
from graphopt.precision.clusters import flow_of
from graphopt.precision.evidence import Evidence
from graphopt.precision.scaling import move_scales
from graphopt.precision.simulation import simulated
from graphopt.precision.storage import storage_plan, store
from graphopt.report import CheckReport, CheckStatus
from graphopt.rewrite import Journal

_ENOUGH_INPUTS = 16
"""Real inputs from which on a model that is right on all has to be so with room for others: of
fewer the room would be most of the tolerance, and keep in float32 what need not be."""
_MOST_FEEDS = 32
"""Inputs that weights are rounded by: each gives hundreds of rows to every layer."""


@dataclass
class Trial:
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
    _blocked: dict[str, str] = field(default_factory=dict)
    _rounded: dict[str, np.ndarray] = field(default_factory=dict)
    _lose_small: bool = False

    def settle(self, report: HalfReport, *, force: bool) -> frozenset[str]:
        """Measure, prove, and find what has to stay float32 beyond what is known to.

        Raises:
            UsageError: the data cannot be read, or the metric needs some.
            EquivalenceError: no placement is right, and `force` is off.
        """
        options = self.options
        self._name_blocked(report)
        self._drop = None if options.max_drop is None else Drop.parse(options.max_drop)
        if not options.check and (options.metric is not None or self._drop is not None):
            raise UsageError("a metric is checked on data; leave --check on")
        if options.check or options.calibration is not None:
            self.tell("preparing inputs")
            self._checker = half_checker(
                self.original,
                input_data=options.calibration,
                count=options.count,
                seed=options.seed,
                rtol=options.rtol,
                atol=options.atol,
            )
            if self._checker.unavailable is not None:
                self._checker.unavailable = self._checker.unavailable.replace(
                    "--input-data", "--calib"
                )
            self._measure(report)
        self._reduce_angles(report)
        if not options.check:
            return frozenset()
        self._prepare_metric()
        if self._loses_small(report):
            culprits: frozenset[str] | None = frozenset()
        elif self._converts_whole():
            culprits = frozenset()
        else:
            report.first_check = self._last
            culprits = self._search(report)
        report.rounded = sorted(self._rounded)
        report.check, report.task, report.runs = self._last, self._task, self._runs
        if culprits is None and not force:
            reason = report.check.reason or f"{report.task}"
            raise EquivalenceError(
                f"{options.precision} does not compute what the original does ({reason}); "
                "nothing was written; judge it by its task with --metric, raise --rtol or "
                "--max-drop, or write it with --force"
            )
        return culprits or frozenset()

    def _name_blocked(self, report: HalfReport) -> None:
        """Find what stands for the nodes on the block lists, and what names none."""
        lists = (self.options.op_block_list, self.options.node_block_list)
        self._blocked, unused = blocked_sites(self.original, self.prepared, *lists)
        report.notes += [f"'{entry}' on the block list names no node" for entry in unused]

    def _measure(self, report: HalfReport) -> None:
        """Measure ranges, and move scales ahead of sums that overflow."""
        checker, options = self._checker, self.options
        if checker is None or checker.unavailable is not None or options.storage_only:
            return
        self.tell("measuring ranges")
        real = options.calibration is not None
        measured = measured_ranges(self.prepared, checker, real=real)
        if measured is not None:
            report.measured = len(measured.by_name)
            report.measurements = measured.to_json()
            half = format_named(options.precision)
            measured, report.scales_moved = move_scales(self.prepared, measured, half)
        self._measurements = measured

    def _reduce_angles(self, report: HalfReport) -> None:
        """Bring angles down to one turn where that saves Casts."""
        report.angles_reduced = []
        if self.options.storage_only or not has_angles(self.prepared):
            return
        request = self._request(frozenset())
        reduced = clone(self.prepared)
        evidence = Evidence(reduced, request.half, request.measurements)
        names = reduce_angles(reduced, evidence)
        if (
            names
            and make_plan(reduced, request).casts() < make_plan(self.prepared, request).casts()
        ):
            self.prepared, report.angles_reduced = reduced, names

    def _round_weights(self) -> None:
        """Choose the half numbers that weights become by what their layers see."""
        checker, options = self._checker, self.options
        self._rounded = {}
        if checker is None or checker.unavailable is not None or options.storage_only:
            return
        if options.calibration is None:
            return  # what is fitted to made-up inputs errs more on real ones, up to 2.5 times
        self.tell("rounding weights")
        plan = self._plan(frozenset())
        nodes = [n for n, cluster in plan.flow.by_node.items() if plan.placement[cluster.root()]]
        kept = {value.name for value in self.prepared.graph.inputs}
        feeds = [
            {name: value for name, value in feed.items() if name in kept}
            for feed in itertools.islice(checker.feeds(), _MOST_FEEDS)
        ]
        # A quarter is kept back, so that the comparison sees inputs that nothing was fitted to.
        fitted = feeds[: len(feeds) - len(feeds) // 4]
        half = format_named(options.precision)
        self._rounded = rounded_weights(self.prepared, nodes, fitted, half)

    def _converts_whole(self) -> bool:
        """Whether the model is right with all in half that nothing is known against."""
        self._round_weights()
        self.tell("comparing with the original")
        return self._accepts_whole()

    def _loses_small(self, report: HalfReport) -> bool:
        """Try what is too small for half in half all the same; whether that is right."""
        if self._checker is None or self._checker.unavailable is not None:
            return False
        self._lose_small = True
        lost = self._plan(frozenset()).lost()
        if not lost:
            self._lose_small = False
            return False
        self._round_weights()
        self.tell("comparing with the original")
        self._lose_small = self._accepts(frozenset()) and self._misses_nothing()
        if self._lose_small:
            report.lost = lost
        return self._lose_small

    def _misses_nothing(self) -> bool:
        """Whether every output was compared and is right with room, whatever the task measures.

        Relative to its scale: an output of 1e-7 is right to an absolute tolerance when it is 0.
        """
        report, options = self._last, self.options
        if {value.name for value in self.original.graph.outputs} - {c.name for c in report.outputs}:
            return False  # random, or nothing could be run
        share = share_of_tolerance(report.inputs_tried, real=options.calibration is not None)
        return all(
            check.relative_error <= share * options.rtol
            for check in report.outputs
            if check.name in self._floats
        )

    def _search(self, report: HalfReport) -> frozenset[str] | None:
        """Sites to leave in float32; None, with the figures of the first try, if that fails."""
        self.tell("looking for what has to stay float32")
        first, task = self._last, self._task
        if self._checker is not None and self.options.level > 0:
            alone = self._checker.compare(self._checker.exposed(self.prepared), stop_early=True)
            if alone.status is CheckStatus.FAILED:
                # It was not half precision: a rewrite before it moved the outputs already.
                self.prepared = prepared_for_half(self.original, replace(self.options, level=0))
                self._blocked = {}
                report.notes.append(
                    f"converted as it was: -O{self.options.level} moved its outputs"
                )
                self._measure(report)
                self._reduce_angles(report)
                if self._converts_whole():
                    return frozenset()
                first, task = self._last, self._task
        if self._rounded:
            # What was fitted to a few inputs may be worse on one of the rest.
            chosen, self._rounded = self._rounded, {}
            if self._accepts_whole():
                return frozenset()
            self._rounded = chosen
        culprits = find_culprits(
            self._plan(frozenset()).half_sites(),
            self._accepts_with_room,
            self._errs,
            lambda floats: self._plan(floats).casts(),
        )
        if culprits is None:
            self._last, self._task = first, task
            # Right on all inputs, and no mixture is better: there was no room to be had.
            return None if first.status is CheckStatus.FAILED else frozenset()
        self._accepts(culprits)
        report.fallen_back = sorted(culprits)
        return culprits

    def convert(
        self, model: ir.Model, journal: Journal, culprits: frozenset[str], report: HalfReport
    ) -> Plan:
        """Convert a copy of the prepared model in place."""
        request = self._request(culprits)
        if self.options.storage_only:
            flow = flow_of(model, request.half)
            evidence = Evidence(model, request.half, None)
            plan, done = store(model, flow, evidence, request, journal)
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
                self._blocked | dict.fromkeys(sorted(culprits), reason),
            ),
            self._measurements,
            self._rounded,
            self._lose_small,
        )

    def _plan(self, culprits: frozenset[str]) -> Plan:
        request = self._request(culprits)
        if self.options.storage_only:
            flow = flow_of(self.prepared, request.half)
            evidence = Evidence(self.prepared, request.half, None)
            plan = storage_plan(flow, evidence, lose_small=request.lose_small)
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
        candidate = self._compare(self._checker, culprits)
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

    def _accepts_whole(self) -> bool:
        """Whether all is right in half; with room where enough inputs tell how much that is."""
        if not self._accepts(frozenset()):
            return False
        few = self.options.calibration is None or self._last.inputs_tried < _ENOUGH_INPUTS
        return few or self._has_room()

    def _accepts_with_room(self, culprits: frozenset[str]) -> bool:
        """Whether it is right by so much that it is likely to be on other inputs too."""
        return self._accepts(culprits) and self._has_room()

    def _has_room(self) -> bool:
        """Whether the last comparison left room for inputs that were not shown."""
        checker = self._checker
        if (
            checker is None
            or self._metric is not None
            or self._last.status is not CheckStatus.VERIFIED
        ):
            return True
        options = self.options
        share = share_of_tolerance(self._last.inputs_tried, real=options.calibration is not None)
        return all(
            check.relative_error <= share * options.rtol
            or check.max_abs_error <= checker.absolute_tolerance(check.name)
            or check.name not in self._floats
            or (isinstance(checker, QuantizedChecker) and checker.is_noise(check.name))
            for check in self._last.outputs
        )

    @cached_property
    def _floats(self) -> set[str | None]:
        """Outputs of the model that hold floats."""
        outputs = self.original.graph.outputs
        return {v.name for v in outputs if v.dtype is None or v.dtype.is_floating_point()}

    def _errs(self, culprits: frozenset[str]) -> float:
        """The largest error of an output, over its scale, with these sites in float32."""
        if self._checker is None:
            return 0.0
        self._compare(self._checker, culprits)
        errors = [check.relative_error for check in self._last.outputs]
        return math.inf if any(map(math.isnan, errors)) else max(errors, default=math.inf)

    def _compare(self, checker: HalfChecker, culprits: frozenset[str]) -> ir.Model:
        """Compare with these sites in float32; the rounded model, `_last` has the figures."""
        self._runs += 1
        plan = self._plan(culprits)
        candidate = simulated(self.prepared, plan, format_named(self.options.precision))
        self._last = checker.compare(checker.exposed(candidate), stop_early=False)
        return candidate

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
