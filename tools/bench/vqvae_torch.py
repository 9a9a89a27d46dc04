"""The same VQ-VAE in plain PyTorch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tools.bench.gan_torch import FORMATS
from tools.bench.iwae_torch import trained
from tools.bench.work import (
    VQVAE_BLOCKS,
    VQVAE_CODES,
    VQVAE_COMMITMENT,
    VQVAE_DECAY,
    VQVAE_FILTERS,
    VQVAE_SIZE,
    Run,
)


class Residual(nn.Module):
    """x + 1x1(relu(3x3(relu(x))))."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(VQVAE_FILTERS, VQVAE_FILTERS, 3, padding=1)
        self.narrow = nn.Conv2d(VQVAE_FILTERS, VQVAE_FILTERS, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return x + self.narrow(F.relu(self.wide(F.relu(x))))


class VQVAE(nn.Module):
    """`forward` gives the loss of one batch, and moves the averages that the codes are."""

    def __init__(self) -> None:
        super().__init__()
        half, whole = VQVAE_FILTERS // 2, VQVAE_FILTERS

        def blocks() -> list[nn.Module]:
            return [*(Residual() for _ in range(VQVAE_BLOCKS)), nn.ReLU()]

        self.encoder = nn.Sequential(
            nn.Conv2d(1, half, 4, 2, 1), nn.ReLU(), nn.Conv2d(half, whole, 4, 2, 1),
            *blocks(), nn.Conv2d(whole, VQVAE_SIZE, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(VQVAE_SIZE, whole, 3, padding=1), *blocks(),
            nn.ConvTranspose2d(whole, half, 4, 2, 1), nn.ReLU(),
            nn.ConvTranspose2d(half, 1, 4, 2, 1),
        )  # fmt: skip
        self.register_buffer("sums", torch.randn(VQVAE_CODES, VQVAE_SIZE) * 0.2)
        self.register_buffer("counts", torch.ones(VQVAE_CODES))
        self.perplexity = torch.zeros([])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Binary images [B, 784] -> scalar."""
        image = x.view(-1, 1, 28, 28)
        z = self.encoder(image).float().permute(0, 2, 3, 1)
        flat = z.reshape(-1, VQVAE_SIZE)
        with torch.no_grad():
            codes = self.sums / self.counts.clamp(min=1e-5)[:, None]
            indices = (codes.square().sum(1) - 2.0 * flat @ codes.T).argmin(1)
            found = codes[indices]
            numbers = torch.zeros(VQVAE_CODES).index_add_(0, indices, torch.ones(len(indices)))
            sums = torch.zeros_like(self.sums).index_add_(0, indices, flat)
            self.counts.lerp_(numbers, 1.0 - VQVAE_DECAY)
            self.sums.lerp_(sums, 1.0 - VQVAE_DECAY)
            share = numbers / len(indices)
            self.perplexity = torch.exp(-torch.special.xlogy(share, share).sum())
        commitment = (flat - found).square().sum() / len(x)
        through = (flat + (found - flat).detach()).view(z.shape).permute(0, 3, 1, 2)
        logits = self.decoder(through).float()
        nll = F.binary_cross_entropy_with_logits(logits, image, reduction="sum") / len(x)
        return VQVAE_COMMITMENT * commitment + nll


def train(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """The VQ-VAE."""
    return trained(order, VQVAE, 10, compiled, bfloat16, FORMATS)
