"""The same flow by zuko and by nflows, as their documentation builds it."""

import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch

from tools.bench.work import MAF_BATCH, MAF_BLOCKS, MAF_HIDDEN, MAF_RATE, MAF_SIZE, Run, vectors


def zuko(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """`zuko.flows.MAF`."""
    import zuko.flows

    model = zuko.flows.MAF(MAF_SIZE, transforms=MAF_BLOCKS, hidden_features=MAF_HIDDEN)
    return _trained(order, model, lambda x: model().log_prob(x)), {"zuko": _version("zuko")}


def nflows(order: dict[str, Any]) -> tuple[Run, dict[str, Any]]:
    """`nflows`' masked affine autoregressive transforms, with its reverse permutations."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    parts: list[Any] = []
    for _ in range(MAF_BLOCKS):
        parts += [
            ReversePermutation(MAF_SIZE),
            MaskedAffineAutoregressiveTransform(
                MAF_SIZE,
                MAF_HIDDEN[0],
                num_blocks=len(MAF_HIDDEN) - 1,
                use_residual_blocks=False,
                activation=torch.nn.functional.relu,
            ),
        ]
    model = Flow(CompositeTransform(parts), StandardNormal([MAF_SIZE]))
    return _trained(order, model, model.log_prob), {"nflows": _version("nflows")}


def _version(package: str) -> str:
    return metadata.version(package)


def _trained(
    order: dict[str, Any],
    model: torch.nn.Module,
    log_prob: Callable[[torch.Tensor], torch.Tensor],
) -> Run:
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    data = torch.from_numpy(vectors())
    optimizer = torch.optim.Adam(model.parameters(), lr=MAF_RATE, fused=True)
    rows, at = torch.randperm(len(data)), 0

    def run(steps: int) -> dict[str, Any]:
        nonlocal rows, at
        begun = time.perf_counter()
        for _ in range(steps):
            if at + MAF_BATCH > len(data):
                rows, at = torch.randperm(len(data)), 0
            loss = -log_prob(data[rows[at : at + MAF_BATCH]]).mean()
            at += MAF_BATCH
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return {"seconds": time.perf_counter() - begun, "loss": float(loss.detach())}

    run(3)
    return run
