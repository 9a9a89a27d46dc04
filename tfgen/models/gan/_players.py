"""The players of a GAN by its flags: their networks, latents and optimisers."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from tfgen import stateless
from tfgen.data import DataSpec
from tfgen.layers.layer_normalization import LayerNormalization
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.layers.spectral_normalization import SpectralNormalization
from tfgen.layers.virtual_batch_normalization import ReferenceBatch, VirtualBatchNormalization
from tfgen.networks import dcgan
from tfgen.networks.mlp import mlp
from tfgen.training import optimizers, schedules

if TYPE_CHECKING:
    from tfgen.models.gan.gan import GAN, HParams

NORMS: dict[str, dcgan.Norm | None] = {
    "batch": dcgan.batch_norm,
    "layer": LayerNormalization,
    "spectral": None,  # Of kernels, see `normed_discriminator`.
    "none": None,
}
_WITH_KERNEL = (keras.layers.Dense, keras.layers.Conv2D, keras.layers.Conv2DTranspose)
_REFERENCE = 4  # Salt of the reference latents; `gan.py` has those of a step.


def event_shape(hparams: "HParams", data_spec: DataSpec) -> tuple[int, ...]:
    """(height, width, channels) of images, or (2,) of points."""
    if hparams.needs == ("point",):
        return data_spec.shapes["point"]
    return data_spec.image_shape


def draw_latents(kind: str, num: int | tf.Tensor, dimensions: int, seed: tf.Tensor) -> tf.Tensor:
    """Latents float32 [num, dimensions], "normal" or "uniform" on [-1, 1], for a seed int32 [2]."""
    if kind == "normal":
        return stateless.normal([num, dimensions], seed)
    return stateless.uniform([num, dimensions], seed, -1.0, 1.0)


def networks(
    event_shape: tuple[int, ...], hparams: "HParams", **dense: Any
) -> tuple[keras.Model, keras.Model]:
    """Generator and discriminator for images [H, W, C] or points [2], as the flags ask.

    Args:
        event_shape: (height, width, channels) or (2,).
        hparams: the flags.
        **dense: arguments of `mlp` for both dense networks, instead of the usual ones.
    """
    head = []
    if hparams.minibatch_kernels:
        head.append(
            MinibatchDiscrimination(hparams.minibatch_kernels, hparams.minibatch_kernel_dim)
        )
    logit_bias = hparams.objective != "wasserstein"  # it cancels there
    if hparams.networks == "dcgan":
        make = functools.partial(
            dcgan.generator,
            hparams.latent_dim,
            event_shape,
            filters=hparams.filters,
            seed=hparams.seed,
        )
        generator = normed_generator(make, hparams)
    else:
        arguments: dict[str, Any] = {
            "activation": "relu",
            "output_activation": "tanh" if len(event_shape) == 3 else None,
            "output_scale": hparams.event_scale,
            "seed": hparams.seed,
        }
        if hparams.networks == "mlp_generator":
            # By Glorot's its images hardly differ at first, and a clipped critic leaves them so.
            arguments["initializer"] = keras.initializers.HeNormal
        shapes = (hparams.latent_dim,), hparams.hidden_units, event_shape
        make = functools.partial(mlp, *shapes, **{**arguments, **dense})
        norms = NORMS if hparams.DENSE_BATCH_NORM else dict.fromkeys(NORMS)
        generator = normed_generator(make, hparams, norms)
    if hparams.networks == "mlp":
        arguments = {
            "activation": "relu" if len(event_shape) == 1 else "leaky_relu",
            "output_bias": logit_bias,
            "input_scale": 1.0 / hparams.event_scale,
            "head": head,
            "seed": hparams.seed + 500,
            "name": "discriminator",
        }
        discriminator = mlp(event_shape, hparams.hidden_units, (1,), **{**arguments, **dense})
    else:
        discriminator = dcgan.discriminator(
            event_shape,
            filters=hparams.discriminator_filters or hparams.filters,
            norm=NORMS[hparams.discriminator_norm],
            head=head,
            logit_bias=logit_bias,
            seed=hparams.seed,
        )
    return generator, normed_discriminator(discriminator, hparams)


def normed_generator(
    make: Callable[..., keras.Model],
    hparams: "HParams",
    norms: Mapping[str, dcgan.Norm | None] = NORMS,
) -> keras.Model:
    """A generator with the normalisation that the flags ask for.

    With virtual batch norm it is a network inside of one that carries the reference latents.

    Args:
        make: makes the network from `norm`, which makes a layer or is None, and `name`.
        hparams: the flags.
        norms: what to make for each --norm but virtual.
    """
    if hparams.norm != "virtual":
        return make(norm=norms[hparams.norm], name="generator")
    size = hparams.reference_size
    network = make(norm=lambda: VirtualBatchNormalization(size), name="virtual_generator")
    (latent_dim,) = network.input_shape[1:]
    reference = draw_latents(hparams.latents, size, latent_dim, reference_seed(hparams))
    layers = [keras.Input((latent_dim,)), ReferenceBatch(network, reference)]
    return keras.Sequential(layers, name="generator")


def normed_discriminator(network: keras.Sequential, hparams: "HParams") -> keras.Sequential:
    """The same, with spectral normalisation of each dense or convolutional kernel if asked for."""
    if hparams.discriminator_norm != "spectral":
        return network
    seeds = itertools.count(hparams.seed * 1000)

    def wrapped(layer: keras.layers.Layer) -> keras.layers.Layer:
        new = type(layer).from_config(layer.get_config())
        if not isinstance(layer, _WITH_KERNEL):
            return new
        return SpectralNormalization(new, seed=next(seeds), name=layer.name)

    return keras.models.clone_model(network, clone_function=wrapped)


def reference_seed(hparams: "HParams") -> tf.Tensor:
    """Of the reference latents of virtual batch norm."""
    return tf.constant([hparams.seed % 2**31, _REFERENCE])


def compile(model: "GAN", hparams: "HParams", train_size: int) -> "GAN":
    """Gives each player its optimiser with the run's step size schedule.

    A player whose name starts with "discriminator" has the discriminator's step size.

    Raises:
        ValueError: if a replica's share of the batch is too small to compare its examples, or the
            reference batch is larger than the data.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync
    if hparams.batch_size < replicas * hparams.examples_compared:
        raise ValueError(
            f"the examples of a replica are compared: --batch_size must be at least "
            f"{replicas * hparams.examples_compared} for {replicas} replicas. "
            f"Received: --batch_size={hparams.batch_size}"
        )
    if hparams.norm == "virtual" and hparams.reference_size > train_size:
        raise ValueError(
            f"the reference batch goes through G at each step, and is at most the {train_size} "
            f"training examples. Received: --reference_size={hparams.reference_size}"
        )
    total_steps = hparams.total_steps(train_size)
    made = {}
    for player in model.players():
        rate = hparams.learning_rate
        if player.startswith("discriminator"):
            rate = hparams.discriminator_learning_rate or rate
        updates, warmup = (model.updates(player, n) for n in (total_steps, hparams.warmup_steps))
        own = dataclasses.replace(hparams, learning_rate=rate, warmup_steps=warmup)
        made[player] = optimizer(hparams, schedules.learning_rate(own, updates))
    model.compile(**made, **hparams.compile_options())
    return model


def optimizer(hparams: "HParams", learning_rate: Any) -> keras.optimizers.Optimizer:
    """The optimiser that the flags ask for, with a step size or a schedule of it."""
    if hparams.optimizer == "rmsprop":
        # PyTorch's g / (sqrt(v) + 1e-8), as near as can be: Keras adds under the root.
        return keras.optimizers.RMSprop(learning_rate, rho=0.99, epsilon=1e-16)
    return optimizers.Adam(
        learning_rate,
        beta_1=hparams.adam_beta1,
        beta_2=hparams.adam_beta2,
        epsilon=hparams.adam_epsilon,
    )
