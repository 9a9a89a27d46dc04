"""The same IWAE in plain PyTorch, as fast as plain code gets."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tools.bench.work import EPSILON, IWAE_BATCH, LATENTS, LEARNING_RATE, PIXELS, WIDTH, Run

CONTIGUOUS = {"": torch.contiguous_format}


class IWAE(nn.Module):
    """The importance weighted autoencoder; `forward` gives the loss of one batch."""

    def __init__(self, k: int):
        super().__init__()
        self.k = k
        self.encoder = nn.Sequential(
            nn.Linear(PIXELS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(),
            nn.Linear(WIDTH, 2 * LATENTS),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(LATENTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(),
            nn.Linear(WIDTH, PIXELS),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Minus L_k of binary images [B, 784], mean over the batch."""
        mean, log_std = self.encoder(x).float().chunk(2, dim=-1)
        noise = torch.randn(self.k, *mean.shape)
        z = mean + log_std.exp() * noise
        logits = self.decoder(z).float()
        log_likelihood = -F.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).sum(-1)
        log_ratio = (0.5 * (noise.square() - z.square()) + log_std).sum(-1)
        log_weights = log_likelihood + log_ratio
        return -(log_weights.logsumexp(0) - math.log(self.k)).mean()


def train(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """The IWAE of so many samples."""
    trial = max(2, 50 // order["k"])
    return trained(order, lambda: IWAE(order["k"]), trial, compiled, bfloat16)


def trained(
    order: dict[str, Any],
    make: Callable[[], nn.Module],
    trial: int,
    compiled: bool,
    bfloat16: bool,
    formats: Mapping[str, torch.memory_format] = CONTIGUOUS,
) -> tuple[Run, dict[str, Any]]:
    """Trains by the fastest of Adam's two implementations and of some memory formats.

    Trials of so many steps find it. The module that is made maps binary images [B, 784] to the
    loss.
    """
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(order["images"]).reshape(-1, PIXELS))
    adam: dict[str, Any] = {"lr": LEARNING_RATE, "eps": EPSILON}
    order_of_epoch, at = torch.randperm(len(images)), 0

    def batch() -> torch.Tensor:
        nonlocal order_of_epoch, at
        if at + IWAE_BATCH > len(images):
            order_of_epoch, at = torch.randperm(len(images)), 0
        grey = images[order_of_epoch[at : at + IWAE_BATCH]]
        at += IWAE_BATCH
        return (torch.rand(IWAE_BATCH, PIXELS) * 255.0 < grey).float()

    Trained = tuple[Callable[[torch.Tensor], torch.Tensor], torch.optim.Optimizer]

    def prepared(memory: torch.memory_format, kind: str) -> Trained:
        model = make().to(memory_format=memory)
        optimizer = torch.optim.Adam(model.parameters(), **{kind: True}, **adam)
        return torch.compile(model) if compiled else model, optimizer

    def steps_of(way: Trained, steps: int) -> tuple[float, torch.Tensor]:
        objective, optimizer = way
        begun = time.perf_counter()
        for _ in range(steps):
            x = batch()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = objective(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - begun, loss

    ways = {
        f"{kind}{name and ', '}{name}": prepared(memory, kind)
        for name, memory in formats.items()
        for kind in ("foreach", "fused")
    }
    for way in ways.values():
        steps_of(way, 3)
    tried: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            tried[name].append(trial / steps_of(way, trial)[0])
    best = max(tried, key=lambda name: max(tried[name]))
    chosen = ways[best]
    ways.clear()

    def run(steps: int) -> dict[str, Any]:
        seconds, loss = steps_of(chosen, steps)
        return {"seconds": seconds, "loss": float(loss.detach())}

    rates = {name: round(max(rates), 1) for name, rates in tried.items()}
    return run, {"torch": torch.__version__, "adam": best, "adam_steps_per_second": rates}
