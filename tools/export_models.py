"""Export networks with random weights, for counting and timing: `python tools/export_models.py`.

    python tools/export_models.py [--out build/exports] [--only NAME ...] [--unseen] [--list]
    python tools/export_models.py --ground-truth [--only NAME ...]

The second writes what the tests compare with: what torch counts in each network, and the exports
themselves with every weight set to zero, which compresses them to a few kB each.


Needs torch and torchvision, and onnxscript for torch's newer exporter; the project needs none of
them. The weights are seeded, and BN statistics are those of seeded inputs, so that activations
keep their scale: numbers too small for a float's normal range would take another time.
The same versions of torch and onnxscript give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXPORTS = ROOT / "build" / "exports"
GROUND_TRUTH = ROOT / "tests" / "cost" / "ground_truth"
LARGEST_STORED = 50_000_000
"""Larger exports are not stored for the tests: unpacking them takes too long."""

FEWEST_ZEROED = 17
"""A tensor of fewer elements may say how the graph computes, so it keeps its values."""

Inputs = dict[str, tuple[int | str, ...]]


@dataclass(frozen=True)
class Exported:
    """One network, and how to export it.

    Attributes:
        name: the file's name, without its ending.
        source: "torchvision:builder", "torch.nn:Class", or "own:Class" for one of our own.
        inputs: name -> dims, an integer or a free dim's name; integer inputs begin with "int:".
        sizes: what each free dim is by default.
        newer: whether torch.export's exporter is used, instead of the one by tracing.
        unseen: whether it is one of those that only judge the latency model.
        options: what the builder is called with.
    """

    name: str
    source: str
    inputs: Inputs
    sizes: dict[str, int] = field(default_factory=dict)
    newer: bool = False
    unseen: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> list[dict[str, int]]:
        """Three assignments of the free dims (one where there are none), the default one first."""
        if not self.sizes:
            return [{}]
        larger = {dim: 3 if size == 1 else size + size // 4 for dim, size in self.sizes.items()}
        smaller = {dim: 2 if size == 1 else size // 2 for dim, size in self.sizes.items()}
        return [self.sizes, larger, smaller]


def _image(side: int, channels: int = 3) -> Inputs:
    return {"image": (1, channels, side, side)}


def _images(side: int) -> Inputs:
    return {"image": ("batch", 3, side, side)}


_BATCH = {"batch": 1}
_IDS: Inputs = {"int:ids": ("batch", "sequence")}
_TEXT = {"batch": 1, "sequence": 128}
_PLAIN = {"aux_logits": False, "init_weights": True}
_BACKBONE = {"weights_backbone": None}
_VIT = {
    "image_size": 96,
    "patch_size": 16,
    "num_layers": 6,
    "num_heads": 4,
    "hidden_dim": 256,
    "mlp_dim": 1024,
}

# fmt: off
MODELS = (
    # Only these twelve judge the latency model: nothing in it may be chosen by their times.
    Exported("mobilenet_v2", "torchvision:mobilenet_v2", _image(224), unseen=True),
    Exported("resnet18", "torchvision:resnet18", _images(224), _BATCH, unseen=True),
    Exported("mobilenet_v3_small", "torchvision:mobilenet_v3_small", _image(224), newer=True,
             unseen=True),
    Exported("squeezenet1_1", "torchvision:squeezenet1_1", _images(224), _BATCH, unseen=True),
    Exported("shufflenet_v2", "torchvision:shufflenet_v2_x1_0", _images(224), _BATCH, unseen=True),
    Exported("efficientnet_b0", "torchvision:efficientnet_b0", _image(224), unseen=True),
    Exported("regnet_y_400mf", "torchvision:regnet_y_400mf", _images(224), _BATCH, newer=True,
             unseen=True),
    Exported("vit_small", "torchvision:VisionTransformer", _image(96), newer=True, unseen=True,
             options=_VIT),
    Exported("bert_encoder", "own:BertEncoder",
             _IDS | {"int:attention_mask": ("batch", "sequence")}, _TEXT, unseen=True),
    Exported("lstm_tagger", "own:RecurrentTagger", _IDS, {"batch": 1, "sequence": 64},
             unseen=True, options={"kind": "LSTM"}),
    Exported("unet", "own:UNet", _images(96), _BATCH, unseen=True),
    Exported("super_resolution", "own:SuperResolution", {"image": ("batch", 1, "height", "width")},
             {"batch": 1, "height": 72, "width": 96}, unseen=True),
    # The rest may be looked at while the latency model is made.
    Exported("resnet50", "torchvision:resnet50", _images(224), _BATCH, newer=True),
    Exported("densenet121", "torchvision:densenet121", _image(224), newer=True),
    Exported("googlenet", "torchvision:googlenet", _image(224), options=_PLAIN),
    Exported("vgg11_features", "torchvision:vgg11", _image(112)),
    Exported("mnasnet", "torchvision:mnasnet0_5", _images(224), _BATCH),
    Exported("convnext_tiny", "torchvision:convnext_tiny", _image(160)),
    Exported("swin_tiny", "torchvision:swin_t", _image(224), newer=True),
    Exported("lraspp", "torchvision:lraspp_mobilenet_v3_large", _image(256), options=_BACKBONE),
    Exported("deeplabv3", "torchvision:deeplabv3_mobilenet_v3_large", _image(192),
             options=_BACKBONE),
    Exported("gpt_decoder", "own:GptDecoder", _IDS, _TEXT, newer=True),
    Exported("gru_tagger", "own:RecurrentTagger", _IDS, {"batch": 1, "sequence": 64},
             options={"kind": "GRU"}),
    Exported("speech_convolutions", "own:SpeechConvolutions", {"frames": ("batch", 64, "time")},
             {"batch": 1, "time": 400}, newer=True),
    Exported("einsum_mixer", "own:EinsumMixer", {"x": ("batch", 64, 128)}, _BATCH),
    Exported("recommender", "own:Recommender",
             {"numbers": ("batch", 13), "int:categories": ("batch", 8)}, {"batch": 16}),
)
# fmt: on


def missing_packages() -> str | None:
    """What is missing to export, in one line; None where everything is there."""
    try:
        import onnxscript  # noqa: F401 - asked for here, before torch asks for it half-way
        import torch
        import torchvision  # noqa: F401 - the same
    except ImportError as error:
        return f"this tool needs torch, torchvision and onnxscript: {error}"
    torch.set_num_threads(1)
    return None


def build(model: Exported) -> Any:
    """The network with seeded weights, in evaluation mode, its BN statistics settled."""
    import torch
    from exported_models import networks

    torch.manual_seed(0)
    where, name = model.source.split(":")
    if where in ("own", "torch.nn"):
        network = getattr(networks if where == "own" else torch.nn, name)(**model.options)
    else:
        import torchvision

        places = (torchvision.models, torchvision.models.segmentation)
        place = next(place for place in places if hasattr(place, name))
        network = getattr(place, name)(**model.options)
        if name == "vgg11":
            # The classifier alone would be a file of half a gigabyte.
            network = network.features
        if "segmentation" in place.__name__:
            network = torch.nn.Sequential(network, networks.SegmentationAnswer())
    return _settle(
        network.eval(), example(model, {dim: 4 for dim in model.sizes if dim == "batch"})
    )


def example(model: Exported, sizes: dict[str, int] | None = None, seed: int = 0) -> tuple[Any, ...]:
    """Seeded inputs; free dims have their default size where `sizes` does not say."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    chosen = model.sizes | (sizes or {})
    made = []
    for name, dims in model.inputs.items():
        shape = [chosen[dim] if isinstance(dim, str) else dim for dim in dims]
        if name == "int:attention_mask":
            made.append(torch.ones(shape, dtype=torch.int64))
        elif name.startswith("int:"):
            made.append(torch.randint(0, 500, shape, generator=generator))
        else:
            made.append(torch.randn(shape, generator=generator))
    return tuple(made)


def _settle(network: Any, inputs: tuple[Any, ...]) -> Any:
    """Set running means and variances to those of one forward pass; no matrix stays zero."""
    import torch

    for parameter in network.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if len(inputs) == 1 and inputs[0].shape[0] == 1:
        inputs = (torch.cat([inputs[0], -inputs[0]]),)
    with torch.no_grad():
        network(*inputs)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    return network.eval()


def export(model: Exported, path: Path) -> None:
    """Write one model."""
    import torch

    network = build(model)
    # A batch of 1 would be taken for a constant by the newer exporter.
    inputs = example(model, {dim: 2 for dim, size in model.sizes.items() if size == 1})
    names = [name.removeprefix("int:") for name in model.inputs]
    free = {
        name: {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
        for name, dims in zip(names, model.inputs.values(), strict=True)
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if model.newer:
        dims = {dim: torch.export.Dim(dim, min=2, max=512) for dim in model.sizes}
        shapes = tuple({axis: dims[dim] for axis, dim in free[name].items()} for name in names)
        torch.onnx.export(
            network, inputs, str(path), input_names=names, dynamic_shapes=shapes, dynamo=True,
            opset_version=18, optimize=False, external_data=False, verbose=False,
        )  # fmt: skip
        _remove_stack_traces(path)
    else:
        torch.onnx.export(
            network, inputs, str(path), input_names=names, dynamic_axes=free, dynamo=False,
            opset_version=17, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,  # the other modes fold BN into convolutions
        )  # fmt: skip


def _remove_stack_traces(path: Path) -> None:
    """Stack traces name files of the machine that exported."""
    import onnx

    proto = onnx.load(path)
    for node in (*proto.graph.node, *(node for f in proto.functions for node in f.node)):
        kept = [item for item in node.metadata_props if item.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    onnx.save(proto, path)


def _chosen(arguments: argparse.Namespace) -> list[Exported]:
    unknown = sorted(set(arguments.only) - {model.name for model in MODELS})
    if unknown:
        raise SystemExit(f"no model is named {', '.join(unknown)}: --list shows the names")
    return [
        model
        for model in MODELS
        if (not arguments.only or model.name in arguments.only)
        and (model.unseen or not arguments.unseen)
    ]


def without_weights(path: Path) -> bytes:
    """An exported model, compressed, every float tensor zero that is large enough to be a weight.

    Nothing else changes: same nodes, names, shapes, and as many bytes once unpacked.
    """
    import onnx

    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        count = len(tensor.raw_data) // 4
        if tensor.data_type == onnx.TensorProto.FLOAT and count >= FEWEST_ZEROED:
            tensor.raw_data = bytes(4 * count)
    content = proto.SerializeToString(deterministic=True)
    return lzma.compress(content, preset=9, check=lzma.CHECK_CRC32)


def _write_ground_truth(models: list[Exported]) -> None:
    import torch
    from exported_models.torch_counts import ground_truth

    GROUND_TRUTH.mkdir(parents=True, exist_ok=True)
    record = GROUND_TRUTH / "whole_models.json"
    found = json.loads(record.read_text())["models"] if record.is_file() else {}
    for model in models:
        inputs = [(sizes, example(model, sizes)) for sizes in model.settings()]
        found[model.name] = ground_truth(build(model), inputs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export(model, path)
            if path.stat().st_size <= LARGEST_STORED:
                content = without_weights(path)
                (GROUND_TRUTH / f"{model.name}.onnx.xz").write_bytes(content)
    known = {model.name for model in MODELS}
    kept = {name: value for name, value in sorted(found.items()) if name in known}
    whole = {"torch": torch.__version__, "models": kept}
    record.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description="Export networks with random weights.")
    parser.add_argument("--out", type=Path, default=EXPORTS, help="the folder to write to")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these models only")
    parser.add_argument("--unseen", action="store_true", help="only those of the unseen group")
    parser.add_argument("--list", action="store_true", help="print the names, export nothing")
    parser.add_argument(
        "--ground-truth", action="store_true", help="write what the tests compare with"
    )
    arguments = parser.parse_args()
    models = _chosen(arguments)
    if arguments.list:
        for model in models:
            free = ", ".join(f"{dim}={size}" for dim, size in model.sizes.items())
            print(f"{model.name:20} {'unseen' if model.unseen else '-':7} {free}")
        return 0
    missing = missing_packages()
    if missing:
        print(missing, file=sys.stderr)
        return 2
    if arguments.ground_truth:
        _write_ground_truth(models)
        return 0
    for model in models:
        path = arguments.out / f"{model.name}.onnx"
        export(model, path)
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
