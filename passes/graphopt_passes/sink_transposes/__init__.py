"""Compute on the other side of the transposes where fewer of them are left.

    Transpose(q, Relu(Transpose(p, x)))                 ->  Relu(x)                  q undoes p
    Add(Transpose(p, x), Transpose(p, z))               ->  Transpose(p, Add(x, z))
    Concat(Transpose(p, x), Transpose(p, z), axis=3)    ->  Transpose(p, Concat(x, z, axis=p[3]))

Operators that work alike in any layout and are neighbours form a region. For each permutation at
its border the transposes are counted that a region on permuted data does without (those that
enter with the permutation and those that leave by its inverse) and those that it needs (one for
any other value that enters or leaves); it is changed where that saves some, and with `towards`
also where as many are left but the region has its channels on axis 1 (nchw) or on the last
(nhwc). Axes, pads, slices, sizes and scales along axes, per-channel constants and quantization
axes move with the data.

Declined where the balance is not in favour, and not considered: operators that depend on the
layout, data that broadcasts from another rank, and what must be known and is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphopt.plugin import (
    Journal,
    NotApplicable,
    Pass,
    Promise,
    Rewriter,
    all_graphs,
    ir,
    known_shape,
    opset_version,
    option,
    site_of,
)
from graphopt_passes.reduced_axes import REDUCTIONS, axes_before, keeps_dims
from graphopt_passes.sink_transposes.permuted import (
    Form,
    Order,
    data_inputs,
    form_of,
    inverse,
    is_agnostic,
    needs_no_transpose,
    unpermuted,
)

_MOST_ORDERS = 4
_LAYOUTS = ("", "nchw", "nhwc")


@dataclass(frozen=True)
class SinkTransposes(Pass):
    """Compute on the other side of the transposes where fewer of them are left."""

    name = "sink-transposes"
    promise = Promise.EQUIVALENT

    towards: str = option("", "nchw or nhwc, for regions where the balance is even")

    def __post_init__(self) -> None:
        """Check the option.

        Raises:
            ValueError: there is no such layout.
        """
        if self.towards not in _LAYOUTS:
            raise ValueError(f"towards is '{self.towards}'; it is nchw, nhwc, or nothing")

    def run(self, model: ir.Model, journal: Journal) -> None:
        """Find the regions of each graph and change those that pay."""
        rewriter = Rewriter(model, journal)
        shadowed = {name for domain, name, _ in model.functions if domain in ("", "ai.onnx")}
        for graph in list(all_graphs(model)):
            nodes = list(graph)
            orders = _orders(nodes)
            if not orders or "Transpose" in shadowed:
                continue
            opset = opset_version(graph, model)
            for order in orders:
                forms: dict[ir.Node, Form] = {}
                for node in graph:
                    if not is_agnostic(node.op_type) or node.op_type in shadowed:
                        continue
                    try:
                        forms[node] = form_of(node, order, opset)
                    except NotApplicable:
                        continue
                wanted = self.towards != "" and _leads_to(order) == self.towards
                for region in _regions(forms):
                    _change(region, forms, order, wanted, rewriter)


def _orders(nodes: list[ir.Node]) -> list[Order]:
    """The permutations that stand in the graph or are undone there, the most frequent first."""
    counted: dict[Order, int] = {}
    for node in nodes:
        order = _order_of(node)
        if order is not None:
            for one in dict.fromkeys((order, inverse(order))):
                counted[one] = counted.get(one, 0) + 1
    return sorted(counted, key=lambda order: -counted[order])[:_MOST_ORDERS]


def _order_of(node: ir.Node | None) -> Order | None:
    """The permutation of a Transpose, written out; None for any other node."""
    if node is None or node.op_type != "Transpose" or node.domain not in ("", "ai.onnx"):
        return None
    attribute = node.attributes.get("perm")
    if attribute is not None:
        return None if attribute.is_ref() else tuple(attribute.as_ints())
    value = node.inputs[0] if node.inputs else None
    shape = None if value is None else known_shape(value)
    return None if shape is None else tuple(reversed(range(len(shape))))


def _leads_to(order: Order) -> str:
    """The layout of a region that computes on what is before `order` instead of behind it."""
    rank = len(order)
    if rank < 4:
        return ""  # of three axes the two permutations are one
    if order == (0, *range(2, rank), 1):
        return "nchw"
    return "nhwc" if order == (0, rank - 1, *range(1, rank - 1)) else ""


def _regions(forms: dict[ir.Node, Form]) -> list[list[ir.Node]]:
    """The nodes that have a form, those that exchange data together, in graph order."""
    leader: dict[ir.Node, ir.Node] = {node: node for node in forms}

    def find(node: ir.Node) -> ir.Node:
        while leader[node] is not node:
            leader[node] = leader[leader[node]]
            node = leader[node]
        return node

    for node, form in forms.items():
        for place in data_inputs(node, form):
            value = node.inputs[place]
            producer = None if value is None else value.producer()
            if producer in forms and producer is not None and producer.graph is node.graph:
                leader[find(node)] = find(producer)
    regions: dict[ir.Node, list[ir.Node]] = {}
    for node in forms:
        regions.setdefault(find(node), []).append(node)
    return list(regions.values())


def _change(
    region: list[ir.Node],
    forms: dict[ir.Node, Form],
    order: Order,
    wanted: bool,
    rewriter: Rewriter,
) -> None:
    saved, needed = _balance(region, forms, order)
    if not saved:
        return
    site = site_of(region[0])
    if saved < needed or (saved == needed and not wanted):
        rewriter.journal.decline(site, f"it would save {saved} transposes and need {needed}")
        return
    for node in region:
        # Where bisection leaves one out, transposes stay around it, and all is right still.
        if rewriter.journal.permits(site_of(node)):
            _permute(node, forms[node], order, rewriter)


def _balance(region: list[ir.Node], forms: dict[ir.Node, Form], order: Order) -> tuple[int, int]:
    """How many transposes a region on unpermuted data does without, and how many it needs."""
    inside = set(region)
    saved = needed = 0
    entering: dict[ir.Value, int] = {}
    back = inverse(order)
    for node in region:
        for place in data_inputs(node, forms[node]):
            value = node.inputs[place]
            if value is not None and value.producer() not in inside:
                entering[value] = entering.get(value, 0) + 1
        for value in node.outputs:
            others = [usage.node for usage in value.uses() if not _reads_data(usage, inside, forms)]
            saved += sum(_order_of(other) == back for other in others)
            needed += value.is_graph_output() or any(
                _order_of(other) is None and not _absorbs(other, order) for other in others
            )
    for value, uses in entering.items():
        if needs_no_transpose(value, order):
            continue
        own = _order_of(value.producer())
        alone = not value.is_graph_output() and len(value.uses()) == uses
        saved += own == order and alone
        needed += own != order and not (own is not None and alone)
    return saved, needed


def _absorbs(node: ir.Node, order: Order) -> bool:
    """Whether hoist-reductions will take the node to the other side of a Transpose."""
    if node.op_type not in REDUCTIONS or node.domain not in ("", "ai.onnx"):
        return False
    try:
        return not keeps_dims(node) and bool(axes_before(node, order))
    except NotApplicable:
        return False


def _reads_data(
    usage: tuple[ir.Node, int], inside: set[ir.Node], forms: dict[ir.Node, Form]
) -> bool:
    node, place = usage
    return node in inside and place in data_inputs(node, forms[node])


def _permute(node: ir.Node, form: Form, order: Order, rewriter: Rewriter) -> None:
    """Replace `node` by itself on unpermuted data, with transposes around it that may cancel."""
    rewriter.begin(node)
    inputs: list[ir.Value | None] = list(node.inputs)
    for place in data_inputs(node, form):
        inputs[place] = _source(inputs[place], order, rewriter)
    for place, array in form.constants.items():
        inputs += [None] * (place + 1 - len(inputs))
        inputs[place] = rewriter.initializer(array, f"{node.op_type.lower()}_permuted")
    attributes: dict[str, object] = {**node.attributes, **form.attributes}
    made = rewriter.node(node.op_type, inputs, attributes, outputs=len(node.outputs))
    results = []
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.type = old.type
        new.shape = _shape_before(old, order)
        turned = rewriter.node("Transpose", [new], {"perm": list(order)})
        turned.outputs[0].type, turned.outputs[0].shape = old.type, known_shape(old)
        results.append(turned.outputs[0])
    undone = [
        usage.node
        for value in node.outputs
        for usage in value.uses()
        if _order_of(usage.node) == inverse(order) and usage.node.graph is node.graph
    ]
    rewriter.replace(node, results, f"{node.op_type} before Transpose {list(order)}")
    for turn in undone:
        _cancel(turn, rewriter)


def _source(value: ir.Value | None, order: Order, rewriter: Rewriter) -> ir.Value | None:
    """The value in the layout before `order`."""
    if value is None:
        return None
    if needs_no_transpose(value, order):
        return unpermuted(value, order, rewriter)
    producer = value.producer()
    if producer is not None and _order_of(producer) == order:
        return producer.inputs[0]
    made = rewriter.node("Transpose", [value], {"perm": list(inverse(order))})
    made.outputs[0].type = value.type
    made.outputs[0].shape = _shape_before(value, order)
    return made.outputs[0]


def _cancel(turn: ir.Node, rewriter: Rewriter) -> None:
    """Let the consumers of a Transpose that undoes another read what that one reads."""
    value = turn.inputs[0] if turn.inputs else None
    producer = None if value is None else value.producer()
    source = None if producer is None else producer.inputs[0]
    order = _order_of(producer)
    if turn.graph is None or source is None or order is None or _order_of(turn) != inverse(order):
        return
    rewriter.begin(turn)
    try:
        rewriter.replace(turn, source)
    except NotApplicable as refusal:
        rewriter.discard()
        rewriter.journal.decline(site_of(turn), str(refusal))


def _shape_before(value: ir.Value, order: Order) -> ir.Shape | None:
    shape = known_shape(value)
    if shape is None:
        return None
    back = inverse(order)
    return ir.Shape([shape[place] for place in back])
