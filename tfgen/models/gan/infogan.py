"""InfoGAN: a part of the latents is a code that can be read off the image, and so means something.

The latents are noise z and a code c: categorical codes of equal probability, and continuous codes
uniform on [-1, 1]. A network Q on the body of D is a belief about the code of a fake: a softmax for
each categorical code, an independent Gaussian for each continuous one. It bounds the mutual
information I(c; G(z, c)) from below (sum over codes, mean over the batch):

    L_I = E log Q(c | G(z, c)) + H(c) <= I(c; G(z, c))

Losses, each minimised by its player:

    discriminator, Q:  -E log D(x) - E log(1 - D(G(z, c))) - lambda L_I
    generator:         -E log D(G(z, c))                   - lambda L_I

Reference: X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever, P. Abbeel. InfoGAN:
Interpretable Representation Learning by Information Maximizing Generative Adversarial Nets.
NeurIPS 2016: eq. 3 (game), eq. 4-6 (L_I and the objective), section 6 (Q), appendix C.1 (networks).

Differs from the paper:
  * Images in [-1, 1] and a tanh at the generator's end; their code has [0, 1] and a sigmoid.
  * Batch of 128, uniform noise, weights N(0, 0.02) and beta1 = 0.5 are of their code; its
    leaky ReLU has slope 0.01, ours the paper's 0.1.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfgen import stateless
from tfgen.data import DataSpec
from tfgen.layers.leaky_relu import LeakyReLU
from tfgen.layers.minibatch_discrimination import MinibatchDiscrimination
from tfgen.models.gan import _players, gan
from tfgen.networks import dcgan

_FOR_D, _FOR_G = 10, 11  # Salts of a step's latents.


@dataclasses.dataclass(frozen=True)
class HParams(gan.HParams):
    """Flags of an InfoGAN; the paper's defaults for MNIST."""

    batch_size: int = 128  # Examples a step over all replicas (the global batch).
    learning_rate: float = 1e-3  # Step size of the generator's Adam.
    discriminator_learning_rate: float | None = 2e-4  # Of the discriminator's and Q's.
    paper_networks: bool = True  # Where --networks=dcgan, the paper's convolutions instead.
    latent_dim: int = 62  # Dimensions of the noise; the code comes on top.
    latents: gan.Latents = "uniform"  # Of the noise: N(0, I), or uniform on [-1, 1].
    categorical_codes: tuple[int, ...] = (10,)  # Number of values of each categorical code.
    continuous_codes: int = 2  # Number of continuous codes.
    categorical_weight: float = 1.0  # Lambda of the categorical codes.
    continuous_weight: float = 1.0  # Lambda of the continuous codes.
    learn_sigma: bool = False  # Q's Gaussians have a learnt sigma, and not 1.
    dense_units: int = 1024  # Width of the dense layers of the paper's networks.
    # Whether G maximises L_I, as D's body and Q do; false is the control of figure 1.
    info_to_generator: bool = True

    POSITIVE = ("dense_units",)
    NOT_NEGATIVE = ("continuous_codes", "categorical_weight", "continuous_weight")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_codes(self.categorical_codes, self.continuous_codes)

    @property
    def learns_more(self) -> bool:
        """Whether the generator learns to tell of a code."""
        categorical = self.categorical_codes and self.categorical_weight
        continuous = self.continuous_codes and self.continuous_weight
        return self.info_to_generator and bool(categorical or continuous)


