"""InfoGAN's networks for MNIST in tfgen's GAN, WGAN-GP and unrolled GAN."""

import importlib
from typing import Any

import keras
import numpy as np

from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.models.gan import _players, gan, infogan
from tools.bench import training
from tools.bench.work import ADAM, FILTERS, GAN_BATCH, GAN_LATENTS, UNITS, Run

_CLASSES = {"gan": "GAN", "wgan_gp": "WGANGP", "unrolled": "UnrolledGAN"}


def tfgen(
    order: dict[str, Any], *, system: str | None = None, **flags: Any
) -> tuple[Run, dict[str, Any]]:
    """A system, the order's or another, with some flags; D and G move once in a step."""
    rate, beta1, beta2 = ADAM[order["system"]]
    system = system or order["system"]
    module = importlib.import_module(f"tfgen.models.gan.{system}")
    hp = module.HParams(
        batch_size=GAN_BATCH,
        latent_dim=GAN_LATENTS,
        discriminator_steps=1,
        learning_rate=rate,
        adam_beta1=beta1,
        adam_beta2=beta2,
        **flags,
    )
    keras.config.set_dtype_policy(hp.precision)
    images = np.load(order["images"])
    data = training.dataset(images, "symmetric")
    slots = gan.slots(hp)
    if system == "unrolled":
        slots = {k: v for k, v in slots.items() if k not in ("objective", "penalty")}
        slots["unrolled_steps"] = hp.unrolled_steps
    model = getattr(module, _CLASSES[system])(*_networks(images.shape[1:], hp), **slots)
    _players.compile(model, hp, data.spec.train_size)
    batches = iter(data.train(GAN_BATCH, seed=hp.seed))
    return training.runner(model, batches, hp, "generator_loss"), training.VERSIONS


def _networks(shape: tuple[int, ...], hp: gan.HParams) -> tuple[keras.Model, keras.Model]:
    head = []
    if hp.minibatch_kernels:
        head.append(MinibatchDiscrimination(hp.minibatch_kernels, hp.minibatch_kernel_dim))
    sizes: dict[str, int] = {"filters": FILTERS, "units": UNITS}
    norm = _players.NORMS[hp.discriminator_norm]
    return (
        infogan.generator(GAN_LATENTS, shape, **sizes),
        infogan.discriminator(shape, norm=norm, head=head, **sizes),
    )
