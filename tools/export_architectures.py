"""Export twelve kinds of networks as users do: `python tools/export_architectures.py`.

    python tools/export_architectures.py [--out build/exports/architectures] [--only NAME ...]

Every network goes through torch's exporter by tracing ("script") and through the one by
torch.export ("dynamo", not optimized), with a batch of one ("static") and with a free one
("dynamic"): `vit-dynamo-dynamic.onnx`. Small, with seeded random weights. Needs torch,
torchvision, transformers and onnxscript; the project needs none of them. What an exporter cannot
do is printed, and left out.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export_models import ROOT, _remove_stack_traces, _settle, missing_packages

FOLDER = ROOT / "build" / "exports" / "architectures"


@dataclass(frozen=True)
class Architecture:
    """One network, and the dims behind the batch of its only input.

    Attributes:
        build: makes the network.
        dims: the input's dims without the batch.
        free: the axes, besides the batch, that are free in dynamic exports.
        integers: whether the input holds token ids.
    """

    build: Callable[[], Any]
    dims: tuple[int, ...]
    free: tuple[int, ...] = ()
    integers: bool = False


def _vision(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(**options)

    return build


def _transformer(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        import transformers
        from exported_models.architectures import FirstOutput

        configuration = getattr(transformers, f"{name}Config")(**options)
        configuration._attn_implementation = "eager"
        return FirstOutput(getattr(transformers, f"{name}Model")(configuration))

    return build


def _own(name: str, **options: Any) -> Callable[[], Any]:
    def build() -> Any:
        from exported_models import architectures

        return getattr(architectures, name)(**options)

    return build


_VIT = {
    "image_size": 64,
    "patch_size": 16,
    "num_layers": 3,
    "num_heads": 4,
    "hidden_dim": 128,
    "mlp_dim": 512,
}
_BERT = {
    "vocab_size": 500,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
_LLAMA = {**_BERT, "num_key_value_heads": 2, "use_cache": False}
_GPT = {"vocab_size": 500, "n_embd": 128, "n_layer": 3, "n_head": 4, "use_cache": False}
_TEXT = (24,)

ARCHITECTURES = {
    "resnet": Architecture(_vision("resnet18"), (3, 64, 64), (2, 3)),
    "mobilenet": Architecture(_vision("mobilenet_v3_small"), (3, 64, 64), (2, 3)),
    "efficientnet": Architecture(_vision("efficientnet_b0"), (3, 64, 64), (2, 3)),
    "convnext": Architecture(_vision("convnext_tiny"), (3, 64, 64), (2, 3)),
    "vit": Architecture(_vision("VisionTransformer", **_VIT), (3, 64, 64)),
    "swin": Architecture(_vision("swin_t"), (3, 64, 64)),
    "bert": Architecture(_transformer("Bert", **_BERT), _TEXT, (1,), integers=True),
    "gpt2": Architecture(_transformer("GPT2", **_GPT), _TEXT, (1,), integers=True),
    "llama": Architecture(_transformer("Llama", **_LLAMA), _TEXT, (1,), integers=True),
    "rope_gqa": Architecture(_own("RotaryDecoder"), _TEXT, (1,), integers=True),
    "whisper": Architecture(_own("SpeechEncoder"), (80, 64)),
    "unet_attention": Architecture(_own("AttentionUNet"), (4, 32, 32)),
    "lstm": Architecture(_own("Recurrent", kind="LSTM"), _TEXT, integers=True),
    "gru": Architecture(_own("Recurrent", kind="GRU"), _TEXT, integers=True),
}


def _build(architecture: Architecture) -> Any:
    import torch

    torch.manual_seed(0)
    network = architecture.build().eval()
    return network if architecture.integers else _settle(network, _inputs(architecture, 4))


def _inputs(architecture: Architecture, batch: int) -> tuple[Any, ...]:
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (batch, *architecture.dims)
    if architecture.integers:
        return (torch.randint(0, 500, shape, generator=generator),)
    return (torch.randn(shape, generator=generator),)


def export(architecture: Architecture, path: Path, *, dynamo: bool, dynamic: bool) -> None:
    """Write one export."""
    import torch

    network = _build(architecture)
    # A batch of 1 would be taken for a constant where it is free.
    inputs = _inputs(architecture, 2 if dynamic else 1)
    axes = {0: "batch", **{axis: f"size{axis}" for axis in architecture.free}} if dynamic else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    if not dynamo:
        torch.onnx.export(
            network, inputs, str(path), input_names=["x"], output_names=["y"],
            dynamic_axes={"x": axes} if axes else None, dynamo=False, opset_version=17,
        )  # fmt: skip
        return
    shapes = dict.fromkeys(axes, torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        network, inputs, str(path), input_names=["x"], output_names=["y"],
        dynamic_shapes=(shapes,) if shapes else None, dynamo=True, opset_version=18,
        optimize=False, external_data=False, verbose=False,
    )  # fmt: skip
    _remove_stack_traces(path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Export networks through both of torch's ways.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder to write to")
    parser.add_argument("--only", nargs="+", default=list(ARCHITECTURES), metavar="NAME")
    arguments = parser.parse_args()
    missing = missing_packages()
    if missing:
        print(missing, file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    for name in arguments.only:
        for dynamo in (False, True):
            for dynamic in (False, True):
                way, sizes = ("script", "dynamo")[dynamo], ("static", "dynamic")[dynamic]
                path = arguments.out / f"{name}-{way}-{sizes}.onnx"
                try:
                    export(ARCHITECTURES[name], path, dynamo=dynamo, dynamic=dynamic)
                except Exception as error:  # whatever an exporter raises
                    path.unlink(missing_ok=True)
                    print(f"{path.stem}: not exported: {str(error).splitlines()[0][:150]}")
                else:
                    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
