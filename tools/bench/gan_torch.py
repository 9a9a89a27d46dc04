"""The same GAN and WGAN-GP in plain PyTorch, as fast as plain code gets."""

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tools.bench.work import (
    ADAM,
    FILTERS,
    GAN_BATCH,
    GAN_LATENTS,
    LEAK,
    PENALTY_WEIGHT,
    UNITS,
    Run,
)

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def generator() -> nn.Sequential:
    """Latents [B, 74] to images [B, 1, 28, 28] in [-1, 1]."""
    return nn.Sequential(
        nn.Linear(GAN_LATENTS, UNITS, bias=False), nn.BatchNorm1d(UNITS), nn.ReLU(True),
        nn.Linear(UNITS, 98 * FILTERS, bias=False), nn.BatchNorm1d(98 * FILTERS), nn.ReLU(True),
        nn.Unflatten(1, (2 * FILTERS, 7, 7)),
        nn.ConvTranspose2d(2 * FILTERS, FILTERS, 4, 2, 1, bias=False),
        nn.BatchNorm2d(FILTERS), nn.ReLU(True),
        nn.ConvTranspose2d(FILTERS, 1, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip


def discriminator(norm: bool) -> nn.Sequential:
    """Images to logits [B, 1]."""

    def normed(batch_norm: nn.Module) -> list[nn.Module]:
        return [batch_norm] if norm else []

    return nn.Sequential(
        nn.Conv2d(1, FILTERS, 4, 2, 1), nn.LeakyReLU(LEAK, True),
        nn.Conv2d(FILTERS, 2 * FILTERS, 4, 2, 1, bias=not norm),
        *normed(nn.BatchNorm2d(2 * FILTERS)), nn.LeakyReLU(LEAK, True), nn.Flatten(),
        nn.Linear(98 * FILTERS, UNITS, bias=not norm),
        *normed(nn.BatchNorm1d(UNITS)), nn.LeakyReLU(LEAK, True),
        nn.Linear(UNITS, 1),
    )  # fmt: skip


class Game:
    """Both players of one system; `step` moves each of them once."""

    def __init__(
        self, system: str, memory: torch.memory_format, adam: str, compiled: bool, bfloat16: bool
    ):
        self.system, self.memory, self.bfloat16 = system, memory, bfloat16
        self.g = generator().to(memory_format=memory)
        self.d = discriminator(norm=system == "gan").to(memory_format=memory)
        for parameter in (*self.g.parameters(), *self.d.parameters()):
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)
        rate, *betas = ADAM[system]
        self.of_g, self.of_d = (
            torch.optim.Adam(network.parameters(), rate, tuple(betas), **{adam: True})
            for network in (self.g, self.d)
        )
        self.generate, self.judge = self.g, self.d
        if compiled:
            self.generate, self.judge = torch.compile(self.g), torch.compile(self.d)

    def discriminator_loss(self, real: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            fake = self.generate(torch.randn(GAN_BATCH, GAN_LATENTS)).float()
        on_real, on_fake = self.judge(real).float(), self.judge(fake).float()
        if self.system == "gan":
            return F.softplus(-on_real).mean() + F.softplus(on_fake).mean()
        mix = torch.rand(GAN_BATCH, 1, 1, 1)
        x = (mix * real + (1 - mix) * fake).requires_grad_()
        # Not by `judge`: what torch.compile makes cannot be differentiated twice.
        (slope,) = torch.autograd.grad(self.d(x).float().sum(), x, create_graph=True)
        penalty = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        return on_fake.mean() - on_real.mean() + PENALTY_WEIGHT * penalty

    def generator_loss(self) -> torch.Tensor:
        logits = self.judge(self.generate(torch.randn(GAN_BATCH, GAN_LATENTS))).float()
        return F.softplus(-logits).mean() if self.system == "gan" else -logits.mean()

    def step(self, real: torch.Tensor) -> torch.Tensor:
        real = real.contiguous(memory_format=self.memory)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = self.discriminator_loss(real)
        self.of_d.zero_grad()
        loss.backward()
        self.of_d.step()
        self.d.requires_grad_(False)  # nobody needs its gradients here
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = self.generator_loss()
        self.of_g.zero_grad()
        loss.backward()
        self.of_g.step()
        self.d.requires_grad_(True)
        return loss


def train(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """Trains by the fastest of two memory formats and two Adams, which a short trial finds."""
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(order["images"])).permute(0, 3, 1, 2).contiguous()
    order_of_epoch, at = torch.randperm(len(images)), 0

    def batch() -> torch.Tensor:
        nonlocal order_of_epoch, at
        if at + GAN_BATCH > len(images):
            order_of_epoch, at = torch.randperm(len(images)), 0
        grey = images[order_of_epoch[at : at + GAN_BATCH]]
        at += GAN_BATCH
        return grey.float().div_(127.5).sub_(1)

    def steps_of(game: Game, steps: int) -> tuple[float, torch.Tensor]:
        begun = time.perf_counter()
        for _ in range(steps):
            loss = game.step(batch())
        return time.perf_counter() - begun, loss

    games = {
        f"{adam}, {name}": Game(order["system"], memory, adam, compiled, bfloat16)
        for name, memory in FORMATS.items()
        for adam in ("foreach", "fused")
    }
    trial = 3
    for game in games.values():
        steps_of(game, 2)
    tried: dict[str, list[float]] = {name: [] for name in games}
    for _ in range(3):
        for name, game in games.items():
            tried[name].append(trial / steps_of(game, trial)[0])
    best = max(tried, key=lambda name: max(tried[name]))
    game = games[best]
    games.clear()

    def run(steps: int) -> dict[str, Any]:
        seconds, loss = steps_of(game, steps)
        return {"seconds": seconds, "loss": float(loss.detach())}

    rates = {name: round(max(rates), 1) for name, rates in tried.items()}
    return run, {"torch": torch.__version__, "adam": best, "adam_steps_per_second": rates}
