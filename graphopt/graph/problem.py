"""What a check reports, and the words it uses for a node."""

from collections.abc import Sequence
from dataclasses import dataclass

from graphopt.errors import reason_of
from graphopt.graph._onnx_ir import ir


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which a model breaks the rules of ONNX.

    Attributes:
        message: one line that stands by itself, the node's label included.
        node: the name of the node, its first output's where it has none; None if the
            problem is not in one node.
    """

    message: str
    node: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))

    def __str__(self) -> str:
        return self.message


def one_line(text: str) -> str:
    """The text on one line of at most 400 characters, whatever names a model puts in it."""
    if len(text) > 400:
        text = f"{text[:300]}...{text[-97:]}"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def root_cause(error: BaseException) -> str:
    """The first cause of a chain of errors, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(reason_of(error))


def label_of(node: ir.Node) -> str:
    """Words that let a person find the node: its type and name, or its first output."""
    if node.name:
        return f"{node.op_type} '{node.name}'"
    output = next((value.name for value in node.outputs if value.name), None)
    return f"{node.op_type} that makes '{output}'" if output else f"{node.op_type} without output"


def name_of(node: ir.Node) -> str:
    """The name of a node, or of its first output, or its operator's."""
    outputs = (value.name for value in node.outputs if value.name)
    return node.name or next(outputs, None) or node.op_type


def cycle_among(predecessors: Sequence[Sequence[int]]) -> list[int]:
    """A cycle of the graph whose edges lead from each predecessor to its place; [] if none."""
    waiting = [len(set(before)) for before in predecessors]
    followers: list[list[int]] = [[] for _ in predecessors]
    for place, before in enumerate(predecessors):
        for earlier in set(before):
            followers[earlier].append(place)
    ready = [place for place, count in enumerate(waiting) if count == 0]
    for place in ready:
        for follower in followers[place]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    stuck = [place for place, count in enumerate(waiting) if count > 0]
    if not stuck:
        return []
    # Each stuck place has a stuck predecessor: going back must come round.
    path: list[int] = []
    visited: dict[int, int] = {}
    place = stuck[0]
    while place not in visited:
        visited[place] = len(path)
        path.append(place)
        place = next(earlier for earlier in predecessors[place] if waiting[earlier] > 0)
    return path[visited[place] :][::-1]


def cycle_text(labels: Sequence[str]) -> str:
    """A cycle as one line, cut in the middle where it is long."""
    shown = [*labels, labels[0]]
    if len(shown) > 8:
        shown = [*shown[:4], f"({len(shown) - 7} more)", *shown[-3:]]
    return "the nodes form a cycle: " + " -> ".join(shown)
