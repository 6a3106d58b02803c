"""LSTM, GRU, RNN: hidden unit h has a row in each gate's block.

W[dirs, gates*H, I]   R[dirs, gates*H, H]   B[dirs, 2*gates*H]   Y[seq, dirs, batch, H]
rows = (gate, h), so a unit takes its row in every gate, in both directions
"""

from __future__ import annotations

from graphopt.pruning.groups import Role
from graphopt.pruning.propagation.place import NotUnderstood, Place
from graphopt.pruning.propagation.rule import Change, Rule, standard

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_STEP = "steps along it"


def _relate(place: Place) -> None:
    gates = _GATES[place.node.op_type]
    if place.integer("layout", 0):
        raise NotUnderstood("has its batch first, which is not followed")
    x, weight, recurrent = place.input(0), place.input(1), place.input(2)
    if weight.rank != 3 or recurrent.rank != 3 or x.rank != 3:
        raise NotUnderstood("has shapes that do not fit together")
    hidden = recurrent.sizes[2]
    unit, gate = place.virtual(hidden), place.virtual(gates)
    if gates > 1:
        place.freeze_virtual(gate, "has a block of rows for each gate")
    for axis in (0, 1):
        place.freeze(x, axis, _STEP)
    place.tie(x, 2, weight, 2)
    place.weight(1, 2, Role.CONSUMER)
    for index, tensor in ((1, weight), (2, recurrent)):
        place.freeze(tensor, 0, "runs in that many directions")
        place.product(tensor, 1, (gate, unit))
        place.weight(index, 1, Role.PRODUCER)
    place.tie_axis(recurrent, 2, unit)
    place.weight(2, 2, Role.CONSUMER)
    for index, blocks in ((3, 2 * gates), (7, 3)):
        vector = place.optional(index)
        if vector is None:
            continue
        block = place.virtual(blocks)
        place.freeze_virtual(block, "has a block of numbers for each gate")
        place.freeze(vector, 0, "runs in that many directions")
        place.product(vector, 1, (block, unit))
        place.weight(index, 1, Role.VECTOR)
    for index in (5, 6):
        state = place.optional(index)
        if state is not None:
            place.freeze(state, 0, "runs in that many directions")
            place.freeze(state, 1, _STEP)
            place.tie_axis(state, 2, unit)
    for result in place.outputs:
        if result is not None:
            for axis in range(result.rank - 1):
                place.freeze(result, axis, _STEP)
            place.tie_axis(result, result.rank - 1, unit)


def _adapt(change: Change) -> None:
    kept = change.kept_input(2, 2)
    if kept is not None:
        change.set_attribute("hidden_size", len(kept))


RECURRENT_RULES = standard(tuple(_GATES), Rule(_relate, _adapt))
