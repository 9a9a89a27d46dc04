"""Mode regularised GAN: an encoder leads the generator back to each example, so no mode is missed.

An encoder E and the generator make an autoencoder G(E(x)). The generator is asked that it brings
back x, and that D takes what it brings back for real, where D's gradient exists for every mode and
not for those alone that G(z) happens to reach.

Losses of the regularised form, each minimised by its players (d(a, b) the mean of squares over the
event's dimensions, all means over the batch):

    discriminator:       -E log D(x) - E log(1 - D(G(z)))
    generator, encoder:  -E log D(G(z)) + E [lambda1 d(x, G(E(x))) - lambda2 log D(G(E(x)))]

The manifold-diffusion form has two discriminators, and two moves of the generator in a step. First
the manifold step, which brings G(E(x)) to the data, then the diffusion step, which spreads the
probability of G(z) over the manifold, with G(E(x)) in the place of real examples:

    D1:                  -E log D1(x) - E log(1 - D1(G(E(x))))
    generator, encoder:   E [lambda1 d(x, G(E(x))) - lambda2 log D1(G(E(x)))]
    D2:                  -E log D2(G(E(x))) - E log(1 - D2(G(z)))
    generator:           -E log D2(G(z))

Reference: T. Che, Y. Li, A. P. Jacob, Y. Bengio, W. Li. Mode Regularized Generative Adversarial
Networks. ICLR 2017: section 3.1-3.2 (T_G and T_E of the regularised form), algorithm 1
(manifold-diffusion).

Differs from the paper:
  * T_G and T_E are printed with + lambda2 log D(G(E(x))) in losses that are minimised; the sign
    that the text argues for, and their algorithm 1 has, is ours.
  * d is the mean over pixels, so that the weights do not depend on the size of an image.
  * The defaults of lambda1 and lambda2 are the paper's for the regularised form. With the other D1
    won against them here, for d is a mean: its flagfiles' and results' are 100 and 0.01.
  * DCGAN's networks; the encoder is the discriminator's body with a linear layer to the latents.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import keras
import numpy as np
import tensorflow as tf

from tfgen.data import DataSpec
from tfgen.models.gan import _players, gan

Flags = TypeVar("Flags", bound=gan.HParams)


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of a mode regularised GAN."""

    # One discriminator and two regularisers; or a manifold and a diffusion step; or, to compare
    # with, the plain GAN of the same networks.
    form: Literal["regularized", "manifold_diffusion", "plain"] = "regularized"
    distance_weight: float = 0.2  # Lambda1, weight of d(x, G(E(x))).
    mode_weight: float = 0.4  # Lambda2, weight of -log D(G(E(x))).
    # Networks see the channels of an image side by side, as one grey image: the paper's layout of
    # three digits.
    side_by_side: bool = False

    NOT_NEGATIVE = ("distance_weight", "mode_weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side_by_side and self.networks != "dcgan":
            raise ValueError(
                "--side_by_side is for convolutional networks: set --networks=dcgan. "
                f"Received: --networks={self.networks}"
            )

    @property
    def learns_more(self) -> bool:
        """Whether the generator has one of the two regularisers."""
        return self.form != "plain" and max(self.distance_weight, self.mode_weight) > 0


@keras.saving.register_keras_serializable("tfgen")
class RegGAN(gan.GAN):
    """A GAN with the paper's two regularisers, from the caller's networks.

    For example on MNIST the encoder maps images [B, 28, 28, 1] to latents [B, 100].

    Args:
        generator: as for `GAN`.
        discriminator: as for `GAN`.
        encoder: built Keras model from what the generator makes to what it takes.
        distance_weight: lambda1, of d(x, G(E(x))).
        mode_weight: lambda2, of the generator's own objective on G(E(x)): -log D(G(E(x))) for the
            non-saturating one.
        **kwargs: further arguments of `GAN`.

    Raises:
        ValueError: if the encoder does not fit the generator, or a weight is negative.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model,
        *,
        distance_weight: float = 0.2,
        mode_weight: float = 0.4,
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, **kwargs)
        ends = encoder.input_shape[1:], encoder.output_shape[1:]
        wanted = generator.output_shape[1:], generator.input_shape[1:]
        if ends != wanted:
            raise ValueError(
                "the encoder must map what the generator makes to what it takes, "
                f"{wanted[0]} to {wanted[1]}. Received: {ends[0]} to {ends[1]}"
            )
        if distance_weight < 0 or mode_weight < 0:
            raise ValueError(
                "distance_weight and mode_weight must be 0 or more. "
                f"Received: {distance_weight} and {mode_weight}"
            )
        self.encoder = encoder
        self.remember("encoder", encoder)
        self.distance_weight, self.mode_weight = distance_weight, mode_weight

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "distance_weight": self.distance_weight,
            "mode_weight": self.mode_weight,
        }

    def players(self) -> dict[str, list[keras.Variable]]:
        """The generator, the discriminator and the encoder."""
        return {**super().players(), "encoder": self.encoder.trainable_variables}

    def bring_back(self, image: tf.Tensor, training: bool = True) -> tf.Tensor:
        """G(E(x)), float32, in the shape of x.

        The averages that G's batch norm keeps are of G(z), which is what it is sampled by: E(x) is
        not distributed as z, and does not move them.
        """
        latent = self.encoder(image, training=training)
        if not training:
            return tf.cast(self.generator(latent, training=False), tf.float32)
        return tf.cast(gan.with_batch_statistics(self.generator, latent), tf.float32)

    def distance(self, real: tf.Tensor, back: tf.Tensor) -> tf.Tensor:
        """d(x, G(E(x))), the mean over batch and event, in the networks' own lengths."""
        return tf.reduce_mean(tf.square((real - back) / self.event_scale))

    def judge_back(self, image: tf.Tensor) -> tf.Tensor:
        """Logits of what is brought back, by the discriminator that the mode regulariser fools."""
        return self.judge(image)

    def regularizer(self, real: tf.Tensor) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """E [lambda1 d(x, G(E(x))) - lambda2 log D(G(E(x)))], and its two parts for the log."""
        back = self.bring_back(real)
        distance = self.distance(real, back)
        mode = tf.reduce_mean(self.losses_of.generator(self.judge_back(back)))
        loss = self.distance_weight * distance + self.mode_weight * mode
        return loss, {"distance": distance, "mode_loss": mode}

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """T_G. Its gradient with respect to the encoder is that of T_E, the regularisers alone."""
        loss, logs = super().generator_loss(batch)
        regularizer, parts = self.regularizer(batch[self.needs[0]])
        return loss + regularizer, {**logs, **parts}

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The last update of the discriminator, then one of the generator and the encoder."""
        logs = self.move("discriminator", self.discriminator_loss, batch)
        return {**logs, **self.move(("generator", "encoder"), self.generator_loss, batch)}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Both losses of the objective and d(x, G(E(x))), networks in inference mode."""
        real = batch[self.needs[0]]
        distance = self.distance(real, self.bring_back(real, training=False))
        return {**super().test_step(batch), "distance": distance}

    # Using a trained model.

    def encode(self, image: tf.Tensor) -> tf.Tensor:
        """Images [B, H, W, C] in [-1, 1], or points [B, 2] -> latents [B, d]."""
        return tf.cast(self.encoder(image, training=False), tf.float32)

    def reconstruct(self, image: tf.Tensor) -> tf.Tensor:
        """G(E(x)) of images in [-1, 1] or points, in their shape."""
        return self.bring_back(image, training=False)

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Those of `GAN`, and images (first row) with what is brought back of them (second)."""
        grids = super().pictures(batch, seed)
        if self.needs == ("image",):
            some = batch["image"][:10]
            rows = tf.stack([some, self.reconstruct(some)]).numpy()
            grids["reconstructions"] = np.clip((rows + 1.0) / 2.0, 0.0, 1.0)
        return grids

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Those of `GAN`, the encoder and the autoencoder."""
        image = {"image": tf.TensorSpec([None, *self.event_shape])}
        return {
            **super().signatures(),
            "encode": (self.encode, image),
            "reconstruct": (self.reconstruct, image),
        }


@keras.saving.register_keras_serializable("tfgen")
class MDGAN(RegGAN):
    """A manifold-diffusion GAN from the caller's networks.

    Args:
        generator: as for `GAN`.
        discriminator: D2, which tells G(E(x)) from G(z).
        encoder: as for `RegGAN`.
        manifold_discriminator: D1, which tells x from G(E(x)).
        **kwargs: further arguments of `RegGAN`.

    Raises:
        ValueError: if the two discriminators take different inputs.
    """

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        encoder: keras.Model,
        manifold_discriminator: keras.Model,
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, encoder, **kwargs)
        shapes = discriminator.input_shape[1:], manifold_discriminator.input_shape[1:]
        if shapes[0] != shapes[1]:
            raise ValueError(
                "both discriminators must take what the generator makes. "
                f"Received: {shapes[0]} and {shapes[1]}"
            )
        self.manifold_discriminator = manifold_discriminator
        self.remember("discriminator_manifold", manifold_discriminator)

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        serialized = keras.saving.serialize_keras_object(self.manifold_discriminator)
        return {**super().get_config(), "manifold_discriminator": serialized}

    def players(self) -> dict[str, list[keras.Variable]]:
        """The generator, the encoder and both discriminators."""
        variables = self.manifold_discriminator.trainable_variables
        return {**super().players(), "discriminator_manifold": variables}

    def updates(self, player: str, steps: int) -> int:
        """The generator moves twice a step."""
        return 2 * steps if player == "generator" else super().updates(player, steps)

    # The manifold step.

    def judge_back(self, image: tf.Tensor) -> tf.Tensor:
        """D1's logits, float32."""
        return tf.cast(self.manifold_discriminator(image, training=True), tf.float32)

    def manifold_discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """What D1 minimises: real is x, fake is G(E(x))."""
        real = batch[self.needs[0]]
        back = tf.stop_gradient(self.bring_back(real))
        on_real, on_back = self.judge_back(real), self.judge_back(back)
        loss = tf.reduce_mean(self.losses_of.discriminator(on_real, on_back))
        penalty, _ = self.penalty_term(real, back, self.judge_back)
        return loss + penalty, {"manifold_discriminator_loss": loss}

    def manifold_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """What generator and encoder minimise in the manifold step."""
        return self.regularizer(batch[self.needs[0]])

    # The diffusion step: a plain GAN, whose real examples are on the manifold of the generator.

    def reals(self, batch: dict[str, tf.Tensor], training: bool = True) -> tf.Tensor:
        """What D2 is told is real: G(E(x))."""
        return tf.stop_gradient(self.bring_back(batch[self.needs[0]], training))

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """What the generator minimises in the diffusion step, -log D2(G(z))."""
        return gan.GAN.generator_loss(self, batch)

    # Both.

    def extra_step(self, batch: dict[str, tf.Tensor]) -> None:
        """One update of each discriminator."""
        self.move("discriminator_manifold", self.manifold_discriminator_loss, batch)
        self.move("discriminator", self.discriminator_loss, batch)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The manifold step, then the diffusion step; algorithm 1."""
        logs = self.move("discriminator_manifold", self.manifold_discriminator_loss, batch)
        logs |= self.move(("generator", "encoder"), self.manifold_loss, batch)
        logs |= self.move("discriminator", self.discriminator_loss, batch)
        return {**logs, **self.move("generator", self.generator_loss, batch)}

    def diagnose(self, logs: Mapping[str, float]) -> dict[str, str]:
        """As the base's, and whether D1 has won."""
        who = "the manifold discriminator"
        return {**super().diagnose(logs), **self._wins(logs, who, "manifold_discriminator_loss")}


