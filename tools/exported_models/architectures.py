"""Networks as their authors write them, for exports that no library of ours ships.

Their weights are random. Needs torch.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class FirstOutput(nn.Module):
    """A network whose outputs are named, reduced to the first of them."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """`x` is what the network takes first."""
        return self.network(x, return_dict=False)[0]


class _RootMeanSquareNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        variance = x.float().pow(2).mean(-1, keepdim=True)
        return self.weight * (x.float() * torch.rsqrt(variance + 1e-6)).to(x.dtype)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class _GroupedAttention(nn.Module):
    """Causal attention in which several query heads share one head of keys and values."""

    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, shared * self.size, bias=False)
        self.value = nn.Linear(width, shared * self.size, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query = self.query(x).view(batch, length, self.heads, self.size).transpose(1, 2)
        key = self.key(x).view(batch, length, self.shared, self.size).transpose(1, 2)
        value = self.value(x).view(batch, length, self.shared, self.size).transpose(1, 2)
        query, key = _rotate(query, cosine, sine), _rotate(key, cosine, sine)
        repeats = self.heads // self.shared

        def repeated(head: Tensor) -> Tensor:
            spread = head[:, :, None].expand(batch, self.shared, repeats, length, self.size)
            return spread.reshape(batch, self.heads, length, self.size)

        scores = query @ repeated(key).transpose(2, 3) * self.size**-0.5 + mask
        mixed = torch.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype) @ repeated(value)
        return self.output(mixed.transpose(1, 2).reshape(batch, length, -1))


class _GatedBlock(nn.Module):
    def __init__(self, width: int, heads: int, shared: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _RootMeanSquareNorm(width), _RootMeanSquareNorm(width)
        self.attention = _GroupedAttention(width, heads, shared)
        self.gate = nn.Linear(width, 3 * width, bias=False)
        self.up = nn.Linear(width, 3 * width, bias=False)
        self.down = nn.Linear(3 * width, width, bias=False)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), cosine, sine, mask)
        inner = self.norm2(x)
        return x + self.down(functional.silu(self.gate(inner)) * self.up(inner))


class RotaryDecoder(nn.Module):
    """A decoder with rotary positions, grouped-query attention, RMSNorm and SwiGLU."""

    def __init__(self, width: int = 128, heads: int = 8, shared: int = 2, depth: int = 3) -> None:
        super().__init__()
        self.tokens = nn.Embedding(500, width)
        self.blocks = nn.ModuleList(_GatedBlock(width, heads, shared) for _ in range(depth))
        self.norm = _RootMeanSquareNorm(width)
        self.head = nn.Linear(width, 500, bias=False)
        size = width // heads
        steps = torch.arange(0, size, 2, dtype=torch.float32) / size
        self.register_buffer("frequencies", 1.0 / 10000**steps)

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` is int64 [batch, sequence]."""
        x, length = self.tokens(ids), ids.shape[1]
        position = torch.arange(length, device=ids.device)
        angles = position[:, None].float() * self.frequencies[None, :]
        angles = torch.cat((angles, angles), dim=-1)
        mask = torch.full((length, length), float("-inf"), device=ids.device).triu(1)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin(), mask)
        return self.head(self.norm(x))


class SpeechEncoder(nn.Module):
    """Two convolutions over log-mel frames, then blocks with attention (Whisper's encoder)."""

    def __init__(self, width: int = 128, heads: int = 4, depth: int = 3, frames: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.register_buffer("positions", torch.randn(frames // 2, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, 0.0, functional.gelu, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        """`frames` is [batch, 80, time]."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(frames))))
        x = x.permute(0, 2, 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class _ResidualBlock(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, before), nn.GroupNorm(8, after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.short = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(functional.silu(self.norm1(x)))
        return self.short(x) + self.conv2(functional.silu(self.norm2(inner)))


class _SpatialAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.both, self.output = nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, length = x.shape
        flat = self.norm(x).reshape(batch, width, height * length)
        query, key, value = self.both(flat).chunk(3, dim=1)
        weights = torch.softmax(query.transpose(1, 2) @ key * width**-0.5, dim=-1)
        mixed = self.output(value @ weights.transpose(1, 2))
        return x + mixed.reshape(batch, width, height, length)


class AttentionUNet(nn.Module):
    """Three scales of residual blocks with GroupNorm and SiLU, attention at the lowest."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, width, 3, padding=1)
        self.down1, self.down2 = _ResidualBlock(width, width), _ResidualBlock(width, 2 * width)
        self.half1 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.half2 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.middle1 = _ResidualBlock(2 * width, 2 * width)
        self.attention = _SpatialAttention(2 * width)
        self.middle2 = _ResidualBlock(2 * width, 2 * width)
        self.up2, self.up1 = _ResidualBlock(4 * width, width), _ResidualBlock(2 * width, width)
        self.norm = nn.GroupNorm(8, width)
        self.answer = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """`image` is [batch, 4, height, width], height and width multiples of 4."""
        first = self.down1(self.stem(image))
        second = self.down2(self.half1(first))
        x = self.middle2(self.attention(self.middle1(self.half2(second))))
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.up2(torch.cat([x, second], dim=1))
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.up1(torch.cat([x, first], dim=1))
        return self.answer(functional.silu(self.norm(x)))


class Recurrent(nn.Module):
    """An embedding, two recurrent layers, and a tag for each token."""

    def __init__(self, kind: str, hidden: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(500, 48)
        self.recurrent = getattr(nn, kind)(
            48, hidden, num_layers=2, batch_first=True, bidirectional=True
        )
        self.tags = nn.Linear(2 * hidden, 17)

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` is int64 [batch, sequence]."""
        return self.tags(self.recurrent(self.tokens(ids))[0])
