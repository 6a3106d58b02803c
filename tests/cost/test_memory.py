"""Activation memory: against a simulation that frees what nobody will read, and by hand."""

import itertools
import random
import time

import onnx
import pytest

from graphopt.cost import estimate_cost
from graphopt.cost.memory import MemoryUse, memory_use
from graphopt.cost.quantity import Number, Quantity, evaluated, free
from graphopt.cost.schedule import Step
from graphopt.graph import patient_collector

SETTINGS = ({"batch": 1, "seq": 5}, {"batch": 3, "seq": 16}, {"batch": 8, "seq": 2})


def random_schedule(
    generator: random.Random, sizes_from: list[Number]
) -> tuple[list[Step], dict[str, Number], list[str], list[str]]:
    """Steps over named values, with views, computing in place, weights and captured values."""
    inputs = [f"x{i}" for i in range(generator.randint(1, 3))]
    sizes = {name: generator.choice(sizes_from) for name in inputs}
    known = [*inputs, "weight"]
    steps = []
    for index in range(generator.randint(1, 25)):
        reads = [generator.choice(known[-6:]) for _ in range(generator.randint(1, 3))]
        writes = [f"v{index}_{i}" for i in range(generator.choice((1, 1, 1, 2, 3)))]
        views, in_place = [], []
        kind = generator.random()
        for name in writes:
            sizes[name] = generator.choice(sizes_from)
        if kind < 0.2 and reads[0] != "weight":
            views.append((writes[0], reads[0]))
            sizes[writes[0]] = sizes[reads[0]]
        elif kind < 0.7:
            in_place = [(name, read) for name in writes for read in reads]
        inner = (generator.randint(0, 9), 0) if generator.random() < 0.1 else (0, 0)
        steps.append(
            Step(f"n{index}", tuple(reads), tuple(writes), tuple(views), tuple(in_place), inner)
        )
        known += writes
    made = [name for step in steps for name in step.writes]
    outputs = generator.sample(made, min(len(made), generator.randint(1, 3)))
    return steps, sizes, inputs, outputs


def simulate(
    steps: list[Step], sizes: dict[str, int], inputs: list[str], outputs: list[str], in_place: bool
) -> list[int]:
    """Bytes held at each step, by looking ahead at every moment who will still read what."""
    cells: dict[str, int] = {}  # value -> the number of the memory it lies in
    memory: dict[int, int] = {}  # number -> size
    held = []
    numbers = itertools.count()

    def needed(cell: int, after: int) -> bool:
        names = {name for name, place in cells.items() if place == cell}
        # A view that does not exist yet keeps nothing: its source is read when it is made.
        later = [read for step in steps[after:] for read in step.reads]
        return any(name in later or name in outputs for name in names)

    for index, step in enumerate(steps):
        overwritten: set[int] = set()
        for name in step.writes:
            source = dict(step.views).get(name)
            if source is not None and name not in outputs:
                if source in cells:
                    cells[name] = cells[source]
                continue
            place = None
            if in_place and name not in outputs:
                for written, read in step.in_place:
                    cell = cells.get(read)
                    if written != name or cell is None or cell in overwritten or place is not None:
                        continue
                    if not needed(cell, index + 1) and memory[cell] == sizes[name]:
                        place = cell
            if place is None:
                place = next(numbers)
                memory[place] = sizes[name]
            else:
                for other in [other for other, cell in cells.items() if cell == place]:
                    del cells[other]
            overwritten.add(place)
            cells[name] = place
        held.append(
            sum(memory.values()) + sum(sizes[name] for name in inputs) + step.inner[int(in_place)]
        )
        memory = {cell: size for cell, size in memory.items() if needed(cell, index + 1)}
        cells = {name: cell for name, cell in cells.items() if cell in memory}
    return held


