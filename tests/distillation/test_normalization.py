"""Batch norms that stand behind convolutions while a network is trained."""

import numpy as np
import pytest

from graphopt.distillation.normalization import bias_before, fold_norms, insert_norms, remove_norms
from graphopt.graph import constant_array, from_text, ir, verify
from graphopt.runtime import Session

HEADER = '<ir_version: 9, opset_import: ["" : 17]> g (float[n,2,5,5] x) => (float[n,2,5,5] y)'
WEIGHTS = {"w": (3, 2, 3, 3), "b": (3,), "v": (2, 3, 1, 1), "c": (2,), "s": (3,), "t": (3,)}
RESIDUAL = """
{
  h = Conv <pads = [1, 1, 1, 1]> (x, w, b)
  r = Relu(h)
  k = Conv(r, v, c)
  z = Add(k, x)
  y = Relu(z)
}
"""


def model_of(body: str) -> ir.Model:
    random = np.random.default_rng(0)
    given = []
    for name, shape in WEIGHTS.items():
        numbers = ", ".join(f"{x:.3f}" for x in random.normal(1.0, 0.5, int(np.prod(shape))))
        given.append(f"float[{','.join(map(str, shape))}] {name} = {{{numbers}}}")
    return from_text(f"{HEADER}\n<{', '.join(given)}>\n{body}")


def numbers_of(value: ir.Value | None) -> np.ndarray:
    array = constant_array(value)
    assert array is not None
    return array


def images(count: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.normal(0.3, 1, (1, 2, 5, 5)).astype(np.float32)} for _ in range(count)]


def outputs(model: ir.Model) -> np.ndarray:
    session = Session(model)
    return np.concatenate([session.run(feed)["y"] for feed in images(4, seed=2)])


def test_norms_change_nothing_and_their_numbers_fold() -> None:
    model = model_of(RESIDUAL)
    before = outputs(model)
    norms = insert_norms(model, images(8))
    assert [node.op_type for node in model.graph].count("BatchNormalization") == len(norms) == 2
    assert [bias_before(norm) for norm in norms] == ["b", "c"]
    assert verify(model) == []
    np.testing.assert_allclose(outputs(model), before, atol=1e-5)
    # They start from the data: what a norm gives has the mean and spread of the convolution.
    mean = numbers_of(norms[0].inputs[3])
    seen = Session(model, outputs=["h"])
    found = np.concatenate([seen.run(feed, ["h"])["h"] for feed in images(8)])
    np.testing.assert_allclose(mean, found.mean((0, 2, 3)), atol=1e-5)
    random = np.random.default_rng(3)
    for norm in norms:
        for value in norm.inputs[1:5]:
            assert value is not None
            array = numbers_of(value)
            moved = array * random.uniform(0.5, 2, array.shape).astype(np.float32)
            value.const_value = ir.tensor(moved, name=value.name)
    trained = outputs(model)
    assert np.abs(trained - before).max() > 0.1
    fold_norms(model, norms)
    assert verify(model) == []
    assert [node.op_type for node in model.graph] == ["Conv", "Relu", "Conv", "Add", "Relu"]
    assert set(model.graph.initializers) == {"w", "b", "v", "c", "s", "t"}
    np.testing.assert_allclose(outputs(model), trained, rtol=1e-4, atol=1e-4)


def test_norms_that_are_removed_leave_every_bit() -> None:
    model = model_of(RESIDUAL)
    before = {name: numbers_of(v) for name, v in model.graph.initializers.items()}
    remove_norms(model, insert_norms(model, images(2)))
    for name, value in model.graph.initializers.items():
        assert np.array_equal(numbers_of(value), before[name])


def test_a_channel_that_never_changes_stays_finite() -> None:
    model = model_of(RESIDUAL)
    weight = numbers_of(model.graph.initializers["w"]).copy()
    weight[1] = 0
    model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
    before = outputs(model)
    norms = insert_norms(model, images(8))
    np.testing.assert_allclose(outputs(model), before, atol=1e-5)
    fold_norms(model, norms)
    np.testing.assert_allclose(outputs(model), before, atol=1e-5)


FIRST = "h = Conv <pads = [1, 1, 1, 1]> (x, w, b)"
AFTER = "r = Relu(h)\n y = Conv(r, v, c)"
SHARED = "i = Conv <pads = [1, 1, 1, 1]> (x, w, s)\n r = Add(h, i)\n y = Conv(r, v, c)"
NORMED = "r = BatchNormalization(h, b, s, t, t)\n y = Conv(r, v, c)"


@pytest.mark.parametrize(
    ("body", "fixed"),
    [
        (f"{{ h = Conv <pads = [1, 1, 1, 1]> (x, w)\n {AFTER} }}", ()),
        (f"{{ {FIRST}\n {AFTER} }}", ("w",)),
        (f"{{ {FIRST}\n {AFTER} }}", ("h",)),
        (f"{{ {FIRST}\n {SHARED} }}", ()),
        (f"{{ {FIRST}\n {NORMED} }}", ()),
    ],
    ids=["without bias", "a fixed weight", "a value compared", "a shared weight", "a norm already"],
)
def test_where_no_norm_can_stand(body: str, fixed: tuple[str, ...]) -> None:
    """In each the last convolution is the model's output, and the first one cannot take a norm."""
    assert insert_norms(model_of(body), images(2), fixed=fixed) == []


def test_a_gate_has_no_norm() -> None:
    """Its images are one pixel: what a batch tells of them is noise."""
    body = """{
      h = Conv <pads = [1, 1, 1, 1]> (x, w, b)
      p = GlobalAveragePool(h)
      k = Conv(p, v, c)
      a = Sigmoid(k)
      y = Mul(x, a)
    }"""
    model = model_of(body)
    assert [bias_before(norm) for norm in insert_norms(model, images(4))] == ["b"]
