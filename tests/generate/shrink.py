"""Make a failing model small: the fewest nodes, feeds and outputs that still fail."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.printer

from tests.generate.check import run
from tests.generate.model import Feed

Predicate = Callable[[onnx.ModelProto, Sequence[Feed]], bool]
Candidate = tuple[onnx.ModelProto, list[Feed]]


def shrink(
    model: onnx.ModelProto, feeds: Sequence[Feed], predicate: Predicate, *, attempts: int = 1500
) -> Candidate:
    """The smallest model found for which `predicate(model, feeds)` holds.

    Tries, until nothing helps or `attempts` are used up: fewer feeds, one output, an intermediate
    value as the only output, a value fed from outside in place of what computes it, a node
    replaced by one of its inputs (in subgraphs too), no value_info.
    """
    best: Candidate = (_pruned(_copy(model)), list(feeds))
    if not _holds(predicate, best):
        best = (_copy(model), list(feeds))
    left = attempts
    improved = True
    while improved and left > 0:
        improved = False
        for candidate in _candidates(*best):
            left -= 1
            if left < 0:
                break
            if _weight(candidate) < _weight(best) and _holds(predicate, candidate):
                best = candidate
                improved = True
                break
    return best


def save_failure(
    folder: Path, name: str, model: onnx.ModelProto, feeds: Sequence[Feed], failure: str
) -> Path:
    """Write NAME.onnx, NAME.npz files of its feeds and NAME.txt (the failure and the model)."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()[:8]
    path = folder / f"{name}-{digest}.onnx"
    path.write_bytes(model.SerializeToString())
    for index, feed in enumerate(feeds):
        np.savez(path.with_suffix(f".feed{index}.npz"), **feed)
    text = f"{failure}\n\n{onnx.printer.to_text(model)}\n"
    path.with_suffix(".txt").write_text(text)
    return path


def _holds(predicate: Predicate, candidate: Candidate) -> bool:
    """Whether the failure is still there; an invalid candidate does not count."""
    try:
        return predicate(*candidate)
    except Exception:
        return False


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from _graphs(body)


def _weight(candidate: Candidate) -> tuple[int, int, int]:
    """What shrinking makes smaller, most important first."""
    model, feeds = candidate
    nodes = sum(len(graph.node) for graph in _graphs(model.graph))
    return nodes, len(model.graph.output) + len(feeds), len(model.SerializeToString())


def _reads(node: onnx.NodeProto) -> set[str]:
    """The names a node reads, those its subgraphs capture included."""
    names = set(node.input)
    for body in _bodies(node):
        for inner in body.node:
            names |= _reads(inner)
        names |= {output.name for output in body.output}
    return names


