"""Energy-based GAN: D is an autoencoder whose error is the energy of an image.

Losses, each minimised by its player (norms over all pixels of an image, means over the batch):

    D(v) = ||v - Dec(Enc(v))||_2,   in [-1, 1] on 28x28 pixels at most 56

    discriminator:  E D(x) + E max(0, m - D(G(z)))
    generator:      E D(G(z)) + w PT,   w = 0.1 for EBGAN-PT, 0 for EBGAN

    PT = 1/(n (n - 1)) sum_i sum_{j != i} cos(S_i, S_j)^2,   S_i = Enc(G(z_i)), n fakes in the batch

The margin m keeps D from raising the energy of fakes for ever; at equilibrium p_G = p_data, D is
flat somewhere in [0, m], and the discriminator's loss is m. The repelling regulariser PT pulls the
codes of fakes apart, in the generator's loss alone.

Reference: J. Zhao, M. Mathieu, Y. LeCun. Energy-based Generative Adversarial Networks. ICLR 2017:
eq. 1-2 (losses), theorems 1-2, section 2.3 (energy), 2.4 (PT), 4.1 (MNIST: dense networks, one
layer of decoder, m = 10, Adam 1e-3), 4.3 (convolutions), appendix F (w = 0.1).

Differs from the paper:
  * It writes the energy as a norm and does not say how its code reduces it, so its m = 10 on MNIST
    may be of another scale. Ours is the Euclidean norm, not squared and not divided by the pixels.
  * Adam's beta1 is DCGAN's 0.5; the paper names none.
  * The dense D has no batch norm, and Glorot's weights; the paper's has batch norm after each layer
    of weights but the first, and N(0, 0.002) (appendix).
  * With several replicas PT is of each replica's fakes.
  * The convolutional G is DCGAN's (5x5 kernels), and the encoder as deep as the image's side asks.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.models.gan import _players, began, gan
from tfgen.networks import dcgan

_FOR_D, _FOR_G = 10, 11  # Salts of the two players' latents.
_UNUSED = ("objective", "penalty", "penalty_weight", "positive_label", "standardize")


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of an EBGAN; the paper's defaults on MNIST."""

    learning_rate: float = 1e-3  # Step size of the generator's Adam.
    networks: Literal["dcgan", "mlp"] = "mlp"  # Convolutions for images, or dense layers.
    hidden_units: tuple[int, ...] = (800, 800, 800, 800)  # Widths of the dense generator.
    discriminator_units: tuple[int, ...] = (1024,)  # Of the dense encoder; the last is the code's.
    norm: gan.GeneratorNorm = "batch"  # Normalisation in the generator, a dense one too.
    margin: float = 10.0  # m: fakes of a higher energy no longer concern the discriminator.
    repelling_weight: float = 0.1  # Weight w of PT in the generator's loss; 0 is EBGAN without PT.

    POSITIVE = ("discriminator_units", "margin")
    NOT_EMPTY = ("discriminator_units",)
    NOT_NEGATIVE = ("repelling_weight",)
    DENSE_BATCH_NORM = True

    def __post_init__(self) -> None:
        super().__post_init__()
        began.refuse(self, _UNUSED)
        if self.networks == "dcgan" and self.minibatch_kernels:
            raise ValueError(
                "the convolutional autoencoder has no vector for minibatch discrimination: set "
                f"--networks=mlp. Received: --minibatch_kernels={self.minibatch_kernels}"
            )
        if self.repelling_weight and self.batch_size < 2:
            raise ValueError(
                "the repelling regulariser compares the fakes of a batch: --batch_size must be at "
                f"least 2. Received: --batch_size={self.batch_size}"
            )

    @property
    def learns_more(self) -> bool:
        """Whether it has the repelling regulariser."""
        return self.repelling_weight > 0

    @property
    def examples_compared(self) -> int:
        """Two for the repelling regulariser as well."""
        return 2 if self.repelling_weight else super().examples_compared


def dense_autoencoder(
    event_shape: Sequence[int],
    units: Sequence[int],
    *,
    head: Sequence[keras.layers.Layer] = (),
    seed: int,
    name: str = "discriminator",
) -> keras.Sequential:
    """Images or points to the same: ReLU encoder, whose last layer is "code", one layer of decoder.

    For example on 28x28x1 with units (512, 128): 784 -> 512 -> 128 -> 784.

    Args:
        event_shape: (height, width, channels) of images in [-1, 1], or (2,) of points.
        units: widths of the encoder.
        head: further layers before the code, e.g. minibatch discrimination.
        seed: int, of the initial weights.
        name: of the network.
    """
    init = [keras.initializers.GlorotUniform(seed=seed + layer) for layer in range(len(units) + 1)]
    layers: list = [keras.Input(tuple(event_shape)), keras.layers.Flatten()]
    for index, width in enumerate(units[:-1]):
        layers.append(keras.layers.Dense(width, "relu", kernel_initializer=init[index]))
    layers += [
        *head,
        keras.layers.Dense(units[-1], "relu", kernel_initializer=init[-2], name="code"),
        keras.layers.Dense(
            int(np.prod(event_shape)),
            "tanh" if len(event_shape) == 3 else None,
            kernel_initializer=init[-1],
        ),
        keras.layers.Reshape(tuple(event_shape)),
    ]
    return keras.Sequential(layers, name=name)


