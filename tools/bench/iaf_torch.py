"""The same VAE with an IAF posterior in plain PyTorch."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tools.bench.iwae_torch import trained
from tools.bench.work import IAF_BLOCKS, IAF_CONTEXT, IAF_HIDDEN, LATENTS, PIXELS, WIDTH, Run

_GATE_BIAS = 1.5


class Masked(nn.Linear):
    """A linear layer with a mask [outputs, inputs]."""

    def __init__(self, mask: torch.Tensor):
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, inputs] -> [B, outputs]."""
        return F.linear(x, self.weight * self.mask, self.bias)


class Block(nn.Module):
    """One step of the flow: z [B, d] and context [B, c] to the next z and sum log gates."""

    def __init__(self, backwards: bool):
        super().__init__()
        degrees = torch.arange(1, LATENTS + 1)
        degrees = degrees.flip(0) if backwards else degrees
        ends = degrees.repeat(2)
        layers, below = [], degrees
        for width in IAF_HIDDEN:
            above = torch.arange(width) % LATENTS
            layers.append(Masked((below[None, :] <= above[:, None]).float()))
            below = above
        self.hidden = nn.ModuleList(layers)
        self.of_context = nn.Linear(IAF_CONTEXT, IAF_HIDDEN[0], bias=False)
        self.last = Masked((below[None, :] < ends[:, None]).float())

    def forward(self, z: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See above."""
        hidden = z
        for index, layer in enumerate(self.hidden):
            linear = layer(hidden)
            hidden = torch.relu(linear + self.of_context(context) if index == 0 else linear)
        shift, gate = self.last(hidden).float().chunk(2, dim=-1)
        gate = gate + _GATE_BIAS
        return torch.lerp(shift, z, torch.sigmoid(gate)), F.logsigmoid(gate).sum(-1)


class IAF(nn.Module):
    """`forward` gives minus the ELBO of one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(PIXELS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(),
            nn.Linear(WIDTH, 2 * LATENTS + IAF_CONTEXT),
        )  # fmt: skip
        self.blocks = nn.ModuleList(Block(bool(n % 2)) for n in range(IAF_BLOCKS))
        self.decoder = nn.Sequential(
            nn.Linear(LATENTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(),
            nn.Linear(WIDTH, PIXELS),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Binary images [B, 784] -> scalar."""
        found = self.encoder(x).float()
        mean, log_std, context = found.split([LATENTS, LATENTS, IAF_CONTEXT], dim=-1)
        noise = torch.randn_like(mean)
        z = mean + log_std.exp() * noise
        log_q = -(0.5 * noise.square() + log_std).sum(-1)
        for block in self.blocks:
            z, log_det = block(z, context)
            log_q = log_q - log_det
        logits = self.decoder(z).float()
        log_likelihood = -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        return (log_q + 0.5 * z.square().sum(-1) - log_likelihood).mean()


def train(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """The VAE with an IAF posterior."""
    return trained(order, IAF, 50, compiled, bfloat16)
