"""The trained fixtures: a residual CNN, an MLP and a tiny transformer, on scikit-learn's digits.

Needs torch and scikit-learn (and onnxscript for torch's newer exporter), which the project itself
never needs. Training is seeded, but another torch build may give other weights.
"""

import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

TEST_SAMPLES = 360
OPSET = 17


class Residual(nn.Module):
    """Two 3x3 convolutions with BN; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What torch calls and exports."""
        return torch.relu(self.body(x) + self.shortcut(x))


class DigitsResNet(nn.Sequential):
    """A stem and three residual blocks over 1x8x8 images."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, 1, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            Residual(16, 16, 1),
            Residual(16, 32, 2),
            Residual(32, 32, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class DigitsMLP(nn.Sequential):
    """Three linear layers, with BN and Dropout between them."""

    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, 96),
            nn.BatchNorm1d(96),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(96, 48),
            nn.ReLU(),
            nn.Linear(48, 10),
        )


class Attention(nn.Module):
    """Multi-head self-attention written with reshapes, as most model code is."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What torch calls and exports."""
        batch, length, width = x.shape
        head_width = width // self.heads
        parts = self.query_key_value(x).reshape(batch, length, 3, self.heads, head_width)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = query @ key.transpose(-2, -1) / head_width**0.5
        mixed = torch.softmax(scores, dim=-1) @ value
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre-norm transformer block with a GELU feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What torch calls and exports."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class DigitsTransformer(nn.Module):
    """A vision transformer over 2x2 patches with a class token."""

    def __init__(self, width: int = 32, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What torch calls and exports."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1)
        tokens = tokens + self.position
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens)[:, 0])


def _digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images as float32 [n, 1, 8, 8] in 0..1 and int64 labels: train x, test x, train y, test y."""
    data = load_digits()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    labels = data.target.astype(np.int64)
    return tuple(
        train_test_split(images, labels, test_size=TEST_SAMPLES, random_state=0, stratify=labels)
    )


def _train(model: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int) -> nn.Module:
    """Train with AdamW on images with a little noise."""
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=epochs * -(-len(x) // 64)
    )
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            noisy = x[rows] + 0.05 * torch.randn(x[rows].shape, generator=generator)
            loss = nn.functional.cross_entropy(model(noisy), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def _export_traced(model: nn.Module) -> onnx.ModelProto:
    """The TorchScript exporter: Shape, Gather and Concat idioms; BN kept by TrainingMode."""
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        buffer,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
        do_constant_folding=False,
        # In EVAL mode the exporter folds BN into the convolutions itself.
        training=torch.onnx.TrainingMode.PRESERVE,
    )
    return onnx.load_model_from_string(buffer.getvalue())


def _export_dynamo(model: nn.Module) -> onnx.ModelProto:
    """The torch.export exporter: opset 20, metadata on every node, symbolic dims."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            (torch.zeros(2, 1, 8, 8),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
            dynamo=True,
            optimize=False,
            external_data=False,
            verbose=False,
        )
        exported = onnx.load(path)
    for node in (*exported.graph.node, *(n for f in exported.functions for n in f.node)):
        # Stack traces name files of the machine that exported.
        kept = [p for p in node.metadata_props if p.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)
    return exported


def train_all() -> tuple[dict[str, onnx.ModelProto], dict[str, np.ndarray]]:
    """Train and export everything: models by name, and the held-out samples with their labels."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_x, test_x, train_y, test_y = _digits()
    models: dict[str, onnx.ModelProto] = {}
    for name, kind, epochs in (
        ("digits_resnet", DigitsResNet, 15),
        ("digits_mlp", DigitsMLP, 40),
        ("digits_transformer", DigitsTransformer, 60),
    ):
        torch.manual_seed(0)
        model = _train(kind(), train_x, train_y, epochs)
        models[name] = _export_traced(model)
        models[f"{name}_dynamo"] = _export_dynamo(model)
    return models, {"image": test_x, "label": test_y}
