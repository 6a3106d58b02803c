"""prune-blocks: put something cheap in the place of whole residual blocks, the least harmful first.

    score = (error at the outputs with the block replaced - error without) / MACs saved

Each block is tried alone, with a constant and with a linear map. Then the one with the lowest score
is replaced, again and again, until the budget is met. A score is measured anew, with all that is
replaced already refitted, before it is believed: errors add up, so most scores only rise, and what
still leads the others then is taken.
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphopt.cost.estimate import cost_of_inferred
from graphopt.errors import EquivalenceError, RuntimeUnavailableError, UsageError
from graphopt.graph import ModelSource, ir
from graphopt.pipeline.prune import prepared
from graphopt.pipeline.prune_budget import MAC_UNITS, Target
from graphopt.pipeline.prune_check import Judge
from graphopt.pipeline.prune_report import Delivery, SmallerModel, SmallerModelReport
from graphopt.pipeline.task_metric import Drop, read_metric
from graphopt.pruning.block_fit import BlockFitter
from graphopt.pruning.coupling_costs import count_at
from graphopt.pruning.propagation.place import node_name
from graphopt.pruning.residual_blocks import ResidualBlock, find_blocks, split_sums
from graphopt.rewrite import NotApplicable

_SCORED = 8
"""One of so many feeds is scored on where the metric brings data of its own."""


@dataclass(frozen=True)
class ReplacedBlock:
    """One block that was replaced, in the order in which they were.

    Attributes:
        name: the sum that closes the block.
        kind: "constant" or "linear": what stands for f(x).
        macs: multiply-accumulates of the model after this step.
        fit_error: the mean squared error of the block's output relative to its variance.
        output_error: of the model's worst output after this step, relative to its size (rms).
        metric: the metric's figure after this step.
    """

    name: str
    kind: str
    macs: float
    fit_error: float
    output_error: float
    metric: float


@dataclass(slots=True, kw_only=True)
class PruneBlocksReport(SmallerModelReport):
    """What was replaced, and what is known of the result.

    Attributes:
        replaced: the blocks that were, in the order in which they were.
        blocks: how many residual blocks there are.
        declined: by sum why it is no block that could be replaced.
    """

    replaced: tuple[ReplacedBlock, ...]
    blocks: int
    declined: dict[str, str]


class PruneBlocksResult(SmallerModel[PruneBlocksReport]):
    """What `prune_blocks` gives back."""


@dataclass(frozen=True)
class _Budget:
    """When to stop: at one of the first two, or where the metric has fallen far enough."""

    count: int | None
    macs: Target | None
    drop: Drop | None

    @classmethod
    def read(cls, count: int | None, macs: str | float | None, max_drop: str | None) -> _Budget:
        if count is not None and macs is not None:
            raise UsageError("--count and --target-macs both say how much to prune; give one")
        if count is None and macs is None and max_drop is None:
            raise UsageError("say how much to prune: --count 2, --target-macs 80% or --max-drop 1%")
        if count is not None and count < 1:
            raise UsageError(f"--count is {count}; it must be at least 1")
        return cls(
            count,
            None if macs is None else Target.read("--target-macs", macs, MAC_UNITS),
            None if max_drop is None else Drop.parse(max_drop),
        )

    @property
    def asks(self) -> bool:
        """Whether a count or a size is asked for."""
        return self.count is not None or self.macs is not None

    def is_met(self, replaced: int, macs: float, before: float) -> bool:
        """Whether as much as was asked for is done."""
        if self.count is not None:
            return replaced >= self.count
        return self.macs is not None and macs <= self.macs.of(before)


def prune_blocks(
    source: ModelSource,
    *,
    output: str | os.PathLike[str] | None = None,
    calibration: Any,
    count: int | None = None,
    target_macs: str | float | None = None,
    max_drop: str | None = None,
    metric: str | Callable[..., float] | None = None,
    samples: int | None = 1024,
    input_shapes: Mapping[str, Sequence[int | str | None]] | None = None,
    dims: Mapping[str, int] | None = None,
    seed: int = 0,
    threads: int = 0,
    measure: bool = False,
    overwrite: bool = False,
    external_data: bool | None = None,
    progress: Callable[[str], None] | None = None,
) -> PruneBlocksResult:
    """Replace residual blocks by a constant or a linear map until a budget is met.

    Args:
        source: a path, the bytes of a model, an `onnx.ModelProto` or an `ir.Model`.
        output: where to write the result.
        calibration: unlabelled inputs: a path, `module:function`, or an iterable of feeds.
        count: how many blocks to replace.
        target_macs: "80%" of the original's, or a count (1.5e6, "30M").
        max_drop: the most that the metric may fall ("1%", "0.5"): blocks are replaced as long as
            it allows the next, or, beside another budget, a result that falls further is refused.
        metric: see `graphopt.pipeline.task_metric.read_metric`.
        samples: how many feeds of the data to read; None for all.
        input_shapes: shapes by input name.
        dims: sizes of symbolic dims.
        seed: of the rows that are fitted to.
        threads: that both are timed with; 0 leaves the choice to ONNX Runtime.
        measure: time both models, with the optimizations that ONNX Runtime makes by default.
        overwrite: let `output` replace a file.
        external_data: keep weights in a file of their own; None decides by size and source.
        progress: called with a line about what is being done.

    Raises:
        UsageError: an option is wrong, or there is no budget or no data.
        UnreadableModelError: the source is no model.
        InvalidModelError: the source breaks the rules of ONNX.
        EquivalenceError: the budget cannot be met, or the metric falls further than allowed.
        RuntimeUnavailableError: the original cannot be run here.
        OutputError: the result cannot be written.
    """
    tell = progress or _silent
    budget = _Budget.read(count, target_macs, max_drop)
    if calibration is None:
        raise UsageError("blocks are fitted to data; give some with --calib")
    delivery = Delivery(source, output, overwrite=overwrite, external_data=external_data, tell=tell)
    model = prepared(delivery.original, input_shapes, dims, tell)
    judge = Judge(
        delivery.original,
        calibration=calibration,
        samples=samples,
        metric=metric,
        seed=seed,
        described=delivery.described,
        threads=threads,
    )
    if budget.drop is not None:
        judge.check_drop()
    tell("finding residual blocks")
    split_sums(model)  # cleaning up puts those together again that stay
    blocks, declined = find_blocks(model.graph)
    feeds = judge.feeds or []
    scored = judge.held_out or feeds[::_SCORED]
    distance = read_metric("sqnr", original=delivery.original, data=scored)
    costs = _Costs(model, judge.sizes())
    search = _Search(
        BlockFitter(model, blocks, feeds, seed=seed),
        blocks,
        costs,
        lambda candidate: 10 ** (-distance.measure(candidate) / 10),
        tell,
    )
    pruned, before = model, search.macs
    replaced: list[ReplacedBlock] = []
    while not budget.is_met(len(replaced), search.macs, before):
        trial = search.best()
        if trial is None:
            break
        figures = judge.measured(trial.model)
        reference, figure = (math.nan, math.nan) if figures is None else figures[1:]
        if budget.drop is not None and not budget.drop.allows(reference, figure):
            if not budget.asks:
                break
            raise EquivalenceError(
                f"{len(replaced)} blocks can be replaced, and one more falls further than "
                f"--max-drop {budget.drop}; ask for less, or give --max-drop alone"
            )
        search.accept(trial)
        pruned = trial.model
        replaced.append(
            ReplacedBlock(
                trial.name,
                trial.kind,
                trial.macs,
                trial.errors[trial.name],
                math.sqrt(trial.damage),
                figure,
            )
        )
    declined.update(search.useless)
    if budget.asks and not budget.is_met(len(replaced), search.macs, before):
        raise EquivalenceError(_too_few(len(replaced), search.macs / before, declined))
    tell("cleaning up")
    after = prepared(pruned)
    report = PruneBlocksReport(
        macs=(before, _Costs(after, judge.sizes()).macs),
        parameters=(_parameters(model), _parameters(after)),
        replaced=tuple(replaced),
        blocks=len(blocks),
        declined=declined,
    )
    given = delivery.give(after, judge, report, measure=measure)
    return PruneBlocksResult(given, report)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A model with one more block replaced."""

    name: str
    kind: str
    chosen: dict[str, str]
    model: ir.Model
    errors: dict[str, float]
    damage: float
    macs: float


