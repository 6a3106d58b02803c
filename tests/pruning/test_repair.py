"""Repair: exact where the channels that stay can tell, closer to the original where not."""

import numpy as np
import pytest

from graphopt.graph import clone, ir
from graphopt.pruning.coupling import find_groups
from graphopt.pruning.linear_layers import layers_of, output_shape
from graphopt.pruning.repair import RepairReport, repair
from graphopt.pruning.repair_solve import Rows, fitted, fitted_on_few
from graphopt.pruning.repair_targets import aims_of
from graphopt.pruning.repair_walk import Walk
from graphopt.pruning.statistics import consumer_moments
from graphopt.pruning.surgery import kept_indices, prune
from graphopt.runtime import Feed, Session
from tests.pruning.pruning_models import model as made
from tests.pruning.test_importance_second_order import feeds_for, small_network


def changed(model: ir.Model, name: str, change) -> None:
    value = model.graph.initializers[name]
    array = value.const_value.numpy().copy()
    change(array)
    value.const_value = ir.tensor(array, name=name)


def distance(model: ir.Model, original: ir.Model, feeds) -> float:
    mine, reference = Session(model), Session(original)
    worst = 0.0
    for feed in feeds:
        for name, expected in reference.run(feed).items():
            error = np.abs(mine.run(feed)[name] - expected).max()
            worst = max(worst, float(error / np.abs(expected).max()))
    return worst


def pruned_and_repaired(model: ir.Model, kept, feeds, **options):
    groups = find_groups(model)
    pruned = clone(model)
    prune(pruned, groups, kept)
    before = distance(pruned, model, feeds_for(4, seed=9))
    report = repair(pruned, model, feeds, kept_indices(groups, kept), **options)
    return pruned, before, report


def test_a_channel_that_others_tell_is_recovered_exactly() -> None:
    model = small_network()

    def twice_another(array):
        array[2] = 2 * array[6]  # relu(2 h) = 2 relu(h)

    changed(model, "w", twice_another)
    changed(model, "b", twice_another)
    kept = {"h": [0, 1, 3, 4, 5, 6, 7]}
    pruned, before, report = pruned_and_repaired(model, kept, feeds_for(), ridge=1e-9)
    assert before > 1e-2
    assert distance(pruned, model, feeds_for(4, seed=9)) < 1e-4
    assert report.refitted["z"][1] < 1e-6 < report.refitted["z"][0]


def test_a_constant_channel_goes_into_the_bias_exactly() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        constant (float[N, 3] x) => (float[N, 4] y)
        <float[3, 5] w, float[5] b, float[5, 4] v, float[4] c>
        {
          h = Gemm(x, w, b)
          s = Sigmoid(h)
          y = Gemm(s, v, c)
        }
        """
    )
    random = np.random.default_rng(0)
    for name, shape in (("w", (3, 5)), ("b", (5,)), ("v", (5, 4)), ("c", (4,))):
        value = next(v for n in model.graph for v in n.inputs if v is not None and v.name == name)
        value.const_value = ir.tensor(random.normal(size=shape).astype(np.float32), name=name)
        model.graph.initializers[name] = value
    changed(model, "w", lambda array: array.__setitem__((slice(None), 1), 0.0))
    feeds = [{"x": random.normal(size=(50, 3)).astype(np.float32)} for _ in range(4)]
    groups = find_groups(model)
    kept = {groups.prunable[0].name: [0, 2, 3, 4]}
    pruned = clone(model)
    prune(pruned, groups, kept)
    assert distance(pruned, model, feeds) > 1e-2
    repair(pruned, model, feeds, kept_indices(groups, kept))
    assert distance(pruned, model, feeds) < 1e-5


def test_repair_brings_an_ordinary_pruning_closer() -> None:
    model = small_network()
    pruned, before, report = pruned_and_repaired(
        model, {"h": [0, 1, 3, 4, 6], "z": [0, 1, 2, 4, 5]}, feeds_for(40)
    )
    assert distance(pruned, model, feeds_for(4, seed=9)) < 0.7 * before
    assert set(report.refitted) == {"z", "y"}
    assert all(after < first for first, after in report.refitted.values())


def test_a_residual_sum_is_what_the_layer_aims_at() -> None:
    """The layer behind makes good what the branch lost."""
    model = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        residual (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)
        <float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2, 2, 1, 1] v = {1, 0, 0, 1}, float six = {6}>
        {
          a = Conv(x, w)
          r = Relu(a)
          b = Conv(r, v)
          s = Add(a, b)
          y = Clip(s, , six)
        }
        """
    )
    layers, declined = layers_of(model.graph)
    aims = aims_of(model.graph, layers)
    assert declined == {}
    assert (aims["b"].total, aims["b"].branch, aims["b"].high) == ("s", "a", 6.0)
    assert (aims["a"].total, aims["a"].branch) == ("a", None)


