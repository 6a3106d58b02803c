"""No false alarm: every model of onnx's own test suite loads, is valid, and is kept as it is."""

import logging
import warnings
from pathlib import Path

import onnx
import onnx.backend.test
import onnx.backend.test.loader
import pytest

from graphopt.errors import InvalidModelError
from graphopt.graph import load, to_proto, verify


def suite():
    """The name and proto of each model of the suite."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in ("node", "simple", "pytorch-converted", "pytorch-operator"):
            for case in onnx.backend.test.loader.load_model_tests(kind=kind):
                path = Path(case.model_dir or "") / "model.onnx"
                if case.model is not None:
                    yield case.name, case.model
                elif path.is_file():
                    yield case.name, onnx.load(path, load_external_data=False)
    for path in sorted((Path(onnx.backend.test.__file__).parent / "data/light").glob("*.onnx")):
        yield path.name, onnx.load(path)


def comparable(proto):
    """The proto without what has no meaning: value_info, empty domains, trailing outputs."""
    stack = [proto.graph, *proto.functions]
    while stack:
        scope = stack.pop()
        del scope.value_info[:]
        for node in scope.node:
            if not node.domain:
                node.ClearField("domain")
            while node.output and not node.output[-1]:
                del node.output[-1]
            stack.extend(a.g for a in node.attribute if a.HasField("g"))
    for entry in proto.opset_import:
        entry.domain = entry.domain or ""
    return proto.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def models():
    return list(suite())


def test_every_model_is_valid_and_survives(models, caplog):
    caplog.set_level(logging.ERROR)
    assert len(models) > 1500
    old, wrong, changed = [], {}, []
    for name, proto in models:
        default = [entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
        if any(entry.version < 7 for entry in default):
            with pytest.raises(InvalidModelError, match="older than 7"):
                load(proto)
            old.append(name)
            continue
        model = load(proto)
        found = verify(model)
        if found:
            wrong[name] = found
        written = to_proto(model)
        onnx.checker.check_model(written)
        if proto.ir_version >= 4 and comparable(written) != comparable(_copy(proto)):
            changed.append(name)
    assert wrong == {}
    assert changed == []
    assert len(old) < 130


def _copy(proto):
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy
