"""Compare what several counters say of the same models: `python tools/reconcile_counts.py`.

    python tools/reconcile_counts.py [--check]

Writes the tables in docs/reconciliation.md, between its two markers; the text around it is written
by hand. Needs torch, torchvision, onnxscript, and the counters: fvcore, thop, onnx-tool, onnxsim.
With --check nothing is written, and the exit code says whether they would change.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import onnx.parser

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import export_models  # noqa: E402 - beside this file
from export_models import Exported  # noqa: E402 - the same

import graphopt  # noqa: E402 - the line above finds it

PAGE = ROOT / "docs" / "reconciliation.md"
BEGIN = "<!-- begin: made by tools/reconcile_counts.py -->"
END = "<!-- end -->"

NETWORKS = (
    "mobilenet_v2",
    "resnet18",
    "shufflenet_v2",
    "densenet121",
    "unet",
    "vit_small",
    "swin_tiny",
    "bert_encoder",
    "gpt_decoder",
    "lstm_tagger",
    "gru_tagger",
    "einsum_mixer",
    "recommender",
    "speech_convolutions",
)

_SEQUENCE = {"x": (10, 1, 32)}
_WIDTHS = {"input_size": 32, "hidden_size": 64}
LAYERS = (
    Exported("Conv2d(3, 8, 3), bias", "torch.nn:Conv2d", {"x": (1, 3, 8, 8)},
             options={"in_channels": 3, "out_channels": 8, "kernel_size": 3}),
    Exported("ConvTranspose2d(3, 1, 2, stride 2)", "torch.nn:ConvTranspose2d", {"x": (1, 3, 2, 2)},
             options={"in_channels": 3, "out_channels": 1, "kernel_size": 2, "stride": 2}),
    Exported("ConvTranspose2d(16, 16, 4, stride 2, groups 16)", "torch.nn:ConvTranspose2d",
             {"x": (1, 16, 8, 8)},
             options={"in_channels": 16, "out_channels": 16, "kernel_size": 4, "stride": 2,
                      "padding": 1, "groups": 16}),
    Exported("LSTM(32, 64), 10 steps", "torch.nn:LSTM", _SEQUENCE, options=_WIDTHS),
    Exported("GRU(32, 64), 10 steps", "torch.nn:GRU", _SEQUENCE, options=_WIDTHS),
    Exported("TransformerEncoderLayer(64, 4, 128), 16 tokens", "torch.nn:TransformerEncoderLayer",
             {"x": (1, 16, 64)}, newer=True,
             options={"d_model": 64, "nhead": 4, "dim_feedforward": 128, "batch_first": True}),
)  # fmt: skip

LOOP = """
<ir_version: 8, opset_import: ["" : 17]>
loop (float[8,16] x) => (float[8,16] y)
<int64 trips = {10}, bool go = {1}, float[16,16] w = {WEIGHTS}>
{
  y = Loop (trips, go, x) <body = body (int64 i, bool more, float[8,16] before)
    => (bool still, float[8,16] after) { still = Identity (more)  after = MatMul (before, w) }>
}
""".replace("{WEIGHTS}", "{" + ", ".join(["0.0"] * 256) + "}")
LOOP_MACS = 10 * 8 * 16 * 16


@dataclass(frozen=True)
class Subject:
    """One model, as each kind of counter wants it.

    Attributes:
        name: what the table calls it.
        macs: the multiply-accumulates really done.
        path: the export, its free dims fixed.
        network: the torch module; None where there is only an ONNX model.
        inputs: what it is called with.
    """

    name: str
    macs: int
    path: Path
    network: Any = None
    inputs: tuple[Any, ...] = ()


def _graphopt(subject: Subject) -> float:
    cost = graphopt.estimate_cost(subject.path)
    if cost.uncounted:
        raise NotImplementedError(cost.uncounted[0].note)
    macs = cost.total.macs
    if not isinstance(macs, int):
        raise TypeError(f"{macs} is no integer")
    return macs


def _flop_counter_mode(subject: Subject) -> float:
    """Its FLOPs are two per multiply-accumulate."""
    from exported_models.torch_counts import flop_counter_mode

    return flop_counter_mode(subject.network, subject.inputs) / 2


def _fvcore(subject: Subject) -> float:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(subject.network, subject.inputs)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return float(analysis.total())


def _thop(subject: Subject) -> float:
    import thop

    return float(thop.profile(subject.network, subject.inputs, verbose=False)[0])


def _onnx_tool(subject: Subject) -> float:
    import onnx_tool

    model = onnx_tool.Model(str(subject.path))
    model.graph.shape_infer()
    model.graph.profile()
    return float(model.graph.macs[0])


def _onnxsim(subject: Subject) -> float:
    from onnxsim.model_info import ModelInfo

    return float(ModelInfo(onnx.load(subject.path)).macs)


@dataclass(frozen=True)
class Counter:
    """One column of the table.

    Attributes:
        package: the distribution that it comes from.
        count: gives the multiply-accumulates, or what the counter takes for them.
        of_network: whether it needs the torch module.
        simplify: whether to try again after onnxsim's simplification where it fails.
    """

    package: str
    count: Callable[[Subject], float]
    of_network: bool = False
    simplify: bool = False


COUNTERS = {
    "graphopt": Counter("graphopt", _graphopt),
    "FlopCounterMode / 2": Counter("torch", _flop_counter_mode, of_network=True),
    "fvcore": Counter("fvcore", _fvcore, of_network=True),
    "thop": Counter("thop", _thop, of_network=True),
    "onnx-tool": Counter("onnx-tool", _onnx_tool, simplify=True),
    "onnxsim": Counter("onnxsim", _onnxsim, simplify=True),
}


def _subject(chosen: Exported, folder: Path) -> Subject:
    from exported_models.torch_counts import macs

    path = folder / "model.onnx"
    export_models.export(chosen, path)
    _fix_dims(path, chosen.sizes)
    network, inputs = export_models.build(chosen), export_models.example(chosen)
    return Subject(chosen.name, macs(network, inputs), path, network, inputs)


def _loop(folder: Path) -> Subject:
    path = folder / "model.onnx"
    onnx.save(onnx.parser.parse_model(LOOP), path)
    return Subject("loop", LOOP_MACS, path)


def _fix_dims(path: Path, sizes: dict[str, int]) -> None:
    """Give the inputs their default size: not every counter takes free dims."""
    proto = onnx.load(path)
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    onnx.save(proto, path)


def _simplified(subject: Subject) -> Subject:
    from onnxsim import simplify

    path = subject.path.with_suffix(".simplified.onnx")
    onnx.save(simplify(onnx.load(subject.path))[0], path)
    return replace(subject, path=path)


def _said(subject: Subject, counter: Counter) -> tuple[float | None, str]:
    """What a counter says, and a dagger where it needed a simplified model; None if it fails."""
    for mark in ("", "†")[: 1 + counter.simplify]:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return counter.count(_simplified(subject) if mark else subject), mark
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            print(f"{subject.name}{mark}, {counter.package}: {reason}", file=sys.stderr)
    return None, ""


def _row(subject: Subject, *, relative: bool) -> str:
    cells = []
    for counter in COUNTERS.values():
        if counter.of_network and subject.network is None:
            cells.append("-")
            continue
        said, mark = _said(subject, counter)
        if said is None:
            cells.append("fails")
        elif said == subject.macs:
            cells.append(f"exact{mark}")
        else:
            shown = f"{said / subject.macs - 1:+.2%}" if relative else f"{said:,.0f}"
            cells.append(f"{shown}{mark}")
    return f"| {subject.name} | {subject.macs:,} | {' | '.join(cells)} |"


def _table(models: Iterable[Exported], *, relative: bool) -> list[str]:
    lines = [f"| model | MACs | {' | '.join(COUNTERS)} |", f"|---|---:|{'---:|' * len(COUNTERS)}"]
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(_row(_subject(model, Path(folder)), relative=relative))
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def generated() -> str:
    """The generated part of the page."""
    networks = [model for model in export_models.MODELS if model.name in NETWORKS]
    with tempfile.TemporaryDirectory() as folder:
        loop = _row(_loop(Path(folder)), relative=True)
    packages = dict.fromkeys(counter.package for counter in COUNTERS.values())
    versions = [f"{name} {version(name)}" for name in packages if name != "graphopt"]
    return "\n".join(
        [
            f"Measured with {', '.join(versions)}, onnx {version('onnx')}.",
            "",
            *_table(networks, relative=True),
            loop,
            "",
            "Single layers, in absolute counts:",
            "",
            *_table(LAYERS, relative=False),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the tables of docs/reconciliation.md.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    missing = export_models.missing_packages()
    if missing:
        print(missing, file=sys.stderr)
        return 2
    warnings.simplefilter("ignore")
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    new = f"{before}{BEGIN}\n\n{generated()}\n\n{END}{rest.split(END, 1)[1]}"
    if not arguments.check:
        PAGE.write_text(new)
    return int(arguments.check and new != page)


if __name__ == "__main__":
    sys.exit(main())
