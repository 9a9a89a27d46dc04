"""The same gated PixelCNN in plain PyTorch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tools.bench.gan_torch import FORMATS
from tools.bench.iwae_torch import trained
from tools.bench.work import PIXELCNN_FILTERS, PIXELCNN_LAYERS, Run


class Layer(nn.Module):
    """Both stacks, their kernels cut to what they may see; the first does not see the pixel."""

    def __init__(self, channels: int, side: int, first: bool):
        super().__init__()
        width, half = PIXELCNN_FILTERS, side // 2
        self.first, self.half = first, half
        own = 0 if first else 1
        self.vertical = nn.Conv2d(channels, 2 * width, (half + own, side))
        self.down = nn.Conv2d(2 * width, 2 * width, 1, bias=False)
        self.left = nn.Conv2d(channels, 2 * width, (1, half + own))
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, v: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, C, H, W] twice -> [B, filters, H, W] twice."""
        half = self.half
        seen = v[:, :, :-1] if self.first else v
        vertical = self.vertical(F.pad(seen, (half, half, half, 0)))
        before = h[..., :-1] if self.first else h
        horizontal = self.left(F.pad(before, (half, 0, 0, 0))) + self.down(vertical)
        new = self.out(_gate(horizontal))
        return _gate(vertical), new if self.first else h + new


def _gate(x: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=1)
    return torch.tanh(first) * torch.sigmoid(second)


class PixelCNN(nn.Module):
    """`forward` gives -log p of one batch, its mean."""

    def __init__(self) -> None:
        super().__init__()
        width = PIXELCNN_FILTERS
        layers = [Layer(1, 7, True)] + [Layer(width, 3, False) for _ in range(PIXELCNN_LAYERS)]
        self.layers = nn.ModuleList(layers)
        self.head = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Binary images [B, 784] -> scalar."""
        image = x.view(-1, 1, 28, 28)
        v = h = 2.0 * image - 1.0
        for layer in self.layers:
            v, h = layer(v, h)
        logits = self.head(h).float()
        return F.binary_cross_entropy_with_logits(logits, image, reduction="sum") / len(x)


def train(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """The PixelCNN."""
    return trained(order, PixelCNN, 2, compiled, bfloat16, FORMATS)
