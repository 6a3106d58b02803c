"""How much each group's quantization does to the outputs, and in which order to give groups up.

    noise(g) = max over outputs of  sum (y_g - y)^2 / sum y^2,   y_g: only g quantized

The errors of the groups are nearly independent of each other, so their powers add up: what a
mixture does is predicted by the sum over its groups. Giving up groups by falling noise per gain
solves the knapsack (least noise for the gain that is kept) for every budget at once, up to one
group; the budget that the user's metric wants is then found by bisection.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphopt.graph import ir
from graphopt.quantization.scores import with_scores
from graphopt.runtime import Feed, Session

_OUTSIZED = 0.25
_TIMES_EVEN = 4.0
_AUDIBLE = 10**-3.5
_SPARED = 0.2


class NoiseMeter:
    """Measures what quantization does to the outputs, or to the scores that they are chosen from.

    Args:
        model: the float model.
        feeds: a handful; they and the outputs of the float model are kept.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
    """

    def __init__(self, model: ir.Model, feeds: Iterable[Feed], *, threads: int = 0) -> None:
        reference = Session(with_scores(model), threads=threads)
        self._kept = [(feed, _floats(reference.run(feed))) for feed in feeds]
        self._threads = threads

    def noise(self, changed: ir.Model) -> float:
        """The noise at the worst output, as a share of its power; inf where it is not finite."""
        session = Session(with_scores(changed), threads=self._threads)
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for feed, expected in self._kept:
            actual = session.run(feed)
            for name, output in expected.items():
                finite = np.isfinite(output)
                wanted = output[finite].astype(np.float64)
                error = np.asarray(actual[name])[finite].astype(np.float64) - wanted
                signal[name] = signal.get(name, 0.0) + float(wanted @ wanted)
                noise[name] = noise.get(name, 0.0) + float(error @ error)
        shares = [noise[name] / signal[name] for name in signal if signal[name] > 0]
        worst = max(shares, default=0.0)
        return worst if np.isfinite(worst) else float("inf")


def output_noise(
    model: ir.Model,
    quantize_only: Callable[[str], ir.Model],
    groups: Sequence[str],
    feeds: Iterable[Feed],
    *,
    threads: int = 0,
    progress: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """The noise that each group alone brings to the outputs, as a share of the signal's power.

    Args:
        model: the float model.
        quantize_only: gives the model with one group quantized.
        groups: the groups' names.
        feeds: see `NoiseMeter`.
        threads: likewise.
        progress: called after each group with the number of groups done.

    Returns:
        Group -> noise; inf where an output is not finite any more.
    """
    meter = NoiseMeter(model, feeds, threads=threads)
    found: dict[str, float] = {}
    for number, group in enumerate(groups, start=1):
        found[group] = meter.noise(quantize_only(group))
        if progress is not None:
            progress(number)
    return found


@dataclass(frozen=True)
class Outsized:
    """The groups that make most of the noise.

    Attributes:
        shares: group -> its share of the noise that was left before it was given up.
        noise: group -> noise, of all groups that were measured alone.
    """

    shares: dict[str, float]
    noise: dict[str, float]


def outsized(
    groups: Sequence[str],
    noise_of: Callable[[Sequence[str]], float],
    gain: Mapping[str, float],
) -> Outsized:
    """The few groups that make most of the noise, and cost little to give up.

    Taken one after another: the group with the most noise, as long as it makes a quarter of what
    is left (of few groups, four times its even share), what is left is audible (more than -35 dB
    of the signal), and all given up together keep 80% of the gain.

    As powers add up, a part of the groups with little noise has no noisy group in it: parts are
    halved, the noisiest first, so that not every group has to be measured.

    Args:
        groups: their names; neighbours in the graph are neighbours.
        noise_of: the noise with some of them quantized.
        gain: group -> what it saves, in any unit.
    """
    worth = {name: max(gain.get(name, 0.0), 0.0) for name in groups}
    spare = _SPARED * sum(worth.values())
    share = max(_OUTSIZED, _TIMES_EVEN / max(len(groups), 1))
    found = Outsized({}, {})
    if not groups or share > 1:
        return found
    left = noise_of(groups)
    parts: list[tuple[float, int, int]] = [(-left, 0, len(groups))]
    while parts and left >= _AUDIBLE:
        negative, start, end = heapq.heappop(parts)
        if -negative < share * left:
            break
        if end - start > 1:
            middle = (start + end) // 2
            for part in ((start, middle), (middle, end)):
                noise = noise_of(groups[slice(*part)])
                heapq.heappush(parts, (-noise, *part))
                if part[1] - part[0] == 1:
                    found.noise[groups[part[0]]] = noise
            continue
        name = groups[start]
        spare -= worth[name]
        if spare < 0:
            break
        found.shares[name] = min(-negative / left, 1.0) if np.isfinite(left) else 1.0
        rest = [other for other in groups if other not in found.shares]
        left = noise_of(rest) if rest else 0.0
    return found


def giving_up_order(noise: Mapping[str, float], gain: Mapping[str, float]) -> list[str]:
    """The groups, those first whose noise is the largest for what they gain.

    Args:
        noise: group -> noise.
        gain: group -> what it saves, in any unit; a group that saves nothing comes first.
    """

    def worth(name: str) -> tuple[float, float]:
        saved = gain.get(name, 0.0)
        return (noise[name] / saved if saved > 0 else float("inf"), noise[name])

    places = {name: number for number, name in enumerate(noise)}
    return sorted(noise, key=lambda name: (*(-part for part in worth(name)), places[name]))


def _floats(outputs: Mapping[str, object]) -> dict[str, np.ndarray]:
    return {
        name: value
        for name, value in outputs.items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