# Networks.


def side_by_side(
    generator: keras.Sequential, discriminator: keras.Sequential, image_shape: tuple[int, ...]
) -> tuple[keras.Sequential, keras.Sequential]:
    """Networks of images [H, C * W, 1], made to take and give images [H, W, C].

    For example three digits of 28x28 in red, green and blue are one of 28x84, from left to right.
    """
    height, width, channels = image_shape
    layers = keras.layers
    split = [layers.Reshape((height, channels, width)), layers.Permute((1, 3, 2))]
    joined = [layers.Permute((1, 3, 2)), layers.Reshape((height, channels * width, 1))]
    return (
        keras.Sequential(
            [keras.Input(generator.input_shape[1:]), *generator.layers, *split], name=generator.name
        ),
        keras.Sequential(
            [keras.Input(image_shape), *joined, *discriminator.layers], name=discriminator.name
        ),
    )


def _networks(
    shape: tuple[int, ...], hparams: HParams
) -> tuple[keras.Sequential, keras.Sequential]:
    if not hparams.side_by_side:
        return _players.networks(shape, hparams)
    height, width, channels = shape
    return side_by_side(*_players.networks((height, channels * width, 1), hparams), shape)


def _named(network: keras.Sequential, name: str) -> keras.Sequential:
    """A network like it with other names, so that no two variables of a model have one path."""
    config = network.get_config()
    for layer in config["layers"]:
        layer["config"]["name"] = f"{name}_{layer['config']['name']}"
    return keras.Sequential.from_config({**config, "name": name})


