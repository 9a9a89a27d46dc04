"""Boundary equilibrium GAN: D is an autoencoder, and a controller balances its two tasks.

Losses, each minimised by its player (L is a mean over the pixels, E a mean over the batch):

    L(v) = mean |v - D(v)|

    discriminator:  E L(x) - k E L(G(z_D))
    generator:      E L(G(z_G))
    balance:        k <- k + lambda (gamma E L(x) - E L(G(z_G))),  k_0 = 0, kept in [0, 1]
    convergence:    M = E L(x) + |gamma E L(x) - E L(G(z_G))|

z_D and z_G are drawn apart and both players move at once, each on the other's old weights. gamma,
the wanted E L(G(z)) / E L(x), trades quality (low) for diversity (high). Where M stalls, both step
sizes are halved.

Reference: D. Berthelot, T. Schumm, L. Metz. BEGAN: Boundary Equilibrium Generative Adversarial
Networks. arXiv:1703.10717, 2017: sections 3.3-3.4 (gamma, the three updates, M), 3.5 and figure 1
(networks), 4.1 (training).

Differs from the paper:
  * Initial weights are He normal; the paper names none.
  * It does not say when M stalls. Here: when its mean over a window of `stall_steps` steps is not
    below that of every window before.
  * The smallest maps have sides of 4 to 7, so that small images have some convolutions left; the
    paper's are 8x8.
  * No skip connections or vanishing residuals, which the paper calls optional.
  * Samples, but not the fakes of training, are clipped to [-1, 1]: G is linear at its end.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgen.data import DataSpec, synthetic
from tfgen.hparams import to_text
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.models.gan import _players, gan
from tfgen.networks import dcgan

_FOR_D = 10  # Salt of z_D.
STUCK = 1e-4  # `diagnose` speaks up where k is so near to 0 or 1.
_ENERGIES = ("energy_real", "energy_fake")
_UNUSED = (
    "objective", "networks", "hidden_units", "discriminator_norm", "penalty", "penalty_weight",
    "positive_label",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of a BEGAN; the paper's defaults."""

    batch_size: int = 16  # Examples a step over all replicas (the global batch).
    learning_rate: float = 1e-4  # Step size of the generator's Adam.
    adam_beta1: float = 0.9  # Adam's beta1, of both.
    filters: int = 64  # Channels n of the largest maps; the encoder has 2n, 3n, ... further down.
    latent_dim: int = 64  # Dimensions of the latents and of the autoencoder's code.
    latents: gan.Latents = "uniform"  # N(0, I), or uniform on [-1, 1].
    norm: gan.GeneratorNorm = "none"  # Normalisation in the generator.
    gamma: float = 0.5  # Wanted E L(G(z)) / E L(x): low for quality, high for diversity.
    balance_rate: float = 0.001  # Proportional gain lambda of k.
    # Window of the mean of M; the step sizes are halved where it does not fall. 0 is off.
    stall_steps: int = 10000

    POSITIVE = ("balance_rate",)
    NOT_NEGATIVE = ("stall_steps",)

    def __post_init__(self) -> None:
        if self.data in synthetic.MIXTURES:
            raise ValueError(
                "BEGAN's autoencoder is convolutional and needs images: set --data to a set of "
                f"images, e.g. digits. Received: --data={self.data}"
            )
        super().__post_init__()
        self.check("gamma", lambda v: 0 < v <= 1, "above 0 and at most 1")
        refuse(self, _UNUSED)
        if self.stall_steps and (self.schedule != "constant" or self.warmup_steps):
            raise ValueError(
                "the step size follows M: set --stall_steps=0 to use a schedule. Received: "
                f"--schedule={self.schedule} --warmup_steps={self.warmup_steps} "
                f"--stall_steps={self.stall_steps}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Images."""
        return ("image",)


def refuse(hparams: gan.HParams, names: Sequence[str]) -> None:
    """Raises `ValueError` in one line if one of these flags is not at its default."""
    for field in dataclasses.fields(hparams):
        value = getattr(hparams, field.name)
        if field.name in names and value != field.default:
            raise ValueError(
                f"--{field.name} has no place where D is an autoencoder with losses of its own: "
                f"leave it out. Received: --{field.name}={to_text(value)}"
            )


def decoder(
    code_dim: int,
    image_shape: Sequence[int],
    *,
    filters: int,
    norm: dcgan.Norm | None = None,
    seed: int,
    name: str,
) -> keras.Sequential:
    """Codes [B, code_dim] to images [B, H, W, C], linear at the end; also the generator.

    For example 28x28x1 with 64 filters, where x2 are two 3x3 convolutions with ELU and each
    doubling repeats its neighbours: 64 -> 7x7x64 x2 -> 14x14x64 x2 -> 28x28x64 x2 -> 28x28x1.

    Args:
        code_dim: dimensions of the input.
        image_shape: (height, width, channels).
        filters: channels of all hidden maps.
        norm: makes a normalisation layer before each ELU; None is off.
        seed: int, of the initial weights.
        name: of the network.
    """
    init = _initializers(seed)
    layers: list = [keras.Input((code_dim,))]
    layers += _up(image_shape, filters, init, norm)
    return keras.Sequential(layers, name=name)


def autoencoder(
    image_shape: Sequence[int],
    code_dim: int,
    *,
    filters: int,
    head: Sequence[keras.layers.Layer] = (),
    seed: int,
    name: str = "discriminator",
) -> keras.Sequential:
    """Images [B, H, W, C] to images of their shape; the linear layer "code" is in the middle.

    The encoder on 28x28x1 with 64 filters, where x2 are two 3x3 convolutions with ELU and each
    halving is a third of stride 2: 28x28x64 -> x2 -> 14x14x128 x2 -> 7x7x192 x2 -> code.

    Args:
        image_shape: (height, width, channels).
        code_dim: dimensions of the code.
        filters: channels of the largest maps.
        head: further layers before the code, e.g. minibatch discrimination.
        seed: int, of the initial weights.
        name: of the network.
    """
    init = _initializers(seed)
    layers: list = [keras.Input(tuple(image_shape)), _conv(filters, init)]
    for level in range(1, dcgan.halvings(image_shape) + 1):
        layers += [_conv(level * filters, init), _conv(level * filters, init)]
        layers.append(_conv((level + 1) * filters, init, strides=2))
    layers += [_conv((level + 1) * filters, init), _conv((level + 1) * filters, init)]
    layers += [keras.layers.Flatten(name="features"), *head]
    layers.append(keras.layers.Dense(code_dim, kernel_initializer=next(init), name="code"))
    layers += _up(image_shape, filters, init)
    return keras.Sequential(layers, name=name)


def _up(
    image_shape: Sequence[int], filters: int, init: Iterator, norm: dcgan.Norm | None = None
) -> list[keras.layers.Layer]:
    count = dcgan.halvings(image_shape)
    height, width, channels = image_shape
    smallest = (height >> count, width >> count, filters)
    dense = keras.layers.Dense(int(np.prod(smallest)), kernel_initializer=next(init))
    layers = [dense, keras.layers.Reshape(smallest)]
    for level in range(count + 1):
        layers += [keras.layers.UpSampling2D()] if level else []
        for _ in range(2):
            if norm is None:
                layers.append(_conv(filters, init))
            else:
                layers += [_conv(filters, init, activation=None), norm()]
                layers.append(keras.layers.Activation("elu"))
    return [*layers, _conv(channels, init, activation=None)]


def _conv(
    filters: int, init: Iterator, strides: int = 1, activation: str | None = "elu"
) -> keras.layers.Layer:
    return keras.layers.Conv2D(
        filters, 3, strides, "same", activation=activation, kernel_initializer=next(init)
    )


def _initializers(seed: int) -> Iterator[keras.initializers.Initializer]:
    while True:
        seed += 1
        yield keras.initializers.HeNormal(seed=seed)


@keras.saving.register_keras_serializable("tfgen")
class BEGAN(gan.GAN):
    """A BEGAN from the caller's networks.

    Args:
        generator: built Keras model from latents [B, d] to images.
        discriminator: built Keras model from images to their reconstructions, of equal shape.
        gamma: wanted E L(G(z)) / E L(x), above 0 and at most 1.
        balance_rate: proportional gain of k, lambda.
        stall_steps: window of the mean of M; 0 never changes the step sizes.
        latents: as for `GAN`.
        **kwargs: further arguments of `GAN` but those of objective, penalty and labels.

    Attributes:
        k: how much the fakes weigh in the discriminator's loss, in [0, 1].
        convergence: M of the last step.

    Raises:
        ValueError: if the discriminator does not keep the shape, or gamma is out of range.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        gamma: float = 0.5,
        balance_rate: float = 0.001,
        stall_steps: int = 10000,
        latents: str = "uniform",
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, latents=latents, **kwargs)
        check_autoencoder(discriminator)
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma must be above 0 and at most 1. Received: gamma={gamma}")
        self.gamma, self.balance_rate, self.stall_steps = gamma, balance_rate, stall_steps
        self.k = self._state("k", 0.0)
        self.convergence = self._state("convergence", 0.0)
        self.window_sum = self._state("window_sum", 0.0)  # of M since the window began
        self.lowest_mean = self._state("lowest_mean", np.inf)  # of M over all windows before

    def _state(self, name: str, value: float) -> keras.Variable:
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            dtype="float32",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
            name=name,
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "gamma": self.gamma,
            "balance_rate": self.balance_rate,
            "stall_steps": self.stall_steps,
        }

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """As the base's; the optimisers' step sizes must be numbers where M changes them."""
        super().compile(*args, **kwargs)
        for player, optimizer in self.optimizers.items():
            if self.stall_steps and not isinstance(optimizer.learning_rate, keras.Variable):
                raise ValueError(
                    "the step size is halved where M stalls, so it must be a number, or "
                    f"stall_steps=0. Received: the {player}'s optimiser has a schedule"
                )

    # What a step is made of.

    def energy(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """L(v) = mean over the pixels of |v - D(v)|: [B, H, W, C] -> [B]."""
        rebuilt = tf.cast(self.discriminator(images, training=training), tf.float32)
        return tf.reduce_mean(tf.abs(images - rebuilt), axis=[1, 2, 3])

    def judge(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Minus the energy, [B]: like a logit, the higher the more real."""
        return -self.energy(images, training)

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor], fake: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """E L(x) - k E L(G(z_D)); the fakes are made here unless they are given."""
        real = batch["image"]
        fake = self.fakes_for_discriminator(batch) if fake is None else fake
        on_real = tf.reduce_mean(self.energy(real))
        loss = on_real - self.k * tf.reduce_mean(self.energy(fake))
        spread = self.share_of_spread(fake, batch)
        return loss, {"discriminator_loss": loss, "energy_real": on_real, "spread": spread}

    def fakes_for_discriminator(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """G(z_D), as many as there are real images; no gradient reaches G."""
        return tf.stop_gradient(self.generate(tf.shape(batch["image"])[0], _FOR_D))

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """E L(G(z_G)), and feature matching where it is on."""
        real = batch["image"]
        fake = self.generate(tf.shape(real)[0], _FOR_D + 1)
        on_fake = tf.reduce_mean(self.energy(fake))
        distance, of_features = self.feature_matching(real, fake)
        loss = self.adversarial_weight * on_fake + distance
        return loss, {"energy_fake": on_fake, **of_features}

    # Training.

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Both players move at once; then k, M and the step sizes follow."""
        fake = self.fakes_for_discriminator(batch)  # of this step's G
        logs = self.move("generator", self.generator_loss, batch)
        loss_of = functools.partial(self.discriminator_loss, fake=fake)
        logs |= self.move("discriminator", loss_of, batch)
        replicas = tf.distribute.get_replica_context()
        energies = [logs["energy_real"], logs["energy_fake"]]
        self.balance(*replicas.all_reduce(tf.distribute.ReduceOp.MEAN, energies))
        return {**logs, "k": self.k.value, "convergence": self.convergence.value}

    def balance(self, real: tf.Tensor, fake: tf.Tensor) -> None:
        """One step of the controller, from E L(x) and E L(G(z_G)) over all replicas."""
        error = self.gamma * real - fake
        self.k.assign(tf.clip_by_value(self.k + self.balance_rate * error, 0.0, 1.0))
        self.convergence.assign(real + tf.abs(error))
        if self.stall_steps:
            self._follow_convergence(tf.equal((self.current_step + 1) % self.stall_steps, 0))

    def _follow_convergence(self, window_ends: tf.Tensor) -> None:
        total, lowest = self.window_sum + self.convergence, tf.identity(self.lowest_mean)
        mean = total / self.stall_steps
        stalls = tf.logical_and(window_ends, mean >= lowest)
        for optimizer in self.optimizers.values():
            rate = optimizer.learning_rate
            rate.assign(tf.where(stalls, 0.5 * rate, rate))
        self.window_sum.assign(tf.where(window_ends, 0.0, total))
        self.lowest_mean.assign(tf.where(window_ends, tf.minimum(mean, lowest), lowest))

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Both energies and M, networks in inference mode."""
        latents = self.draw_latents(tf.shape(batch["image"])[0], self.noise_seed(_FOR_D))
        real = tf.reduce_mean(self.energy(batch["image"], training=False))
        made = tf.cast(self.generator(latents, training=False), tf.float32)
        fake = tf.reduce_mean(self.energy(made, training=False))
        convergence = real + tf.abs(self.gamma * real - fake)
        return {"energy_real": real, "energy_fake": fake, "convergence": convergence}

    def loss_scale(self) -> None:
        """None: k holds the discriminator's loss, whoever wins."""

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """A collapse, as the base's, and k at an end of [0, 1], where it balances no more."""
        found, k = super().diagnose(logs), logs.get("k")
        if k is not None and min(k, 1 - k) < STUCK:
            end, energy = (0, "above") if k < 0.5 else (1, "below")
            numbers = ", ".join(f"{n} {logs[n]:.3g}" for n in _ENERGIES if n in logs)
            found["the balance is stuck"] = (
                f"k is {k:.4g}, at {end}: E L(G(z)) stays {energy} {self.gamma:g} E L(x), {numbers}"
            )
        return found

    # Using a trained model.

    def decode(self, latent: tf.Tensor) -> tf.Tensor:
        """Latents [B, d] -> images [B, H, W, C], clipped to [-1, 1]."""
        return tf.clip_by_value(super().decode(latent), -1.0, 1.0)

    def reconstruct(self, image: tf.Tensor) -> tf.Tensor:
        """D(v), clipped to [-1, 1]: [B, H, W, C] -> [B, H, W, C]."""
        rebuilt = tf.cast(self.discriminator(image, training=False), tf.float32)
        return tf.clip_by_value(rebuilt, -1.0, 1.0)

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """As the base's, and real images and fakes, each above its reconstruction."""
        rebuilt = reconstructions(self, batch["image"], seed)
        return {**super().pictures(batch, seed), "reconstructions": rebuilt}

    def signatures(self) -> dict[str, Any]:
        """As the base's, and "reconstruct"."""
        image = tf.TensorSpec([None, *self.event_shape])
        return {**super().signatures(), "reconstruct": (self.reconstruct, {"image": image})}


def check_autoencoder(discriminator: keras.Model) -> None:
    """Raises `ValueError` if a network does not keep the shape of its inputs."""
    if discriminator.output_shape != discriminator.input_shape:
        raise ValueError(
            "the discriminator must be an autoencoder, with outputs of the shape of its inputs. "
            f"Received: {discriminator.input_shape[1:]} to {discriminator.output_shape[1:]}"
        )


def reconstructions(model: gan.GAN, images: tf.Tensor, seed: int) -> np.ndarray:
    """Real images, D of them, fakes, D of them: a grid [4, columns, H, W, C] in [0, 1]."""
    real = images[:8]
    fake = model.sample(real.shape[0], seed)
    rows = [real, model.reconstruct(real), fake, model.reconstruct(fake)]
    return np.clip((np.stack(rows) + 1.0) / 2.0, 0.0, 1.0)


def build(hparams: HParams, data_spec: DataSpec) -> BEGAN:
    """The paper's networks, compiled and ready to train."""
    shape = data_spec.image_shape
    head = []
    if hparams.minibatch_kernels:
        head = [MinibatchDiscrimination(hparams.minibatch_kernels, hparams.minibatch_kernel_dim)]
    discriminator_filters = hparams.discriminator_filters or hparams.filters
    make = functools.partial(
        decoder, hparams.latent_dim, shape, filters=hparams.filters, seed=hparams.seed * 1000
    )
    model = BEGAN(
        _players.normed_generator(make, hparams),
        autoencoder(
            shape,
            hparams.latent_dim,
            filters=discriminator_filters,
            head=head,
            seed=hparams.seed * 1000 + 500,
        ),
        gamma=hparams.gamma,
        balance_rate=hparams.balance_rate,
        stall_steps=hparams.stall_steps,
        **gan.slots(hparams),
    )
    return _players.compile(model, hparams, data_spec.train_size)