class _Search:
    """Which block to replace next.

    Attributes:
        macs: of the model as it is now.
        useless: by block why nothing can stand for it, of those that were tried.
    """

    def __init__(
        self,
        fitter: BlockFitter,
        blocks: Mapping[str, ResidualBlock],
        costs: _Costs,
        damage: Callable[[ir.Model], float],
        tell: Callable[[str], None],
    ) -> None:
        self._fitter = fitter
        self._blocks = blocks
        self._costs = costs
        self._measure = damage
        self._tell = tell
        self.macs = costs.macs
        self.useless: dict[str, str] = {}
        self._useful: set[str] = set()
        self._damage = 0.0
        self._chosen: dict[str, str] = {}
        self._gone: set[str] = set()
        self._trials: dict[tuple[str, str], _Trial] = {}
        self._queue = [(-math.inf, name, kind) for name in blocks for kind in fitter.kinds(name)]
        heapq.heapify(self._queue)

    def best(self) -> _Trial | None:
        """The least harmful replacement for what it saves; None where there is none left."""
        while self._queue:
            _, name, kind = heapq.heappop(self._queue)
            if name in self._gone:
                continue
            trial = self._trials.get((name, kind))
            if trial is not None:
                return trial
            self._tell(f"trying {name}")
            try:
                trial = self._try(name, kind)
            except NotApplicable as reason:
                if name not in self._useful:
                    self.useless[name] = str(reason)
                continue
            self._useful.add(name)
            self.useless.pop(name, None)
            self._trials[name, kind] = trial
            score = (trial.damage - self._damage) / (self.macs - trial.macs)
            heapq.heappush(self._queue, (score, name, kind))
        return None

    def accept(self, trial: _Trial) -> None:
        """Go on from there."""
        self._chosen = trial.chosen
        self._damage, self.macs = trial.damage, trial.macs
        self._gone |= {trial.name, *self._fitter.within(trial.name)}
        self._trials.clear()

    def _try(self, name: str, kind: str) -> _Trial:
        """The model with one more block replaced.

        Raises:
            NotApplicable: that saves nothing, does not run, or gives no finite outputs.
        """
        inner = self._fitter.within(name)
        chosen = {each: how for each, how in self._chosen.items() if each not in inner}
        chosen[name] = kind
        linear = [self._blocks[each] for each in chosen if chosen[each] == "linear"]
        try:
            model, errors = self._fitter.build(chosen)
            macs = self._costs.of(model, linear)
            if macs >= self.macs:
                raise NotApplicable("what stands for f(x) costs as much")
            damage = self._measure(model)
        except RuntimeUnavailableError as error:
            raise NotApplicable(f"what stands for f(x) does not run: {error}") from error
        if not math.isfinite(damage):
            raise NotApplicable("with what stands for f(x) the outputs are not finite")
        return _Trial(name, kind, chosen, model, errors, damage, macs)