def encoder(discriminator: keras.Sequential, outputs: int, seed: int) -> keras.Sequential:
    """The body of a discriminator, and a linear layer to so many outputs."""
    *body, _ = _named(discriminator, "encoder").layers
    init = keras.initializers.GlorotUniform(seed=seed)
    latent = keras.layers.Dense(outputs, kernel_initializer=init, name="latent")
    return keras.Sequential(
        [keras.Input(discriminator.input_shape[1:]), *body, latent], name="encoder"
    )


def encoders_hparams(hparams: Flags) -> Flags:
    """Those of a discriminator of the generator's size, whose body is an encoder's."""
    norm = hparams.discriminator_norm
    return dataclasses.replace(
        hparams,
        seed=hparams.seed + 2000,
        discriminator_filters=None,
        discriminator_norm="none" if norm == "spectral" else norm,
        minibatch_kernels=0,
    )


def build(hparams: HParams, data_spec: DataSpec) -> gan.GAN:
    """The networks that the flags ask for, compiled and ready to train."""
    shape = _players.event_shape(hparams, data_spec)
    networks = [*_networks(shape, hparams)]
    slots = gan.slots(hparams)
    make: type[gan.GAN] = gan.GAN
    if hparams.form != "plain":
        make = RegGAN
        own = encoders_hparams(hparams)
        networks.append(encoder(_networks(shape, own)[1], hparams.latent_dim, own.seed))
        slots |= {"distance_weight": hparams.distance_weight, "mode_weight": hparams.mode_weight}
    if hparams.form == "manifold_diffusion":
        make = MDGAN
        own = dataclasses.replace(hparams, seed=hparams.seed + 4000)
        config = _networks(shape, own)[1].get_config()
        networks.append(keras.Sequential.from_config({**config, "name": "manifold_discriminator"}))
    return _players.compile(make(*networks, **slots), hparams, data_spec.train_size)
