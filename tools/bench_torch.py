"""The other side of `tools.bench`: the same IWAE in plain PyTorch, as fast as plain code gets."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tools.bench_worker import (
    BATCH,
    EPSILON,
    LATENTS,
    LEARNING_RATE,
    PIXELS,
    WIDTH,
    Run,
    gemms,
    per_gemm,
)


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


def iwae(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """Trains by the faster of Adam's two implementations, which a short trial finds."""
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    images = torch.from_numpy(np.load(order["images"]).reshape(-1, PIXELS))
    model = IWAE(order["k"])
    objective: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model) if compiled else model
    adam: dict[str, Any] = {"lr": LEARNING_RATE, "eps": EPSILON}
    order_of_epoch, at = torch.randperm(len(images)), 0

    def batch() -> torch.Tensor:
        nonlocal order_of_epoch, at
        if at + BATCH > len(images):
            order_of_epoch, at = torch.randperm(len(images)), 0
        grey = images[order_of_epoch[at : at + BATCH]]
        at += BATCH
        return (torch.rand(BATCH, PIXELS) * 255.0 < grey).float()

    def train(optimizer: torch.optim.Optimizer, steps: int) -> tuple[float, torch.Tensor]:
        begun = time.perf_counter()
        for _ in range(steps):
            x = batch()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                loss = objective(x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return time.perf_counter() - begun, loss

    optimizers: dict[str, torch.optim.Optimizer] = {
        "foreach": torch.optim.Adam(model.parameters(), foreach=True, **adam),
        "fused": torch.optim.Adam(model.parameters(), fused=True, **adam),
    }
    trial = max(2, 50 // order["k"])
    for optimizer in optimizers.values():
        train(optimizer, 3)
    tried: dict[str, list[float]] = {name: [] for name in optimizers}
    for _ in range(3):
        for name, optimizer in optimizers.items():
            tried[name].append(trial / train(optimizer, trial)[0])
    best = max(tried, key=lambda name: max(tried[name]))

    def run(steps: int) -> dict[str, Any]:
        seconds, loss = train(optimizers[best], steps)
        return {"seconds": seconds, "loss": float(loss.detach())}

    rates = {name: round(max(rates), 1) for name, rates in tried.items()}
    return run, {"torch": torch.__version__, "adam": best, "adam_steps_per_second": rates}


_TIMES = 20


def gemm(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """The step's matrix products alone, by PyTorch, into memory that is there already."""
    torch.set_num_threads(order["threads"])

    def product(gemm: dict[str, Any]) -> Callable[[], None]:
        x = torch.randn(gemm["rows"], gemm["inputs"])
        w = torch.randn(gemm["inputs"], gemm["outputs"])
        y = torch.randn(gemm["rows"], gemm["outputs"])
        left, right = {
            "forward": (x, w), "of_weights": (x.T, y), "of_inputs": (y, w.T),
        }[gemm["kind"]]  # fmt: skip
        out = torch.empty(left.shape[0], right.shape[1])

        def work() -> None:
            for _ in range(_TIMES):
                torch.mm(left, right, out=out)

        return work

    products = [product(g) for g in gemms(order["k"])]

    def run(steps: int) -> dict[str, Any]:
        found = per_gemm(products, max(1, steps // _TIMES))
        return {"seconds": found["seconds"], "each": [s / _TIMES for s in found["each"]]}

    return run, {"torch": torch.__version__}
