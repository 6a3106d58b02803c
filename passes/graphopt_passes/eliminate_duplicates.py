"""Compute each thing once, and keep each constant once.

    y = Op(a, b), z = Op(a, b)              ->  y = Op(a, b), z becomes y
    initializers v, w of the same bytes     ->  v, w becomes v

Two nodes are equal if their op, attributes, inputs and number of outputs are, an omitted input or
output standing in the same place. Attributes and initializers are compared by type, shape and
bytes: 0.0 is not -0.0, and one NaN is not another.

It does not hold for random ops, for ops of a domain that is not known here or that the model
defines itself, and for nodes that carry subgraphs. Values are shared within one graph only.
Where both values are graph outputs both names are needed, so both stay; an initializer that is
also an input is a default that callers may override, so it equals nothing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Hashable

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Pass,
    Promise,
    Rewriter,
    all_graphs,
    ir,
    site_of,
)

_DETERMINISTIC_DOMAINS = frozenset({"", "ai.onnx.ml"})
_RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",  # random in training mode, and nothing worth sharing otherwise
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_SAMPLE_ELEMENTS = 256


class EliminateDuplicates(Pass):
    """Merge equal nodes and equal initializers."""

    name = "eliminate-duplicates"
    promise = Promise.EXACT

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Number the values of each graph in order, so that equal inputs are one value."""
        rewriter = Rewriter(model, journal)
        for graph in all_graphs(model):
            _merge_initializers(graph, journal)
            _merge_nodes(graph, rewriter)


def _merge_nodes(graph: ir.Graph, rewriter: Rewriter) -> None:
    journal = rewriter.journal
    first: dict[Hashable, ir.Node] = {}
    for node in graph:
        if node.op_identifier() in rewriter.model.functions:
            continue
        key = _node_key(node)
        if key is None:
            continue
        earlier = first.setdefault(key, node)
        site = site_of(node)
        if earlier is node or not journal.permits(site):
            continue
        rewriter.begin(node)
        try:
            rewriter.replace(node, list(earlier.outputs), f"{node.op_type} merged with its equal")
        except NotApplicable as refusal:
            journal.decline(site, str(refusal))


def _node_key(node: ir.Node) -> Hashable | None:
    """What equal nodes have in common; None for a node that equals no other."""
    if node.domain not in _DETERMINISTIC_DOMAINS or node.op_type in _RANDOM or not node.outputs:
        return None
    attributes = []
    for name in sorted(node.attributes):
        key = _attribute_key(node.attributes[name])
        if key is None:
            return None
        attributes.append((name, key))
    return (
        node.domain,
        node.op_type,
        tuple(node.inputs),
        tuple(attributes),
        # One that is omitted, by an empty name, is not there for the other node's consumers.
        tuple(value.name == "" for value in node.outputs),
    )


def _attribute_key(attribute: ir.Attr) -> Hashable | None:
    kinds = ir.AttributeType
    if attribute.is_ref():
        return (attribute.type, "parameter", attribute.ref_attr_name)
    match attribute.type:
        case kinds.FLOAT:
            return (attribute.type, struct.pack("<d", attribute.as_float()))
        case kinds.FLOATS:
            return (
                attribute.type,
                struct.pack(f"<{len(attribute.value)}d", *attribute.as_floats()),
            )
        case kinds.INT | kinds.STRING:
            return (attribute.type, attribute.value)
        case kinds.INTS | kinds.STRINGS:
            return (attribute.type, tuple(attribute.value))
        case kinds.TENSOR:
            return (attribute.type, _Content(attribute.as_tensor()))
    return None


def _merge_initializers(graph: ir.Graph, journal: Journal) -> None:
    candidates = [value for value in graph.initializers.values() if not value.is_graph_input()]
    # An initializer that is a graph output keeps its name, so others become it.
    candidates.sort(key=lambda value: not value.is_graph_output())
    first: dict[_Content, ir.Value] = {}
    for value in candidates:
        if value.const_value is None:
            continue
        kept = first.setdefault(_Content(value.const_value), value)
        site = f"initializer {value.name}"
        if kept is value:
            continue
        if value.is_graph_output():
            journal.decline(site, f"'{value.name}' and '{kept.name}' are both graph outputs")
        elif journal.permits(site):
            for usage in value.uses():
                usage.node.replace_input_with(usage.idx, kept)
            graph.initializers.pop(value.name or "")
            journal.record(site, f"merged with initializer {kept.name}")


class _Content:
    """A tensor as a key: equal if type, shape and bytes are.

    It is hashed by a sample, and all its data is read only to tell it from a tensor that
    agrees in that; then once, as a stream.
    """

    def __init__(self, tensor: ir.TensorProtocol) -> None:
        self._tensor = tensor
        self._outline = (tensor.dtype, tuple(tensor.shape), _sample(tensor))
        self._digest: Hashable = None

    def __hash__(self) -> int:
        return hash(self._outline)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Content):
            return NotImplemented
        if self._tensor is other._tensor:
            return True
        return self._outline == other._outline and self.digest() == other.digest()

    def digest(self) -> Hashable:
        """All the data: the strings, or the SHA-256 of the bytes."""
        if self._digest is None:
            if isinstance(self._tensor, ir.StringTensor):
                self._digest = tuple(self._tensor.string_data())
            else:
                stream = _DigestStream()
                if isinstance(self._tensor, ir.ExternalTensor):
                    self._tensor.tofile(stream)
                else:
                    stream.write(self._tensor.tobytes())
                self._digest = stream.digest()
        return self._digest


def _sample(tensor: ir.TensorProtocol) -> Hashable:
    """The elements at both ends; of a mapped file that reads two pages."""
    if isinstance(tensor, ir.StringTensor):
        # Its numpy() would lose zero bytes at the end of a string.
        texts = tensor.string_data()
        return (tuple(texts[:_SAMPLE_ELEMENTS]), tuple(texts[-_SAMPLE_ELEMENTS:]))
    flat = tensor.numpy().reshape(-1)
    return (flat[:_SAMPLE_ELEMENTS].tobytes(), flat[-_SAMPLE_ELEMENTS:].tobytes())


class _DigestStream:
    """What `tofile` may write to, to get a digest of the bytes and no copy of them."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return len(data)

    def digest(self) -> bytes:
        return self._hash.digest()
