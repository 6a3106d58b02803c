"""How much each group's quantization does to the outputs, and in which order to give groups up.

    noise(g) = max over outputs of  sum (y_g - y)^2 / sum y^2,   y_g: only g quantized

The errors of the groups are nearly independent of each other, so their powers add up: what a
mixture does is predicted by the sum over its groups. Giving up groups by falling noise per gain
solves the knapsack (least noise for the gain that is kept) for every budget at once, up to one
group; the budget that the user's metric wants is then found by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from graphopt.graph import ir
from graphopt.runtime import Feed, Session

_OUTSIZED = 0.25
_TIMES_EVEN = 4.0
_AUDIBLE = 10**-3.5
_SPARED = 0.2


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
        feeds: a handful; they and the outputs of the float model are kept.
        threads: threads within one operator; 0 leaves the choice to ONNX Runtime.
        progress: called after each group with the number of groups done.

    Returns:
        Group -> noise; inf where an output is not finite any more.
    """
    reference = Session(model, threads=threads)
    kept = [(feed, _floats(reference.run(feed))) for feed in feeds]
    del reference
    found: dict[str, float] = {}
    for number, group in enumerate(groups, start=1):
        session = Session(quantize_only(group), threads=threads)
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for feed, expected in kept:
            actual = session.run(feed)
            for name, output in expected.items():
                finite = np.isfinite(output)
                wanted = output[finite].astype(np.float64)
                error = np.asarray(actual[name])[finite].astype(np.float64) - wanted
                signal[name] = signal.get(name, 0.0) + float(wanted @ wanted)
                noise[name] = noise.get(name, 0.0) + float(error @ error)
        shares = [noise[name] / signal[name] for name in signal if signal[name] > 0]
        worst = max(shares, default=0.0)
        found[group] = worst if np.isfinite(worst) else float("inf")
        if progress is not None:
            progress(number)
    return found


def outsized(noise: Mapping[str, float], gain: Mapping[str, float]) -> dict[str, float]:
    """The few groups that make most of the noise, and cost little to give up.

    Taken one after another: the group with the most noise, as long as it makes a quarter of what
    is left (of few groups, four times its even share), what is left is audible (more than -35 dB
    of the signal), and all given up together keep 80% of the gain.

    Args:
        noise: group -> noise.
        gain: group -> what it saves, in any unit.

    Returns:
        Group -> its share of the noise that was left before it was given up.
    """
    worth = {name: max(gain.get(name, 0.0), 0.0) for name in noise}
    spare = _SPARED * sum(worth.values())
    share = max(_OUTSIZED, _TIMES_EVEN / max(len(noise), 1))
    left = dict(noise)
    found: dict[str, float] = {}
    for name in sorted(noise, key=lambda name: -noise[name]):
        total = sum(left.values())
        spare -= worth[name]
        if total < _AUDIBLE or left[name] < share * total or spare < 0:
            break
        found[name] = left.pop(name) / total if np.isfinite(total) else 1.0
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
