"""The same CycleGAN and pix2pix in plain PyTorch."""

import itertools
import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tools.bench import work
from tools.bench.gan_torch import FORMATS
from tools.bench.work import RESNET_BLOCKS, TRANSLATION_FILTERS, Run

_POOL = 50


def _instance(width: int) -> nn.Module:
    return nn.InstanceNorm2d(width, affine=True)


class Block(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), mirrored at the edges."""

    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=False), _instance(width),
            nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=False), _instance(width),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> the same."""
        return x + self.body(x)


def resnet() -> nn.Sequential:
    """Images [B, 3, H, W] to images in [-1, 1]."""
    f = TRANSLATION_FILTERS
    layers: list[nn.Module] = [
        nn.ReflectionPad2d(3), nn.Conv2d(3, f, 7, bias=False), _instance(f), nn.ReLU(True),
    ]  # fmt: skip
    for width in (f, 2 * f):
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), _instance(2 * width)]
        layers += [nn.ReLU(True)]
    layers += [Block(4 * f) for _ in range(RESNET_BLOCKS)]
    for width in (4 * f, 2 * f):
        up = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=False)
        layers += [up, _instance(width // 2), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(f, 3, 7), nn.Tanh())


def patchgan(channels: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Images to logits of patches of 70 pixels."""
    f = TRANSLATION_FILTERS
    layers: list[nn.Module] = [nn.Conv2d(channels, f, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for width, stride in ((f, 2), (2 * f, 2), (4 * f, 1)):
        convolution = nn.Conv2d(width, 2 * width, 4, stride, 1, bias=False)
        layers += [convolution, norm(2 * width), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * f, 1, 4, 1, 1))


class UNet(nn.Module):
    """Images [B, 3, 256, 256] to images in [-1, 1], dropout in three maps."""

    def __init__(self) -> None:
        super().__init__()
        widths = work.UNET_WIDTHS
        last = len(widths) - 1
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (before, width) in enumerate(itertools.pairwise((3, *widths))):
            normed = 0 < level < last
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if level else []
            layers.append(nn.Conv2d(before, width, 4, 2, 1, bias=not normed))
            self.down.append(nn.Sequential(*layers, *([nn.BatchNorm2d(width)] if normed else [])))
        for level in reversed(range(last)):
            before = widths[level + 1] * (1 if level == last - 1 else 2)
            up = nn.ConvTranspose2d(before, widths[level], 4, 2, 1, bias=False)
            layers = [nn.ReLU(), up, nn.BatchNorm2d(widths[level])]
            self.up.append(nn.Sequential(*layers, *([nn.Dropout(0.5)] if level > last - 4 else [])))
        self.out = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(2 * widths[0], 3, 4, 2, 1), nn.Tanh()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] -> the same."""
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = torch.cat([up(x), skips.pop()], 1)
        return self.out(x)


class _Game:
    """Networks, optimisers and losses; `step` moves each player once."""

    def __init__(self, memory: torch.memory_format, adam: str, compiled: bool, bfloat16: bool):
        self.memory, self.bfloat16 = memory, bfloat16
        self.generators, self.judges = self.networks()
        for network in (*self.generators, *self.judges):
            network.to(memory_format=memory)
            for parameter in network.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)
        self.of_g, self.of_d = (
            torch.optim.Adam(
                [p for n in networks for p in n.parameters()], 2e-4, (0.5, 0.999), **{adam: True}
            )
            for networks in (self.generators, self.judges)
        )
        if compiled:
            self.generators, self.judges = (
                [torch.compile(n) for n in networks] for networks in (self.generators, self.judges)
            )

    def networks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Generators and discriminators."""
        raise NotImplementedError

    def autocast(self) -> Any:
        """Where networks compute in bfloat16, if they do."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    def _trainable(self, judges: bool) -> None:
        for network in self.judges:
            network.requires_grad_(judges)

    def move(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        """One update."""
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class CycleGAN(_Game):
    """Two generators, two discriminators, two pools."""

    def networks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """As in the paper for 128 pixels."""
        self.pools: list[list[torch.Tensor]] = [[], []]
        generators: list[nn.Module] = [resnet(), resnet()]
        return generators, [patchgan(3, _instance), patchgan(3, _instance)]

    def shown(self, pool: list[torch.Tensor], fake: torch.Tensor) -> torch.Tensor:
        """The fake, or one of the last 50 in its place."""
        fake = fake.detach()
        if len(pool) < _POOL:
            pool.append(fake)
            return fake
        if random.random() < 0.5:
            return fake
        at = random.randrange(_POOL)
        old, pool[at] = pool[at], fake
        return old

    def step(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """One update of the generators, one of the discriminators."""
        to_b, to_a = self.generators
        of_a, of_b = self.judges
        self._trainable(judges=False)
        with self.autocast():
            fake_b, fake_a = to_b(a), to_a(b)
            game = sum(
                ((judge(fake).float() - 1) ** 2).mean()
                for judge, fake in ((of_a, fake_a), (of_b, fake_b))
            )
            cycle = F.l1_loss(to_a(fake_b).float(), a) + F.l1_loss(to_b(fake_a).float(), b)
            same = F.l1_loss(to_a(a).float(), a) + F.l1_loss(to_b(b).float(), b)
            loss = game + 10 * cycle + 5 * same
        self.move(self.of_g, loss)
        self._trainable(judges=True)
        with self.autocast():
            judged = torch.zeros([])
            for judge, real, pool, fake in (
                (of_a, a, self.pools[0], fake_a), (of_b, b, self.pools[1], fake_b),
            ):  # fmt: skip
                shown = self.shown(pool, fake)
                judged = judged + 0.5 * ((judge(real).float() - 1) ** 2).mean()
                judged = judged + 0.5 * (judge(shown).float() ** 2).mean()
        self.move(self.of_d, judged)
        return game


class Pix2Pix(_Game):
    """A U-Net and a conditional discriminator."""

    def networks(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """As in the paper for 256 pixels."""
        return [UNet()], [patchgan(6, nn.BatchNorm2d)]

    def step(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """One update of the discriminator, one of the generator, by the same fakes."""
        (generate,), (judge,) = self.generators, self.judges
        with self.autocast():
            fake = generate(source).float()
            on_real = judge(torch.cat([source, target], 1)).float()
            on_fake = judge(torch.cat([source, fake.detach()], 1)).float()
            loss = 0.5 * (F.softplus(-on_real).mean() + F.softplus(on_fake).mean())
        self.move(self.of_d, loss)
        self._trainable(judges=False)
        with self.autocast():
            game = F.softplus(-judge(torch.cat([source, fake], 1)).float()).mean()
            loss = game + 100 * F.l1_loss(fake, target)
        self.move(self.of_g, loss)
        self._trainable(judges=True)
        return game


def train(
    order: dict[str, Any], *, compiled: bool = False, bfloat16: bool = False
) -> tuple[Run, dict[str, Any]]:
    """Trains by the faster of two memory formats, which a short trial finds."""
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    random.seed(0)
    kind = {"cyclegan": CycleGAN, "pix2pix": Pix2Pix}[order["system"]]
    first, second = (
        torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()
        for x in work.pictures(work.TRANSLATION_SIDES[order["system"]])
    )

    def steps_of(game: Any, steps: int) -> tuple[float, torch.Tensor]:
        begun = time.perf_counter()
        for _ in range(steps):
            pair = (
                images[torch.randint(len(images), [1])].float().div_(127.5).sub_(1)
                for images in (first, second)
            )
            loss = game.step(*(x.contiguous(memory_format=game.memory) for x in pair))
        return time.perf_counter() - begun, loss

    tried: dict[str, float] = {}
    best, game = "", None
    for name, memory in FORMATS.items():
        other = kind(memory, "fused", compiled, bfloat16)
        steps_of(other, 2)
        tried[name] = 2 / steps_of(other, 2)[0]
        if not best or tried[name] > tried[best]:
            best, game = name, other
        del other

    def run(steps: int) -> dict[str, Any]:
        seconds, loss = steps_of(game, steps)
        return {"seconds": seconds, "loss": float(loss.detach())}

    rates = {name: round(rate, 2) for name, rate in tried.items()}
    return run, {"torch": torch.__version__, "memory": best, "memory_steps_per_second": rates}