@pytest.mark.parametrize("seed", range(150))
def test_equals_the_simulation(seed: int) -> None:
    generator = random.Random(seed)
    steps, sizes, inputs, outputs = random_schedule(generator, [0, 4, 8, 8, 12, 100])
    use = memory_use(steps, sizes, inputs, outputs)
    apart = simulate(steps, sizes, inputs, outputs, in_place=False)
    shared = simulate(steps, sizes, inputs, outputs, in_place=True)
    assert [moment.bytes for moment in use.timeline] == apart
    assert [moment.bytes_in_place for moment in use.timeline] == shared
    assert use.peak_bytes == max(apart)
    assert use.peak_node == f"n{apart.index(max(apart))}"
    assert use.peak_bytes_in_place == max(shared)
    assert use.peak_node_in_place == f"n{shared.index(max(shared))}"
    assert all(b <= a for a, b in zip(apart, shared, strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_symbolic_sizes_at_three_settings(seed: int) -> None:
    batch, seq = free("batch"), free("seq")
    # No two of these are equal at any of the settings.
    kinds: list[Number] = [batch * 4, batch * seq * 12, seq * seq * 1000 + 7, 3]
    for setting in SETTINGS:
        assert len({evaluated(kind, setting) for kind in kinds}) == len(kinds)
    steps, sizes, inputs, outputs = random_schedule(random.Random(seed), kinds)
    symbolic = memory_use(steps, sizes, inputs, outputs)
    for setting in SETTINGS:
        numbers = {name: evaluated(size, setting) for name, size in sizes.items()}
        concrete = memory_use(steps, numbers, inputs, outputs)
        assert symbolic.at(setting) == concrete
        assert evaluated(symbolic.peak_bytes, setting) == concrete.peak_bytes
        assert evaluated(symbolic.peak_bytes_in_place, setting) == concrete.peak_bytes_in_place


def test_symbolic_peak_names_its_node_or_says_that_it_depends() -> None:
    batch, seq = free("batch"), free("seq")
    steps = [Step("a", ("x",), ("p",)), Step("b", ("x",), ("q",)), Step("c", ("x",), ("r",))]
    sizes = {"x": 0, "p": batch * 8, "q": seq * 4, "r": batch * 2}
    use = memory_use(steps, sizes, ["x"], [])
    assert use.peak_node is None
    assert str(use.peak_bytes).count(",") == 1  # `c` never is the largest
    assert use.at({"batch": 1, "seq": 100}).peak_node == "b"
    assert use.at({"batch": 100, "seq": 1}).peak_node == "a"
    decided = memory_use(steps, {**sizes, "q": batch * 9}, ["x"], [])
    assert decided.peak_node == "b"
    assert isinstance(decided.peak_bytes, Quantity)


def test_five_thousand_nodes_take_no_time_and_it_grows_linearly() -> None:
    def seconds(count: int) -> float:
        steps = [
            Step(f"n{i}", (f"v{max(i - 7, 0)}", f"v{i}"), (f"v{i + 1}",), (),
                 ((f"v{i + 1}", f"v{i}"),))
            for i in range(count)
        ]  # fmt: skip
        sizes = {f"v{i}": 4 + i % 5 for i in range(count + 1)}
        best = float("inf")
        # As estimate_cost runs it: else what other tests left in memory counts too.
        with patient_collector():
            for _ in range(3):
                start = time.process_time()
                memory_use(steps, sizes, ["v0"], [f"v{count}"])
                best = min(best, time.process_time() - start)
        return best

    small, large = seconds(5_000), seconds(20_000)
    assert small < 0.5
    assert large < 4 * small * 3


def memory_of_text(text: str) -> MemoryUse:
    return estimate_cost(onnx.parser.parse_model(text)).memory


HEADER = '<ir_version: 9, opset_import: ["" : 17]>\n'


def test_what_counts_by_hand() -> None:
    # x, a, b, c, y: 400 bytes each; the constant is not counted.
    use = memory_of_text(
        HEADER
        + """chain (float[100] x) => (float[10, 10] y) <int64[2] shape = {10, 10}> {
            [first] a = Relu(x)
            [second] b = Neg(a)
            [shaped] s = Reshape(b, shape)
            [third] c = Neg(s)
            [last] y = Neg(c)
        }"""
    )
    assert use.input_bytes == 400
    # Relu: x + a; then x + two of a, b, c, y. The view costs nothing.
    assert [m.bytes for m in use.timeline] == [800, 1200, 800, 1200, 1200]
    # In place: a is not over x (the caller's), b over a, c over s (= b), y is the caller's.
    assert [m.bytes_in_place for m in use.timeline] == [800, 800, 800, 800, 1200]
    assert (use.peak_node, use.peak_node_in_place) == ("second", "last")


def test_a_branch_adds_its_own_peak_to_the_node_that_holds_it() -> None:
    use = memory_of_text(
        HEADER
        + """branches (bool c, float[100] x) => (float[100] y) {
            [before] a = Neg(x)
            [choice] y = If (c) <
                then_branch = small () => (float[100] t) { t = Neg(a) },
                else_branch = large () => (float[100] e) {
                    p = Neg(a)
                    q = Add(p, a)
                    e = Add(q, p)
                }
            >
        }"""
    )
    # else: p; p, q; p, q, e. In place e has a buffer of its own, being the branch's output.
    assert [m.bytes for m in use.timeline] == [801, 400 + 1 + 400 + 400 + 1200]


def test_free_dims_stay_in_the_peak() -> None:
    use = memory_of_text(
        HEADER
        + """free (float[batch, 10] x) => (float[batch, 10] y) {
            [one] a = Neg(x)
            [two] y = Neg(a)
        }"""
    )
    assert str(use.peak_bytes) == "120*batch"
    assert use.peak_node == "two"
    assert use.at({"batch": 7}).peak_bytes == 840
    assert use.to_dict()["peak_bytes"] == "120*batch"
