"""Module paths from the names and the metadata that exporters write."""

from __future__ import annotations

import pytest

from graphopt.cost.modules import module_of, module_of_name
from graphopt.graph import ir


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/encoder/layer.3/attention/MatMul", "encoder/layer.3/attention"),
        ("/layer1/layer1.0/conv1/Conv", "layer1/0/conv1"),
        ("model/conv2d_4/Conv2D;model/conv2d_4/BiasAdd", "model/conv2d_4"),
        ("Conv_12", ""),
        ("", ""),
        ("/Conv", ""),
        ("//a//b/Conv", "a/b"),
    ],
)
def test_a_name_holds_a_path(name: str, module: str) -> None:
    assert module_of_name(name) == module
    assert module_of(ir.node("Conv", [], name=name)) == module


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'layer1', 'layer1.0', 'layer1.0.conv1', 'conv2d']", "layer1/0/conv1"),
        ("['', 'encoder', 'encoder.layer.3', 'linear']", "encoder/layer.3"),
        ("['', 'relu']", ""),
        ("not a list", "node/path"),
        ("[1, 2]", "node/path"),
    ],
)
def test_metadata_of_the_newer_exporter_holds_it_too(scopes: str, module: str) -> None:
    node = ir.node("Conv", [], name="node/path/Conv")
    node.metadata_props["pkg.torch.onnx.name_scopes"] = scopes
    assert module_of(node) == module