def convolutional_autoencoder(
    image_shape: Sequence[int],
    *,
    filters: int,
    norm: dcgan.Norm | None = keras.layers.BatchNormalization,
    seed: int,
    name: str = "discriminator",
) -> keras.Sequential:
    """Images to images in [-1, 1] by 4x4 convolutions of stride 2, up and down; "code" is between.

    For example 28x28x1 with 64 filters: 14x14x64 -> 7x7x128 (code) -> 14x14x64 -> 28x28x1.

    Args:
        image_shape: (height, width, channels).
        filters: channels of the first map; each map after it has twice as many.
        norm: makes a normalisation layer for each map but the first and the last; None is off.
        seed: int, of the initial weights.
        name: of the network.
    """
    count = dcgan.halvings(image_shape)
    widths = [filters << level for level in range(count)]  # 64, 128, ...
    layers: list = [keras.Input(tuple(image_shape))]
    for level, width in enumerate(widths):
        name_of = "code" if level == count - 1 else None
        convolution = keras.layers.Conv2D(width, **_options(seed + level))
        layers += _block(convolution, norm if level else None, name_of)
    for level, width in enumerate(reversed(widths[:-1])):
        options = _options(seed + count + level)
        layers += _block(keras.layers.Conv2DTranspose(width, **options), norm)
    options = _options(seed + 2 * count)
    layers.append(keras.layers.Conv2DTranspose(image_shape[-1], activation="tanh", **options))
    return keras.Sequential(layers, name=name)


def _options(seed: int) -> dict[str, Any]:
    init = keras.initializers.RandomNormal(stddev=0.02, seed=seed)
    return {"kernel_size": 4, "strides": 2, "padding": "same", "kernel_initializer": init}


def _block(
    convolution: keras.layers.Layer, norm: dcgan.Norm | None, name: str | None = None
) -> list[keras.layers.Layer]:
    return [convolution, *([norm()] if norm else []), keras.layers.LeakyReLU(0.2, name=name)]


def pulling_away(codes: tf.Tensor) -> tf.Tensor:
    """PT: the mean of cos(S_i, S_j)^2 over all pairs i != j of codes [n, ...], 0 for one code."""
    flat = tf.reshape(tf.cast(codes, tf.float32), [tf.shape(codes)[0], -1])
    unit = tf.math.l2_normalize(flat, axis=1)
    squares = tf.square(tf.matmul(unit, unit, transpose_b=True))
    pairs = tf.shape(flat)[0] * (tf.shape(flat)[0] - 1)
    others = tf.reduce_sum(squares) - tf.linalg.trace(squares)
    return others / tf.cast(tf.maximum(pairs, 1), tf.float32)


