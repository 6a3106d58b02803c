"""Take a slice before the data is moved, where nothing is left to move then.

    Gather(Transpose(x, perm=1,0,2), i, axis=0)                 ->  Gather(x, i, axis=1)
    Gather(Transpose(Reshape(x[1,48,H,W], [24,2,H*W])), i)      ->  Gather(Reshape(x), i, axis=2)

The second is the channel shuffle with its split; the first is how attention takes q, k and v
apart. The index is one constant number. It is done where all that use the moved tensor are such
Gathers, no Transpose is left, and there are no more nodes than before: what the Gathers share is
counted once (eliminate-duplicates merges it).
"""

from __future__ import annotations

from graphopt.plugin import (
    Match,
    Promise,
    RewritePass,
    Rewriter,
    constant,
    constant_tensor,
    ir,
    op,
    variable,
)
from graphopt_passes.movement import (
    Axis,
    Movement,
    Steps,
    carry_out,
    chain_behind,
    follow,
    is_movement,
    leaves,
    steps_for,
)


def _is_single(value: ir.Value) -> bool:
    tensor = constant_tensor(value)
    return tensor is not None and len(tensor.shape) == 0


class HoistGathers(RewritePass):
    """Take a slice before the data is moved, where nothing is left to move then."""

    name = "hoist-gathers"
    promise = Promise.EXACT
    patterns = (op("Gather", variable("moved"), constant("index", where=_is_single)),)

    def rewrite(self, match: Match, rewriter: Rewriter) -> None:
        """Gather from what was moved, if that leaves less to do."""
        moved, gather = match.value("moved"), match.root
        last = moved.producer()
        if last is None or not is_movement(last) or moved.is_graph_output():
            return
        users = [usage.node for usage in moved.uses()]
        if last.graph is not gather.graph or not all(map(_takes_one, users)):
            return
        chain = chain_behind(last)
        movement, start = follow(chain)
        if not any(node.op_type == "Transpose" for node in chain[start:]):
            return
        axis = gather.attributes.get_int("axis", 0) % len(movement.after)
        view = _view(movement.before, movement.after[axis])
        if view is None:
            return
        cut, place = view
        rest = [*cut[:place], *cut[place + 1 :]]
        after = [other for number, other in enumerate(movement.after) if number != axis]
        residual = Movement(moved, rest, after)
        steps = steps_for(residual)
        recut = len(cut) != len(movement.before)
        count = recut + len(users) * (1 + steps.count)
        if steps.order is not None or count > len(chain) - start + len(users):
            return
        rewriter.stand_for([gather, *chain[:start:-1]])
        source = movement.source
        if recut:
            source = carry_out(
                Movement(source, movement.before, cut), Steps(None, None, cut), rewriter
            )
        made = rewriter.node("Gather", [source, match.value("index")], {"axis": place})
        taken = made.outputs[0]
        taken.type = moved.type
        result = carry_out(Movement(taken, rest, after), steps, rewriter)
        rewriter.replace(gather, result)


def _takes_one(node: ir.Node) -> bool:
    return (
        node.op_type == "Gather"
        and node.domain in ("", "ai.onnx")
        and node.inputs[1] is not None
        and _is_single(node.inputs[1])
    )


def _view(axes: list[Axis], wanted: Axis) -> tuple[list[Axis], int] | None:
    """The axes, one of them cut so that `wanted` stands alone, and where it stands then."""
    sought = leaves(wanted)
    if not sought:
        return None
    view: list[Axis] = []
    found = None
    for axis in axes:
        own = leaves(axis)
        at = next((i for i, factor in enumerate(own) if factor is sought[0]), None)
        if at is None:
            view.append(own)
            continue
        end = at + len(sought)
        if len(own) < end or any(a is not b for a, b in zip(own[at:end], sought, strict=True)):
            return None
        view += [part for part in (own[:at],) if part]
        found = len(view)
        view.append(sought)
        view += [part for part in (own[end:],) if part]
    return None if found is None else (view, found)
