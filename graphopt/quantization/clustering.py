"""Weight clustering: a tensor of floats becomes a codebook and one byte for each element.

    W[i]  ->  Gather(codebook, Cast(index[i])),   codebook: at most 256 floats, by k-means

For the size of the file (and of what compresses it further), not for speed: a runtime that folds
constants computes the weight once, as it loads the model. k-means is Lloyd's in one dimension,
from where many levels would lie best: deterministic, and each step is a search in sorted values.
"""

from __future__ import annotations

import numpy as np

from graphopt.errors import UsageError
from graphopt.graph import constant_array, ir
from graphopt.rewrite import Journal, Rewriter
from graphopt.rewrite.rewriter import PASS_KEY

_ITERATIONS = 50
_LARGEST_CODEBOOK = 256
_START_BINS = 64  # few enough that a bin of a small tensor holds more than chance


def cluster_weights(
    model: ir.Model,
    journal: Journal,
    *,
    clusters: int = _LARGEST_CODEBOOK,
    minimum_elements: int = 1 << 12,
) -> None:
    """Let the large float32 initializers of the main graph share few values, in place.

    Args:
        model: the model.
        journal: asked before each change, told after it; the site is `initializer NAME`.
        clusters: how many values a tensor may have, 2 to 256.
        minimum_elements: leave smaller tensors as they are.

    Raises:
        UsageError: so many clusters do not fit into a byte, or there are none.
    """
    if not 2 <= clusters <= _LARGEST_CODEBOOK:
        raise UsageError(f"{clusters} clusters: use 2 to {_LARGEST_CODEBOOK}")
    rewriter = Rewriter(model, journal)
    outputs = {value.name for value in model.graph.outputs}
    for name in list(model.graph.initializers):
        value = model.graph.initializers[name]
        array = constant_array(value)
        site = f"initializer {name}"
        if array is None or array.dtype != np.float32 or array.size < minimum_elements:
            continue
        users = [use.node for use in value.uses() if use.node.graph is model.graph]
        if not users or len(users) < len(value.uses()) or name in outputs:
            journal.decline(site, "it is used in a subgraph, or an output")
            continue
        if not np.isfinite(array).all():
            journal.decline(site, "it holds a value that is not finite")
            continue
        if journal.permits(site):
            _replace(value, array, clusters, rewriter)
            journal.record(site, f"{array.size} floats -> bytes and a codebook")


def codebook(values: np.ndarray, clusters: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `clusters` floats, ascending, and the uint8 index of each value's nearest.

    Fewer where there are fewer different values, which are kept exactly then.
    """
    flat = np.asarray(values, np.float32).reshape(-1)
    different = np.unique(flat)
    if len(different) <= clusters:
        centres = different
    else:
        ordered = np.sort(flat.astype(np.float64))
        total = np.concatenate([[0.0], np.cumsum(ordered)])
        found = _start(ordered, clusters)
        for _ in range(_ITERATIONS):
            edges = np.searchsorted(ordered, (found[1:] + found[:-1]) / 2)
            starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(ordered)]])
            filled = ends > starts
            moved = (total[ends] - total[starts])[filled] / (ends - starts)[filled]
            if len(moved) == len(found) and np.array_equal(moved, found):
                break
            found = moved
        centres = np.unique(found.astype(np.float32))
    middles = (centres[1:].astype(np.float64) + centres[:-1]) / 2
    index = np.searchsorted(middles, flat).astype(np.uint8)
    return centres, index.reshape(values.shape)


def _start(ordered: np.ndarray, clusters: int) -> np.ndarray:
    """Centres spaced as the best quantizer of many levels has them: density p^(1/3) (Panter, Dite).

    From there few steps are left, where evenly filled clusters would need thousands.
    """
    counts, edges = np.histogram(ordered, bins=_START_BINS)
    density = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    wanted = (np.arange(clusters) + 0.5) / clusters * density[-1]
    return np.unique(np.interp(wanted, density, edges))


def _replace(value: ir.Value, array: np.ndarray, clusters: int, rewriter: Rewriter) -> None:
    graph = value.graph
    if graph is None:
        raise RuntimeError(f"'{value.name}' belongs to no graph")
    first = next(node for node in graph if any(given is value for given in node.inputs))
    rewriter.begin(first)
    centres, index = codebook(array, clusters)
    values = rewriter.initializer(centres, f"{value.name}_codebook")
    indices = rewriter.initializer(index, f"{value.name}_index")
    cast = ir.node("Cast", [indices], {"to": int(ir.DataType.INT32)})
    cast.outputs[0].name = rewriter.unique_name(f"{value.name}_Cast")
    gather = ir.node("Gather", [values, cast.outputs[0]], {"axis": 0})
    gather.outputs[0].name = rewriter.unique_name(f"{value.name}_clustered")
    gather.outputs[0].shape = ir.Shape(array.shape)
    gather.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    for made in (cast, gather):
        made.metadata_props[PASS_KEY] = rewriter.journal.pass_name
    graph.insert_before(first, [cast, gather])
    for use in tuple(value.uses()):
        use.node.replace_input_with(use.idx, gather.outputs[0])
    if not value.is_graph_input():
        graph.initializers.pop(value.name or "")