def test_what_an_activation_cuts_off_does_not_pull() -> None:
    """Targets far below zero are met by anything below zero: the fit is exact above."""
    random = np.random.default_rng(0)
    x = np.abs(random.normal(size=(1, 3000, 2))).astype(np.float32)
    sign = np.where(x[0, :, :1] > x[0, :, 1:], 1.0, 7.0)
    target = ((x[0, :, :1] - x[0, :, 1:]) * sign).astype(np.float32)
    zeros = np.zeros((1, 2, 1)), np.zeros(1)
    plain = fitted(Rows(x, target, None), *zeros)
    aware = fitted(Rows(x, target, None), *zeros, low=0.0)
    behind = np.maximum(target, 0)
    errors = [
        float(((np.maximum(x[0] @ fit.matrix[0] + fit.bias, 0) - behind) ** 2).mean())
        for fit in (plain, aware)
    ]
    assert errors[1] < 0.2 * errors[0]


def test_numbers_that_float16_cannot_hold_are_not_written() -> None:
    """The channel that stays tells the other, but times 100,000, which is over 65,504."""
    mixing = np.array([[1.0, 1e-5]], np.float16)
    original = made(
        "float16[N, 1] x",
        "float16[N, 1] y",
        "h = MatMul(x, w)\nr = Relu(h)\ny = MatMul(r, v)",
        {"w": mixing, "v": np.ones((2, 1), np.float16)},
    )
    random = np.random.default_rng(0)
    feeds: list[Feed] = [{"x": random.uniform(1, 4, (64, 1)).astype(np.float16)} for _ in range(4)]
    groups = find_groups(original)
    kept = {next(iter(groups.prunable)).name: [1]}
    pruned = clone(original)
    prune(pruned, groups, kept)
    report = repair(pruned, original, feeds, kept_indices(groups, kept), ridge=1e-9)
    assert report.skipped == {"y": "what it reads or should give is too large for a fit"}
    left = pruned.graph.initializers["v"].const_value
    assert left is not None
    assert left.numpy().tolist() == [[1.0]]


def test_a_layer_that_cannot_be_refitted_is_named_with_its_reason() -> None:
    model = small_network()
    node = next(node for node in model.graph if node.op_type == "MatMul")
    value = node.inputs[1]
    other = ir.node("Identity", [value], num_outputs=1)
    other.outputs[0].name = "again"
    model.graph.append(other)
    model.graph.outputs.append(other.outputs[0])

    _, declined = layers_of(model.graph)
    assert "shared" in declined["y"]