def _too_few(replaced: int, share: float, declined: Mapping[str, str]) -> str:
    example = next((f"; '{name}' is none: {why}" for name, why in declined.items()), "")
    return (
        f"only {replaced} residual blocks can be replaced, which leaves {share:.0%} of the MACs"
        f"{example}"
    )


class _Costs:
    """Multiply-accumulates of one run of a model, and of it with blocks replaced.

    Args:
        model: a model with inferred shapes.
        sizes: sizes of free dims by symbol; those left out count as 1.
    """

    def __init__(self, model: ir.Model, sizes: Mapping[str, int]) -> None:
        rows = {row.name: row for row in cost_of_inferred(model).by_node}
        found = {node_name(node): rows.get(node.name or node_name(node)) for node in model.graph}
        known = {name: row for name, row in found.items() if row is not None}
        self._macs = {name: count_at(row.macs, sizes) for name, row in known.items()}
        # An Add takes one operation for each element.
        self._elements = {name: count_at(row.flops, sizes) for name, row in known.items()}
        self.macs = sum(self._macs.values())

    def of(self, model: ir.Model, linear: Sequence[ResidualBlock]) -> float:
        """The count of a model in which a linear map stands for these blocks."""
        kept = sum(self._macs.get(node_name(node), 0.0) for node in model.graph)
        return kept + sum(self._elements[block.name] * block.channels for block in linear)


def _parameters(model: ir.Model) -> float:
    """Elements of all constants but the int64 ones, which are shapes and indices."""
    found = cost_of_inferred(model).parameters
    return float(sum(each.elements for each in found if each.dtype != "INT64"))


def _silent(_: str) -> None:
    """Say nothing."""
