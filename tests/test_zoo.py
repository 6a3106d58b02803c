"""graphopt on trained models: right on their data, and no larger than other optimizers' results.

The models are not part of the project; without them every test here is skipped.
"""

from pathlib import Path

import onnx
import onnx.checker
import pytest

from tests.conftest import ZOO
from tests.generate import interface_changes
from tests.zoo_models import compare, count_nodes, keeps_defaults, rival_nodes, session, zoo_models

SAMPLES = 4
SLOW = {"dncnn_s25": 1}
NODE_MARGIN = 1.10
NAMES = [model.name for model in zoo_models(ZOO)] if (ZOO / "MANIFEST.json").is_file() else ["-"]


def _optimized(model: onnx.ModelProto) -> onnx.ModelProto:
    import graphopt

    # The passes themselves are on trial, not the guard that would undo them.
    result = graphopt.optimize(model, check="off")
    assert result.ok
    return result.model


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, zoo: Path) -> tuple[str, onnx.ModelProto, onnx.ModelProto]:
    """A zoo model's name, the model, and what graphopt makes of it."""
    path = next(model.path for model in zoo_models(zoo) if model.name == request.param)
    model = onnx.load(path)
    return request.param, model, _optimized(model)


def test_zoo_outputs_agree(pair: tuple[str, onnx.ModelProto, onnx.ModelProto], zoo: Path) -> None:
    name, model, optimized = pair
    pytest.importorskip("PIL", reason="the zoo's images are read with Pillow")
    onnx.checker.check_model(optimized, full_check=True)
    assert interface_changes(model, optimized, keep_defaults=keeps_defaults(model)) == []
    found = compare(zoo, name, session(model), session(optimized), SLOW.get(name, SAMPLES))
    assert found.samples
    assert found.shapes == []
    assert found.error <= 1e-4
    assert found.integer_differences == 0
    assert not found.changed


def test_zoo_node_count(pair: tuple[str, onnx.ModelProto, onnx.ModelProto]) -> None:
    _, model, optimized = pair
    rivals = rival_nodes(model)
    if not rivals:
        pytest.skip("neither onnxsim nor onnxslim can be run here")
    assert count_nodes(optimized) <= NODE_MARGIN * min(rivals.values()), rivals