@keras.saving.register_keras_serializable("tfgen")
class EBGAN(gan.GAN):
    """An EBGAN from the caller's networks.

    Args:
        generator: as for `GAN`.
        discriminator: built Keras model from images or points to their reconstructions.
        margin: m, above 0, on the scale of the Euclidean norm over all pixels.
        repelling_weight: weight of PT in the generator's loss; 0 leaves it out.
        code_layer: name of the discriminator's layer whose outputs PT compares.
        **kwargs: further arguments of `GAN` but those of objective, penalty and labels.

    Raises:
        ValueError: if the discriminator does not keep the shape or has no such layer, or an
            argument is out of range.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        *,
        margin: float = 10.0,
        repelling_weight: float = 0.1,
        code_layer: str = "code",
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, **kwargs)
        began.check_autoencoder(discriminator)
        if margin <= 0 or repelling_weight < 0:
            raise ValueError(
                "margin must be more than 0 and repelling_weight 0 or more. Received: "
                f"margin={margin}, repelling_weight={repelling_weight}"
            )
        names = [layer.name for layer in discriminator.layers]
        if code_layer not in names:
            raise ValueError(
                f"code_layer must be one of the discriminator's layers {names}. "
                f"Received: {code_layer!r}"
            )
        self.margin, self.repelling_weight = margin, repelling_weight
        self.code_layer = code_layer
        outputs = [discriminator.get_layer(code_layer).output, *discriminator.outputs]
        # In a partial, so that Keras does not track, count and save the shared layers twice.
        self._code_and_rebuilt = functools.partial(keras.Model(discriminator.inputs, outputs))

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "margin": self.margin,
            "repelling_weight": self.repelling_weight,
            "code_layer": self.code_layer,
        }

    def code_and_energy(
        self, images: tf.Tensor, training: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Enc(v) [B, ...] and D(v) = ||v - Dec(Enc(v))||_2 [B] of images or points [B, ...]."""
        code, rebuilt = self._code_and_rebuilt(images, training=training)
        error = tf.reshape(images - tf.cast(rebuilt, tf.float32), [tf.shape(images)[0], -1])
        # The gradient of a norm is not defined at 0.
        return code, tf.sqrt(tf.reduce_sum(tf.square(error), axis=1) + 1e-12)

    def judge(self, images: tf.Tensor, training: bool = True) -> tf.Tensor:
        """Minus the energy, [B]: like a logit, the higher the more real."""
        return -self.code_and_energy(images, training)[1]

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """E D(x) + E max(0, m - D(G(z))), eq. 1."""
        real = batch[self.needs[0]]
        fake = tf.stop_gradient(self.generate(tf.shape(real)[0], _FOR_D))
        loss, logs = self._margin_loss(real, fake, training=True)
        return loss, {**logs, "spread": self.share_of_spread(fake, batch)}

    def _margin_loss(
        self, real: tf.Tensor, fake: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        (_, on_real), (_, on_fake) = (self.code_and_energy(v, training) for v in (real, fake))
        loss = tf.reduce_mean(on_real) + tf.reduce_mean(tf.nn.relu(self.margin - on_fake))
        return loss, {
            "discriminator_loss": loss,
            "energy_real": tf.reduce_mean(on_real),
            "energy_fake": tf.reduce_mean(on_fake),
        }

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """E D(G(z)), eq. 2, with PT and feature matching where they are on."""
        real = batch[self.needs[0]]
        fake = self.generate(tf.shape(real)[0], _FOR_G)
        code, on_fake = self.code_and_energy(fake)
        logs = {"generator_loss": tf.reduce_mean(on_fake), "pulling_away": pulling_away(code)}
        loss = self.adversarial_weight * logs["generator_loss"]
        loss += self.repelling_weight * logs["pulling_away"]
        distance, of_features = self.feature_matching(real, fake)
        return loss + distance, {**logs, **of_features}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The discriminator's loss and both energies, networks in inference mode."""
        real = batch[self.needs[0]]
        latents = self.draw_latents(tf.shape(real)[0], self.noise_seed(_FOR_D))
        return self._margin_loss(real, self.decode(latents), training=False)[1]

    def loss_scale(self) -> tuple[float, float]:
        """0, and the margin, which the loss is at equilibrium (theorem 1)."""
        return 0.0, self.margin

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """As the base's, and energies beyond the margin, where fakes teach D nothing."""
        found, energy = super().diagnose(logs), logs.get("energy_fake")
        if energy is not None and energy > self.margin:
            found["the fakes are beyond the margin"] = (
                f"energy_fake {energy:.3g} is above m = {self.margin:g}, "
                f"energy_real {logs['energy_real']:.3g}"
            )
        return found

    def reconstruct(self, image: tf.Tensor) -> tf.Tensor:
        """Dec(Enc(v)): [B, ...] -> [B, ...]."""
        return tf.cast(self.discriminator(image, training=False), tf.float32)

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """As the base's, and real images and fakes, each above its reconstruction."""
        grids = super().pictures(batch, seed)
        if self.needs == ("image",):
            grids["reconstructions"] = began.reconstructions(self, batch["image"], seed)
        return grids

    def signatures(self) -> dict[str, Any]:
        """As the base's, and "reconstruct"."""
        image = tf.TensorSpec([None, *self.event_shape])
        return {**super().signatures(), "reconstruct": (self.reconstruct, {"image": image})}


def build(hparams: HParams, data_spec: DataSpec) -> EBGAN:
    """The networks that the flags ask for, compiled and ready to train."""
    shape = _players.event_shape(hparams, data_spec)
    of_weights = functools.partial(keras.initializers.RandomNormal, stddev=0.02)
    generator, _ = _players.networks(shape, hparams, initializer=of_weights)
    seed = hparams.seed * 1000 + 500
    if hparams.networks == "mlp":
        head = []
        if hparams.minibatch_kernels:
            sizes = hparams.minibatch_kernels, hparams.minibatch_kernel_dim
            head.append(MinibatchDiscrimination(*sizes))
        units = hparams.discriminator_units
        discriminator = dense_autoencoder(shape, units, head=head, seed=seed)
    else:
        discriminator = convolutional_autoencoder(
            shape,
            filters=hparams.discriminator_filters or hparams.filters,
            norm=_players.NORMS[hparams.discriminator_norm],
            seed=seed,
        )
    model = EBGAN(
        generator,
        _players.normed_discriminator(discriminator, hparams),
        margin=hparams.margin,
        repelling_weight=hparams.repelling_weight,
        **gan.slots(hparams),
    )
    return _players.compile(model, hparams, data_spec.train_size)