@keras.saving.register_keras_serializable("tfgen")
class InfoGAN(gan.GAN):
    """An InfoGAN from the caller's networks.

    For example with one categorical code of 10 values, 2 continuous ones and 62 dimensions of
    noise, latents are [B, 74]: noise, one-hot codes, continuous codes. Q then maps D's features
    [B, 1024] to [B, 12]: 10 logits and 2 means, and 2 log sigmas more if they are learnt.

    Args:
        generator: built Keras model from latents to images or vectors.
        discriminator: as for `GAN`; Q reads one of its layers.
        recognition: Q, a built Keras model from that layer's output to the beliefs.
        features_layer: name of the discriminator's layer that Q reads, [B, F].
        categorical_codes: number of values of each categorical code.
        continuous_codes: number of continuous codes.
        categorical_weight: lambda of the categorical codes.
        continuous_weight: lambda of the continuous codes.
        learn_sigma: whether Q says the sigmas of its Gaussians; else they are 1.
        info_to_generator: whether the generator maximises L_I; Q and the discriminator always do.
        **kwargs: further arguments of `GAN`.

    Raises:
        ValueError: if the networks and the codes do not fit together.
    """

    evaluations = ("codes.information", "codes.clustering", "samples.fidelity")

    def __init__(
        self,
        generator: keras.Model,
        discriminator: keras.Model,
        recognition: keras.Model,
        *,
        features_layer: str = "features",
        categorical_codes: Sequence[int] = (10,),
        continuous_codes: int = 2,
        categorical_weight: float = 1.0,
        continuous_weight: float = 1.0,
        learn_sigma: bool = False,
        info_to_generator: bool = True,
        latents: str = "uniform",
        **kwargs: Any,
    ):
        super().__init__(generator, discriminator, latents=latents, **kwargs)
        self.categorical_codes, self.continuous_codes = tuple(categorical_codes), continuous_codes
        _check_codes(self.categorical_codes, continuous_codes)
        self.code_dim = sum(self.categorical_codes) + continuous_codes
        self.noise_dim = self.latent_dim - self.code_dim
        beliefs = self.code_dim + (continuous_codes if learn_sigma else 0)
        if self.noise_dim < 0:
            raise ValueError(
                f"the generator must take at least the {self.code_dim} dimensions of the code. "
                f"Received: generator input {generator.input_shape[1:]}"
            )
        if recognition.output_shape[-1] != beliefs:
            raise ValueError(
                f"the recognition network must end in {beliefs} numbers, the logits, means and "
                f"log sigmas of the codes. Received: {recognition.output_shape[1:]}"
            )
        self.recognition, self.features_layer = recognition, features_layer
        self.remember("discriminator", recognition)
        self.categorical_weight, self.continuous_weight = categorical_weight, continuous_weight
        self.learn_sigma, self.info_to_generator = learn_sigma, info_to_generator
        features = discriminator.get_layer(features_layer).output
        # In a partial, so that Keras does not track, count and save the shared layers twice.
        self._judge_and_see = functools.partial(
            keras.Model(discriminator.inputs, [*discriminator.outputs, features])
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments of `__init__`, networks included."""
        return {
            **super().get_config(),
            "recognition": keras.saving.serialize_keras_object(self.recognition),
            "features_layer": self.features_layer,
            "categorical_codes": list(self.categorical_codes),
            "continuous_codes": self.continuous_codes,
            "categorical_weight": self.categorical_weight,
            "continuous_weight": self.continuous_weight,
            "learn_sigma": self.learn_sigma,
            "info_to_generator": self.info_to_generator,
        }

    def players(self) -> dict[str, list[keras.Variable]]:
        """The generator, and the discriminator with Q."""
        players = super().players()
        players["discriminator"] = [
            *players["discriminator"], *self.recognition.trainable_variables
        ]  # fmt: skip
        return players

    # The code.

    def draw_latents(self, num: int | tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Noise and code, float32 [num, d] for a seed int32 [2]."""
        parts = [super().draw_latents(num, seed)[:, : self.noise_dim]]
        for index, size in enumerate(self.categorical_codes):
            value = stateless.uniform([num], stateless.fold_in(seed, index + 1), 0, size, tf.int32)
            parts.append(tf.one_hot(value, size))
        shape = [num, self.continuous_codes]
        parts.append(stateless.uniform(shape, stateless.fold_in(seed, 0), -1.0, 1.0))
        return tf.concat(parts, axis=1)

    def split_codes(self, code: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """The last dimensions of latents, or beliefs [B, ...] -> categorical ones, and the rest."""
        parts = tf.split(code, [*self.categorical_codes, -1], axis=1)
        return parts[:-1], parts[-1]

    def code_information(self, beliefs: tf.Tensor, latents: tf.Tensor) -> tf.Tensor:
        """log Q(c | x) + H(c) of each code, in nats: float32 [B, number of codes]."""
        codes, continuous = self.split_codes(latents[:, self.noise_dim :])
        logits, gaussian = self.split_codes(beliefs)
        information = [
            math.log(size) - tf.nn.softmax_cross_entropy_with_logits(code, logit)[:, tf.newaxis]
            for size, code, logit in zip(self.categorical_codes, codes, logits, strict=True)
        ]
        mean, log_sigma = gaussian[:, : self.continuous_codes], tf.zeros(())
        if self.learn_sigma:
            log_sigma = gaussian[:, self.continuous_codes :]
        deviation = (continuous - mean) * tf.exp(-log_sigma)
        log_prob = -0.5 * tf.square(deviation) - log_sigma - 0.5 * math.log(2 * math.pi)
        return tf.concat([*information, log_prob + math.log(2.0)], axis=1)

    def _weighted(
        self, beliefs: tf.Tensor, latents: tf.Tensor
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """lambda L_I, and L_I of each code c1, c2, ..."""
        information = tf.reduce_mean(self.code_information(beliefs, latents), axis=0)
        weights = [self.categorical_weight] * len(self.categorical_codes)
        weights += [self.continuous_weight] * self.continuous_codes
        logs = {f"information_c{i + 1}": information[i] for i in range(len(weights))}
        return tf.reduce_sum(information * weights), logs

    # Training.

    def judge_and_recognize(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """D's logits and Q's beliefs, both in training mode, from one pass through the body."""
        logits, features = self._judge_and_see(image, training=True)
        beliefs = self.recognition(features, training=True)
        return tf.cast(logits, tf.float32), tf.cast(beliefs, tf.float32)

    def discriminator_loss(
        self, batch: dict[str, tf.Tensor]
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss that the discriminator and Q minimise, a scalar, and what is logged."""
        real = batch[self.needs[0]]
        latents = self.draw_latents(tf.shape(real)[0], self.noise_seed(_FOR_D))
        fake = tf.stop_gradient(tf.cast(self.generator(latents, training=True), tf.float32))
        on_real = self.judge(real)
        on_fake, beliefs = self.judge_and_recognize(fake)
        loss, logs = self.game(real, fake, on_real, on_fake)
        information, _ = self._weighted(beliefs, latents)
        return loss - information, {**logs, "spread": self.share_of_spread(fake, batch)}

    def generator_loss(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """The loss that the generator minimises, a scalar, and what is logged."""
        real = batch[self.needs[0]]
        latents = self.draw_latents(tf.shape(real)[0], self.noise_seed(_FOR_G))
        fake = tf.cast(self.generator(latents, training=True), tf.float32)
        on_fake, beliefs = self.judge_and_recognize(fake)
        loss = tf.reduce_mean(self.losses_of.generator(on_fake))
        information, of_codes = self._weighted(beliefs, latents)
        total = self.adversarial_weight * loss
        if self.info_to_generator:
            total -= information
        distance, of_features = self.feature_matching(real, fake)
        return total + distance, {"generator_loss": loss, **of_codes, **of_features}

    # Using a trained model.

    def recognize(self, image: tf.Tensor, batch_statistics: bool = False) -> tf.Tensor:
        """Q's beliefs about images: logits, means and log sigmas, float32 [B, ...].

        Args:
            image: [B, H, W, C] in [-1, 1], or points.
            batch_statistics: batch norms use the statistics of this batch, as in training, where
                real and fake images have each their own; and not their moving averages, which mix
                both. Nothing is changed by it.
        """
        judge_and_see: Callable = self._judge_and_see.func
        if batch_statistics:
            _, features = gan.with_batch_statistics(judge_and_see, image)
            return tf.cast(gan.with_batch_statistics(self.recognition, features), tf.float32)
        _, features = judge_and_see(image, training=False)
        return tf.cast(self.recognition(features, training=False), tf.float32)

    def classify(self, image: tf.Tensor) -> tf.Tensor:
        """Probabilities of the values of c1: [B, H, W, C] -> [B, number of values]."""
        return tf.nn.softmax(self.split_codes(self.recognize(image))[0][0])

    def codes(self, image: tf.Tensor) -> tf.Tensor:
        """Q's mean code: probabilities of categorical ones, then means, [B, code_dim]."""
        logits, gaussian = self.split_codes(self.recognize(image))
        probabilities = [tf.nn.softmax(logit) for logit in logits]
        return tf.concat([*probabilities, gaussian[:, : self.continuous_codes]], axis=1)

    def traverse(self, code: int, rows: int, columns: int, seed: int) -> tf.Tensor:
        """Images of one code's values along each row, all other latents fixed in it.

        Args:
            code: index of the code; categorical ones come first.
            rows: number of rows; in those of a continuous code, c1 has the row's value.
            columns: values of a continuous code, from -2 to 2; a categorical code has its own.
            seed: int, of the other latents.

        Returns:
            float32 [rows, columns, H, W, C].
        """
        sizes, start = self.categorical_codes, self.noise_dim
        latents = self.draw_latents(rows, tf.constant([seed, 2])).numpy()[:, np.newaxis]
        if code < len(sizes):
            start, values = start + sum(sizes[:code]), np.eye(sizes[code])
        else:
            if sizes:
                c1 = np.eye(sizes[0])[np.arange(rows) % sizes[0]]
                latents[:, 0, start : start + sizes[0]] = c1
            start += sum(sizes) + code - len(sizes)
            values = np.linspace(-2.0, 2.0, columns)[:, np.newaxis]
        latents = np.repeat(latents, len(values), axis=1)
        latents[:, :, start : start + values.shape[1]] = values
        images = self.decode(tf.reshape(tf.constant(latents), [-1, self.latent_dim]))
        return tf.reshape(images, [rows, len(values), *self.event_shape])

    def pictures(self, batch: dict[str, tf.Tensor], seed: int) -> dict[str, np.ndarray]:
        """Named grids in [0, 1]: samples, and each code's values along the rows."""
        grids = super().pictures(batch, seed)
        if self.needs == ("image",):
            del grids["interpolations"]  # between codes there is nothing
            for code in range(len(self.categorical_codes) + self.continuous_codes):
                images = self.traverse(code, 10, 10, seed).numpy()
                grids[f"c{code + 1}"] = np.clip((images + 1.0) / 2.0, 0.0, 1.0)
        return grids

    def signatures(self) -> dict[str, tuple[Callable, dict[str, tf.TensorSpec]]]:
        """Those of `GAN`, Q's mean code and, with a categorical code, its probabilities."""
        image = {"image": tf.TensorSpec([None, *self.event_shape])}
        endpoints = {**super().signatures(), "codes": (self.codes, image)}
        if self.categorical_codes:
            endpoints["classify"] = (self.classify, image)
        return endpoints


def _check_codes(categorical: Sequence[int], continuous: int) -> None:
    if any(size < 2 for size in categorical) or continuous < 0 or not (categorical or continuous):
        raise ValueError(
            "there must be a code, and categorical ones have at least 2 values. Received: "
            f"categorical_codes={list(categorical)}, continuous_codes={continuous}"
        )


# The networks of appendix C.1: 4x4 convolutions of stride 2, ReLU in G, leaky ReLU 0.1 in D and Q.


def generator(
    latent_dim: int,
    image_shape: Sequence[int],
    *,
    filters: int = 64,
    units: int = 1024,
    norm: dcgan.Norm | None = dcgan.batch_norm,
    seed: int = 0,
    name: str = "generator",
) -> keras.Sequential:
    """Latents to images in [-1, 1], for MNIST 74 -> 1024 -> 7x7x128 -> 14x14x64 -> 28x28x1."""
    height, width, channels = image_shape
    init = _normal(seed)
    bias = norm is None
    up = functools.partial(keras.layers.Conv2DTranspose, strides=2, padding="same")
    layers = [
        keras.Input((latent_dim,)),
        keras.layers.Dense(units, use_bias=bias, kernel_initializer=next(init)),
        *_norm_and(keras.layers.ReLU(), norm),
        keras.layers.Dense(
            height * width * filters // 8, use_bias=bias, kernel_initializer=next(init)
        ),
        *_norm_and(keras.layers.ReLU(), norm),
        keras.layers.Reshape((height // 4, width // 4, 2 * filters)),
        up(filters, 4, use_bias=bias, kernel_initializer=next(init)),
        *_norm_and(keras.layers.ReLU(), norm),
        up(channels, 4, activation="tanh", kernel_initializer=next(init)),
    ]
    return keras.Sequential(layers, name=name)


def discriminator(
    image_shape: Sequence[int],
    *,
    filters: int = 64,
    units: int = 1024,
    norm: dcgan.Norm | None = dcgan.batch_norm,
    head: Sequence[keras.layers.Layer] = (),
    seed: int = 0,
) -> keras.Sequential:
    """Images to logits, for MNIST 28x28x1 -> 14x14x64 -> 7x7x128 -> 1024, "features" -> 1."""
    init = _normal(seed + 500)
    down = functools.partial(keras.layers.Conv2D, strides=2, padding="same")
    layers = [
        keras.Input(tuple(image_shape)),
        down(filters, 4, kernel_initializer=next(init)),
        LeakyReLU(0.1),
        down(2 * filters, 4, use_bias=norm is None, kernel_initializer=next(init)),
        *_norm_and(LeakyReLU(0.1), norm),
        keras.layers.Flatten(),
        keras.layers.Dense(units, use_bias=norm is None, kernel_initializer=next(init)),
        *_norm_and(LeakyReLU(0.1, name="features"), norm),
        *head,
        keras.layers.Dense(1, kernel_initializer=next(init), name="logit"),
    ]
    return keras.Sequential(layers, name="discriminator")


def recognition(
    features: int, beliefs: int, *, units: int = 128, seed: int = 0
) -> keras.Sequential:
    """Q, from the discriminator's features to beliefs, for MNIST 1024 -> 128 -> 12."""
    init = _normal(seed + 900)
    layers = [
        keras.Input((features,)),
        keras.layers.Dense(units, use_bias=False, kernel_initializer=next(init)),
        *_norm_and(LeakyReLU(0.1)),
        keras.layers.Dense(beliefs, kernel_initializer=next(init)),
    ]
    return keras.Sequential(layers, name="recognition")


def _norm_and(
    activation: keras.layers.Layer, norm: dcgan.Norm | None = dcgan.batch_norm
) -> list[keras.layers.Layer]:
    return [norm(), activation] if norm else [activation]


def _normal(seed: int) -> Iterator[keras.initializers.Initializer]:
    while True:
        seed += 1
        yield keras.initializers.RandomNormal(stddev=0.02, seed=seed)


def networks(shape: tuple[int, ...], hparams: HParams) -> tuple[keras.Model, keras.Model]:
    """Generator and discriminator, as the flags ask; the generator takes the code as well."""
    code_dim = sum(hparams.categorical_codes) + hparams.continuous_codes
    latent_dim = hparams.latent_dim + code_dim
    if hparams.networks != "dcgan" or not hparams.paper_networks:
        return _players.networks(shape, dataclasses.replace(hparams, latent_dim=latent_dim))
    if shape[0] % 4 or shape[1] % 4:
        raise ValueError(
            "--paper_networks makes images whose sides divide by 4: set --image_size. "
            f"Received: {shape[0]}x{shape[1]}"
        )
    filters = hparams.filters, hparams.discriminator_filters or hparams.filters
    kernels, dim = hparams.minibatch_kernels, hparams.minibatch_kernel_dim
    head = [MinibatchDiscrimination(kernels, dim)] if kernels else []
    sizes: dict[str, Any] = {"units": hparams.dense_units, "seed": hparams.seed}
    make = functools.partial(generator, latent_dim, shape, filters=filters[0], **sizes)
    norm = _players.NORMS[hparams.discriminator_norm]
    return (
        _players.normed_generator(make, hparams),
        _players.normed_discriminator(
            discriminator(shape, filters=filters[1], norm=norm, head=head, **sizes), hparams
        ),
    )


def build(hparams: HParams, data_spec: DataSpec) -> InfoGAN:
    """The networks that the flags ask for, compiled and ready to train."""
    made, judged = networks(_players.event_shape(hparams, data_spec), hparams)
    # Q reads what D says of an example alone.
    *_, features = (
        layer for layer in judged.layers[:-1] if not isinstance(layer, MinibatchDiscrimination)
    )
    gaussian = hparams.continuous_codes * (2 if hparams.learn_sigma else 1)
    beliefs = sum(hparams.categorical_codes) + gaussian
    model = InfoGAN(
        made,
        judged,
        recognition(features.output.shape[-1], beliefs, seed=hparams.seed),
        features_layer=features.name,
        categorical_codes=hparams.categorical_codes,
        continuous_codes=hparams.continuous_codes,
        categorical_weight=hparams.categorical_weight,
        continuous_weight=hparams.continuous_weight,
        learn_sigma=hparams.learn_sigma,
        info_to_generator=hparams.info_to_generator,
        **gan.slots(hparams),
    )
    if hparams.norm == "virtual":  # its reference is of latents with their codes
        (carrier,) = model.generator.layers
        seed = _players.reference_seed(hparams)
        carrier.reference[0].assign(model.draw_latents(hparams.reference_size, seed))
    return _players.compile(model, hparams, data_spec.train_size)