def _pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without dead nodes, unused initializers, functions and value_info; inputs stay."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed |= _reads(node)
            kept.append(node)
    nodes = [_node_copy(node) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(nodes)
    initializers = [t for t in graph.initializer if t.name in needed]
    inputs = [i for i in graph.input if i.name in needed]
    _replace(graph.initializer, initializers)
    _replace(graph.input, inputs)
    del graph.value_info[:]
    called = {node.op_type for g in _graphs(graph) for node in g.node if node.domain}
    for function in model.functions:
        called |= {node.op_type for node in function.node if node.domain}
    _replace(model.functions, [f for f in model.functions if f.name in called])
    return model


def _replace(field: "onnx.external_data_helper.Iterable", items: list) -> None:
    copies = []
    for item in items:
        copy = type(item)()
        copy.CopyFrom(item)
        copies.append(copy)
    del field[:]
    field.extend(copies)


def _node_copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _fitted(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Candidate:
    """The model pruned, and feeds of the inputs that are left."""
    pruned = _pruned(model)
    names = {value.name for value in pruned.graph.input}
    return pruned, [{k: v for k, v in feed.items() if k in names} for feed in feeds]


def _candidates(model: onnx.ModelProto, feeds: list[Feed]) -> Iterator[Candidate]:
    """Smaller models, the boldest first."""
    if len(feeds) > 1:
        for feed in feeds:
            yield model, [feed]
    if len(model.graph.output) > 1:
        for output in model.graph.output:
            copy = _copy(model)
            _replace(copy.graph.output, [output])
            yield _fitted(copy, feeds)
    known = _intermediate(model, feeds)
    yield from _cut_below(model, feeds, known)
    yield from _cut_above(model, feeds, known)
    yield from _bypassed(model, feeds)
    for index in range(len(model.graph.output)):
        copy = _copy(model)
        del copy.graph.output[index]
        if copy.graph.output:
            yield _fitted(copy, feeds)


def _intermediate(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, list[np.ndarray]]:
    """The value of every tensor in the main graph, for each feed."""
    copy = _copy(model)
    inferred = onnx.shape_inference.infer_shapes(model)
    types = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
    names = [n for node in model.graph.node for n in node.output if n in types]
    have = {output.name for output in copy.graph.output}
    for name in names:
        if name not in have:
            info = copy.graph.output.add()
            info.name = name
            info.type.CopyFrom(types[name].type)
            if info.type.HasField("tensor_type"):
                info.type.tensor_type.ClearField("shape")
    try:
        results = run(copy, feeds)
    except Exception:
        return {}
    return {
        name: [result[name] for result in results]
        for name in names
        if all(isinstance(result[name], np.ndarray) for result in results)
    }


def _value_info(name: str, arrays: Sequence[np.ndarray]) -> onnx.ValueInfoProto:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(arrays[0].dtype)
    return onnx.helper.make_tensor_value_info(name, dtype, [None] * arrays[0].ndim)


def _cut_below(
    model: onnx.ModelProto, feeds: Sequence[Feed], known: dict[str, list[np.ndarray]]
) -> Iterator[Candidate]:
    """One intermediate value is the only output."""
    have = [output.name for output in model.graph.output]
    for name, arrays in known.items():
        if have != [name]:
            copy = _copy(model)
            _replace(copy.graph.output, [_value_info(name, arrays)])
            yield _fitted(copy, feeds)


def _cut_above(
    model: onnx.ModelProto, feeds: Sequence[Feed], known: dict[str, list[np.ndarray]]
) -> Iterator[Candidate]:
    """One intermediate value is fed from outside, the latest first."""
    for name, arrays in reversed(known.items()):
        copy = _copy(model)
        for node in list(copy.graph.node):
            if name in node.output:
                if len(node.output) == 1:
                    copy.graph.node.remove(node)
                else:
                    node.output[list(node.output).index(name)] = f"{name}_unused"
        copy.graph.input.append(_value_info(name, arrays))
        fed = [feed | {name: array} for feed, array in zip(feeds, arrays, strict=True)]
        yield _fitted(copy, fed)


def _bypassed(model: onnx.ModelProto, feeds: Sequence[Feed]) -> Iterator[Candidate]:
    """One node is replaced by one of its inputs, in any graph."""
    sizes = [len(graph.node) for graph in _graphs(model.graph)]
    for index, size in enumerate(sizes):
        for position in range(size):
            copy = _copy(model)
            node = list(_graphs(copy.graph))[index].node[position]
            if not node.output:
                continue
            for source in dict.fromkeys(node.input):
                if source and node.op_type != "Identity":
                    changed = _copy(model)
                    graph = list(_graphs(changed.graph))[index]
                    _bypass(graph, position, source)
                    yield _fitted(changed, feeds)
            if node.op_type == "Identity":
                changed = _copy(model)
                graph = list(_graphs(changed.graph))[index]
                if _remove(graph, position):
                    yield _fitted(changed, feeds)


def _bypass(graph: onnx.GraphProto, position: int, source: str) -> None:
    """Make a node an Identity of `source`; its other outputs vanish with their readers."""
    output = graph.node[position].output[0]
    graph.node[position].CopyFrom(onnx.helper.make_node("Identity", [source], [output]))


def _remove(graph: onnx.GraphProto, position: int) -> bool:
    """Take an Identity out, unless it makes a graph output."""
    source, output = graph.node[position].input[0], graph.node[position].output[0]
    if any(info.name == output for info in graph.output):
        return False
    del graph.node[position]
    for inner in _graphs(graph):
        for node in inner.node:
            for index, name in enumerate(node.input):
                if name == output:
                    node.input[index] = source
    return True
