"""The steps of a quantization: prepare, place, calibrate, repair, choose, insert, prove."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence

from graphopt.errors import EquivalenceError, RuntimeUnavailableError, UsageError
from graphopt.graph import (
    ir,
    raise_opset,
)
from graphopt.pipeline.check import Checker
from graphopt.pipeline.model_files import as_written
from graphopt.pipeline.quantization.candidates import Candidates
from graphopt.pipeline.quantization.choosing import (
    Budget,
    Choice,
    faster_groups,
    judging_provider,
    read_budgets,
    slow_groups,
    unavailable,
    usual_budget,
    within_budget,
    without_outsized,
)
from graphopt.pipeline.quantization.data import (
    AVERAGED_OVER,
    CalibrationData,
)
from graphopt.pipeline.quantization.options import Options
from graphopt.pipeline.quantization.proof import (
    describe_groups,
    keeps_gain,
    left_float,
    measure_latency,
    verify_result,
)
from graphopt.pipeline.quantization.repairs import (
    repaired_model,
    rounded_weights,
    with_repaired_bias,
)
from graphopt.pipeline.quantization.report import QuantizeReport
from graphopt.pipeline.quantization.without_data import dynamic_model, weight_only_model
from graphopt.pipeline.run import Run, make_plan
from graphopt.pipeline.task_metric import read_metric
from graphopt.quantization.calibration import calibrate
from graphopt.quantization.opset import PER_CHANNEL, WITHOUT_EIGHT_BITS
from graphopt.quantization.placement import place
from graphopt.quantization.ranges import Ranges, digest_of, write_whole
from graphopt.quantization.scores import can_be_measured
from graphopt.shapes import infer_shapes

Tell = Callable[[str], None]


class Job:
    """One model on its way through a quantization."""

    def __init__(
        self,
        original: ir.Model,
        described: frozenset[str],
        data: CalibrationData,
        options: Options,
        report: QuantizeReport,
        tell: Tell,
        force: bool,
        real: bool,
    ) -> None:
        self._original = original
        self._described = described
        self._data = data
        self._options = options
        self._report = report
        self._tell = tell
        self._force = force
        self._real = real
        self._provider = options.rules.provider or "cpu"

    def run(self) -> ir.Model:
        """The quantized model, or the float one where that is better; fills in the report.

        Raises:
            EquivalenceError: no mixture is within the budget.
            UsageError: an option does not fit the model.
        """
        asked = self._options.kind
        model = self._static() if asked == "static" else self._without_data()
        verify_result(self._original, model)
        slower = self._measure(model)
        if slower and asked == "static" and self._only_if_faster():
            model = self._prepared_model
            left_float(self._report, slower)
        elif slower:
            self._report.warnings.append(slower)
        return model

    def _static(self) -> ir.Model:
        options, data, report = self._options, self._data, self._report
        prepared = self._prepared()
        placement = place(
            prepared,
            options.rules,
            nodes_to_exclude=_matching(prepared, options.nodes_to_exclude),
            op_types_to_quantize=options.op_types_to_quantize,
        )
        ranges = self._ranges(prepared, placement.activations)
        candidates = Candidates(prepared, placement, ranges, options.rules)
        rounded = rounded_weights(candidates, options, data, report, self._tell)
        candidates = dataclasses.replace(candidates, rounded=rounded)
        choice = self._choice(candidates)
        if choice.winner == "dynamic":
            return self._without_data_instead()
        if choice.winner == "float":
            report.kind = "float"
            report.repairs.clear()
            report.warnings.append("nothing is faster in integers: the result is the float model")
        elif options.spare_outsized:
            choice = without_outsized(
                candidates, choice, data, options, self._tell, worth_it=self._keeps_gain
            )
        budget = read_budgets(self._original, data, options)
        if budget is not None and report.kind != "float":
            choice = within_budget(
                candidates, choice, budget, data, options, report, self._tell, force=self._force
            )
        elif report.kind != "float" and self._real:
            self._keep_usual_budget(candidates, choice)
        self._tell("writing integers")
        model = candidates.build(choice.float_groups)
        if report.kind != "float":
            corrected = with_repaired_bias(
                model, candidates, choice.float_groups, data, options, report, self._tell
            )
            if corrected is not model and not self._spoils(corrected, budget):
                model = corrected
        plan = candidates.plan(choice.float_groups)
        if options.save_plan is not None:
            write_whole(options.save_plan, json.dumps(plan.to_json(), indent=1) + "\n")
        self._tell("comparing layers")
        describe_groups(candidates, plan, choice, model, data.check, report)
        self._evaluate(model, budget)
        return model

    def _keep_usual_budget(self, candidates: Candidates, choice: Choice) -> None:
        """Give groups up, or all of them, where the outputs would be mostly noise."""
        data, options, report = self._data, self._options, self._report
        usual = usual_budget(self._original, data, options)
        if usual is None or usual.allows(usual.measure(candidates.build(choice.float_groups))):
            return
        try:
            within_budget(candidates, choice, usual, data, options, report, self._tell, force=False)
            given_up = "groups were left float"
        except EquivalenceError:
            reason = f"no mixture has {usual.name} of at least {usual.text}"
            choice.float_groups.update(dict.fromkeys(candidates.groups, reason))
            report.kind, given_up = "float", "all groups were left float"
            report.curve.clear()
        report.warnings.append(
            f"{given_up} as the outputs would have had {usual.name} below {usual.text}; "
            "--least-sqnr and --max-drop decide otherwise"
        )

    def _spoils(self, corrected: ir.Model, budget: Budget | None) -> bool:
        """Whether the bias correction leaves the budget that the model was found to keep."""
        if budget is None or budget.allows(budget.measure(corrected)) or not self._report.ok:
            return False
        self._report.repairs[-1] = f"bias correction: undone, it moved {budget.name}"
        return True

    def _without_data_instead(self) -> ir.Model:
        """What measured faster than calibrated integers."""
        self._report.kind = "dynamic"
        self._report.warnings.append(
            "dynamic quantization is faster here than calibrated integers, so it was taken"
        )
        self._options = dataclasses.replace(self._options, kind="dynamic")
        return self._without_data()

    def _without_data(self) -> ir.Model:
        """Dynamic quantization, or of weights alone.

        Raises:
            EquivalenceError: the result is not within the budget.
        """
        options, report = self._options, self._report
        prepared = self._prepared()
        self._tell("writing integers")
        if options.kind == "dynamic":
            model = dynamic_model(prepared, report)
        else:
            model = weight_only_model(prepared, options, report)
        if model is None:
            report.kind = "float"
            report.warnings.append(
                "no matrix product has a constant weight large enough to pay: the result is the "
                "float model"
            )
            model = prepared
        budget = read_budgets(self._original, self._data, options)
        self._evaluate(model, budget)
        if budget is not None and not budget.allows(report.metric_after or 0.0):
            problem = (
                f"{budget.name} is {report.metric_after:.6g}, not within {budget.text} of the "
                f"original's {budget.reference:.6g}"
            )
            if not self._force:
                raise EquivalenceError(f"{problem}; nothing was written; write it with --force")
            report.warnings.append(problem)
        return model

    def _prepared(self) -> ir.Model:
        """The float model as it is quantized: folded and fused, then repaired."""
        self._checker = Checker(
            self._original, input_data=self._data.check.first(2), rtol=1e-3, atol=1e-5
        )
        raised = raise_opset(self._original, self._least_opset())
        if raised is not self._original:
            infer_shapes(raised)
        run = Run(raised, make_plan(2, None), self._checker, tell=self._tell)
        model = run.until_equivalent()
        infer_shapes(model)
        self._prepared_model = model
        some = self._data.calibration.first(AVERAGED_OVER)
        return repaired_model(model, self._options, some, self._checker, self._report, self._tell)

    def _least_opset(self) -> int:
        """The operator set that what will be written needs."""
        if self._options.kind == "weight-only":
            return 1 if self._options.backend.startswith("ort-") else WITHOUT_EIGHT_BITS
        return PER_CHANNEL

    def _ranges(self, model: ir.Model, names: Sequence[str]) -> Ranges:
        options, report = self._options, self._report
        if options.ranges is not None:
            ranges = Ranges.load(options.ranges)
            if ranges.model != digest_of(model):
                report.warnings.append(f"'{options.ranges}' was made for another model or options")
            missing = [name for name in names if name not in ranges]
            if missing:
                raise UsageError(
                    f"'{options.ranges}' has no range for '{missing[0]}' and {len(missing) - 1} "
                    "more tensors: calibrate again with --calib"
                )
        else:
            self._tell("calibrating")
            ranges = calibrate(
                model,
                self._data.calibration,
                names,
                method=options.method,
                percentile=options.percentile,
                symmetric=options.rules.activation.symmetric,
                resume_file=options.resume_file,
                threads=options.threads,
                progress=lambda done: self._tell(f"calibrating ({done} samples)"),
            )
            report.warnings.extend(ranges.warnings)
        report.method, report.samples = ranges.method, ranges.samples
        if options.save_ranges is not None:
            ranges.save(options.save_ranges)
        return ranges

    def _choice(self, candidates: Candidates) -> Choice:
        """What is worth quantizing, measured where the backend runs here."""
        wanted = self._options.only_if_faster
        if not self._only_if_faster():
            if wanted:
                raise UsageError(
                    f"{self._options.backend} does not run here, so nothing can be measured: "
                    "leave out --only-if-faster"
                )
            return Choice(slow_groups(candidates))
        try:
            dynamic = dynamic_model(candidates.model)
            others = {} if dynamic is None else {"dynamic": dynamic}
            return faster_groups(candidates, self._data, others, self._tell)
        except RuntimeUnavailableError as error:
            if wanted:
                raise
            self._report.warnings.append(unavailable(error))
            return Choice(slow_groups(candidates))

    def _evaluate(self, model: ir.Model, budget: Budget | None) -> None:
        """The figures of the result, on data that did not calibrate."""
        options, data, report = self._options, self._data, self._report
        self._tell("checking the result")
        provider = judging_provider(options)
        if provider != self._provider:
            report.warnings.append(
                f"{options.backend} is not here: the result was judged on the CPU"
            )
        report.checked_on, report.disjoint = sum(1 for _ in data.check), data.disjoint
        if report.kind != "float" and can_be_measured(self._original):
            sqnr = read_metric("sqnr", original=self._original, data=data.check, provider=provider)
            report.sqnr = sqnr.measure(model)
        if budget is not None:
            report.metric, report.max_drop = budget.name, budget.text
            report.metric_before, report.metric_after = budget.reference, budget.measure(model)
        elif options.metric is not None:
            metric = read_metric(
                options.metric, original=self._original, data=data.check, provider=provider
            )
            report.metric = metric.name
            report.metric_before = metric.measure(self._original) if metric.bounded else None
            report.metric_after = metric.measure(model)

    def _keeps_gain(self, before: ir.Model, after: ir.Model) -> bool:
        """Whether most of the gain is left, where that matters."""
        if not self._only_if_faster():
            return True
        feed = next(iter(self._data.check))
        first, second, third = map(self._as_written, (self._original, before, after))
        return keeps_gain(first, second, third, feed, self._provider)

    def _only_if_faster(self) -> bool:
        """Whether what is not measurably faster stays float."""
        return self._options.only_if_faster is not False and self._provider == "cpu"

    def _measure(self, model: ir.Model) -> str:
        """Time the result; why it is no gain, if it is none."""
        changed = self._report.kind != "float"
        if not self._options.measure and not (changed and self._only_if_faster()):
            return ""
        self._tell("racing the result against the original")
        feed = next(iter(self._data.check))
        original, written = self._as_written(self._original), self._as_written(model)
        slower = measure_latency(original, written, feed, self._provider, self._report)
        return slower if changed else ""

    def _as_written(self, model: ir.Model) -> ir.Model:
        return as_written(model, self._described)


def _matching(model: ir.Model, patterns: Sequence[str]) -> list[str]:
    """The nodes whose name, or an output's, a pattern matches in full.

    Raises:
        UsageError: a pattern is none, or matches nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise UsageError(f"'{pattern}' is no regular expression: {error}") from error
        matched = False
        for node in model.graph:
            names = [node.name or "", *(value.name or "" for value in node.outputs)]
            if any(name and wanted.fullmatch(name) for name in names):
                matched = True
                found[next(name for name in reversed(names) if name)] = None
        if not matched:
            raise UsageError(f"no node is named like '{pattern}'; nothing would be excluded")
    return list(found)
