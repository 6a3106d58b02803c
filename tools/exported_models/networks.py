"""Small networks of our own, one per construct that image classifiers do not have.

Their weights are random: they are for counting and timing, not for answers. Needs torch.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class _SelfAttention(nn.Module):
    """Multi-head self-attention; `causal` ones leave the masking to torch's fused function."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`x` is [batch, sequence, width], `mask` is added to the scores."""
        batch, length, width = x.shape

        def split(projected: Tensor) -> Tensor:
            shape = (batch, length, self.heads, width // self.heads)
            return projected.reshape(shape).transpose(1, 2)

        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        if self.causal:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
            mixed = torch.softmax(scores if mask is None else scores + mask, dim=-1) @ value
        return self.output(mixed.transpose(1, 2).reshape(batch, length, width))


class _Block(nn.Module):
    """Attention and a GELU feed-forward, normed after each (BERT) or before (GPT)."""

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self.attention = _SelfAttention(width, heads, causal=causal)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.attention.causal:
            x = x + self.attention(self.norm1(x))
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.feed_forward(x))


class BertEncoder(nn.Module):
    """Token and position embeddings, four blocks with a padding mask, a pooled answer."""

    def __init__(self, width: int = 256, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(2000, width), nn.Embedding(512, width)
        self.norm = nn.LayerNorm(width)
        self.layer = nn.ModuleList(_Block(width, heads, causal=False) for _ in range(depth))
        self.pooler = nn.Linear(width, width)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Both inputs are int64 [batch, sequence]; a mask of 0 hides a token."""
        position = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.tokens(ids) + self.positions(position))
        mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
        for block in self.layer:
            x = block(x, mask)
        return x, torch.tanh(self.pooler(x[:, 0]))


class GptDecoder(nn.Module):
    """Four causal blocks; the vocabulary's matrix is both embedding and last projection."""

    def __init__(self, width: int = 192, heads: int = 6, depth: int = 4) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(1000, width), nn.Embedding(512, width)
        self.blocks = nn.ModuleList(_Block(width, heads, causal=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 1000, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` is int64 [batch, sequence]."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class RecurrentTagger(nn.Module):
    """Two layers of a bidirectional LSTM, or of a GRU that looks back only, tag each token."""

    def __init__(self, kind: str, hidden: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(2000, 96)
        both = kind == "LSTM"
        self.recurrent = getattr(nn, kind)(
            96, hidden, num_layers=2, batch_first=True, bidirectional=both
        )
        self.tags = nn.Linear(hidden * (2 if both else 1), 17)

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` is int64 [batch, sequence]."""
        return self.tags(self.recurrent(self.tokens(ids))[0])


class UNet(nn.Module):
    """Three scales; the way up is transposed convolutions, one of them with overlapping taps."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()

        def double(channels_in: int, channels_out: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(),
                nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(),
            )

        self.down1, self.down2 = double(3, width), double(width, 2 * width)
        self.bottom = double(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join2 = double(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.join1 = double(2 * width, width)
        self.answer = nn.Conv2d(width, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """`image` is [batch, 3, height, width], height and width multiples of 4."""
        first = self.down1(image)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.bottom(functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(x), second], dim=1))
        x = self.join1(torch.cat([self.up1(x), first], dim=1))
        return self.answer(x)


class SpeechConvolutions(nn.Module):
    """Separable 1-D convolutions, dilated more and more, over log-mel frames."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.stem = nn.Conv1d(64, width, 11, stride=2, padding=5)
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 7, padding=3 * step, dilation=step, groups=groups),
                nn.Conv1d(width, width, 1, bias=False),
                nn.BatchNorm1d(width),
                nn.SiLU(),
            )
            for step, groups in ((1, width), (2, width), (4, width), (8, 8), (16, 8))
        )
        self.answer = nn.Conv1d(width, 29, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """`frames` is [batch, 64, time]."""
        x = self.stem(frames)
        for layer in self.layers:
            x = x + layer(x)
        return torch.log_softmax(self.answer(x), dim=1)


class EinsumMixer(nn.Module):
    """Mixes tokens, then channels, then heads, each by an einsum; the last has three operands."""

    def __init__(self, tokens: int = 64, width: int = 128, heads: int = 4, depth: int = 4) -> None:
        super().__init__()

        def weights(*shape: int) -> nn.ParameterList:
            scale = 1 / math.sqrt(shape[-2])
            return nn.ParameterList(nn.Parameter(torch.randn(shape) * scale) for _ in range(depth))

        self.heads = heads
        self.over_tokens = weights(tokens, tokens)
        self.over_channels = weights(width, width)
        self.over_heads = weights(heads, width // heads, width // heads)
        self.rank_in, self.rank_out = weights(width, 8), weights(8, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [batch, tokens, width]."""
        for layer, norm in enumerate(self.norms):
            y = norm(x)
            y = torch.einsum("bsc,st->btc", y, self.over_tokens[layer])
            y = functional.gelu(torch.einsum("btc,cd->btd", y, self.over_channels[layer]))
            split = y.unflatten(-1, (self.heads, -1))
            y = torch.einsum("bthc,hcd->bthd", split, self.over_heads[layer]).flatten(-2)
            y = torch.einsum("btc,cr,rd->btd", y, self.rank_in[layer], self.rank_out[layer])
            x = x + y
        return x


class Recommender(nn.Module):
    """Embeddings of categories and an MLP of numbers, every pair multiplied, then an MLP."""

    def __init__(self, categories: int = 8, width: int = 32) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(500, width) for _ in range(categories))
        self.bottom = nn.Sequential(nn.Linear(13, 128), nn.ReLU(), nn.Linear(128, width), nn.ReLU())
        count = categories + 1
        self.register_buffer("row", torch.tril_indices(count, count, -1)[0], persistent=False)
        self.register_buffer("column", torch.tril_indices(count, count, -1)[1], persistent=False)
        self.top = nn.Sequential(
            nn.Linear(width + count * (count - 1) // 2, 256),
            nn.ReLU(),
            nn.Linear(256, 64),
            nn.ReLU(),
            nn.Linear(64, 1),
            nn.Sigmoid(),
        )

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """`numbers` is [batch, 13], `categories` int64 [batch, 8]."""
        dense = self.bottom(numbers)
        looked_up = [table(categories[:, index]) for index, table in enumerate(self.tables)]
        together = torch.stack([dense, *looked_up], dim=1)
        pairs = torch.bmm(together, together.transpose(1, 2))[:, self.row, self.column]
        return self.top(torch.cat([dense, pairs], dim=1))


class SuperResolution(nn.Sequential):
    """Four convolutions at low resolution, then channels become 3x3 pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(1, width, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, padding=1, groups=4),
            nn.ReLU(),
            nn.Conv2d(width, 9, 3, padding=1),
            nn.PixelShuffle(3),
        )


class SegmentationAnswer(nn.Module):
    """Of what a segmentation network of torchvision answers with, the scores alone."""

    def forward(self, answers: dict[str, Tensor]) -> Tensor:
        """The entry `out`: [batch, classes, height, width]."""
        return answers["out"]
