"""Make the small models of fixtures/, their digests and their README.

    python tools/make_fixtures.py            write the constructed models
    python tools/make_fixtures.py --train    train and export the digits models too (CPU torch,
                                             scikit-learn, onnxscript: needed by this tool alone)
    python tools/make_fixtures.py --check    verify every file; writes nothing

The constructed models come out as the same bytes on every machine, and --check rebuilds them.
The trained ones depend on the torch build: --check compares their files with the digests recorded.
"""

import argparse
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from fixture_models.building import to_bytes
from fixture_models.constructed import CONSTRUCTED

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
LARGEST = 1_000_000
TEST_DATA = "digits_test.npz"
TRAINED = {
    "digits_resnet": "Residual CNN with BN kept, TorchScript exporter, dynamic batch",
    "digits_mlp": "MLP with BN after a Gemm, TorchScript exporter, dynamic batch",
    "digits_transformer": "Tiny ViT, TorchScript exporter: Shape/Gather/Concat/Reshape idioms",
    "digits_resnet_dynamo": "The same CNN through torch.export: opset 20, metadata on every node",
    "digits_mlp_dynamo": "The same MLP through torch.export",
    "digits_transformer_dynamo": "The same ViT through torch.export",
}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _constructed() -> dict[str, tuple[str, bytes]]:
    """File name to one-line description and bytes."""
    return {
        f"{build.__name__}.onnx": ((build.__doc__ or "").rstrip("."), to_bytes(build()))
        for build in CONSTRUCTED
    }


def _accuracy(model: bytes, data: dict[str, np.ndarray]) -> float:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": data["image"]})
    return float((np.asarray(logits).argmax(axis=1) == data["label"]).mean())


def _train() -> dict[str, Any]:
    """Train, export and write the digits models; their records for DIGESTS.json."""
    from fixture_models.trained import train_all

    models, data = train_all()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **data)
    (FIXTURES / TEST_DATA).write_bytes(buffer.getvalue())
    records: dict[str, Any] = {
        TEST_DATA: {"sha256": _digest(buffer.getvalue()), "samples": len(data["label"])}
    }
    for name, model in models.items():
        onnx.checker.check_model(model, full_check=True)
        content = to_bytes(model)
        if len(content) >= LARGEST:
            raise SystemExit(f"{name}.onnx is {len(content)} bytes: make the model smaller")
        (FIXTURES / f"{name}.onnx").write_bytes(content)
        records[f"{name}.onnx"] = {
            "sha256": _digest(content),
            "accuracy": round(_accuracy(content, data), 4),
        }
    return records


def _readme(constructed: dict[str, tuple[str, bytes]], trained: dict[str, Any]) -> str:
    samples = trained[TEST_DATA]["samples"]
    rows = [
        f"| `{name}.onnx` | {text} | {trained[f'{name}.onnx']['accuracy']:.2%} |"
        for name, text in TRAINED.items()
    ]
    return "\n".join(
        [
            "# Fixtures",
            "",
            "Small models for tests and examples. Made by `tools/make_fixtures.py`, never by hand;",
            "`DIGESTS.json` holds the SHA-256 of each, `tools/make_fixtures.py --check` verifies.",
            "",
            "## Trained on the digits that ship with scikit-learn",
            "",
            f"Accuracy on the {samples} held-out samples of `{TEST_DATA}` (`image`, `label`).",
            "Input `image`: float32 [batch, 1, 8, 8] in 0..1. Output `logits`: [batch, 10].",
            "",
            "| file | what | accuracy |",
            "|---|---|---|",
            *rows,
            "",
            "## Constructed: one construct each",
            "",
            "| file | what |",
            "|---|---|",
            *(f"| `{name}` | {text} |" for name, (text, _) in constructed.items()),
            "",
        ]
    )


def _write(train: bool) -> None:
    FIXTURES.mkdir(exist_ok=True)
    digests = FIXTURES / "DIGESTS.json"
    if train:
        trained = _train()
    elif digests.is_file():
        trained = json.loads(digests.read_text())["trained"]
    else:
        raise SystemExit("no DIGESTS.json yet: run with --train once")
    constructed = _constructed()
    for name, (_, content) in constructed.items():
        (FIXTURES / name).write_bytes(content)
    record = {
        "constructed": {name: _digest(content) for name, (_, content) in constructed.items()},
        "trained": trained,
    }
    digests.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
    (FIXTURES / "README.md").write_text(_readme(constructed, trained))
    print(f"{len(constructed)} constructed and {len(trained)} trained files in {FIXTURES}")


def problems(folder: Path = FIXTURES) -> list[str]:
    """What is wrong with the files in `folder`, one line each; rebuilds the constructed ones."""
    record = json.loads((folder / "DIGESTS.json").read_text())
    rebuilt = {name: _digest(content) for name, (_, content) in _constructed().items()}
    found = [
        f"{name}: {'not recorded' if name in rebuilt else 'no longer built'}"
        for name in sorted(rebuilt.keys() ^ record["constructed"].keys())
    ]
    for name, digest in record["constructed"].items():
        if name in rebuilt and rebuilt[name] != digest:
            found.append(f"{name}: rebuilding gives other bytes than the digest recorded")
    expected = record["constructed"] | {k: v["sha256"] for k, v in record["trained"].items()}
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif _digest(path.read_bytes()) != digest:
            found.append(f"{name}: differs from the digest recorded")
    present = {path.name for path in folder.glob("*.onnx")}
    found += [f"{name}: not in DIGESTS.json" for name in sorted(present - expected.keys())]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the small models of fixtures/.")
    parser.add_argument("--train", action="store_true", help="train the digits models too")
    parser.add_argument("--check", action="store_true", help="verify the files, write nothing")
    arguments = parser.parse_args()
    if not arguments.check:
        _write(arguments.train)
        return 0
    found = problems()
    print("\n".join(found) if found else f"every fixture in {FIXTURES} is as recorded")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
