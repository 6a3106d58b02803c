"""The same coupled channels as Torch-Pruning finds, for six architectures exported both ways.

Torch-Pruning reads the module, graphopt the exported file; parameters have one name in both. An
optional test: it needs torch, torch-pruning and onnxscript.
"""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch_pruning = pytest.importorskip("torch_pruning", reason="torch-pruning is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")

from graphopt.graph import load  # noqa: E402 - after the skips
from graphopt.pipeline import optimize  # noqa: E402
from graphopt.pruning.coupling import find_groups  # noqa: E402
from graphopt.pruning.groups import CouplingGroup, Role  # noqa: E402

nn = torch.nn
Parts = set[tuple[str, int, int]]
"""(parameter, axis, index)."""


def conv(inside: int, outside: int, size: int = 3, **options: Any) -> Any:
    """A convolution that keeps the size, with its batch norm."""
    padding = options.pop("padding", size // 2)
    layer = nn.Conv2d(inside, outside, size, padding=padding, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), nn.ReLU())


class Residual(nn.Module):
    """Two basic blocks, the second with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.one = nn.Sequential(conv(8, 6), nn.Conv2d(6, 8, 3, padding=1))
        self.two = nn.Sequential(conv(8, 12, stride=2), nn.Conv2d(12, 16, 3, padding=1))
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = torch.relu(x + self.one(x))
        x = torch.relu(self.shortcut(x) + self.two(x))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """Expansion, depthwise convolution, projection, residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.block = nn.Sequential(conv(8, 24, 1), conv(24, 24, groups=24), nn.Conv2d(24, 8, 1))
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        return self.head(x + self.block(x))


class Dense(nn.Module):
    """Every layer reads all before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.one = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.two = nn.Sequential(nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 4, 3, padding=1))
        self.head = nn.Conv2d(14, 5, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = torch.cat((x, self.one(x)), 1)
        return self.head(torch.cat((x, self.two(x)), 1))


class Flat(nn.Module):
    """Convolutions, Flatten, and a classifier of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 6), nn.MaxPool2d(2), conv(6, 8), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(8 * 4 * 4, 12), nn.ReLU(), nn.Linear(12, 5))

    def forward(self, x: Any) -> Any:
        return self.classifier(torch.flatten(self.features(x), 1))


class Upward(nn.Module):
    """Down, up by a transposed convolution, joined with what was there before."""

    def __init__(self) -> None:
        super().__init__()
        self.left = conv(3, 6)
        self.down = conv(6, 12, stride=2)
        self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.right = conv(12, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Any) -> Any:
        x = self.left(x)
        return self.head(self.right(torch.cat((self.up(self.down(x)), x), 1)))


class Gated(nn.Module):
    """Channels scaled by a gate that is computed of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.squeeze = nn.Conv2d(8, 4, 1)
        self.excite = nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        gate = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.head(x * torch.sigmoid(self.excite(gate)))


def export(network: Any, image: Any, path: Path, *, dynamo: bool) -> None:
    """Export with every parameter under its own name, batch norms kept."""
    options: dict[str, Any] = {"optimize": False} if dynamo else {}
    if not dynamo:
        options["training"] = torch.onnx.TrainingMode.PRESERVE
        options["do_constant_folding"] = False
    torch.onnx.export(network, (image,), str(path), dynamo=dynamo, **options)


def theirs(network: Any, graph: Any, name: str, axis_index: int) -> Parts:
    """What Torch-Pruning removes with one output channel of a layer."""
    modules = dict(network.named_modules())
    names = {id(module): name for name, module in modules.items()}
    layer = modules[name.rpartition(".")[0]]
    pruner = graph.get_pruner_of_module(layer).prune_out_channels
    found: Parts = set()
    for dependency, indices in graph.get_pruning_group(layer, pruner, idxs=[axis_index]):
        module = dependency.target.module
        if id(module) not in names:
            continue
        prefix = names[id(module)]
        outward = graph.is_out_channel_pruning_fn(dependency.handler)
        transposed = isinstance(module, nn.ConvTranspose2d)
        depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        axis = int(outward == transposed) if not depthwise else 0
        vectors = ["bias"] if outward or depthwise else []
        if isinstance(module, nn.BatchNorm2d):
            axis, vectors = 0, ["bias", "running_mean", "running_var"]
        places = [("weight", axis), *((vector, 0) for vector in vectors)]
        for part, place in places:
            if getattr(module, part, None) is not None:
                found.update((f"{prefix}.{part}", place, int(index)) for index in indices)
    return found


def ours(network: Any, group: CouplingGroup, unit: int) -> Parts:
    """The same of one unit of a group; the zero biases that an exporter adds do not count."""
    parameters = network.state_dict()
    return {
        (member.value, member.axis, int(index))
        for member in group.members
        if member.role not in (Role.ACTIVATION, Role.STORED) and member.value in parameters
        for index in member.indices[unit]
    }


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("kind", [Residual, Inverted, Dense, Flat, Upward, Gated])
def test_the_same_channels_are_coupled(kind: Any, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, image = kind().eval(), torch.randn(1, 3, 16, 16)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():  # or what is equal would be stored once
            tensor.uniform_(0.5, 1.5)
    path = tmp_path / "model.onnx"
    export(network, image, path, dynamo=dynamo)
    graph = torch_pruning.DependencyGraph().build_dependency(network, example_inputs=image)
    # Folded, as `graphopt prune` does it: exports read sizes that are known. Batch norms stay.
    groups = find_groups(optimize(load(path), level=1, check="off").model).prunable
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(groups) >= 2
    assert len(layers) >= len(groups)
    for group in groups:
        first = group.producers[0]
        for unit in (0, group.channels // 2, group.channels - 1):
            index = int(first.indices[unit][0])
            assert ours(network, group, unit) == theirs(network, graph, first.value, index), (
                group.name
            )
