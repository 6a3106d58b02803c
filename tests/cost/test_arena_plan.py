"""The planner and the arena of ONNX Runtime, as modelled: what must hold of any such plan."""

import itertools
import random

import pytest

from graphopt.cost.arena_chunks import Arena, Chunk
from graphopt.cost.arena_plan import Buffer, plan
from graphopt.cost.memory import memory_use
from graphopt.cost.schedule import Step

MEBIBYTE = 1 << 20


@pytest.mark.parametrize("seed", range(30))
def test_chunks_in_use_never_overlap_and_add_up(seed: int) -> None:
    generator = random.Random(seed)
    arena = Arena()
    used: list[tuple[Chunk, int]] = []
    peak = 0
    for _ in range(300):
        if used and generator.random() < 0.45:
            arena.release(used.pop(generator.randrange(len(used)))[0])
        else:
            size = generator.choice((1, 100, 256, 5_000, 300_000, 3 * MEBIBYTE))
            chunk = arena.allocate(size)
            assert chunk is not None
            used.append((chunk, size))
        places = sorted((chunk.place, chunk.place + chunk.size) for chunk, _ in used)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(places))
        assert all(chunk.size >= size and chunk.size % 256 == 0 for chunk, size in used)
        assert arena.used == sum(chunk.size for chunk, _ in used)
        peak = max(peak, arena.used)
    assert arena.peak == peak
    for chunk, _ in used:
        arena.release(chunk)
    assert arena.used == 0


def test_a_chunk_is_split_only_when_as_much_again_is_left() -> None:
    arena = Arena()
    small = arena.allocate(MEBIBYTE // 2)  # leaves the other half
    assert small is not None
    assert small.size == MEBIBYTE // 2
    large = arena.allocate(3 * MEBIBYTE // 2)  # 2 MiB would be next, and are too small to split
    assert large is not None
    assert large.size == 2 * MEBIBYTE
    assert arena.allocate(0) is None
    arena.release(small)
    whole = arena.allocate(MEBIBYTE)  # the halves of the first region have merged
    assert whole is not None
    assert whole.place == small.place
    assert arena.used == 3 * MEBIBYTE


def test_the_planner_keeps_a_dead_buffer_for_the_next_of_its_shape() -> None:
    steps = [
        Step("a", ("x",), ("a",)),
        Step("b", ("a",), ("b",)),
        Step("c", ("b",), ("c",)),
        Step("d", ("c",), ("d",)),
        Step("y", ("d",), ("y",)),
    ]
    sizes = {"a": 400, "b": 8, "c": 8, "d": 400, "y": 4}
    kinds = {"a": (32, (10, 10)), "b": (32, (2,)), "c": (32, (1, 2)), "d": (32, (10, 10))}
    # d lies in a's buffer, which is held meanwhile; b and c are of equal size, not of equal shape.
    assert plan(steps, sizes, kinds, frozenset({"y"})) == [
        Buffer(400, 0, 4),
        Buffer(8, 1, 2),
        Buffer(8, 2, 3),
        Buffer(4, 4, 5),
    ]
    # Shapes that are not known before the run are not compared.
    assert plan(steps, sizes, {}, frozenset({"y"}))[0] == Buffer(400, 0, 1)


def test_in_place_only_where_nobody_else_uses_the_buffer() -> None:
    kinds = dict.fromkeys("abcdy", (32, (10,)))
    sizes = dict.fromkeys("abcdy", 40)

    def step(output: str, source: str, *others: str) -> Step:
        return Step(output, (source, *others), (output,), (), ((output, source),))

    over = [step("a", "x"), step("b", "a"), step("c", "b"), step("y", "c")]
    # a is not over the input, nor y, which the caller gets, over anything.
    assert plan(over, sizes, kinds, frozenset("y")) == [Buffer(40, 0, 3), Buffer(40, 3, 4)]
    used_again = [step("a", "x"), step("b", "a"), step("c", "b", "a"), step("y", "c")]
    assert plan(used_again, sizes, kinds, frozenset("y")) == [
        Buffer(40, 0, 2),
        Buffer(40, 1, 3),
        Buffer(40, 3, 4),
    ]
    twice = [step("a", "x"), step("b", "a", "a"), step("y", "b")]
    assert len(plan(twice, sizes, kinds, frozenset("y"))) == 3


@pytest.mark.parametrize("seed", range(60))
def test_no_plan_is_smaller_than_what_is_alive(seed: int) -> None:
    generator = random.Random(seed)
    known, steps = ["x"], []
    for index in range(generator.randint(2, 30)):
        reads = tuple(generator.choice(known[-4:]) for _ in range(generator.randint(1, 2)))
        name = f"v{index}"
        in_place = ((name, reads[0]),) if generator.random() < 0.5 else ()
        steps.append(Step(name, reads, (name,), (), in_place))
        known.append(name)
    sizes = {name: generator.choice((4, 8, 8, 16)) for name in known}
    kinds = {name: (32, (size // 4,)) for name, size in sizes.items()}
    outputs = frozenset(known[-1:])
    planned = plan(steps, sizes, kinds, outputs)
    alive = memory_use(steps, sizes, (), outputs)
    for index, moment in enumerate(alive.timeline):
        held = sum(b.size for b in planned if b.birth <= index <= b.death)
        assert held >= moment.bytes_in_place
    # Every value has room, and every buffer is born with some value.
    assert {buffer.birth for buffer in planned} <= set(range(len(steps)))