def test_two_repairs_give_the_same_bytes() -> None:
    model = small_network()
    kept = {"h": [0, 1, 3, 4, 6]}
    first, _, _ = pruned_and_repaired(model, kept, feeds_for())
    second, _, _ = pruned_and_repaired(model, kept, feeds_for())
    for name, value in first.graph.initializers.items():
        other = second.graph.initializers[name].const_value
        assert value.const_value.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_grouped_convolutions_are_refitted_group_by_group(groups: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(groups, 4000, 9)).astype(np.float32)
    matrix = random.normal(size=(groups, 9, 6 // groups))
    bias = random.normal(size=6)
    y = (np.matmul(x, matrix) + bias.reshape(groups, 1, -1)).transpose(1, 0, 2).reshape(4000, 6)
    fit = fitted(Rows(x, y.astype(np.float32), None), np.zeros_like(matrix), np.zeros(6), ridge=0)
    assert np.allclose(fit.matrix, matrix, atol=1e-4)
    assert np.allclose(fit.bias, bias, atol=1e-4)


def test_a_walk_in_stretches_gives_what_one_run_gives() -> None:
    model, feeds = small_network(), feeds_for(3)
    walk = Walk(model, feeds)
    names = ["r", "z", "f", "y"]
    whole = Session(model, outputs=names[:-1])
    for name in names:
        walk.advance([name])
        for feed, value in zip(feeds, walk.values(name), strict=True):
            assert np.array_equal(value, whole.run(feed)[name])


def test_feeds_are_left_out_where_memory_is_short() -> None:
    model = small_network()
    kept = {"h": [0, 1, 3, 4, 6]}
    _, _, all_of_them = pruned_and_repaired(model, kept, feeds_for(20))
    _, _, fewer = pruned_and_repaired(model, kept, feeds_for(20), max_bytes=100_000)
    assert all_of_them.feeds == 20
    assert 1 <= fewer.feeds < 20
    assert fewer.refitted["y"][1] < fewer.refitted["y"][0]


@pytest.mark.filterwarnings("error")
def test_one_row_moves_the_bias_alone() -> None:
    random = np.random.default_rng(0)
    old = random.normal(size=(1, 6, 4))
    x, target = (random.normal(size=size).astype(np.float32) for size in ((1, 1, 6), (1, 4)))
    fit = fitted_on_few(Rows(x, target, None), old, np.zeros(4))
    assert np.allclose(fit.matrix, old, atol=1e-4)
    assert np.allclose(x[0] @ fit.matrix[0] + fit.bias, target, atol=1e-4)


def test_few_rows_are_not_learnt_by_heart() -> None:
    """40 rows for 60 columns: what only they say is noise, and the old weights were right."""
    random = np.random.default_rng(0)
    true = random.normal(size=(1, 60, 4))
    x = random.normal(size=(1, 2040, 60)).astype(np.float32)
    target = (x[0] @ true[0] + 2.0 + 3.0 * random.normal(size=(2040, 4))).astype(np.float32)
    few = Rows(x[:, :40], target[:40], None)
    errors = []
    for solve in (fitted, fitted_on_few):
        fit = solve(few, true, np.zeros(4))
        errors.append(float(((x[0, 40:] @ fit.matrix[0] + fit.bias - target[40:]) ** 2).mean()))
    assert errors[1] < 10 < 1.2 * errors[1] < errors[0]


def half_of_sixteen(original: ir.Model, feeds: list[Feed]) -> RepairReport:
    """Every other unit of the group of 16 channels goes, and the rest is repaired."""
    groups = find_groups(original)
    kept = {next(g.name for g in groups.prunable if g.channels == 16): list(range(0, 16, 2))}
    pruned = clone(original)
    prune(pruned, groups, kept)
    return repair(pruned, original, feeds, kept_indices(groups, kept))


def drawn(*shape: int) -> list[Feed]:
    random = np.random.default_rng(0)
    return [{"x": random.normal(size=shape).astype(np.float32)} for _ in range(30)]


BROADCAST = {
    "one vector for all positions": (
        "a = Conv(x, u)\np = GlobalAveragePool(a)\nh = Conv(p, w, b)\nr = Relu(h)\nz = Conv(r, v)",
        {"u": (6, 6, 1, 1), "w": (16, 6, 1, 1), "b": (16,), "v": (6, 16, 1, 1)},
        (8, 6, 9, 9),
    ),
    "one map for all channels": (
        "a = Conv(x, u)\nh = Conv(a, w, b)\nr = Relu(h)\nz = Conv(r, v)",
        {"u": (6, 6, 1, 1), "w": (16, 6, 1, 1), "b": (16,), "v": (1, 16, 1, 1)},
        (8, 6, 9, 9),
    ),
    "one vector for all tokens": (
        (
            "a = MatMul(x, u)\np = ReduceMean<axes = [1]>(a)\ng = MatMul(p, w)\nh = Add(g, b)\n"
            "r = Relu(h)\nz = MatMul(r, v)"
        ),
        {"u": (6, 6), "w": (6, 16), "b": (16,), "v": (16, 6)},
        (8, 9, 6),
    ),
}


@pytest.mark.parametrize("name", BROADCAST)
def test_a_layer_that_a_sum_broadcasts_aims_at_its_own_output(name: str) -> None:
    body, weights, shape = BROADCAST[name]
    dims = ", ".join(["N", *map(str, shape[1:])])
    original = made(
        f"float[{dims}] x", f"float[{dims}] y", f"{body}\ns = Add(a, z)\ny = Relu(s)", weights
    )
    report = half_of_sixteen(original, drawn(*shape))
    assert report.skipped == {}
    before, after = report.refitted["z"]
    assert after < 0.9 * before


def test_what_a_body_makes_of_a_repaired_layer_is_made_good_too() -> None:
    original = made(
        "float[N, 6] x, bool which",
        "float[N, 5] y",
        """
        h = Gemm(x, w, b)
        r = Relu(h)
        z = MatMul(r, v)
        i = If(which) <then_branch = t () => (float[N, 6] p) {p = Relu(z)},
                       else_branch = e () => (float[N, 6] q) {q = Neg(z)}>
        y = MatMul(i, k)
        """,
        {"w": (6, 16), "b": (16,), "v": (16, 6), "k": (6, 5)},
    )
    feeds: list[Feed] = [{**feed, "which": np.array(True)} for feed in drawn(99, 6)]
    report = half_of_sixteen(original, feeds)
    assert set(report.refitted) == {"z", "y"}


def test_samples_that_are_not_finite_are_left_out() -> None:
    original = made(
        "float[N, 6] x",
        "float[N, 5] y",
        "h = Gemm(x, w, b)\nr = Relu(h)\ny = MatMul(r, v)",
        {"w": (6, 16), "b": (16,), "v": (16, 5)},
    )
    feeds = drawn(8, 6)
    broken: list[Feed] = [{"x": np.full((8, 6), number, np.float32)} for number in (np.nan, np.inf)]
    without = half_of_sixteen(original, feeds).refitted["y"]
    assert half_of_sixteen(original, [*feeds, *broken]).refitted["y"] == pytest.approx(without)
    nothing = half_of_sixteen(original, broken)
    assert nothing.refitted == {}
    assert nothing.skipped == {"y": "what it reads or should give is not finite"}
    sound, all_of_them = (
        consumer_moments(original, find_groups(original), data)["y"].matrix
        for data in (feeds, [*feeds, *broken])
    )
    assert np.array_equal(sound, all_of_them)
    assert consumer_moments(original, find_groups(original), broken) == {}


def test_a_product_with_a_vector_is_repaired() -> None:
    original = made(
        "float[6] x",
        "float[5] y",
        "h = MatMul(x, w)\nr = Relu(h)\ny = MatMul(r, v)",
        {"w": (6, 16), "v": (16, 5)},
    )
    random = np.random.default_rng(0)
    feeds: list[Feed] = [{"x": random.normal(size=6).astype(np.float32)} for _ in range(300)]
    before, after = half_of_sixteen(original, feeds).refitted["y"]
    assert after < 0.9 * before


LAYERS = {
    "strides, dilations, uneven pads": (
        "Conv<strides = [2, 1], dilations = [1, 2], pads = [0, 1, 2, 3]>(x, w)",
        (4, 3, 3, 2),
        (2, 3, 11, 8),
    ),
    "no pads": ('Conv<auto_pad = "VALID", strides = [2, 3]>(x, w)', (4, 3, 3, 2), (2, 3, 11, 8)),
    "pads by size": (
        'Conv<auto_pad = "SAME_LOWER", strides = [3, 2]>(x, w)',
        (4, 3, 1, 4),
        (2, 3, 11, 8),
    ),
    "one dim": ("Conv<pads = [1, 0]>(x, w)", (4, 3, 3), (2, 3, 11)),
    "three dims, grouped": ("Conv<group = 3>(x, w)", (6, 1, 2, 1, 3), (2, 3, 4, 5, 6)),
    "Gemm": ("Gemm<transB = 1>(x, w)", (7, 5), (2, 5)),
    "MatMul": ("MatMul(x, w)", (5, 7), (2, 3, 4, 5)),
    "MatMul of a vector": ("MatMul(x, w)", (5, 7), (5,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_shape_of_what_a_layer_gives_is_that_of_the_runtime(name: str) -> None:
    call, weight, given = LAYERS[name]
    dims = ", ".join(map(str, given))
    graph = made(f"float[{dims}] x", "float y", f"y = {call}", {"w": weight})
    layer = layers_of(graph.graph)[0]["y"]
    found = Session(graph).run({"x": np.ones(given, np.float32)})["y"]
    assert output_shape(layer, given) == found.shape


def test_a_walk_holds_no_more_than_it_may_from_the_first_stretch_on() -> None:
    walk = Walk(small_network(), feeds_for(20))
    walk.advance(["r"])
    whole = walk.held_bytes
    for limit, left in ((whole, 20), (whole // 2, 10), (1, 1)):
        walk = Walk(small_network(), feeds_for(20), max_bytes=limit)
        walk.advance(["r"])
        assert len(walk) == left
        assert sum(value.nbytes for value in walk.values("r")) <= max(limit, whole // 20)
